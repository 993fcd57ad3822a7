from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from duodaq.app import Holder, LabClient, connect
from duodaq.cli._console import as_it_is, say_json, say_json_line
from duodaq.cli._report import aged, alarm_table, instrument_table, port_table, since
from duodaq.cli._stop_all import meant
from duodaq.clock import block, monotonic_s, utc_ns

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
        watched = [Watched(stack.enter_context(connect(name))) for name in meant(lab)]
        with suppress(KeyboardInterrupt):
            if as_json:
                _print_lines(watched, out)
            else:
                _watch(watched, out)


def _print_once(lab: str | None, out: Console, *, as_json: bool) -> None:
    states: list[dict[str, Any]] = []
    for name in meant(lab):
        with connect(name) as client:
            states.append(client.status())
    if as_json:
        say_json(out, states[0] if len(states) == 1 else states)
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
    with Live(console=as_it_is(out), auto_refresh=False, vertical_overflow="ellipsis") as live:
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
        say_json_line(out, states[0] if len(states) == 1 else states)
        block(EVERY_S)


def _by(status: dict[str, Any]) -> str:
    return f", by {status['stopped_by']}" if status.get("stopped_by") else ""


def status_page(status: dict[str, Any], rates: dict[str, float] | None = None) -> list[Table | Text]:
    """A lab as a person reads it; with `rates`, of each port how many exchanges it makes a second."""
    begun = since(utc_ns() - round(status["uptime_s"] * 1e9)) if status["uptime_s"] else ""
    state = f"{status['state']} since {begun}" if begun else status["state"]
    head = Text.assemble((status["lab"], "bold"), f" is {state} · V2 {status['v2']} · V4 {status['v4']}")
    if status["latched"]:
        head.append(" · ").append("stop-all is latched", "bold red").append(_by(status))
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
        states = {one["id"]: one["state"] for one in status["instruments"]}
        page.append(alarm_table(status["alarms"], states))
        page += [Text(f"{one['name']}: its value is {old}") for one in status["alarms"] if (old := aged(one, states))]
    page += [Text(f"{one['name']}: {one['why']}") for one in status.get("alarms", ()) if one["why"]]
    return page
