"""The order of a shutdown and its budget, as a table."""

from __future__ import annotations

import asyncio

import pytest

from duodaq.clock import monotonic_s, pause
from duodaq.dual import allowance_s, place, plan_shutdown
from duodaq.dual._shutdown import ShutdownRun
from duodaq.model import ComponentReport, InstrumentDefinition, Outcome, RuntimeDefinition

STEPS = ["settle", "safe state", "v4", "v2", "data", "ports"]


def test_v4_stops_before_v2_and_the_ports_come_last() -> None:
    assert [step.name for step in plan_shutdown(10.0)] == STEPS


@pytest.mark.parametrize("budget_s", [0.1, 1.0, 10.0, 120.0])
def test_the_steps_share_the_budget_and_no_more(budget_s: float) -> None:
    assert sum(step.allowed_s for step in plan_shutdown(budget_s)) == pytest.approx(budget_s)


@pytest.mark.parametrize("budget_s", [1.0, 10.0])
def test_if_every_step_takes_all_it_may_the_budget_still_holds(budget_s: float) -> None:
    left = budget_s
    for step in plan_shutdown(budget_s):
        left -= allowance_s(step, left)
    assert left >= -0.05 * budget_s


def test_a_quick_step_leaves_its_time_to_the_next() -> None:
    first, second, *_ = plan_shutdown(10.0)
    assert allowance_s(second, 10.0) > second.allowed_s
    assert allowance_s(first, 10.0) == pytest.approx(first.allowed_s)


@pytest.mark.alone("0.1 s are left to a budget for stopping")
async def test_steps_that_ignore_cancellation_are_cut_off_and_the_next_ones_still_run() -> None:
    ran: list[str] = []

    def stubborn(name: str):
        async def work(limit_s: float) -> tuple[ComponentReport, ...]:
            ran.append(name)
            while True:
                try:
                    await pause(30.0)
                except asyncio.CancelledError:
                    if len(ran) == len(STEPS):
                        raise

        return work

    run = ShutdownRun(0.5, {name: stubborn(name) for name in STEPS})
    began = monotonic_s()
    report = await run.run()
    assert monotonic_s() - began < 0.6
    assert ran == STEPS
    assert [c.outcome for c in report.components] == [Outcome.FORCED] * len(STEPS)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await pause(0.01)


async def test_a_step_that_fails_is_reported_and_the_next_one_runs() -> None:
    async def fails(limit_s: float) -> tuple[ComponentReport, ...]:
        raise RuntimeError("broken")

    async def works(limit_s: float) -> tuple[ComponentReport, ...]:
        return (ComponentReport("x", Outcome.CLEAN),)

    report = await ShutdownRun(1.0, {n: (fails if n == "v4" else works) for n in STEPS}).run()
    assert [c.outcome for c in report.components].count(Outcome.CLEAN) == 5
    assert any("broken" in c.why for c in report.components)


async def test_hurry_ends_the_wait_for_work_in_hand_and_skips_nothing_else() -> None:
    ran: list[str] = []

    def step(name: str):
        async def work(limit_s: float) -> tuple[ComponentReport, ...]:
            ran.append(name)
            if name == "settle":
                await pause(30.0)
            return ()

        return work

    run = ShutdownRun(20.0, {name: step(name) for name in STEPS})
    task = asyncio.create_task(run.run())
    await pause(0.05)
    began = monotonic_s()
    run.hurry()
    await task
    assert monotonic_s() - began < 1.0
    assert ran == STEPS


@pytest.mark.parametrize(
    ("worker", "home", "name", "kind"),
    [
        ("", "inline", "v4-inline", "inline"),
        ("", "thread", "v4-thread", "thread"),
        ("inline", "thread", "v4-inline", "inline"),
        ("", "process", "v4-process", "process"),
        ("own", "inline", "v4.cam", "process"),
        ("own", "thread", "v4.cam", "process"),
    ],
)
def test_placement(worker: str, home: str, name: str, kind: str) -> None:
    group = place(InstrumentDefinition("cam", "v4", "x:Y", worker=worker), RuntimeDefinition("v4", home))
    assert (group.name, group.kind) == (name, kind)
