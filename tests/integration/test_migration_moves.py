"""Many moves of an instrument under load, owners dying or not: everything that is asked of a cutover, counted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.integration.moving_meters import V2, V4, Load, lost_with_workers, move, running, well

from duodaq import clock
from duodaq.dual import DualRuntimeManager
from duodaq.errors import CutoverError
from duodaq.migration import violations
from duodaq.schema import scalars_of
from duodaq.testing._scripted_meter import ScriptedPowerMeter
from duodaq.v4 import RestartPolicy


class _Killer:
    """Kills the process of either owner, at moments of its own choosing, and counts."""

    def __init__(self, manager: DualRuntimeManager, chance: random.Random) -> None:
        self.kills_ns: list[int] = []
        self._manager = manager
        self._chance = chance

    async def somewhen_in(self, moving: asyncio.Task[Any]) -> None:
        await clock.pause(self._chance.uniform(0.0, 0.03))
        workers = [w.pid for w in self._manager.health().workers if w.pid is not None]
        if workers and not moving.done():
            os.kill(self._chance.choice(workers), signal.SIGKILL)
            self.kills_ns.append(clock.utc_ns())


def _silences(rows: list[Any], deaths_ns: list[int]) -> tuple[list[float], list[float]]:
    """How long the stream was silent between two measurements: where nobody died meanwhile, and where some did."""
    undisturbed, about_deaths = list[float](), list[float]()
    for a, b in itertools.pairwise(rows):
        died = any(a.t_ns <= death <= b.t_ns for death in deaths_ns)
        (about_deaths if died else undisturbed).append((b.t_ns - a.t_ns) / 1e9)
    return undisturbed, sorted(about_deaths)


@dataclass
class Moved:
    """What was found of many moves under load."""

    fates: Counter[str]
    commands_s: float
    refused: list[str]
    gaps_s: list[float]
    missing: int
    undisturbed_s: list[float]
    about_deaths_s: list[float]
    mended: int
    mending_s: float


async def moved_under_load(moves: int, one_in: int, monkeypatch: pytest.MonkeyPatch) -> Moved:
    """Move a meter to and fro, an owner dying in one of so many moves; what must be true at any speed is asserted."""
    monkeypatch.setattr("duodaq.workers._process_group.RESTARTS", RestartPolicy(limit=10_000, backoff=lambda _: 0.0))
    meter, chance = ScriptedPowerMeter(), random.Random(19)
    counted_v4 = replace(V4, options={"on_reconnect": "withhold"})  # else what was set is set again after a death
    refused, gaps_s, rows = list[str](), list[float](), list[Any]()
    async with running("process", "process", meter, ends_clean=False) as manager:
        stream = manager.v4_data.subscribe("reader", capacity=1_000_000)
        load, killer = Load(manager, 8), _Killer(manager, chance)
        began_s = clock.monotonic_s()
        for _ in range(moves):
            target = counted_v4 if manager.definition("meter").runtime == "v2" else V2
            moving = asyncio.create_task(move(manager, target))
            if one_in and chance.randrange(one_in) == 0:
                await killer.somewhen_in(moving)
            try:
                passage = await moving
                owner = passage.owner
                gaps_s.append(passage.gap_s)
            except CutoverError as error:
                owner = error.owner
                refused.append(error.step)
            assert [i.runtime for i in manager.instruments()] == [owner]
            await well(manager)
            if manager.definition("meter").runtime == "v2":
                manager.translations.pop("meter", None)
            await clock.pause(0.05)
        took_s = clock.monotonic_s() - began_s
        await load.end()
        await well(manager)
        assert await manager.flush(5.0)
        line = manager.broker.owner("meter")
        with contextlib.suppress(BlockingIOError):
            while True:
                rows += scalars_of(stream.get_nowait())
        numbers = [row.sequence for row in rows]
        missing, lost = numbers[-1] - numbers[0] + 1 - len(numbers), lost_with_workers(manager)
        found = Moved(
            Counter(load.fates.values()),
            (len(load.fates) + load.reads) / took_s,
            refused,
            gaps_s,
            missing,
            *_silences(rows, killer.kills_ns),
            line.status().resyncs,
            2 * line.quiet_s,
        )
        sys.stdout.write(
            f"\n{moves} moves ({len(refused)} refused or undone: {dict(Counter(refused))}), "
            f"{len(killer.kills_ns)} kills, {found.commands_s:,.0f} commands/s, fates {dict(found.fates)}\n"
            f"without an owner: median {statistics.median(gaps_s) * 1e3:.1f} ms, most {max(gaps_s) * 1e3:.1f} ms; "
            f"stream: {len(rows)} measurements, {missing} missing, {lost} lost by the workers' books, "
            f"longest silence {max(found.undisturbed_s) * 1e3:.1f} ms, "
            f"about a death {[round(s * 1e3) for s in found.about_deaths_s]} ms, line mended {found.mended} times\n"
        )
        _judge_fates(load, meter, manager)
        assert sorted(set(numbers)) == numbers, "a number comes once, and none before another"
        assert missing == lost, "a number that is missing is that of a measurement that died with its process"
        return found


def _judge_fates(load: Load, meter: ScriptedPowerMeter, manager: DualRuntimeManager) -> None:
    """By the meter's own count: what was done, once; what was not, never; none twice; one writer at a time."""
    counted = meter.wavelengths()
    wrong = {
        wanted: (fate, counted[wanted])
        for wanted, fate in load.fates.items()
        if counted[wanted] not in {"done": {1}, "not done": {0}}.get(fate, {0, 1})
    }
    for wanted in wrong:
        written = (b"W%04d" % wanted, b"W%d" % wanted)
        sys.stdout.writelines(f"{r}\n" for r in manager.broker.log("meter") if r.data.strip() in written)
    assert wrong == {}
    assert set(counted) <= set(load.fates)
    assert set(load.fates.values()) <= {"done", "not done", "unknown"}
    assert violations(manager.broker.log("meter")) == []


NOBODY_OR_OWNERS = pytest.mark.parametrize("one_in", [0, 4], ids=["nobody dies", "owners die"])


@NOBODY_OR_OWNERS
async def test_twenty_moves_under_load_are_counted(one_in: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is asked of a cutover but the times, which are judged where nothing runs beside."""
    found = await moved_under_load(20, one_in, monkeypatch)
    assert found.fates["done"] > 100
    if not one_in:
        assert (found.missing, set(found.fates), found.refused) == (0, {"done"}, [])


GAP_S = 0.05
"""How long a stream may be silent over a move; its period here is shorter."""
NO_SPARE_S = 0.2
"""How long a process may take that is made anew."""


@pytest.mark.soak
@pytest.mark.alone("a rate and gaps of milliseconds are judged")
@pytest.mark.timeout(900)
@NOBODY_OR_OWNERS
async def test_two_hundred_moves_under_a_thousand_commands_a_second(
    one_in: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is asked of a cutover, counted: fates, sequence numbers, gaps, writers; with and without deaths.

    Where nobody dies from one measurement to the next, the stream is never silent for longer than it may be. A death
    adds what it takes to replace a process, of which there is no spare so soon after another death, and, if it was in
    the middle of an exchange, the silence that the broker wants of a line that owes a reply, twice.
    """
    found = await moved_under_load(200, one_in, monkeypatch)
    assert found.commands_s > 1000
    assert max(found.undisturbed_s) <= GAP_S
    if one_in:
        assert statistics.median(found.about_deaths_s) <= GAP_S
        assert max(found.about_deaths_s) <= GAP_S + found.mending_s + NO_SPARE_S
    else:
        assert (found.missing, set(found.fates), found.refused) == (0, {"done"}, [])
        assert max(found.gaps_s) <= GAP_S
