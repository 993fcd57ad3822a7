from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from duodaq.clock import utc_ns
from duodaq.model import Outcome, ShutdownReport

_STYLE = {Outcome.CLEAN: "green", Outcome.FORCED: "yellow", Outcome.LEAKED: "bold red"}
_LIVE = ("ready", "acquiring", "shutting down")
_RECENT_NS = 2 * 10**9
WHOLE = {"instrument", "port", "worker", "mode", "pid", "state", "stream", "saved"}
_STATES = {
    **dict.fromkeys(("ready", "acquiring", "open", "normal"), "green"),
    **dict.fromkeys(("error", "hung", "raised"), "bold red"),
    **dict.fromkeys(("pending", "returned"), "yellow"),
}


def plain_table(title: str, words: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """A table without a frame, that reads well in 80 columns and in a pipe; `numbers` stand to the right.

    A column of `WHOLE` is never broken: its words are short, and others give way to it.
    """
    table = Table(title=title, title_justify="left", title_style="italic", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in words:
        table.add_column(name, overflow="fold", no_wrap=name in WHOLE)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def shutdown_table(report: ShutdownReport) -> Table:
    """A shutdown report as a person reads it; the reasons only where there are some."""
    reasons = any(part.why for part in report.components)
    title = f"Shutdown in {report.took_s:.2f} s of {report.budget_s:g} s"
    table = plain_table(title, ("component", "ended", "why") if reasons else ("component", "ended"))
    for part in report.components:
        cells = [escape(part.component), f"[{_STYLE[part.outcome]}]{part.outcome}[/]", escape(part.why)]
        table.add_row(*cells[: 3 if reasons else 2])
    return table


def instrument_table(instruments: list[dict[str, Any]]) -> Table:
    """Every instrument of a running lab. A cause may be a long sentence, so it is not in here.

    The name of a worker begins with its runtime, which therefore has no column.
    """
    restarts = any(i.get("restarts") for i in instruments)
    table = plain_table("Instruments", ("instrument", "worker", "mode", "pid", "state", "since", "port"))
    if restarts:
        table.add_column("restarts", justify="right", no_wrap=True)
    for i in instruments:
        cells = [
            escape(i["id"]),
            escape(i["worker"]),
            i["mode"],
            str(i["pid"] or "–"),
            port_state(i["state"]),
            since(i.get("since_ns", 0)),
        ]
        cells += [escape(i["port"] or "–"), *([str(i["restarts"])] if restarts else [])]
        table.add_row(*cells)
    return table


def aged(alarm: dict[str, Any], states: Mapping[str, str]) -> str:
    """Why the value of an alarm is old, as half a sentence, if its instrument is not well; `states` are theirs."""
    state = states.get(alarm["instrument"], "ready")
    if alarm["value"] is None or state in _LIVE or utc_ns() - alarm["value_ns"] < _RECENT_NS:
        return ""
    return f"old, of {since(alarm['value_ns'])}: {alarm['instrument']} is in state {state}"


def alarm_table(alarms: list[dict[str, Any]], states: Mapping[str, str]) -> Table:
    """Every alarm of a running lab, with the `states` of its instruments. A cause may be a long sentence, so it is not
    in here.
    """
    table = plain_table("Alarms", ("alarm", "channel", "state", "since", "by"), ("value", "raised"))
    for one in alarms:
        value = "–" if one["value"] is None else f"{one['value']:.6g} {one['unit']}".rstrip()
        value += " old" if aged(one, states) else ""
        table.add_row(
            escape(one["name"]),
            escape(f"{one['instrument']}.{one['channel']}"),
            port_state(one["state"]),
            since(one["since_ns"]),
            escape(one["by"] or "–"),
            escape(value),
            str(one["raised"]),
        )
    return table


def since(t_ns: int) -> str:
    """A moment in local time; with its date unless that is today's."""
    if not t_ns:
        return "–"
    moment = datetime.fromtimestamp(t_ns / 1e9).astimezone()
    today = moment.date() == datetime.now(moment.tzinfo).date()
    return moment.strftime("%H:%M:%S" if today else "%d %b %H:%M")


def when(told: str) -> str:
    """A moment that is written down as ISO 8601, in local time and in the words of all lists."""
    try:
        return datetime.fromisoformat(told).astimezone().strftime("%d %b %Y %H:%M:%S")
    except ValueError:
        return told


def port_table(ports: list[dict[str, Any]], rates: dict[str, float] | None = None) -> Table:
    """Every port of a running lab; with `rates`, of each how many exchanges it makes a second."""
    errors = any(p["last_error"] for p in ports)
    counted = "exchanges" if rates is None else "exchanges/s"
    table = plain_table("Ports", ("port", "state", "holder"), ("waiting", counted, "errors"))
    if errors:
        table.add_column("last error", overflow="fold")
    for p in ports:
        cells = [escape(p["name"]), port_state(p["state"]), escape(p["holder"] or "–")]
        count = str(p["exchanges"]) if rates is None else f"{rates[p['name']]:,.0f}"
        cells += [str(p["queue"]), count, str(p["errors"])]
        table.add_row(*cells, *([escape(last_error(p))] if errors else []))
    return table


def last_error(port: dict[str, Any]) -> str:
    """What went wrong last at a port, and when; empty for nothing."""
    return f"{port['last_error']} ({since(port['last_error_ns'])})" if port["last_error"] else ""


def port_state(state: str) -> str:
    """A state in its colour."""
    style = _STATES.get(state)
    return f"[{style}]{state}[/]" if style else state
