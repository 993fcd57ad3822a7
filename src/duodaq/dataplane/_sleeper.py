"""One wait on either side of a queue: a coroutine on its own loop, or a thread. Woken from any thread, cheaply.

A sleeper is woken at most once. Whoever wakes it does so under the hub's lock, so waking never blocks: on the sleeper's
own thread the future is set directly; from elsewhere the loop is told with call_soon_threadsafe.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol


class Sleeper(Protocol):
    want: int
    """Wake me when this many items are waiting (a reader) or at once when there is room (a publisher: 0)."""

    def wake(self) -> None: ...


class LoopSleeper:
    """A coroutine that sleeps on the running loop."""

    __slots__ = ("_future", "_loop", "_thread", "want")

    def __init__(self, want: int) -> None:
        self.want = want
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    def wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._set(True)
            return
        try:
            self._loop.call_soon_threadsafe(self._set, True)
        except RuntimeError:  # its loop is closed: nobody sleeps there any more
            return

    async def wait(self, timeout_s: float | None) -> bool:
        """Sleep until woken (True) or until `timeout_s` has passed (False), on the loop's own clock."""
        if timeout_s is None:
            return await self._future
        timer = self._loop.call_later(timeout_s, self._set, False)
        try:
            return await self._future
        finally:
            timer.cancel()

    def _set(self, woken: bool) -> None:
        if not self._future.done():
            self._future.set_result(woken)


class ThreadSleeper:
    """A thread that sleeps."""

    __slots__ = ("_event", "want")

    def __init__(self, want: int) -> None:
        self.want = want
        self._event = threading.Event()

    def wake(self) -> None:
        self._event.set()

    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until woken (True) or until `timeout_s` has passed (False)."""
        return self._event.wait(timeout_s)
