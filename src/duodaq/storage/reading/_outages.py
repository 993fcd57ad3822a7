"""When an instrument was not there while a run was recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from duodaq.storage.journal._events import Event
from duodaq.storage.reading._moments import utc

_LOST = ("error", "hung", "connecting")
_THERE = ("ready", "acquiring")


class Outage(NamedTuple):
    """An instrument was lost, in error or hung.

    Attributes:
        instrument: Its name.
        since: When that began; None: before the run did.
        until: When it was there again; None: not in this run.
        why: What was said of it as it began.
    """

    instrument: str
    since: datetime | None
    until: datetime | None
    why: str


def outages(instruments: Mapping[str, Any], events: Iterable[Event]) -> list[Outage]:
    """The outages of a run, as they began.

    Args:
        instruments: How they stood when it began, as its provenance says.
        events: Its event log.
    """
    return sorted(_outages(instruments, events), key=lambda one: one.since.timestamp() if one.since else 0.0)


def _outages(instruments: Mapping[str, Any], events: Iterable[Event]) -> Iterator[Outage]:
    lost = {
        name: Outage(name, None, None, str(status.get("message", "")))
        for name, status in instruments.items()
        if status.get("state") in _LOST[:2]
    }
    for event in events:
        if event.name != "state":
            continue
        name, state, moment = event.doc["instrument"], event.doc["new"], utc(event.doc["t_ns"])
        if state in _LOST and name not in lost:
            lost[name] = Outage(name, moment, None, event.doc["cause"])
        elif state in _THERE and name in lost:
            yield lost.pop(name)._replace(until=moment)
    yield from lost.values()
