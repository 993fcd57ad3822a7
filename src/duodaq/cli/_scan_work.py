from __future__ import annotations

from typing import Literal

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from duodaq.app import LabClient, ScanHandle, ScanStatus, connect
from duodaq.cli._console import say_json
from duodaq.cli._report import plain_table, since
from duodaq.errors import ConfigError, ScanInterruptedError


def show_scans(lab: str | None, out: Console, *, as_json: bool) -> None:
    """Print the scans under way, and the last that ended."""
    with connect(lab) as client:
        found = client.scans.status()
    if as_json:
        say_json(out, msgspec.to_builtins(found))
        return
    if not found:
        out.print("No scans.")
        return
    table = plain_table("", ("scan", "of", "state", "since", "by", "why"), ("points",))
    for one in found:
        cells = (str(one.number), " × ".join(one.axes), one.state, since(one.since_ns), one.who)
        table.add_row(*map(Text, (*cells, one.why or "; ".join(one.holds), f"{one.done} of {one.planned}")))
    out.print(table)


def steer_scan(lab: str | None, number: int, how: Literal["pause", "resume", "abort"], out: Console) -> None:
    """Pause, resume or abort a scan, and say how it stands.

    Raises:
        LifecycleError: It has ended.
    """
    with connect(lab) as client:
        scan = _scan(client, number)
        out.print(escape(_in_words({"pause": scan.pause, "resume": scan.resume, "abort": scan.abort}[how]())))


def attach_to_scan(lab: str | None, number: int, out: Console) -> int:
    """Watch a scan to its end, which Ctrl-C brings; the exit code."""
    with connect(lab) as client:
        scan = _scan(client, number)
        try:
            scan.attach(progress=out.is_terminal)
        except ScanInterruptedError as error:
            out.print(escape(error.what), soft_wrap=True)
        status = scan.status()
        out.print(escape(_in_words(status)), soft_wrap=True)
    return 0 if status.state == "complete" else 1


def _scan(client: LabClient, number: int) -> ScanHandle:
    try:
        return client.scans[number]
    except KeyError as error:
        raise ConfigError(str(error.args[0]), key="NUMBER", remedy="`duodaq scans` lists them") from None


def _in_words(status: ScanStatus) -> str:
    place = f"; they are in {status.directory}" if status.directory else ""
    return f"Scan {status.number} is {status.state}, {status.done} of {status.planned} points{place}"
