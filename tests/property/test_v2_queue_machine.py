"""V2's command queue against a slow, obvious model, in any order of events."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq import clock
from duodaq.clock import Deadlines
from duodaq.errors import StoppedError
from duodaq.model import Execute, Fate
from duodaq.v2._figures import Figures
from duodaq.v2._work import Work, WorkQueue

CAPACITY = 3
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send moving", "take", "expire", "cancel", "stop", "stop all"]), st.integers(0, 9)
    ),
    max_size=60,
)


async def breathe() -> None:
    for _ in range(4):
        await clock.pause(0)


class Machine:
    """Senders in their own tasks, one reader, and what must come of it."""

    def __init__(self) -> None:
        self.queue = WorkQueue(CAPACITY)
        self.sent: list[Work] = []
        self.taken: list[Work] = []
        self.senders: list[asyncio.Task[None]] = []

    async def send(self, moving: bool) -> None:
        work = Work("x", Execute(str(len(self.sent))), Deadlines(), Figures(), moving=moving, deadline_s=None)
        self.sent.append(work)

        async def sender() -> None:
            self.queue.register(work)
            await self.queue.reserve(work)
            self.queue.put(work)

        self.senders.append(asyncio.create_task(sender()))

    async def take(self, _: int) -> None:
        if any(not work.ended and not work.in_hand for work in self.sent):
            work = await asyncio.wait_for(self.queue.get(), 1.0)
            assert work is not None
            self.taken.append(work)

    def waiting(self) -> list[Work]:
        return [work for work in self.sent if not work.ended and not work.in_hand]

    async def apply(self, event: str, number: int) -> None:
        chosen = self.sent[number % len(self.sent)] if self.sent else None
        if event.startswith("send"):
            await self.send(event.endswith("moving"))
        elif event == "take":
            await self.take(number)
        elif event == "expire" and chosen is not None:
            chosen.expire()
        elif event == "cancel" and chosen is not None:
            chosen.reply.cancel()
        elif event.startswith("stop"):
            self.stop(moving_only=event == "stop")
        await breathe()
        self.check()

    def stop(self, *, moving_only: bool) -> None:
        expected = [work for work in self.waiting() if work.moving or not moving_only]
        ended = self.queue.end(lambda: StoppedError("stop"), moving_only=moving_only)
        assert ended == len(expected)
        assert all(work.ended for work in expected)

    def check(self) -> None:
        waiting = self.waiting()
        assert len(self.queue) == min(CAPACITY, len(waiting))
        assert self.queue.high_water <= CAPACITY
        assert self.taken == sorted(self.taken, key=self.sent.index)
        for work in self.sent:
            if work.ended and not work.in_hand:
                assert work.fate is Fate.NOT_DONE
                assert work not in self.taken


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_every_work_ends_once_places_are_never_lost_and_order_is_kept(events: list[tuple[str, int]]) -> None:
    async def run() -> None:
        machine = Machine()
        for event, number in events:
            await machine.apply(event, number)
        machine.queue.end(lambda: StoppedError("the end"))
        await asyncio.gather(*machine.senders)
        await breathe()
        room: Any = machine.queue._room
        assert room == CAPACITY

    asyncio.run(run())
