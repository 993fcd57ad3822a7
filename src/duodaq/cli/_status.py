from __future__ import annotations

import getpass
import json

from rich.console import Console

from duodaq.app import connect
from duodaq.cli._report import instrument_table, port_table


def show_status(lab: str | None, out: Console, *, as_json: bool) -> None:
    """Print a running lab as it is now."""
    with connect(lab) as client:
        status = client.status()
    if as_json:
        out.print_json(json.dumps(status, default=str))
        return
    latched = " · [bold red]stop-all is latched[/]" if status["latched"] else ""
    out.print(f"[bold]{status['lab']}[/] is {status['state']} · V2 {status['v2']} · V4 {status['v4']}{latched}")
    if status["recording"]:
        out.print(f"recording to {status['recording']}")
    out.print(instrument_table(status["instruments"]))
    out.print(port_table(status["ports"]))


def order_stop_all(lab: str | None, out: Console, *, reset: bool, as_json: bool) -> int:
    """Stop all, or lift the latch; the exit code."""
    with connect(lab) as client:
        if reset:
            client.reset_stop(getpass.getuser())
            out.print("The latch is lifted: moves are accepted again.")
            return 0
        report = client.stop_all()
    if as_json:
        out.print_json(json.dumps(report))
        return 1 if report["failures"] else 0
    out.print(f"[bold red]Stopped.[/] {report['ended']} waiting commands ended, not done.")
    for port in report["on_wire_ns"]:
        out.print(f"  {port}: stop is on the wire")
    for name, why in report["failures"].items():
        out.print(f"  [bold red]{name}: {why}[/]")
    for name in report["no_fail_safe"]:
        out.print(f"  [yellow]{name}: no fail-safe; it has no wire path[/]")
    out.print("Moves are refused until: duodaq stop-all --reset")
    return 1 if report["failures"] else 0
