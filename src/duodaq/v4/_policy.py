"""When a failed actor is started again: pure decisions, tested by matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

RestartKind = Literal["permanent", "transient", "never"]
Strategy = Literal["one-for-one", "one-for-all", "rest-for-one"]


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again, after `delay_s` seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave it stopped and let the failure escalate."""

    why: str


def doubling_backoff_s(attempt: int) -> float:
    """Seconds to wait before restart number `attempt` (from 1) of a window: 0, then 0.1, 0.2, 0.4 … at most 10."""
    return 0.0 if attempt <= 1 else min(10.0, 0.1 * 2 ** (attempt - 2))


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Whether, how often and how soon a failed actor is started again.

    Attributes:
        kind: ``permanent`` is started again after every end but a stop or kill by its owner, ``transient`` only after
            a failure, ``never`` is not.
        limit: Restarts allowed within `window_s`; the next failure gives up.
        window_s: Seconds over which `limit` counts.
        backoff: Seconds before restart number n of the window; the first is at once by default.
        requeue: Whether waiting messages that move or emit survive the restart; else they end *not done*.
    """

    kind: RestartKind = "transient"
    limit: int = 3
    window_s: float = 60.0
    backoff: Callable[[int], float] = doubling_backoff_s
    requeue: bool = False

    def decide(self, restarts_s: Sequence[float], now_s: float, *, failed: bool = True) -> Restart | GiveUp:
        """What to do about an actor that ended now.

        Args:
            restarts_s: When it was restarted before, on the clock of `now_s`, oldest first.
            now_s: The present moment.
            failed: False if it ended by itself, without an error.
        """
        if self.kind == "never":
            return GiveUp("its policy is never to restart")
        if self.kind == "transient" and not failed:
            return GiveUp("it ended by itself")
        recent = sum(1 for at_s in restarts_s if now_s - at_s < self.window_s)
        if recent >= self.limit:
            return GiveUp(f"{recent} restarts within {self.window_s:g} s, which is its limit")
        return Restart(self.backoff(recent + 1))


def affected_by(strategy: Strategy, failed: int, members: int) -> range:
    """Which of `members` actors, in start order, are restarted together when number `failed` fails."""
    if strategy == "one-for-one":
        return range(failed, failed + 1)
    return range(members) if strategy == "one-for-all" else range(failed, members)
