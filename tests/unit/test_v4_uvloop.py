"""The kernel on uvloop: the same fates on the other loop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from duodaq.clock import pause
from duodaq.errors import ReplyTimeoutError
from duodaq.model import Fate
from duodaq.v4 import Actor, ActorSystem, handler

uvloop = pytest.importorskip("uvloop", reason="uvloop is an extra, and not there on Windows")
TRACE: ContextVar[str] = ContextVar("TRACE", default="none")


class Worker(Actor):
    @handler(int)
    async def work(self, number: int) -> tuple[int, str]:
        async with asyncio.timeout(5):
            await pause(0)
        return number, TRACE.get()

    @handler(float)
    async def hold(self, seconds: float) -> None:
        await pause(seconds)

    @handler(str)
    def crash(self, what: str) -> None:
        raise ValueError(what)


async def everything() -> None:
    system = ActorSystem()
    ref = await system.spawn(Worker)

    async def caller(number: int) -> tuple[int, str]:
        TRACE.set(f"t{number}")
        return await ref.ask(number)

    expected = [(number, f"t{number}") for number in range(100)]
    assert await asyncio.gather(*(asyncio.create_task(caller(number)) for number in range(100))) == expected
    with pytest.raises(ReplyTimeoutError) as caught:
        await ref.ask(0.2, timeout_s=0.05)
    assert caught.value.fate == Fate.UNKNOWN
    await ref.tell("crash")
    assert await ref.ask(1) == (1, "none")
    assert ref.metrics.restarts == 1
    (report,) = await system.stop(5)
    assert report.outcome == "clean"


def test_the_kernel_keeps_its_promises_on_uvloop():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(everything())
