"""The clocks of a lab, and the only places where its code waits for time to pass.

`utc_ns` is a UTC anchor taken once per process plus CLOCK_MONOTONIC: it never decreases, and a step of the wall clock
never reaches the data. `loop_ns` follows the running event loop, so a test on virtual time sees virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Generator
from typing import Any, Protocol

__all__ = [
    "Deadline",
    "Deadlines",
    "Expiring",
    "adopt_anchor",
    "anchor_ns",
    "block",
    "monotonic_ns",
    "monotonic_s",
    "new_loop",
    "one_interrupt",
    "pause",
    "utc_ns",
]

_anchor_ns = time.time_ns() - time.monotonic_ns()


def anchor_ns() -> int:
    """UTC nanoseconds at CLOCK_MONOTONIC zero, as this process took it at import, or took it over."""
    return _anchor_ns


def adopt_anchor(ns: int) -> None:
    """Take over the anchor of another process of this machine, so that both tell the same time."""
    global _anchor_ns
    _anchor_ns = ns


def utc_ns() -> int:
    """UTC nanoseconds since 1970, from the anchor and the monotonic clock; never decreases within a process."""
    return _anchor_ns + time.monotonic_ns()


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds: shared by all processes of one machine since boot."""
    return time.monotonic_ns()


def monotonic_s() -> float:
    """CLOCK_MONOTONIC in seconds."""
    return time.monotonic()


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop that nobody runs yet: uvloop's where that is installed, which wakes in half the time."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def pause(seconds: float) -> None:
    """Give the event loop to others for at least `seconds`, on the loop's own clock (virtual in unit tests)."""
    await asyncio.sleep(seconds)


def block(seconds: float, wake: threading.Event | None = None) -> bool:
    """Block the calling thread for `seconds`, or until `wake` is set.

    Returns:
        True if `wake` ended the wait.
    """
    if wake is not None:
        return wake.wait(seconds)
    time.sleep(seconds)
    return False


class Deadline:
    """A moment on the monotonic clock by which something must have happened; infinite if made with None."""

    __slots__ = ("at_s",)

    def __init__(self, seconds: float | None) -> None:
        self.at_s = float("inf") if seconds is None else time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds that are left, never negative; ``inf`` without a deadline."""
        return max(0.0, self.at_s - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the moment is behind us."""
        return time.monotonic() >= self.at_s


class Expiring(Protocol):
    """What has a deadline."""

    def expire(self) -> None: ...


_EARLY_S = 0.0005
"""uvloop's timers count whole milliseconds, and may come half of one too early."""


class Deadlines:
    """The deadlines of a few hundred things at most, nearly all of which end before: together they need one timer.

    It stands at the earliest of them, and stays where it is when that one is discarded: to add and to discard is a
    dictionary's business. Belongs to one loop, that of the first `add`.
    """

    __slots__ = ("_at_s", "_rings_s", "_timer")

    def __init__(self) -> None:
        self._at_s: dict[Expiring, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = float("inf")

    def add(self, entry: Expiring, at_s: float) -> None:
        """Let `entry` expire at `at_s` on the loop's clock, unless it is discarded before; ``inf`` is never."""
        self._at_s[entry] = at_s
        if at_s < self._rings_s:
            self._set(at_s)

    def discard(self, entry: Expiring) -> None:
        """It has ended. Nothing if it is not here."""
        self._at_s.pop(entry, None)

    def close(self) -> None:
        """Nothing expires any more."""
        self._at_s.clear()
        self._set(float("inf"))

    def _set(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = at_s
        endless = at_s == float("inf")
        self._timer = None if endless else asyncio.get_running_loop().call_at(at_s, self._ring)

    def _ring(self) -> None:
        now_s = asyncio.get_running_loop().time() + _EARLY_S
        due = [entry for entry, at_s in self._at_s.items() if at_s <= now_s]
        self._set(min((at_s for at_s in self._at_s.values() if at_s > now_s), default=float("inf")))
        for entry in sorted(due, key=self._at_s.__getitem__):
            if self._at_s.pop(entry, None) is not None:  # it may have ended because of one before it
                entry.expire()


INTERRUPT_S = 10.0
"""For how long after a Ctrl-C further ones are not heard where `one_interrupt` is."""


@contextlib.contextmanager
def one_interrupt() -> Generator[None]:
    """Hear one Ctrl-C within the block, so that a second one does not interrupt what the first has begun to stop.

    Another one counts again after 10 s, for whoever is held up by something that does not end. It is about the main
    thread alone: no other one ever gets a Ctrl-C.
    """
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    ending: list[Deadline] = []

    def heard(number: int, frame: Any) -> None:
        if not ending or ending[-1].passed:
            ending.append(Deadline(INTERRUPT_S))
            before(number, frame)

    signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
