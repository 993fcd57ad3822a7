"""One lab has one watchdog, however many ask for it at once, and none that its shutdown does not know of."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from duodaq.clock import Deadline, pause
from duodaq.dual import _guard
from duodaq.dual._guard import Guard
from duodaq.ports import Broker
from duodaq.watchdog.owner import Disarmed


class ScriptedWatchdog:
    """Comes up when it is let."""

    made: ClassVar[list[ScriptedWatchdog]]
    let_go: ClassVar[asyncio.Event]

    def __init__(self, *_: Any, **__: Any) -> None:
        self.disarmed = False
        self.made.append(self)

    async def start(self, timeout_s: float) -> None:
        await self.let_go.wait()

    async def disarm(self, timeout_s: float = 2.0) -> Disarmed:
        self.disarmed = True
        return Disarmed(True, "", 0.0)

    def line_changed(self, name: str, descriptor: int | None) -> None: ...


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Guard:
    ScriptedWatchdog.made, ScriptedWatchdog.let_go = [], asyncio.Event()
    monkeypatch.setattr(_guard, "Watchdog", ScriptedWatchdog)
    return Guard(Broker())


async def begin(guard: Guard, count: int) -> list[asyncio.Task[None]]:
    starts = [asyncio.create_task(guard.start((), workers=True, timeout_s=5.0)) for _ in range(count)]
    deadline = Deadline(10)
    while not ScriptedWatchdog.made:
        assert not deadline.passed, "no watchdog was begun"
        await pause(0)
    return starts


async def test_who_asks_while_it_starts_gets_the_same_one(guard: Guard) -> None:
    starts = await begin(guard, 2)
    ScriptedWatchdog.let_go.set()
    await asyncio.gather(*starts)
    assert len(ScriptedWatchdog.made) == 1
    await guard.disarm(1.0)
    assert [one.disarmed for one in ScriptedWatchdog.made] == [True]


async def test_one_that_comes_up_after_the_end_is_put_away_and_no_other_begins(guard: Guard) -> None:
    starts = await begin(guard, 2)
    assert await guard.disarm(1.0) == ()
    ScriptedWatchdog.let_go.set()
    await asyncio.gather(*starts)
    assert [one.disarmed for one in ScriptedWatchdog.made] == [True]
