"""When a moved instrument goes back by itself. Pure: what went wrong in, a reason or nothing out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from duodaq.errors import (
    DeliveryError,
    InstrumentError,
    LifecycleError,
    OutOfRangeError,
    PortError,
    RefusedError,
    UnsafeStateError,
)
from duodaq.model import InstrumentState, InstrumentStatus
from duodaq.units import same_unit

_SILENT_S = 1.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a new owner may get wrong.

    Attributes:
        errors: So many errors within `within_s` seconds are one too many.
        for_s: For so long after the cutover it is looked after.
    """

    errors: int = 3
    within_s: float = 10.0
    for_s: float = 600.0


class Spending:
    """What was spent of a budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._times: deque[float] = deque()
        self._last = ""

    def note(self, now_s: float, what: str, count: int = 1) -> None:
        """Something went wrong, `count` times."""
        self._times.extend([now_s] * count)
        self._last = what

    def spent(self, now_s: float) -> str:
        """Why it is spent; empty if it is not."""
        while self._times and self._times[0] < now_s - self.budget.within_s:
            self._times.popleft()
        if len(self._times) < self.budget.errors:
            return ""
        return f"{len(self._times)} errors within {self.budget.within_s:g} s, the last: {self._last}"


def diverged(before: Mapping[str, str], now: Mapping[str, str], silent_s: float, period_s: float) -> str:
    """Why a new owner's streams are not the old one's; empty if they are.

    Args:
        before: The old owner's channels and their units.
        now: The new owner's.
        silent_s: For how long nothing has come.
        period_s: How often something came; 0 if nothing needs to come.
    """
    for channel, unit in before.items():
        if channel in now and not same_unit(unit, now[channel]):
            return f"{channel} was in {unit or 'no unit'} and is in {now[channel] or 'no unit'}"
    if period_s and silent_s > max(_SILENT_S, 5 * period_s):
        return f"nothing has come for {silent_s:.1f} s, and came every {period_s:g} s"
    return ""


def counts(error: Exception) -> bool:
    """Whether an error of a command says something of the driver: a wrong argument, or a stop, does not."""
    if isinstance(error, OutOfRangeError | RefusedError | UnsafeStateError | LifecycleError):
        return False
    if isinstance(error, DeliveryError):
        return error.fate == "unknown"
    return isinstance(error, PortError | InstrumentError)


def is_lost(status: InstrumentStatus) -> str:
    """Why an instrument cannot be left where it is; empty if it can."""
    if status.state is InstrumentState.HUNG:
        return f"it is hung: {status.message}"
    if status.state is InstrumentState.ERROR and not status.recoverable:
        return f"it is in error: {status.message}"
    return ""
