"""What was asked of the instruments by the page and the API: what is in hand, and how the last ones ended."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from duodaq.clock import pause, utc_ns
from duodaq.web._refusal import Refusal

MOST_IN_HAND = 64
_REMEMBERED = 50
_LOOK_EVERY_S = 0.25


class Operation(msgspec.Struct):
    """One command: `state` is ``in hand``, ``done`` or ``failed``; `detail` says why it failed. Times are UTC ns."""

    number: int
    instrument: str
    what: str
    who: str
    since_ns: int
    axis: str | None = None
    target: float | None = None
    state: str = "in hand"
    detail: str = ""
    ended_ns: int | None = None


class Operations:
    """Carries commands out as tasks of its own, so that none ends because a browser was closed."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._in_hand: dict[int, Operation] = {}
        self._ended: deque[Operation] = deque(maxlen=_REMEMBERED)
        self._tasks: set[asyncio.Task[Any]] = set()

    def all(self) -> list[Operation]:
        """Those in hand, and the last that ended; the oldest first."""
        return [*self._ended, *self._in_hand.values()]

    def begin(
        self,
        operation: Operation,
        work: Callable[[], Awaitable[Any]],
        look: Callable[[], Awaitable[Any]] | None = None,
    ) -> asyncio.Task[Any]:
        """Begin `work`; while it goes on, `look` keeps the table up to date for those who watch.

        Raises:
            Refusal: 429, so many are in hand already.
        """
        if len(self._in_hand) >= MOST_IN_HAND:
            raise Refusal(429, "TooMany", f"{MOST_IN_HAND} commands are in hand; wait for one of them to end")
        operation.number = next(self._numbers)
        operation.since_ns = utc_ns()
        self._in_hand[operation.number] = operation
        task = asyncio.create_task(self._carry_out(operation, work, look), name=f"page-{operation.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_seen)
        return task

    async def aclose(self) -> None:
        """Cancel what is in hand, and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry_out(
        self, operation: Operation, work: Callable[[], Awaitable[Any]], look: Callable[[], Awaitable[Any]] | None
    ) -> Any:
        looking = asyncio.create_task(_look_on(look)) if look is not None else None
        try:
            result = await work()
        except BaseException as error:
            operation.state, operation.detail = "failed", str(error) or type(error).__name__
            raise
        else:
            operation.state = "done"
            return result
        finally:
            operation.ended_ns = utc_ns()
            del self._in_hand[operation.number]
            self._ended.append(operation)
            if looking is not None:
                looking.cancel()
                await asyncio.wait([looking])


async def _look_on(look: Callable[[], Awaitable[Any]]) -> None:
    while True:
        await pause(_LOOK_EVERY_S)
        await look()


def _seen(task: asyncio.Task[Any]) -> None:
    """An error that nobody waited for is in the operation: it is no news to the loop."""
    if not task.cancelled():
        task.exception()
