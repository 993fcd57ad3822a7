"""The clocks of a lab, and the only places where its code waits for time to pass.

`utc_ns` is a UTC anchor taken once per process plus CLOCK_MONOTONIC: it never decreases, and a step of the wall clock
never reaches the data. `loop_ns` follows the running event loop, so a test on virtual time sees virtual time.
"""

from __future__ import annotations

import asyncio
import threading
import time

__all__ = ["Deadline", "adopt_anchor", "anchor_ns", "block", "monotonic_ns", "monotonic_s", "pause", "utc_ns"]

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
