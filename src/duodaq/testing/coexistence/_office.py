"""Where the messages of many senders arrive, on either side: each is noted, and costs the device one exchange."""

from __future__ import annotations

import statistics
from typing import Any, ClassVar

import msgspec
import numpy as np

from duodaq.clock import pause, utc_ns
from duodaq.model import Vector
from duodaq.schema import vector_batch
from duodaq.testing.coexistence._evidence import Evidence
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor, Parameter

TRACES, TRACE_VALUES = 200, 32768
TRACE_BYTES = 8 * TRACE_VALUES


class Post:
    """What one side received, in order, by its own notes, and what its senders were told after how long."""

    def __init__(self, evidence: Evidence, most_traces: int = TRACES) -> None:
        self.evidence = evidence
        self.most_traces = most_traces
        self.answered: list[tuple[tuple[int, int], Any]] = []
        self.latencies_s: list[float] = []
        self.took_s = 0.0

    @property
    def args(self) -> dict[str, Any]:
        """What its office is constructed with."""
        return {"evidence": self.evidence.path, "traces": self.most_traces}

    @property
    def received(self) -> list[tuple[int, int]]:
        return [(note["sender"], note["number"]) for note in self.evidence.read("received")]

    @property
    def traces(self) -> int:
        """How many traces were made."""
        return self.evidence.count("trace")

    def percentile_s(self, percent: int) -> float:
        return statistics.quantiles(self.latencies_s, n=100)[percent - 1]


class Office:
    """Takes messages; for each it asks its device once."""

    def __init__(self, serial: Any, evidence: str, traces: int) -> None:
        self.serial = serial
        self._most_traces = traces
        self._evidence = Evidence(evidence)
        self._last: Any = None
        self._traces = 0

    @property
    def message(self) -> Any:
        """The last one taken."""
        return self._last

    @message.setter
    def message(self, message: tuple[int, int]) -> None:
        self.serial.write(b"D?\n")
        self.serial.readline()
        self._evidence.note("received", sender=message[0], number=message[1])
        self._last = message

    def trace(self) -> Any:
        """A trace; the first ones are noted."""
        if self._traces < self._most_traces:
            self._traces += 1
            self._evidence.note("trace")
        return np.full(TRACE_VALUES, float(self._traces))


class Flood(msgspec.Struct, frozen=True):
    """Publish `count` traces."""

    count: int


async def _nothing(actor: OfficeActor) -> None:
    return None


async def _take(actor: OfficeActor, message: tuple[int, int]) -> Any:
    await actor.port.exchange(b"1TP\r", holder=actor.context.holder)
    actor.evidence.note("received", sender=message[0], number=message[1])
    return message


class OfficeActor(InstrumentActor):
    """Takes messages; for each it asks its device once."""

    parameters: ClassVar = {"message": Parameter(_nothing, _take)}
    operations: ClassVar = {"flood": Flood}

    async def connect(self) -> None:
        """Open its notes."""
        self.evidence = Evidence(self.definition.args["evidence"])

    @handler(Flood)
    async def flood(self, message: Flood) -> None:
        """Publish traces one after the other."""
        for number in range(message.count):
            values = np.full(TRACE_VALUES, float(number))
            row = Vector(self.definition.id, "trace", "V", utc_ns(), number, values, "v4")
            await self.streams.deliver("trace", vector_batch([row]))
            self.evidence.note("trace")
            await pause(0)
