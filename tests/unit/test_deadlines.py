"""Many deadlines share one timer, and none of them is a moment later for it."""

from __future__ import annotations

import asyncio

from duodaq.clock import Deadlines, pause
from duodaq.testing import virtual_time


class FakeRequest:
    """Notes when it expired, and discards others then."""

    def __init__(self, deadlines: Deadlines, *others: FakeRequest) -> None:
        self.deadlines = deadlines
        self.others = others
        self.expired_s: float | None = None

    def expire(self) -> None:
        assert self.expired_s is None
        self.expired_s = asyncio.get_running_loop().time()
        for other in self.others:
            self.deadlines.discard(other)


@virtual_time
async def test_each_expires_at_its_own_moment() -> None:
    deadlines = Deadlines()
    requests = {at_s: FakeRequest(deadlines) for at_s in (3.0, 1.0, 2.0, 1.001)}
    for at_s, request in requests.items():
        deadlines.add(request, at_s)
    await pause(10.0)
    assert {at_s: request.expired_s for at_s, request in requests.items()} == {s: s for s in requests}


@virtual_time
async def test_what_was_discarded_never_expires_and_the_rest_does() -> None:
    deadlines = Deadlines()
    gone, stays, never = (FakeRequest(deadlines) for _ in range(3))
    deadlines.add(gone, 1.0)
    deadlines.add(stays, 2.0)
    deadlines.add(never, float("inf"))
    deadlines.discard(gone)
    deadlines.discard(gone)
    await pause(10.0)
    assert (gone.expired_s, stays.expired_s, never.expired_s) == (None, 2.0, None)


@virtual_time
async def test_one_that_ends_another_spares_it_in_the_same_moment() -> None:
    deadlines = Deadlines()
    second = FakeRequest(deadlines)
    first = FakeRequest(deadlines, second)
    deadlines.add(second, 1.0002)
    deadlines.add(first, 1.0)
    await pause(10.0)
    assert (first.expired_s, second.expired_s) == (1.0, None)


@virtual_time
async def test_a_thousand_that_end_in_time_need_a_few_timers() -> None:
    loop, deadlines, made = asyncio.get_running_loop(), Deadlines(), 0
    call_at = loop.call_at

    def counted(*args: object, **kwargs: object) -> asyncio.TimerHandle:
        nonlocal made
        made += 1
        return call_at(*args, **kwargs)

    loop.call_at = counted
    for number in range(1000):
        request = FakeRequest(deadlines)
        deadlines.add(request, number / 100 + 5.0)
        loop.jump(0.01)
        deadlines.discard(request)
    assert made == 1


@virtual_time
async def test_closed_it_lets_nothing_expire() -> None:
    deadlines = Deadlines()
    request = FakeRequest(deadlines)
    deadlines.add(request, 1.0)
    deadlines.close()
    await pause(10.0)
    assert request.expired_s is None
