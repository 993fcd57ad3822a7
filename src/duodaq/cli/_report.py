from __future__ import annotations

from typing import Any

from rich.table import Table

from duodaq.model import Outcome, ShutdownReport

_STYLE = {Outcome.CLEAN: "green", Outcome.FORCED: "yellow", Outcome.LEAKED: "bold red"}


def shutdown_table(report: ShutdownReport) -> Table:
    """A shutdown report as a person reads it."""
    table = Table(title=f"Shutdown in {report.took_s:.2f} s of {report.budget_s:g} s", title_justify="left")
    table.add_column("component")
    table.add_column("ended")
    table.add_column("why")
    for part in report.components:
        table.add_row(part.component, f"[{_STYLE[part.outcome]}]{part.outcome}[/]", part.why)
    return table


def instrument_table(instruments: list[dict[str, Any]]) -> Table:
    """Every instrument of a running lab."""
    table = Table(title="Instruments", title_justify="left")
    for column in ("instrument", "runtime", "worker", "state", "port", "restarts", "cause"):
        table.add_column(column)
    for i in instruments:
        cells = (i["id"], i["runtime"], i["worker"], i["state"], i["port"] or "", str(i["restarts"]), i["message"])
        table.add_row(*cells)
    return table


def port_table(ports: list[dict[str, Any]]) -> Table:
    """Every port of a running lab."""
    table = Table(title="Ports", title_justify="left")
    for column in ("port", "state", "holder", "waiting", "exchanges", "errors", "last error"):
        table.add_column(column)
    for p in ports:
        values = (p.get("name"), p.get("state"), p.get("holder"), p.get("queue"), p.get("exchanges"), p.get("errors"))
        table.add_row(*("" if v is None else str(v) for v in (*values, p.get("last_error"))))
    return table
