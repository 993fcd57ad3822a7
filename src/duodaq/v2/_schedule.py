from __future__ import annotations

import math
from dataclasses import dataclass

from duodaq.errors import DuodaqError, LifecycleError, PortLostError


class PollSchedule:
    """When the next reading of a channel is due: on the grid ``begun + k × every``, so it never drifts.

    A reading that comes too late for its grid point is skipped and counted, never made up for by two in a row.
    """

    __slots__ = ("_begun_s", "_index", "due_s", "every_s", "skipped")

    def __init__(self, every_s: float, now_s: float) -> None:
        self.every_s = every_s
        self.skipped = 0
        self._begun_s = now_s
        self._index = 0
        self.due_s = now_s
        """The moment of the next reading."""

    def done(self, now_s: float) -> None:
        """The reading that was due has been made (or has failed), and ended at `now_s`."""
        following = self._index + 1
        in_future = max(following, math.ceil((now_s - self._begun_s) / self.every_s - 1e-9))
        self.skipped += in_future - following
        self._index = in_future
        self.due_s = self._begun_s + in_future * self.every_s

    def begin(self, now_s: float) -> None:
        """Start a new grid at `now_s`: after a pause that was nobody's lateness."""
        self._begun_s, self._index, self.due_s = now_s, 0, now_s


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """How long to wait before the next attempt, after so many failures in a row."""

    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 30.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th failure in a row (1, 2, …)."""
        exponent = min(max(0, failures - 1), 64)
        return min(self.longest_s, self.first_s * self.factor**exponent)


class Reconnection:
    """Whether a driver is connected, and when it is tried again if not. Pure; the clock is the caller's."""

    def __init__(self, backoff: BackoffPolicy | None = None) -> None:
        self.up = False
        self.failures = 0
        self.retry_at: float | None = None
        self._port_lost = False
        self._backoff = backoff or BackoffPolicy(first_s=0.25, longest_s=5.0)

    def connected(self) -> None:
        """It is connected; whether it is well as well, its first answer tells."""
        self.up, self.retry_at = True, None

    def well(self) -> None:
        """It has answered: the next failure is the first again."""
        self.failures = 0

    def broken(self, now_s: float) -> None:
        """It must be connected anew, at once."""
        self.up, self.retry_at = False, now_s

    def refusal(self, message: str, now_s: float) -> DuodaqError:
        """What ends a command that comes meanwhile: a fault of the cable's where that is why. Nothing was done."""
        what, left = f"it is not connected: {message}", self.outlook(now_s)
        return PortLostError(what, left=left) if self._port_lost else LifecycleError(what, left=left)

    def lost(self, now_s: float, *, by: DuodaqError | None, recoverable: bool) -> None:
        """It could not be connected, or was lost: again after a while, longer each time, if that can help at all."""
        self.up = False
        self._port_lost = isinstance(by, PortLostError)
        self.failures += 1
        self.retry_at = now_s + self._backoff.delay_s(self.failures) if recoverable else None

    def outlook(self, now_s: float) -> str:
        """What a person may expect."""
        if self.retry_at is None:
            return "it is not tried again by itself: mend the cause, then Recover"
        return f"it is tried again in {max(0.0, self.retry_at - now_s):.1f} s"
