from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from duodaq.app import LabClient, connect
from duodaq.cli._console import ended_by_signal, say_json_line
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
    as_json: bool,
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
    if detach:
        with connect(lab) as client:
            path = client.log(channels=channels, finalise=forms, **asked)
            _begun(client, name, path, channels, out, as_json=as_json)
        if not as_json:
            out.print(escape(f"It goes on until `duodaq record --stop --name {name}`, or until the lab ends."))
        return 0
    with connect(lab) as client, ended_by_signal() as ended:
        path = client.log(channels=channels, finalise=forms, **asked)
        try:
            _begun(client, name, path, channels, out, as_json=as_json)
            if not as_json:
                out.print("until Ctrl-C.")
            if not _wait(client, name, ended, out, as_json=as_json):
                return 1
        except SystemExit:  # whoever read what it says has gone, and nobody would know of a log that went on
            client.stop_log(name)
            raise
        return _end(client, name, out, as_json=as_json)


def stop_log(name: str, lab: str | None, out: Console, *, as_json: bool) -> int:
    """End a log that was begun by somebody else; 1 if anything was lost.

    Raises:
        LifecycleError: There is none of this name.
    """
    with connect(lab) as client:
        return _end(client, name, out, as_json=as_json)


def _begun(client: LabClient, name: str, path: Path, channels: Sequence[str], out: Console, *, as_json: bool) -> None:
    if as_json:
        say_json_line(out, {"lab": client.name, "name": name, "channels": [*channels], "directory": str(path)})
        return
    what = ", ".join(channels) or "every channel"
    out.print(escape(f"Recording {what} of {client.name} to {path}"), soft_wrap=True)


def _wait(client: LabClient, name: str, ended: threading.Event, out: Console, *, as_json: bool) -> bool:
    """Until a signal comes; False if the log ended before."""
    run = ""
    while not block(_EVERY_S, ended):
        try:
            found = next((log for log in client.logs() if log["name"] == name), None)
        except DeliveryError as error:
            _failed(out, f"{error.what}; the log ended with it, in order if the lab did", as_json=as_json)
            return False
        if found is None:
            _failed(out, "Somebody else has ended this log.", as_json=as_json)
            return False
        if run and found["directory"] != run:
            if as_json:
                say_json_line(out, {"name": name, "directory": found["directory"]})
            else:
                out.print(escape(f"now to {found['directory']}"), soft_wrap=True)
        run = found["directory"]
    return True


def _failed(out: Console, why: str, *, as_json: bool) -> None:
    if as_json:
        say_json_line(out, {"error": why})
    else:
        out.print(f"[bold red]{escape(why)}[/]", soft_wrap=True)


def _end(client: LabClient, name: str, out: Console, *, as_json: bool) -> int:
    summary = client.stop_log(name)
    if as_json:
        say_json_line(out, {"name": name, **summary})
        return 0 if summary["complete"] else 1
    rows = sum(count for file, count in summary["files"].items() if file.endswith(".arrows"))
    before = f" ({counted(summary['runs'] - 1, 'run')} before it)" if summary["runs"] > 1 else ""
    out.print(escape(f"{counted(rows, 'row')} in {Path(summary['directory'])}{before}."), soft_wrap=True)
    if summary["complete"]:
        return 0
    missing = summary["error"] or f"lost: {summary['lost']}"
    out.print(f"[bold red]{escape(f'It is incomplete: {missing}')}[/]")
    return 1
