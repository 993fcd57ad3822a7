"""A reply that comes later leaves the port free, and ends its own exchange and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from duodaq import clock
from duodaq.drivers.ell14 import EllCodec
from duodaq.errors import PortLostError, PortTimeoutError, StoppedError
from duodaq.model import PortDefinition
from duodaq.ports import Broker
from duodaq.testing._scripted_port import Answer, ScriptedTransport

MOVE, END = b"0ma00001000\r\n", b"0PO00001000\r\n"


def rotators(line: bytes) -> bytes | Answer | None:
    """Two rotators: the first takes a while to move."""
    match line:
        case b"0ma00001000":
            return Answer(END, 0.15)
        case b"1gs" | b"0gs":
            return line[:1] + b"GS00\r\n"
        case b"1gp" | b"0gp":
            return line[:1] + b"PO00000042\r\n"
        case _:
            return None


class Bench:
    def __init__(self) -> None:
        self.broker = Broker()
        self.codec = EllCodec()
        self.line = ScriptedTransport(rotators, terminator=b"\r\n")

    async def exchange(self, request: bytes, timeout_s: float | None = None, holder: str = "a") -> bytes:
        return await self.broker.port("p").exchange(request, holder=holder, timeout_s=timeout_s)

    def begin(self, request: bytes, timeout_s: float = 1.0) -> asyncio.Task[bytes]:
        return asyncio.ensure_future(self.exchange(request, timeout_s))

    async def begun(self, request: bytes = MOVE, timeout_s: float = 1.0) -> asyncio.Task[bytes]:
        task = self.begin(request, timeout_s)
        while request.strip() not in self.line.lines:
            await clock.pause(0)
        return task

    @property
    def status(self):
        return self.broker.status()[0]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    port = PortDefinition("p", timeout_s=0.1, options={"quiet_s": 0.01})
    await bench.broker.add(port, bench.codec, bench.line)
    await bench.broker.open("p")
    yield bench
    await bench.broker.aclose()


async def test_the_port_is_free_until_the_late_reply_comes(bench: Bench) -> None:
    move = await bench.begun()
    assert bench.status.holder is None
    assert await bench.exchange(b"1gs\r\n") == b"1GS00\r\n"
    assert not move.done()
    assert await move == END
    assert bench.status.stray_bytes == 0
    assert bench.status.resyncs == 0


async def test_a_late_reply_within_another_s_reply_goes_to_its_own_exchange(bench: Bench) -> None:
    move = await bench.begun()
    bench.line.script = lambda line: (Answer(b"1P"), Answer(b"O00000007\r", 0.005), Answer(b"\n" + END, 0.01))
    assert await bench.exchange(b"1gp\r\n") == b"1PO00000007\r\n"
    assert await move == END


async def test_a_late_reply_before_another_s_reply_goes_to_its_own_exchange(bench: Bench) -> None:
    move = await bench.begun()
    bench.line.script = lambda line: Answer(END + b"1PO00000007\r\n")
    assert await bench.exchange(b"1gp\r\n") == b"1PO00000007\r\n"
    assert await move == END


async def test_a_question_during_a_motion_gets_its_own_answer(bench: Bench) -> None:
    move = await bench.begun()
    assert await bench.exchange(b"0gp\r\n") == b"0PO00000042\r\n"
    assert not move.done()
    assert await move == END


async def test_two_motions_end_each_by_its_own_frame(bench: Bench) -> None:
    bench.line.script = lambda line: None
    first, second = await bench.begun(b"0ma00001000\r\n"), await bench.begun(b"1ho0\r\n")
    bench.line.say(b"1PO00000000\r\n0PO00001000\r\n")
    assert await second == b"1PO00000000\r\n"
    assert await first == END


async def test_a_refusal_ends_it_as_well(bench: Bench) -> None:
    move = await bench.begun()
    bench.line.say(b"0GS02\r\n")
    assert await move == b"0GS02\r\n"


async def test_a_late_reply_that_never_comes_is_a_timeout_and_the_port_is_as_good_as_ever(bench: Bench) -> None:
    bench.line.script = lambda line: rotators(line) if b"ma" not in line else None
    bench.codec.latest_reply_s = 0.05
    move = await bench.begun(timeout_s=0.01)
    with pytest.raises(PortTimeoutError, match="the port was free meanwhile"):
        await move
    assert await bench.exchange(b"1gs\r\n") == b"1GS00\r\n"
    assert bench.status.resyncs == 0


async def test_who_asked_for_less_time_than_a_motion_may_take_gets_that(bench: Bench) -> None:
    move = await bench.begun(timeout_s=0.01)
    assert await move == END


async def test_a_late_reply_of_a_cancelled_motion_is_nobody_s(bench: Bench) -> None:
    move = await bench.begun()
    move.cancel()
    await asyncio.wait((move,))
    bench.line.script = lambda line: Answer(END + b"1PO00000007\r\n")
    assert await bench.exchange(b"1gp\r\n") == b"1PO00000007\r\n"
    assert bench.status.stray_bytes == len(END)


async def test_a_lost_line_ends_it(bench: Bench) -> None:
    move = await bench.begun()
    bench.line.unplug()
    with pytest.raises(PortLostError):
        await move


async def test_a_late_reply_is_heard_while_the_port_is_mended(bench: Bench) -> None:
    move = await bench.begun()
    bench.line.script = lambda line: None
    with pytest.raises(PortTimeoutError):
        await bench.exchange(b"1gp\r\n", 0.02)
    assert await move == END


async def test_a_motion_that_waits_for_the_port_is_ended_by_a_stop(bench: Bench) -> None:
    bench.line.script = lambda line: Answer(b"1GS00\r\n", 0.05)
    asked = await bench.begun(b"1gs\r\n")
    move = bench.begin(MOVE)
    await clock.pause(0)
    await bench.broker.stop("p", b"0st\r\n")
    with pytest.raises(StoppedError):
        await move
    assert await asked == b"1GS00\r\n"
    assert MOVE.strip() not in bench.line.lines


async def test_a_frame_cut_off_when_the_last_motion_ends_is_not_lost(bench: Bench) -> None:
    move = await bench.begun()
    bench.line.say(END + b"1PO000")
    assert await move == END
    bench.line.script = lambda line: Answer(b"00007\r\n1PO00000042\r\n")
    assert await bench.exchange(b"1gp\r\n") == b"1PO00000007\r\n"
