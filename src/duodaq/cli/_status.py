from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duodaq.app import Holder, LabClient, connect, running_labs, stop_all_of, user_name
from duodaq.cli._report import alarm_table, instrument_table, port_table, since
from duodaq.clock import block, monotonic_s, utc_ns
from duodaq.errors import DuodaqError

EVERY_S = 1.0
FIRST_S = 0.25


def show_status(lab: str | None, out: Console, *, live: bool | None, as_json: bool) -> None:
    """Print a running lab, or every one there is, if none is named: once, or anew each second until Ctrl-C.

    Args:
        lab: Which.
        out: Where to.
        live: Whether anew each second; None: if a person looks.
        as_json: For programs; live, a line each second.

    Raises:
        LifecycleError: It does not run.
        DeliveryError: It has ended meanwhile.
    """
    goes_on = out.is_terminal and not as_json if live is None else live
    if not goes_on:
        _print_once(lab, out, as_json=as_json)
        return
    with ExitStack() as stack:
        watched = [Watched(stack.enter_context(connect(name))) for name in _meant(lab)]
        with suppress(KeyboardInterrupt):
            if as_json:
                _print_lines(watched, out)
            else:
                _watch(watched, out)


def _print_once(lab: str | None, out: Console, *, as_json: bool) -> None:
    states: list[dict[str, Any]] = []
    for name in _meant(lab):
        with connect(name) as client:
            states.append(client.status())
    if as_json:
        out.print_json(json.dumps(states[0] if len(states) == 1 else states, default=str))
        return
    for status in states:
        for part in status_page(status):
            out.print(part, soft_wrap=isinstance(part, Text))


class Watched:
    """A running lab that is looked at again and again."""

    def __init__(self, client: LabClient) -> None:
        self._client = client
        self._before: dict[str, tuple[int, float]] = {}

    def look(self) -> tuple[dict[str, Any], dict[str, float]]:
        """How it is now, and how many exchanges a second each port has made since the last look."""
        status, now_s = self._client.status(), monotonic_s()
        rates: dict[str, float] = {}
        for port in status["ports"]:
            before, then_s = self._before.get(port["name"], (port["exchanges"], 0.0))
            rates[port["name"]] = max(0, port["exchanges"] - before) / max(now_s - then_s, 1e-3)
            self._before[port["name"]] = (port["exchanges"], now_s)
        return status, rates


def _watch(watched: list[Watched], out: Console) -> None:
    for one in watched:
        one.look()
    with Live(console=out, auto_refresh=False, vertical_overflow="ellipsis") as live:
        wait_s = FIRST_S
        while True:
            block(wait_s)
            parts = [part for one in watched for part in status_page(*one.look())]
            hint = Text("Anew each second until Ctrl-C.", style="dim")
            live.update(Group(*parts, hint), refresh=True)
            wait_s = EVERY_S


def _print_lines(watched: list[Watched], out: Console) -> None:
    while True:
        states = [one.look()[0] for one in watched]
        out.out(json.dumps(states[0] if len(states) == 1 else states, default=str), highlight=False)
        block(EVERY_S)


def order_stop_all(lab: str | None, out: Console, *, reset: bool, as_json: bool) -> int:
    """Stop all, in every running lab if none is named, or lift the latch of one; the exit code.

    Labs are stopped at the same time, for one that does not answer keeps no other waiting; that it does not is said at
    once, on stderr.
    """
    if reset:
        with connect(lab) as client:
            status = client.status()
            was_latched = status["latched"]
            client.reset_stop(user_name())
        if as_json:
            out.print_json(json.dumps({"lab": status["lab"], "was_latched": was_latched, "latched": False}))
            return 0
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


def status_page(status: dict[str, Any], rates: dict[str, float] | None = None) -> list[Table | Text]:
    """A lab as a person reads it; with `rates`, of each port how many exchanges it makes a second."""
    begun = since(utc_ns() - round(status["uptime_s"] * 1e9)) if status["uptime_s"] else ""
    state = f"{status['state']} since {begun}" if begun else status["state"]
    head = Text.assemble((status["lab"], "bold"), f" is {state} · V2 {status['v2']} · V4 {status['v4']}")
    if status["latched"]:
        head.append(" · ").append("stop-all is latched", "bold red")
    page: list[Table | Text] = [head]
    if status.get("page"):
        page.append(Text(f"its page is at {status['page']}"))
    if status["recording"]:
        page.append(Text(f"recording to {status['recording']}"))
    page.append(instrument_table(status["instruments"]))
    page += [Text(f"{one['id']}: {one['message']}") for one in status["instruments"] if one["message"]]
    for one in msgspec.convert(status.get("control") or {}, dict[str, Holder]).values():
        page.append(Text(f"{one.instrument}: {one} holds control since {since(one.since_ns)}"))
    page.append(port_table(status["ports"], rates))
    if status.get("alarms"):
        page.append(alarm_table(status["alarms"]))
    page += [Text(f"{one['name']}: {one['why']}") for one in status.get("alarms", ()) if one["why"]]
    return page


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
