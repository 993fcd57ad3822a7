from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from duodaq.clock import pause
from duodaq.testing import _virtual_time
from duodaq.testing._virtual_time import VirtualTimeError, run_virtual, virtual_time


def test_an_hour_passes_in_no_time():
    async def hour() -> float:
        await pause(3600)
        return asyncio.get_running_loop().time()

    begun = time.monotonic()
    assert run_virtual(hour()) == pytest.approx(3600)
    assert time.monotonic() - begun < 5


@virtual_time
async def test_timers_fire_in_the_order_of_their_moments():
    order: list[int] = []

    async def after(seconds: int) -> None:
        await pause(seconds)
        order.append(seconds)

    await asyncio.gather(*(after(seconds) for seconds in (30, 10, 20)))
    assert order == [10, 20, 30]


@virtual_time
async def test_time_outs_are_virtual_too():
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await loop.create_future()
    assert loop.time() == pytest.approx(100)


@pytest.fixture
def lent() -> str:
    return "from a fixture"


@virtual_time
async def test_fixtures_reach_a_decorated_test(lent: str):
    assert lent == "from a fixture"


@virtual_time
async def test_a_job_in_a_thread_ends_before_the_next_timer():
    loop = asyncio.get_running_loop()
    gate = threading.Event()
    job = loop.run_in_executor(None, gate.wait, 0.05)
    timer = asyncio.ensure_future(pause(1))
    done, _ = await asyncio.wait((job, timer), return_when=asyncio.FIRST_COMPLETED)
    assert done == {job}
    await timer
    assert loop.time() == pytest.approx(1)


@virtual_time
async def test_a_ready_descriptor_comes_before_the_next_timer():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(b"x")
        loop = asyncio.get_running_loop()
        timer = loop.create_task(pause(1))
        assert await loop.sock_recv(ours, 1) == b"x"
        assert not timer.done()
        await timer


def test_waiting_for_nothing_is_an_error_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_virtual_time, "PATIENCE_S", 0.01)
    loop = _virtual_time.VirtualTimeLoop()
    try:
        with pytest.raises(VirtualTimeError, match="every task waits"):
            loop.run_forever()
    finally:
        loop.close()
