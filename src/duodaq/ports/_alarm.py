from __future__ import annotations

import asyncio
from collections.abc import Callable

_EARLY_S = 0.0005
"""uvloop's timers count whole milliseconds, and may come half of one too early."""


class Alarm:
    """One deadline at a time, nearly always stopped before it comes, as that of the exchange in hand.

    The loop's timer stays where it is when the alarm is stopped or set later, and looks when it rings: to set and to
    stop cost no timer. Belongs to one loop.

    Args:
        loop: The loop.
        ring: Called when the deadline has come; the alarm is stopped by then.
    """

    __slots__ = ("_due_s", "_loop", "_ring", "_rings_s", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = self._rings_s = float("inf")

    def set(self, due_s: float) -> None:
        """Ring at `due_s` on the loop's clock, instead of whenever it was set to."""
        self._due_s = due_s
        if due_s < self._rings_s:
            self._ring_at(due_s)

    def stop(self) -> None:
        """Do not ring."""
        self._due_s = float("inf")

    def close(self) -> None:
        """Do not ring, and leave no timer."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_s = None, float("inf")

    def _ring_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = at_s
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._timer, self._rings_s = None, float("inf")
        if self._loop.time() + _EARLY_S >= self._due_s:
            self.stop()
            self._ring()
        elif self._due_s != float("inf"):
            self._ring_at(self._due_s)
