"""A run on a screen: in a terminal, and in a notebook."""

from __future__ import annotations

from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from duodaq.storage.reading._run import Run
    from duodaq.storage.reading._stream import Stream

MOST_OUTAGES = 5
STATES = {"finished": "green", "recording": "cyan", "unfinished": "bold yellow"}


def card(run: Run) -> RenderableType:
    """A run as a person reads it in a terminal; times are local."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble((run.title, "bold"), " · ", (run.state, STATES[run.state]))
    for fact in _facts(run):
        head.append(f"\n{fact}")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in _head(run):
        table.add_column(name, justify="right" if name == "rows" else "left", no_wrap=name != "stream", overflow="fold")
    for stream in run:
        table.add_row(*(Text(cell) for cell in _cells(stream)))
    return Group(head, table)


def page(run: Run) -> str:
    """A run as a notebook shows it."""
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(stream)) + "</tr>" for stream in run)
    head = "".join(f"<th>{name}</th>" for name in _head(run))
    facts = "<br>".join(escape(fact) for fact in _facts(run))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<b>{escape(run.title)}</b> · {run.state}<br>{facts}{table}"


def local(moment: datetime | None, *, date: bool = True) -> str:
    """A moment in local time."""
    return "–" if moment is None else moment.astimezone().strftime("%d %b %Y %H:%M:%S" if date else "%H:%M:%S")


def zone(moment: datetime | None) -> str:
    """The name of local time at a moment, ``CEST``; "local time" without one."""
    return "local time" if moment is None else moment.astimezone().tzname() or "local time"


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


def _head(run: Run) -> tuple[str, ...]:
    name = zone(run.start)
    return ("stream", "rows", "unit", "frames", f"since ({name})", f"until ({name})")


def _facts(run: Run) -> list[str]:
    labels = run.labels
    began = f"{local(run.start)} {zone(run.start)}" if run.start else local(None)
    facts = [f"{began}, {lasting(run.duration)}" if run.duration else began]
    named = {"sample": labels.sample, "operator": labels.operator, "tags": ", ".join(labels.tags), "note": labels.note}
    return (
        facts
        + [f"{name}: {value}" for name, value in named.items() if value]
        + [
            *(scan.in_words() for scan in run.scans),
            *_outages(run),
            str(run.path),
        ]
    )


def _outages(run: Run) -> list[str]:
    found = run.outages
    day = None if run.start is None else run.start.astimezone().date()

    def told(moment: datetime) -> str:
        return local(moment, date=moment.astimezone().date() != day)

    lines: list[str] = []
    for one in found[:MOST_OUTAGES]:
        since = "from the beginning" if one.since is None else f"at {told(one.since)}"
        until = "not back in this run" if one.until is None else f"back at {told(one.until)}"
        lines.append(f"{one.instrument} was lost {since}, {until}: {one.why}")
    left = len(found) - MOST_OUTAGES
    return [*lines, f"and {counted(left, 'outage')} more"] if left > 0 else lines


def _cells(stream: Stream) -> tuple[str, ...]:
    frames = ", ".join("×".join(map(str, stack.shape[:0:-1])) + f" {stack.dtype}" for stack in stream.stacks)
    start, stop = (None if moment is None else moment.astimezone().date() for moment in (stream.start, stream.stop))
    same_day = start is None or stop is None or start == stop
    units = ", ".join(dict.fromkeys(stream.units.values())) if not frames else ""
    times = (local(stream.start, date=not same_day), local(stream.stop, date=not same_day))
    return (stream.name, f"{len(stream):,}", units, frames, *times)
