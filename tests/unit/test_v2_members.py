"""What a client may see of a hosted driver: its values as they are, its methods and parts by name only."""

from __future__ import annotations

import datetime
import enum
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from duodaq import clock
from duodaq.errors import LifecycleError, RefusedError, ReplyTimeoutError
from duodaq.model import (
    DriverMember,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    ParameterEntry,
    PollDefinition,
    ReadChannel,
    SetParameter,
    StopAcquisition,
    Vector,
)
from duodaq.ports import Broker
from duodaq.v2 import DataDistributor, V2Runtime
from duodaq.v2._member import value_or_member


class NoParameters:
    def put(self, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        return ParameterEntry(instrument, name, value, unit, 0, 0, owner)

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        return None

    def mark_stale(self, owner: Any, instrument: str) -> None: ...


class Slope(enum.Enum):
    UP = "up"


class Axis:
    def __init__(self) -> None:
        self.position = 1.5

    def home(self) -> str:
        self.position = 0.0
        return "homed"


class Quantity:
    magnitude, units = 2.5, "V"


class Device:
    def __init__(self) -> None:
        self.x = Axis()
        self.readings = 0

    def measure(self) -> float:
        self.readings += 1
        return float(self.readings)

    def trace(self) -> list[float]:
        return [1.0, 2.0]

    def slow(self) -> float:
        clock.block(0.3)
        return 1.0


@asynccontextmanager
async def hosted(**facts: Any) -> AsyncIterator[tuple[V2Runtime, DataDistributor]]:
    broker, hub = Broker(), DataDistributor()
    runtime = V2Runtime(broker, NoParameters(), hub)
    polls = (
        PollDefinition("power", 3600.0, "W", call="measure"),
        PollDefinition("trace", 3600.0, "V", call="trace"),
        PollDefinition("late", 3600.0, "V", call="slow"),
    )
    facts.setdefault("options", {"acquire": False})
    await runtime.add(InstrumentDefinition("device", "v2", Device, polls=polls, **facts))
    await runtime.start(5.0)
    try:
        yield runtime, hub
    finally:
        await runtime.stop(2.0)


async def test_a_channel_is_read_at_once_published_and_returned() -> None:
    async with hosted() as (runtime, hub):
        seen = hub.subscribe("test")
        first = await runtime.command("device", ReadChannel("power"))
        second = await runtime.command("device", ReadChannel("power"))
        assert (first.value, first.unit, first.sequence, first.channel) == (1.0, "W", 0, "power")
        assert second.sequence == 1
        assert [await seen.get(1.0), await seen.get(1.0)] == [first, second]


async def test_an_array_is_read_as_what_it_is() -> None:
    async with hosted() as (runtime, _):
        measured = await runtime.command("device", ReadChannel("trace"))
        assert isinstance(measured, Vector)
        assert measured.values.tolist() == [1.0, 2.0]


async def test_a_channel_that_is_not_there_is_refused_with_those_that_are() -> None:
    async with hosted() as (runtime, _):
        with pytest.raises(RefusedError, match="power, trace, late"):
            await runtime.command("device", ReadChannel("volts"))


async def test_reading_a_channel_has_the_deadline_of_its_method() -> None:
    async with hosted(method_deadline_s={"slow": 0.05}) as (runtime, _):
        with pytest.raises(ReplyTimeoutError, match=r"0\.05"):
            await runtime.command("device", ReadChannel("late"))


async def test_methods_and_parts_of_a_driver_are_named_and_never_handed_out() -> None:
    async with hosted() as (runtime, _):
        assert await runtime.command("device", GetParameter("measure")) == DriverMember("method")
        assert await runtime.command("device", GetParameter("x")) == DriverMember("object")
        assert await runtime.command("device", GetParameter("x.home")) == DriverMember("method")
        assert await runtime.command("device", GetParameter("x.position")) == 1.5
        assert await runtime.command("device", SetParameter("x.position", 3.0)) == 3.0
        assert await runtime.command("device", Execute("x.home")) == "homed"


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, 1j, "text", b"bytes", np.float32(1.5), Slope.UP, (1, "a"), {"a": [1, 2]}, set[int](),
     Quantity(), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)],
)  # fmt: skip
def test_data_is_handed_out_as_it_is(value: Any) -> None:
    assert value_or_member(value) is value


def test_an_array_is_data_unless_it_holds_objects() -> None:
    numbers = np.arange(3.0)
    assert value_or_member(numbers) is numbers
    assert value_or_member(np.array([object()])) == DriverMember("object")


@pytest.mark.parametrize("value", [Axis(), [Axis()], {"x": Axis()}])
def test_whatever_holds_a_part_of_the_driver_is_no_data(value: Any) -> None:
    assert value_or_member(value) == DriverMember("object")


class Absent:
    def __init__(self) -> None:
        raise ConnectionError("nobody there")

    def measure(self) -> float:
        return 0.0


async def test_what_is_not_connected_can_be_told_to_acquire_no_more() -> None:
    broker = Broker()
    runtime = V2Runtime(broker, NoParameters(), DataDistributor())
    poll = PollDefinition("power", 0.1, "W", call="measure")
    await runtime.add(InstrumentDefinition("absent", "v2", Absent, polls=(poll,)))
    await runtime.start(5.0)
    try:
        assert runtime.instruments()[0].state is InstrumentState.ERROR
        assert await runtime.command("absent", StopAcquisition()) is None
        with pytest.raises(LifecycleError, match="nobody there"):
            await runtime.command("absent", ReadChannel("power"))
    finally:
        await runtime.stop(2.0)
