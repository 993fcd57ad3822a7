from __future__ import annotations

import itertools
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from duodaq.dataplane import Subscription
from duodaq.migration._compare import Tolerances
from duodaq.migration._equivalents import Equivalents
from duodaq.model import Command, InstrumentDefinition, Measurement, PortDefinition
from duodaq.telemetry import tracing

T = TypeVar("T")
_numbers = itertools.count(1)


@dataclass
class Beside:
    """What is compared: the two definitions, their port, and how V2's names are called in V4."""

    v2: InstrumentDefinition
    v4: InstrumentDefinition
    port: PortDefinition
    same: Equivalents
    tolerances: Tolerances = field(default_factory=Tolerances)


class Onlooker(Protocol):
    """Whoever is told of what V2 does. None of these ever raises."""

    beside: Beside

    def take_measurement(self, measurement: Measurement) -> None:
        """A measurement of V2's."""
        ...

    def commanded(self, number: int, command: Command, trace_id: str) -> None:
        """V2 is given a command."""
        ...

    def became(self, number: int, result: Any, error: str | None, *, is_known: bool = True) -> None:
        """It has ended, with a result or an error; or nobody knows how, for nobody waits for it any more."""
        ...


async def mirrored(onlooker: Onlooker, command: Command, work: Awaitable[T]) -> T:
    """Have V2 carry out `command` by `work`, and V4 beside it; V2's result, or its error."""
    number = next(_numbers)
    with tracing() as trace_id:  # the wire says which exchanges were made for it
        onlooker.commanded(number, command, trace_id)
    try:
        with tracing(trace_id):
            result = await work
    except Exception as error:
        onlooker.became(number, None, str(error))
        raise
    except BaseException:
        onlooker.became(number, None, None, is_known=False)
        raise
    onlooker.became(number, result, None)
    return result


async def follow(shadow: Onlooker, subscription: Subscription[Measurement]) -> None:
    """Hand V2's measurements to a shadow until the subscription ends."""
    instrument = shadow.beside.v2.id
    async for measurement in subscription:
        if measurement.instrument == instrument and measurement.origin != "v4":
            shadow.take_measurement(measurement)
