"""A lab made harmless before its instruments are verified, and what was really written to them all the same.

Rules for whoever edits this:

* A lab file's settings and watchdogs are writes, and may emit: none of them is carried out. Nor are its safe actions,
  without leave to move; with it, what moves is made safe by them.
  (Drivers of V2 may write when they are constructed; that is theirs, and what they write is listed.)
* Nothing here believes the product: what counts is what passed the line, as each port's codec reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from duodaq.drivers import codec
from duodaq.model import (
    InstrumentDefinition,
    LabDefinition,
    ObserverDefinition,
    PortDefinition,
    WebDefinition,
    WireRecord,
)
from duodaq.ports import Broker
from duodaq.verify._results import Written

_EMITTERS = ("duodaq:MaiTai",)
_MOST_KINDS = 400
"""So many different writes are told apart; further ones are counted together."""
_OTHERS = "(further ones)"


def harmless(lab: LabDefinition, *, moving: bool) -> LabDefinition:
    """The same ports and instruments, and nothing that others would see: no page, alarms, recordings or virtual ports.

    No setting and no watchdog of the lab file is written to an instrument, and without `moving` no safe action either.
    """
    return replace(
        lab,
        ports=tuple(replace(port, virtual=None) for port in lab.ports),
        instruments=tuple(_kept(one, moving=moving) for one in lab.instruments),
        alarms=(),
        mail=None,
        record_wire=False,
        finalise=(),
        observers=ObserverDefinition(),
        web=WebDefinition(),
    )


def _kept(instrument: InstrumentDefinition, *, moving: bool) -> InstrumentDefinition:
    args = {name: value for name, value in instrument.args.items() if name != "watchdog_s"}
    watched = tuple(dict.fromkeys((*instrument.watched, *instrument.settings)))
    safe = instrument.safe if moving and not may_emit(instrument) else {}
    return replace(instrument, args=args, settings={}, watched=watched, safe=safe)


def may_emit(instrument: InstrumentDefinition) -> bool:
    """Whether it is known to let out a beam."""
    return instrument.driver in _EMITTERS


class Writes:
    """What was written to each port from its opening on, and by whom."""

    def __init__(self, broker: Broker, ports: tuple[PortDefinition, ...]) -> None:
        self._codecs = {port.name: codec(port.codec) if port.codec else None for port in ports}
        self._seen: Counter[tuple[str, bytes, str]] = Counter()
        self._moving: dict[str, list[str]] = {port.name: [] for port in ports}
        for port in ports:
            for record in broker.log(port.name):
                self._note(record)
            broker.subscribe_log(port.name, self._note)

    def _note(self, record: WireRecord) -> None:
        if record.direction != ">":
            return
        key = (record.port, record.data, record.holder)
        if key not in self._seen and len(self._seen) >= _MOST_KINDS:
            key = (record.port, _OTHERS.encode(), "")
        self._seen[key] += 1
        known = self._codecs[record.port]
        if known is not None and known.moves(record.data):
            self._moving[record.port].append(repr(record.data))

    def listed(self) -> list[Written]:
        """Each different one, with how often it was written, in the words of the port's codec if it has one."""
        found = sorted(self._seen.items(), key=lambda item: (item[0][0], -item[1]))
        return [Written(port, self._words(port, data), holder, count) for (port, data, holder), count in found]

    def moving(self, port: str) -> list[str] | None:
        """What was written to a port that may move or emit something; None if nobody can say."""
        return self._moving[port] if self._codecs.get(port) is not None else None

    def _words(self, port: str, data: bytes) -> str:
        known, text = self._codecs[port], data.decode("ascii", "backslashreplace").strip()
        explain: Callable[[bytes], str] | None = getattr(known, "explain", None)
        words = "" if explain is None else explain(data)
        return f"{text} ({words})" if words and words != text else text
