"""A run on a screen: in a terminal, and in a notebook."""

from __future__ import annotations

from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from duodaq.storage.reading._run import Run
    from duodaq.storage.reading._stream import Stream

STATES = {"finished": "green", "recording": "cyan", "unfinished": "bold yellow"}
_HEAD = ("stream", "rows", "unit", "frames", "since", "until")


def card(run: Run) -> RenderableType:
    """A run as a person reads it in a terminal; times are local."""
    head = Text.assemble((run.title, "bold"), " · ", (run.state, STATES[run.state]))
    for fact in _facts(run):
        head.append(f"\n{fact}")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in _HEAD:
        table.add_column(name, justify="right" if name == "rows" else "left", no_wrap=name != "stream")
    for stream in run:
        table.add_row(*(Text(cell) for cell in _cells(stream)))
    return Group(head, table)


def page(run: Run) -> str:
    """A run as a notebook shows it."""
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(stream)) + "</tr>" for stream in run)
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    facts = "<br>".join(escape(fact) for fact in _facts(run))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<b>{escape(run.title)}</b> · {run.state}<br>{facts}{table}"


def local(moment: datetime | None, *, date: bool = True) -> str:
    """A moment in local time."""
    return "–" if moment is None else moment.astimezone().strftime("%d %b %Y %H:%M:%S" if date else "%H:%M:%S")


def counted(count: int, what: str) -> str:
    """How many there are, for a person: ``1 run``, ``2 runs``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def lasting(duration: timedelta | None) -> str:
    """How long something took, for a person."""
    if duration is None:
        return "–"
    seconds = duration.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02}:{minutes:02}" if days else f"{hours}:{minutes:02}:{rest:02}"


def _facts(run: Run) -> list[str]:
    labels = run.labels
    facts = [f"{local(run.start)}, {lasting(run.duration)}" if run.duration else local(run.start)]
    named = {"sample": labels.sample, "operator": labels.operator, "tags": ", ".join(labels.tags), "note": labels.note}
    return facts + [f"{name}: {value}" for name, value in named.items() if value] + [str(run.path)]


def _cells(stream: Stream) -> tuple[str, ...]:
    frames = ", ".join("×".join(map(str, stack.shape[:0:-1])) + f" {stack.dtype}" for stack in stream.stacks)
    same_day = stream.start is None or stream.stop is None or stream.start.date() == stream.stop.date()
    units = ", ".join(dict.fromkeys(stream.units.values())) if not frames else ""
    times = (local(stream.start, date=not same_day), local(stream.stop, date=not same_day))
    return (stream.name, f"{len(stream):,}", units, frames, *times)
