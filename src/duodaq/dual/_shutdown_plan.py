"""The order of a shutdown, and what each step may take: pure, so that it can be tested as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StepName = Literal["settle", "safe state", "v4", "v2", "data", "ports"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: it may take `allowed_s`, more if earlier ones were quicker, and leaves `reserve_s` to later ones."""

    name: StepName
    allowed_s: float
    reserve_s: float


_SHARES: tuple[tuple[StepName, float], ...] = (
    ("settle", 0.35),
    ("safe state", 0.10),
    ("v4", 0.20),
    ("v2", 0.20),
    ("data", 0.10),
    ("ports", 0.05),
)


def plan_shutdown(budget_s: float) -> tuple[Step, ...]:
    """The ordered steps of a shutdown with `budget_s` in all.

    New work is refused before the first step. ``settle`` waits for commands in hand; a shutdown in a hurry skips it.
    """
    steps: list[Step] = []
    for index, (name, share) in enumerate(_SHARES):
        reserve = sum(s for _, s in _SHARES[index + 1 :])
        steps.append(Step(name, share * budget_s, reserve * budget_s))
    return tuple(steps)


def allowance_s(step: Step, left_s: float) -> float:
    """What `step` may take when `left_s` of the budget are left: all but the reserve, and never less than a moment."""
    return max(left_s - step.reserve_s, min(step.allowed_s, left_s) * 0.5, 0.005)
