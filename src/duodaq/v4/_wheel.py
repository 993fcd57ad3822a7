"""Deadlines by the hundred thousand for the price of a few timers."""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK_S = 0.005
_NEVER = float("inf")


class Expiring(Protocol):
    """What waits in the wheel."""

    def expire(self) -> None: ...


class DeadlineWheel:
    """Deadlines rounded up to the next 5 ms, with one loop timer for all that share a tick.

    Whoever adds an entry keeps the slot that `add` returns and discards the entry from it once it is settled:
    only what is really overdue is ever expired.
    """

    __slots__ = ("_clock_s", "_loop", "_slots")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clock_s = loop.time
        self._slots: dict[int, set[Expiring]] = {}

    def add(self, entry: Expiring, seconds: float) -> set[Expiring]:
        """Let `entry` expire in `seconds` (``inf``: never), and return the slot to discard it from."""
        if seconds == _NEVER:
            return set()
        tick = int((self._clock_s() + seconds) / TICK_S) + 1
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
            self._loop.call_at(tick * TICK_S, self._fire, tick)
        slot.add(entry)
        return slot

    def _fire(self, tick: int) -> None:
        for entry in tuple(self._slots.pop(tick)):
            entry.expire()
