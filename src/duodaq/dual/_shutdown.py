"""Carries out the shutdown plan.

Rules for whoever edits this:

* The budget is a promise. Every step is cut off at its allowance, also when what it awaits ignores its cancellation.
* A step that fails is reported, and the next one runs all the same.
* Work in hand may end by itself in ``settle``; a hurried shutdown skips that, never the safe state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from duodaq.clock import Deadline, monotonic_s
from duodaq.dual._shutdown_plan import Step, StepName, allowance_s, plan_shutdown
from duodaq.model import ComponentReport, Outcome, ShutdownReport

StepWork = Callable[[float], Awaitable[tuple[ComponentReport, ...]]]
LAST_WORD_S = 0.05
"""How long a step that is cut off may take to say what of it is left."""

HURRIED_S = 2.0
"""What a shutdown in a hurry may still take, from the moment it is hurried."""


class ShutdownRun:
    """One shutdown under way. `hurry` may be called at any time; `report` is complete when `run` returns."""

    def __init__(self, budget_s: float, work: Mapping[StepName, StepWork]) -> None:
        self.budget_s = budget_s
        self._deadline = Deadline(budget_s)
        self._work = work
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Give up waiting for work in hand and keep to `HURRIED_S` from now on."""
        if not self._hurried.is_set():
            self._deadline = Deadline(min(self._deadline.left_s, HURRIED_S))
            self._hurried.set()

    async def run(self) -> ShutdownReport:
        """Carry out every step in order and return what became of each component."""
        begun = monotonic_s()
        components: list[ComponentReport] = []
        for step in plan_shutdown(self.budget_s):
            components.extend(await self._step(step))
        return ShutdownReport(tuple(components), monotonic_s() - begun, self.budget_s)

    async def _step(self, step: Step) -> tuple[ComponentReport, ...]:
        if step.name == "settle" and self._hurried.is_set():
            return ()
        limit_s = allowance_s(step, self._deadline.left_s)
        begun = monotonic_s()
        task = asyncio.ensure_future(self._work[step.name](limit_s))
        await self._wait(task, step, limit_s)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=LAST_WORD_S)
        if not task.done():
            why = "cut short by a second request" if self._hurried.is_set() else f"did not end within {limit_s:.3g} s"
            return (ComponentReport(step.name, Outcome.FORCED, why, monotonic_s() - begun),)
        return _result(task, step, monotonic_s() - begun)

    async def _wait(self, task: asyncio.Future[Any], step: Step, limit_s: float) -> None:
        if self._hurried.is_set():
            await asyncio.wait({task}, timeout=limit_s)
            return
        hurried = asyncio.ensure_future(self._hurried.wait())
        try:
            await asyncio.wait({task, hurried}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
        if self._hurried.is_set() and not task.done() and step.name != "settle":
            await asyncio.wait({task}, timeout=allowance_s(step, self._deadline.left_s))


def _result(
    task: asyncio.Future[tuple[ComponentReport, ...]], step: Step, took_s: float
) -> tuple[ComponentReport, ...]:
    if task.cancelled():
        return (ComponentReport(step.name, Outcome.FORCED, "cancelled", took_s),)
    error = task.exception()
    if error is not None:
        return (ComponentReport(step.name, Outcome.FORCED, f"{type(error).__name__}: {error}", took_s),)
    return task.result()
