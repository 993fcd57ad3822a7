from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from duodaq.app import LabClient, connect
from duodaq.clock import block
from duodaq.errors import ConfigError, DeliveryError
from duodaq.storage.export import FORMATS
from duodaq.storage.reading import counted

_EVERY_S = 1.0


def record_log(
    channels: Sequence[str],
    lab: str | None,
    out: Console,
    *,
    forms: Sequence[str],
    detach: bool,
    **asked: Any,
) -> int:
    """Have a running lab record until Ctrl-C (or SIGTERM), or, with `detach`, until somebody ends it; the exit code.

    Raises:
        ConfigError: A word means nothing.
        LifecycleError: No lab runs, or a log of this name is under way.
        StorageError: The directory cannot be made.
    """
    unknown = [form for form in forms if form not in FORMATS]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no form of a run", key="--to", remedy=f"Known: {', '.join(FORMATS)}.")
    name = asked["name"]
    with connect(lab) as client:
        path = client.log(channels=channels, finalise=forms, **asked)
        what = ", ".join(channels) or "every channel"
        out.print(escape(f"Recording {what} of {client.name} to {path}"), soft_wrap=True)
        if detach:
            out.print(escape(f"It goes on until `duodaq record --stop --name {name}`, or until the lab ends."))
            return 0
        try:
            out.print("until Ctrl-C.")
            if not _wait(client, name, out):
                return 1
        except SystemExit:  # whoever read what it says has gone, and nobody would know of a log that went on
            client.stop_log(name)
            raise
        return _end(client, name, out)


def stop_log(name: str, lab: str | None, out: Console) -> int:
    """End a log that was begun by somebody else; 1 if anything was lost.

    Raises:
        LifecycleError: There is none of this name.
    """
    with connect(lab) as client:
        return _end(client, name, out)


def _wait(client: LabClient, name: str, out: Console) -> bool:
    """Until a signal comes; False if the log ended before."""
    ended = threading.Event()

    def end(number: int, frame: object) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    run = ""
    while not block(_EVERY_S, ended):
        try:
            found = next((log for log in client.logs() if log["name"] == name), None)
        except DeliveryError as error:
            out.print(f"[bold red]{escape(f'{error.what}; the log ended with it, in order if the lab did')}[/]")
            return False
        if found is None:
            out.print("Somebody else has ended this log.")
            return False
        if run and found["directory"] != run:
            out.print(escape(f"now to {found['directory']}"), soft_wrap=True)
        run = found["directory"]
    return True


def _end(client: LabClient, name: str, out: Console) -> int:
    summary = client.stop_log(name)
    rows = sum(count for file, count in summary["files"].items() if file.endswith(".arrows"))
    before = f" ({counted(summary['runs'] - 1, 'run')} before it)" if summary["runs"] > 1 else ""
    out.print(escape(f"{counted(rows, 'row')} in {Path(summary['directory'])}{before}."), soft_wrap=True)
    if summary["complete"]:
        return 0
    missing = summary["error"] or f"lost: {summary['lost']}"
    out.print(f"[bold red]{escape(f'It is incomplete: {missing}')}[/]")
    return 1
