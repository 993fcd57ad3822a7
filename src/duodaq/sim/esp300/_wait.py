"""What WS, WP and WT wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from duodaq.sim.esp300._axis import Axis, Kind
from duodaq.sim.table import crossing_s


@dataclass
class Wait:
    """Holds back commands until the moment that `until_s` gives; it may change as axes change their minds."""

    until_s: Callable[[], float | None]
    """CLOCK_MONOTONIC seconds, or None while that cannot be known yet (then an axis will be due before)."""

    def over(self, now_s: float) -> bool:
        """Whether execution goes on."""
        until_s = self.until_s()
        return until_s is not None and until_s <= now_s

    def due_at_s(self) -> float | None:
        """When it is over, as far as is known."""
        return self.until_s()


def wait_for_time(at_s: float) -> Wait:
    """WT: until a moment."""
    return Wait(lambda: at_s)


def wait_for_stop(axes: Sequence[Axis], delay_s: float) -> Wait:
    """WS: until all of `axes` have come to rest, and `delay_s` longer."""

    def until_s() -> float | None:
        if any(axis.kind is not Kind.IDLE for axis in axes):
            return None
        return max(axis.profile.end_s for axis in axes) + delay_s

    return Wait(until_s)


def wait_for_position(axis: Axis, value: float) -> Wait:
    """WP: until `axis` passes `value` (user units), or comes to rest without having passed it."""
    place = value / axis.factor + axis.origin

    def until_s() -> float | None:
        at_s = crossing_s(axis.profile, place)
        if at_s is None and axis.kind is Kind.IDLE:
            return axis.profile.end_s
        return at_s

    return Wait(until_s)
