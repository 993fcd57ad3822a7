"""How far a recording has come, and who waits for that."""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from duodaq.storage.journal import Level

_BEHIND_ALL = 2**64


class Watermark(msgspec.Struct, frozen=True):
    """What is acknowledged of one stream: rows, and the sequence number of the newest; -1 before the first."""

    rows: int = 0
    sequence: int = -1


class Mark(NamedTuple):
    """A watermark, the newest number that was seen, lost or not (`passed`), and which stretches before it were lost."""

    watermark: Watermark = Watermark()
    passed: int = -1
    lost: tuple[tuple[int, int], ...] = ()

    def has(self, number: int) -> bool:
        """Whether a row is acknowledged."""
        if number > self.passed:
            return False
        place = bisect_right(self.lost, (number, _BEHIND_ALL))
        return not place or self.lost[place - 1][1] < number


class _Waiter(NamedTuple):
    reached: Callable[[], bool]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bool]


_NOTHING = Mark()


class Watermarks:
    """The watermarks of a recording, by level and stream. Written by its thread, awaited on any loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: dict[Level, dict[str, Mark]] = {"kernel": {}, "durable": {}}
        self._totals: dict[Level, int] = {"kernel": 0, "durable": 0}
        self._waiters: list[_Waiter] = []
        self._ended = False

    def of(self, stream: str, level: Level) -> Watermark:
        """What is acknowledged of a stream."""
        return self.mark(stream, level).watermark

    def mark(self, stream: str, level: Level) -> Mark:
        """The same, and what was lost on the way there."""
        return self._marks[level].get(stream, _NOTHING)

    def total(self, level: Level) -> int:
        """All rows that are settled at a level: acknowledged, or counted as lost."""
        return self._totals[level]

    def raise_to(self, level: Level, marks: dict[str, Mark], settled: int) -> None:
        """Acknowledge: `marks` replaces what is there of those streams, and `settled` rows more are settled."""
        with self._lock:
            self._marks[level] = {**self._marks[level], **marks}
            self._totals[level] += settled
            self._wake()

    def end(self) -> None:
        """Nothing more is acknowledged: whoever waits learns that."""
        with self._lock:
            self._ended = True
            self._wake()

    async def wait(self, reached: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until `reached` says yes (it is asked at each change); whether it did before the time was up."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(reached, loop, loop.create_future())
        with self._lock:
            if reached() or self._ended:
                return reached()
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.future
        except TimeoutError:
            return False
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in [*self._waiters]:
            reached = waiter.reached()
            if reached or self._ended:
                self._waiters.remove(waiter)
                try:
                    waiter.loop.call_soon_threadsafe(_set, waiter.future, reached)
                except RuntimeError:  # its loop is closed: nobody waits there any more
                    continue


def _set(future: asyncio.Future[bool], reached: bool) -> None:
    if not future.done():
        future.set_result(reached)
