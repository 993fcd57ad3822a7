"""Both sides on one line: one of the twelve."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from typing import Any

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute
from duodaq.sim import SimProcess
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._contest import ACTORS, AXES, AskingActor, AskingDriver, Contest, DoomedActor
from duodaq.testing.coexistence._proof import proves


async def test_resource_contention(bench: Bench) -> None:
    """Both sides on one line: no interleaving, own replies, fair waits, nobody keeps it who died or sleeps."""
    stage_sim = await bench.simulator("esp300")
    contest = Contest(bench.room("contest"))
    args = {"contest": bench.room("contest")}
    holding = {"hold_max_s": {"ask": 0.0}}
    alone = "own" if bench.mode.v4 == "process" else ""  # its process is going to be killed
    manager = bench.manager(
        [
            bench.own_class("asker", AskingDriver, port="stage", args=args, options=holding),
            *(bench.own_actor(name, AskingActor, port="stage", args=args) for name in ACTORS),
            bench.own_actor("victim", DoomedActor, port="stage", args=args, worker=alone),
        ],
        [bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    await _compete(manager, contest, 150)
    _check_contest(contest, stage_sim.report())
    await _check_sleeping_holder(manager, contest)
    await _check_killed_holder(bench, manager, contest, stage_sim)
    clean = stage_sim.report()["interleavings"]
    proves("no interleaving", clean == 0, "the device saw whole exchanges only", interleavings=clean)
    await _check_bypass(manager, contest, stage_sim)


async def _compete(manager: DualRuntimeManager, contest: Contest, count: int) -> None:
    others = [
        asyncio.ensure_future(outcome(manager.command(name, Execute("ask", (100 * count,)), 20.0))) for name in ACTORS
    ]
    await outcome(manager.command("asker", Execute("ask", (count,)), 10.0))
    await until(lambda: contest.turns > 4 * count, 0.2)
    contest.ended.open()
    await asyncio.wait(others, timeout=5.0)
    contest.ended.close()


def _check_contest(contest: Contest, device: dict[str, Any]) -> None:
    overtaken_by = contest.overtaken()
    asked = {name: len(served) for name, served in overtaken_by.items()}
    interleavings = device["interleavings"]
    proves("no interleaving", interleavings == 0, "the device saw whole exchanges only", interleavings=interleavings)
    for axis in (1, 2, 3):
        counted = device["produced"].get(f"{axis}ID", 0)
        own = sum(asked[name] for name, number in AXES.items() if number == axis)
        proves("exact counts", counted == own > 0, "the device's count", axis=axis, device=counted, asked=asked)
    answers = contest.answers()
    alike = all(len(found) == 1 for found in answers.values()) and answers["asker a"] == answers["asker c"]
    different = len({next(iter(found)) for found in answers.values() if found}) == 3
    proves("own replies", alike and different, "everybody got the answer to his own question", answers=answers)
    others = len(AXES) - 1
    for name, overtaken in overtaken_by.items():
        typical, most = statistics.median(overtaken), 5 * others
        proves(
            "fair waits", typical <= most, "served in turn", name=name, overtaken=typical, others=others, asked=asked
        )


async def _check_sleeping_holder(manager: DualRuntimeManager, contest: Contest) -> None:
    """A V2 call that took the line and sleeps keeps it for its 200 ms and no longer."""
    sleeper = asyncio.ensure_future(outcome(manager.command("asker", Execute("sleep_on_it"), 5.0)))
    await until(lambda: contest.noted("sleeping"), 3.0, 0.001)
    begun_s = monotonic_s()
    answer = await outcome(manager.command("asker a", Execute("ask", (1,)), 4.0))
    took_s = monotonic_s() - begun_s
    still_asleep = not sleeper.done()
    contest.wake.open()
    await asyncio.wait({sleeper}, timeout=3.0)
    right = answer in contest.answers()["asker a"]
    proves(
        "sleeping holder", still_asleep and right and took_s < 1.0, "V4 was served meanwhile", took_s=took_s, got=answer
    )


async def _check_killed_holder(
    bench: Bench, manager: DualRuntimeManager, contest: Contest, stage_sim: SimProcess
) -> None:
    """The holder is killed with a question on the wire: the line goes on, and the late answer answers nobody."""
    known = contest.answers()["asker"]
    seizing = asyncio.ensure_future(outcome(manager.command("victim", Execute("seize"), 20.0)))
    await until(lambda: contest.noted("holds"), 3.0)
    await asyncio.to_thread(stage_sim.fault, stall=True)
    contest.go.open()
    await until(lambda: stage_sim.report()["produced"].get("3SN", 0) > 0, 3.0, 0.02)
    await contest.kill_victim(with_its_process=bench.mode.v4 == "process")
    begun_s = monotonic_s()
    asking = asyncio.ensure_future(outcome(manager.command("asker", Execute("ask", (3,)), 10.0)))
    await pause(0.1)
    await asyncio.to_thread(stage_sim.fault)
    answer = await asking
    took_s = monotonic_s() - begun_s
    await asyncio.wait({seizing}, timeout=2.0)
    strange = [repr(found) for found in contest.answers()["asker"] - known]
    seen = stage_sim.report()["interleavings"]  # a question beside the dead one's: late by another way
    why = "V2 got no answer that was meant for the dead, and asked nothing before that was there"
    proves("no late reply", not strange and not seen, why, got=strange, interleavings=seen)
    served = answer in known and took_s < 4.0
    proves("killed holder", served and contest.noted("holds"), "V2 was served", took_s=took_s, got=answer)


async def _check_bypass(manager: DualRuntimeManager, contest: Contest, stage_sim: SimProcess) -> None:
    """The device's own detector works: whoever opens the line beside the broker is seen by it."""
    working = [
        asyncio.ensure_future(outcome(manager.command(name, Execute("ask", (100_000,)), 2.0)))
        for name in ("asker", "asker a")
    ]
    line = os.open(stage_sim.address, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    limit = Deadline(2.0)
    try:
        while not limit.passed and stage_sim.report()["interleavings"] == 0:
            for _ in range(20):
                with contextlib.suppress(BlockingIOError):
                    os.write(line, b"2VA?\r")
                await pause(0.001)
    finally:
        os.close(line)
        contest.ended.open()
    seen = stage_sim.report()["interleavings"]
    await asyncio.wait(working, timeout=3.0)
    proves(
        "bypass is seen", seen > 0, "a second opener of the line interleaves, and the device tells", interleavings=seen
    )
