"""What the Mai Tai's driver believes, against a laser that lies for a second or does not obey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from duodaq.drivers.maitai import MaiTaiCodec, MaiTaiDriver
from duodaq.errors import ReplyTimeoutError, StoppedError, UnsafeStateError
from duodaq.model import PortDefinition
from duodaq.ports import Broker
from duodaq.testing._scripted_port import ScriptedTransport


class Bench:
    def __init__(self) -> None:
        self.broker = Broker()
        self.line = ScriptedTransport(self.answer)
        self.shutter: list[bytes] = []

    def answer(self, line: bytes) -> bytes | None:
        if line == b"SYST:ERR?":
            return b"0 No error\n"
        if line == b"SHUT?":
            return (self.shutter.pop(0) if len(self.shutter) > 1 else self.shutter[0]) + b"\n"
        return None

    def says(self, readings: Iterable[str]) -> None:
        """What SHUT? tells, one after the other; the last for ever."""
        self.shutter = [reading.encode() for reading in readings]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.broker.add(PortDefinition("laser", timeout_s=0.5), MaiTaiCodec(), bench.line)
    await bench.broker.open("laser")
    yield bench
    await bench.broker.aclose()


def driver(bench: Bench, lag_s: float = 0.1, limit_s: float = 0.4) -> MaiTaiDriver:
    return MaiTaiDriver(bench.broker.port("laser"), "test", poll_s=0.01, shutter_lag_s=lag_s, shutter_timeout_s=limit_s)


def permit() -> None:
    """It may."""


async def test_a_closed_shutter_is_believed_when_its_lag_is_over(bench: Bench) -> None:
    bench.says("0")
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await driver(bench).close_shutter()
    assert loop.time() - began_s >= 0.1
    assert bench.line.lines[0] == b"SHUT 0"


async def test_a_change_that_is_seen_is_believed_at_once(bench: Bench) -> None:
    bench.says("110")
    await driver(bench, lag_s=60.0, limit_s=60.0).close_shutter()


async def test_an_old_reading_of_closed_is_not_taken_for_a_closed_shutter(bench: Bench) -> None:
    bench.says("001")  # it was told to open a moment ago, and never heard SHUT 0
    with pytest.raises(ReplyTimeoutError, match="still says that it is open"):
        await driver(bench).close_shutter()


async def test_without_a_permit_nothing_is_sent(bench: Bench) -> None:
    def refuse() -> None:
        raise UnsafeStateError("no")

    with pytest.raises(UnsafeStateError):
        await driver(bench).open_shutter(refuse)
    assert b"SHUT 1" not in bench.line.lines


async def test_a_permit_taken_back_ends_the_opening(bench: Bench) -> None:
    bench.says("0")
    asked: list[int] = []

    def once() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise UnsafeStateError("a stop")

    with pytest.raises(StoppedError, match="a stop"):
        await driver(bench).open_shutter(once)
    assert b"SHUT 1" in bench.line.lines


async def test_a_shutter_that_does_not_open_is_told(bench: Bench) -> None:
    bench.says("0")
    with pytest.raises(StoppedError, match="still says that it is closed"):
        await driver(bench).open_shutter(permit)
