"""Where the messages of many senders arrive, on either side: each is noted, and costs the device one exchange."""

from __future__ import annotations

import statistics
from typing import Any

import msgspec
import numpy as np

from duodaq.clock import pause, utc_ns
from duodaq.model import Vector
from duodaq.schema import vector_batch
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor, Parameter

TRACES, TRACE_VALUES = 200, 32768
TRACE_BYTES = 8 * TRACE_VALUES


class Post:
    """What one side received, in order, and what its senders were told after how long."""

    def __init__(self) -> None:
        self.received: list[tuple[int, int]] = []
        self.answered: list[tuple[tuple[int, int], Any]] = []
        self.latencies_s: list[float] = []
        self.took_s = 0.0
        self.traces = 0

    def percentile_s(self, percent: int) -> float:
        return statistics.quantiles(self.latencies_s, n=100)[percent - 1]


def office_class(got: Post) -> type:
    class Office:
        """Takes messages; for each it asks its device once."""

        def __init__(self, serial: Any) -> None:
            self.serial = serial
            self._last: Any = None

        @property
        def message(self) -> Any:
            return self._last

        @message.setter
        def message(self, message: tuple[int, int]) -> None:
            self.serial.write(b"D?\n")
            self.serial.readline()
            got.received.append(message)
            self._last = message

        def trace(self) -> Any:
            if got.traces < TRACES:
                got.traces += 1
            return np.full(TRACE_VALUES, float(got.traces))

    return Office


class Flood(msgspec.Struct, frozen=True):
    """Publish `count` traces."""

    count: int


def office_actor(got: Post) -> type[InstrumentActor]:
    async def nothing(actor: InstrumentActor) -> None:
        return None

    async def take(actor: InstrumentActor, message: tuple[int, int]) -> Any:
        await actor.port.exchange(b"1TP\r", holder=actor.context.holder)
        got.received.append(message)
        return message

    class Office(InstrumentActor):
        """Takes messages; for each it asks its device once."""

        parameters = {"message": Parameter(nothing, take)}  # noqa: RUF012 - as the base class has it
        operations = {"flood": Flood}  # noqa: RUF012 - as the base class has it

        @handler(Flood)
        async def flood(self, message: Flood) -> None:
            for number in range(message.count):
                values = np.full(TRACE_VALUES, float(number))
                row = Vector(self.definition.id, "trace", "V", utc_ns(), number, values, "v4")
                await self.streams.deliver("trace", vector_batch([row]))
                got.traces += 1
                await pause(0)

    return Office
