from __future__ import annotations

import getpass
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from duodaq.app import Holder, connect, running_labs, stop_all_of
from duodaq.cli._report import alarm_table, instrument_table, port_table, since
from duodaq.clock import utc_ns
from duodaq.errors import DuodaqError


def show_status(lab: str | None, out: Console, *, as_json: bool) -> None:
    """Print a running lab as it is now; every one there is, if none is named."""
    states: list[dict[str, Any]] = []
    for name in _meant(lab):
        with connect(name) as client:
            states.append(client.status())
    if as_json:
        out.print_json(json.dumps(states[0] if len(states) == 1 else states, default=str))
        return
    for status in states:
        _print_status(status, out)


def order_stop_all(lab: str | None, out: Console, *, reset: bool, as_json: bool) -> int:
    """Stop all, in every running lab if none is named, or lift the latch of one; the exit code.

    Labs are stopped at the same time, for one that does not answer keeps no other waiting; that it does not is said at
    once, on stderr.
    """
    if reset:
        with connect(lab) as client:
            was_latched = client.status()["latched"]
            client.reset_stop(getpass.getuser())
        out.print("The latch is lifted: moves are accepted again." if was_latched else "No stop was latched.")
        return 0
    reports: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    meant, aside = _meant(lab), Console(stderr=True, highlight=False, soft_wrap=True)
    with ThreadPoolExecutor(len(meant)) as pool:
        asked = {name: pool.submit(stop_all_of, name, lambda said: aside.print(escape(said))) for name in meant}
    for name, answer in asked.items():
        try:
            report = answer.result()
            reports[report.pop("lab")] = report
        except DuodaqError as error:
            if len(meant) == 1:
                raise
            failures[name or "lab"] = str(error)
    if as_json:
        out.print_json(json.dumps(_plain(reports, failures)))
    else:
        _print_stops(reports, failures, out)
    return 1 if failures or any(report["failures"] for report in reports.values()) else 0


def _meant(lab: str | None) -> list[str | None]:
    return [lab] if lab is not None else [*running_labs()] or [None]


def _plain(reports: dict[str, dict[str, Any]], failures: dict[str, str]) -> Any:
    if len(reports) == 1 and not failures:
        return next(iter(reports.values()))
    return {**reports, **{name: {"failures": {name: why}} for name, why in failures.items()}}


def _print_status(status: dict[str, Any], out: Console) -> None:
    latched = " · [bold red]stop-all is latched[/]" if status["latched"] else ""
    begun = since(utc_ns() - round(status["uptime_s"] * 1e9)) if status["uptime_s"] else ""
    state = f"{status['state']} since {begun}" if begun else status["state"]
    out.print(f"[bold]{escape(status['lab'])}[/] is {state} · V2 {status['v2']} · V4 {status['v4']}{latched}")
    if status.get("page"):
        out.print(escape(f"its page is at {status['page']}"), soft_wrap=True)
    if status["recording"]:
        out.print(escape(f"recording to {status['recording']}"))
    out.print(instrument_table(status["instruments"]))
    for one in status["instruments"]:
        if one["message"]:
            out.print(escape(f"{one['id']}: {one['message']}"), soft_wrap=True)
    for one in msgspec.convert(status.get("control") or {}, dict[str, Holder]).values():
        out.print(escape(f"{one.instrument}: {one} holds control since {since(one.since_ns)}"), soft_wrap=True)
    out.print(port_table(status["ports"]))
    if status.get("alarms"):
        out.print(alarm_table(status["alarms"]))
    for one in status.get("alarms", ()):
        if one["why"]:
            out.print(escape(f"{one['name']}: {one['why']}"), soft_wrap=True)


def _print_stops(reports: dict[str, dict[str, Any]], failures: dict[str, str], out: Console) -> None:
    for lab, report in reports.items():
        alone = report["ended"] is None
        waited = "Its watchdog did it alone." if alone else f"{report['ended']} waiting commands ended, not done."
        out.print(f"[bold red]Stopped {escape(lab)}.[/] {waited}")
        for port in () if alone else report["on_wire_ns"]:
            out.print(escape(f"  {port}: stop is on the wire"))
        for port, told in report.get("watchdog", {}).items():
            said = "stop is on the wire" if "written_ns" in told else told["error"]
            late = "" if alone else ": the manager did not answer at once"
            out.print(escape(f"  {port}: {said}, by the watchdog{late}"))
        for name, why in report["failures"].items():
            out.print(f"  [bold red]{escape(f'{name}: {why}')}[/]")
        for name in report["no_fail_safe"]:
            out.print(f"  [yellow]{escape(name)}: no fail-safe; nothing but its driver could stop it[/]")
        out.print(escape(f"Moves are refused until: duodaq stop-all --reset --lab {lab}"))
    for name, why in failures.items():
        out.print(f"[bold red]{escape(f'{name} was not stopped: {why}')}[/]")
