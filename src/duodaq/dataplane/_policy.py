from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import NamedTuple


class Policy(StrEnum):
    """What happens to a full queue when another item comes."""

    BLOCK = "block"
    """The publisher waits for room (`publish_wait`), or is refused (`publish`)."""
    DROP_OLDEST = "drop-oldest"
    """The item that waited longest makes room."""
    DROP_NEWEST = "drop-newest"
    """The new item is not taken."""
    LATEST = "latest"
    """A new item takes the place of the waiting one of the same stream."""


class AlarmKind(StrEnum):
    LOSING = "losing"
    NEARLY_FULL = "nearly full"


class Alarm(NamedTuple):
    """One alarm that is due: what it is about, and the figure that raised it."""

    kind: AlarmKind
    ratio: float


class OccupancyAlarm:
    """When a queue is worth a line in the log: a pure decision over counters that others keep.

    LOSING when at least `drop_ratio` of what was offered within the last window was dropped; NEARLY_FULL when at least
    `full_ratio` of the capacity is taken. Each at most once a window.
    """

    __slots__ = ("_history", "_said", "_steps", "drop_ratio", "full_ratio", "window_s")

    def __init__(self, window_s: float = 10.0, drop_ratio: float = 0.01, full_ratio: float = 0.9) -> None:
        self.window_s = window_s
        self.drop_ratio = drop_ratio
        self.full_ratio = full_ratio
        self._steps = 10
        self._history: deque[tuple[float, int, int]] = deque(maxlen=self._steps + 1)
        self._said: dict[AlarmKind, float] = {}

    @property
    def step_s(self) -> float:
        """How often `note` wants to be called."""
        return self.window_s / self._steps

    def note(self, now_s: float, offered: int, dropped: int) -> None:
        """Remember the counters of this moment, so that a later look can say what changed within a window."""
        self._history.append((now_s, offered, dropped))

    def drop_rate(self, now_s: float, offered: int, dropped: int) -> float:
        """The part of what was offered within the last window that was dropped, 0 to 1."""
        base_offered, base_dropped = self._base(now_s)
        since = offered - base_offered
        return (dropped - base_dropped) / since if since > 0 else 0.0

    def due(self, now_s: float, offered: int, dropped: int, full: float) -> list[Alarm]:
        """The alarms that are due now; those returned will not be due again within a window.

        Args:
            now_s: The moment, on the clock that `note` was given.
            offered: Everything offered so far.
            dropped: Everything dropped so far.
            full: The part of the capacity that is taken, 0 to 1.
        """
        alarms: list[Alarm] = []
        losing = self.drop_rate(now_s, offered, dropped)
        if losing >= self.drop_ratio and self._unsaid(AlarmKind.LOSING, now_s):
            alarms.append(Alarm(AlarmKind.LOSING, losing))
        if full >= self.full_ratio and self._unsaid(AlarmKind.NEARLY_FULL, now_s):
            alarms.append(Alarm(AlarmKind.NEARLY_FULL, full))
        return alarms

    def silent_until(self) -> float:
        """Until when no alarm can be due, whatever happens: a caller in a hurry need not ask before."""
        if len(self._said) < len(AlarmKind):
            return float("-inf")
        return min(self._said.values()) + self.window_s

    def _base(self, now_s: float) -> tuple[int, int]:
        base = (0, 0)
        for at_s, offered, dropped in self._history:
            if at_s > now_s - self.window_s:
                break
            base = (offered, dropped)
        return base

    def _unsaid(self, kind: AlarmKind, now_s: float) -> bool:
        said = self._said.get(kind)
        if said is not None and now_s - said < self.window_s:
            return False
        self._said[kind] = now_s
        return True
