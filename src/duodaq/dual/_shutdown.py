"""Carries out the shutdown plan.

Rules for whoever edits this:

* The budget is a promise. Every step is cut off at its allowance, also when what it awaits ignores its cancellation.
* A step that fails is reported, and the next one runs all the same.
* Work in hand may end by itself in ``settle``; a hurried shutdown skips that, never the safe state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from duodaq.clock import Deadline, monotonic_s
from duodaq.dual._shutdown_plan import Step, StepName, allowance_s, plan_shutdown
from duodaq.model import ComponentReport, Outcome, ShutdownReport
from duodaq.telemetry import get_logger

_log = get_logger("duodaq.dual")
StepWork = Callable[[float], Awaitable[tuple[ComponentReport, ...]]]
LAST_WORD_S = 0.05
"""How long a step that is cut off may take to say what of it is left."""

HURRIED_S = 2.0
"""What a shutdown in a hurry may still take, from the moment it is hurried."""


class DataComponent(Protocol):
    """Something that takes the lab's data and must be closed after both runtimes: a recording, for instance."""

    async def close(self, timeout_s: float) -> ComponentReport: ...


class ShutdownRun:
    """One shutdown under way; its time runs from when this is made. `hurry` and `limit` may be called at any time."""

    def __init__(self, budget_s: float, work: Mapping[StepName, StepWork]) -> None:
        self.budget_s = budget_s
        self._begun_s = monotonic_s()
        self._deadline = Deadline(budget_s)
        self._work = work
        self._hurried = False
        self._changed = asyncio.Event()

    def hurry(self) -> None:
        """Give up waiting for work in hand and keep to `HURRIED_S` from now on."""
        if not self._hurried:
            self._hurried = True
            self.limit(HURRIED_S)
            self._changed.set()

    def limit(self, within_s: float) -> None:
        """Be done within `within_s` from now, if that is sooner than planned."""
        if within_s < self._deadline.left_s:
            self._deadline = Deadline(within_s)
            self._changed.set()

    async def run(self) -> ShutdownReport:
        """Carry out every step in order and return what became of each component."""
        components: list[ComponentReport] = []
        for step in plan_shutdown(self.budget_s):
            components.extend(tell_of(await self._step(step)))
        return ShutdownReport(tuple(components), monotonic_s() - self._begun_s, self.budget_s)

    async def _step(self, step: Step) -> tuple[ComponentReport, ...]:
        if step.name == "settle" and self._hurried:
            return ()
        limit_s = allowance_s(step, self._deadline.left_s)
        begun = monotonic_s()
        task = asyncio.ensure_future(self._work[step.name](limit_s))
        await self._wait(task, step, limit_s)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=LAST_WORD_S)
        if not task.done():
            why = "cut short by a second request" if self._hurried else f"did not end within {limit_s:.3g} s"
            return (ComponentReport(step.name, Outcome.FORCED, why, monotonic_s() - begun),)
        return _result(task, step, monotonic_s() - begun)

    async def _wait(self, task: asyncio.Future[Any], step: Step, limit_s: float) -> None:
        until = Deadline(limit_s)
        while not task.done() and not until.passed:
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({task, changed}, timeout=until.left_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            if self._hurried and step.name == "settle":
                return
            if self._changed.is_set():
                until = Deadline(min(until.left_s, allowance_s(step, self._deadline.left_s)))


def tell_of(ended: tuple[ComponentReport, ...]) -> tuple[ComponentReport, ...]:
    """The same, with a line for each component that did not end by itself."""
    for one in ended:
        if one.outcome is Outcome.FORCED:
            _log.warning("not ended in order: forced", component=one.component, why=one.why)
        elif one.outcome is Outcome.LEAKED:
            _log.error("not ended in order: leaked", component=one.component, why=one.why)
    return ended


def _result(
    task: asyncio.Future[tuple[ComponentReport, ...]], step: Step, took_s: float
) -> tuple[ComponentReport, ...]:
    if task.cancelled():
        return (ComponentReport(step.name, Outcome.FORCED, "cancelled", took_s),)
    error = task.exception()
    if error is not None:
        return (ComponentReport(step.name, Outcome.FORCED, f"{type(error).__name__}: {error}", took_s),)
    return task.result()
