"""One deadline at a time, which is stopped or moved far more often than it comes."""

from __future__ import annotations

import asyncio

from duodaq.clock import pause
from duodaq.ports._alarm import Alarm
from duodaq.testing import virtual_time


class Rung:
    """When an alarm rang."""

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self.alarm = Alarm(asyncio.get_running_loop(), self._ring)

    def _ring(self) -> None:
        self.at_s.append(asyncio.get_running_loop().time())


@virtual_time
async def test_it_rings_once_when_its_moment_has_come() -> None:
    rung = Rung()
    rung.alarm.set(2.0)
    await pause(10.0)
    assert rung.at_s == [2.0]


@virtual_time
async def test_what_is_stopped_never_rings() -> None:
    rung = Rung()
    rung.alarm.set(2.0)
    await pause(1.0)
    rung.alarm.stop()
    await pause(10.0)
    assert rung.at_s == []


@virtual_time
async def test_a_later_moment_is_kept_though_the_timer_stands_at_an_earlier_one() -> None:
    rung = Rung()
    rung.alarm.set(2.0)
    rung.alarm.stop()
    rung.alarm.set(5.0)
    await pause(10.0)
    assert rung.at_s == [5.0]


@virtual_time
async def test_an_earlier_moment_moves_the_timer() -> None:
    rung = Rung()
    rung.alarm.set(5.0)
    rung.alarm.set(1.0)
    await pause(10.0)
    assert rung.at_s == [1.0]


@virtual_time
async def test_it_can_be_set_again_while_it_rings_and_leaves_no_timer_when_it_is_closed() -> None:
    rung = Rung()
    rung.alarm.set(1.0)
    await pause(2.0)
    rung.alarm.set(3.0)
    rung.alarm.close()
    await pause(10.0)
    assert rung.at_s == [1.0]
