"""State of one runtime in the sight of the other: the parameter table, one of the twelve."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from duodaq.clock import Deadline, pause, utc_ns
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute, GetParameter, InstrumentDefinition, SetParameter
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._endpoints import meter
from duodaq.testing.coexistence._evidence import Evidence
from duodaq.testing.coexistence._onlookers import (
    CONTESTED,
    LateActor,
    LateDriver,
    Observer,
    Rival,
    Sightings,
    Watcher,
)
from duodaq.testing.coexistence._proof import proves

VISIBLE_NS = 50_000_000
"""A change is visible on the other side within this."""
AGREED_S = 2.0
"""By then both sides agree on who owns a contested entry, on a busy machine too."""


async def test_state_synchronization(bench: Bench) -> None:
    """The parameter table: changes are visible on the other side in time; conflicts, late joiners and stale entries."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    v4_saw, v2_saw = Sightings(bench.evidence("observer")), Sightings(bench.evidence("watcher"))
    ended = bench.gate("ended")
    manager = bench.manager(
        [
            meter(bench.evidence("meter"), watched=("wavelength",)),
            bench.stage(),
            bench.own_actor("observer", Observer, args={"evidence": v4_saw.evidence.path}),
            bench.own_class("watcher", Watcher, args={"evidence": v2_saw.evidence.path, "ended": ended.path}),
            bench.own_class("rival", Rival),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    watching = asyncio.ensure_future(outcome(manager.command("watcher", Execute("watch"), 30.0)))
    try:
        await _check_visible(manager, "meter", "wavelength", [600, 610, 620, 630, 640], v4_saw, "visible in v4")
        device = meter_sim.report()["settings"].get("W")
        proves("the device agrees", device == 640, "the meter has what the table says", device=device)
        await _check_visible(manager, "stage", "x.velocity", [3.0, 4.0, 5.0, 6.0, 7.0], v2_saw, "visible in v2")
        await _check_position(bench, manager, v2_saw)
        await _check_conflict(bench, manager)
        await _check_late_join(bench, manager)
        await _check_stale(manager, v2_saw, v4_saw, meter_sim.unplug)
    finally:
        ended.open()
        await asyncio.wait({watching}, timeout=2.0)


async def _check_visible(
    manager: DualRuntimeManager, instrument: str, name: str, values: list[Any], saw: Sightings, feature: str
) -> None:
    before: Any = None
    for value in values:
        await outcome(manager.command(instrument, SetParameter(name, value)))
        changed_ns = utc_ns()
        await until(lambda value=value: saw.saw(instrument, name, value), 1.0, 0.001)
        seen = saw.saw(instrument, name, value)
        proves(feature, seen, "the change was seen on the other side", entry=f"{instrument}.{name}", value=value)
        overdue_ns = saw.overdue_ns(instrument, name, before, changed_ns)
        proves(feature, overdue_ns <= VISIBLE_NS, "and in time", value=value, overdue_ms=overdue_ns / 1e6)
        before = value


async def _check_position(bench: Bench, manager: DualRuntimeManager, saw: Sightings) -> None:
    await outcome(manager.command("stage", SetParameter("x.position", 0.75)))
    await until(lambda: any(abs(value - 0.75) < 0.01 for value in saw.values("stage", "x.position")), 1.0)
    truth = (await bench.table()).state().positions.get(1, 0.0)
    entry = manager.parameters.get("stage", "x.position")
    agrees = entry is not None and abs(entry.value - truth) < 0.01 and abs(truth - 0.75) < 0.01
    proves("the device agrees", agrees, "the table has where the stage is", entry=entry, truth=truth)
    seen = saw.values("stage", "x.position")
    proves("visible in v2", any(abs(v - truth) < 0.01 for v in seen), "V2 saw where it is", saw=seen[-3:])


async def _check_conflict(bench: Bench, manager: DualRuntimeManager) -> None:
    table = manager.parameters
    before = table.get("meter", "wavelength"), table.get("stage", "x.velocity")
    claims: tuple[Any, ...] = await asyncio.gather(
        outcome(manager.command("rival", Execute("claim"))), outcome(manager.command("observer", Execute("claim")))
    )
    refusals = [_in_claim(claim, "refusal") for claim in claims]
    told = "belongs to v4" in refusals[0] and "belongs to v2" in refusals[1]
    proves("conflict", told, "who writes the other's entry is refused, and told whose it is", told=refusals)
    after = table.get("meter", "wavelength"), table.get("stage", "x.velocity")
    proves("conflict", before == after, "the entries are as they were", before=before, after=after)
    by_v2, by_v4 = await _winners(manager)
    proves("conflict", not by_v2 & by_v4 and len(by_v2 | by_v4) == CONTESTED, "one owner each", v2=by_v2, v4=by_v4)
    won = sorted(by_v2), sorted(by_v4)
    for side, claim, kept in zip((bench.mode.v2, bench.mode.v4), claims, won, strict=True):
        honest = side == "process" or sorted(claim["accepted"]) == kept
        proves("conflict", honest, "who is not refused has won; over a link it may turn out later", claim=claim)
    shared = [e for e in table.snapshot() if e.instrument == "shared"]
    stands = all(e.value == e.owner and e.name in (by_v2 if e.owner == "v2" else by_v4) for e in shared)
    proves("conflict", stands and len(shared) == CONTESTED, "the winner's value stands", entries=len(shared))


async def _winners(manager: DualRuntimeManager) -> tuple[set[str], set[str]]:
    """Which contested entries each side says are its own, once they agree: where the table is elsewhere, who was late
    learns of it later.
    """
    limit = Deadline(AGREED_S)
    while True:
        by_v2 = set(await manager.command("rival", Execute("won")))
        by_v4 = set(await manager.command("observer", Execute("won")))
        if limit.passed or (not by_v2 & by_v4 and len(by_v2 | by_v4) == CONTESTED):
            return by_v2, by_v4
        await pause(0.01)


def _in_claim(claim: Any, fact: str) -> Any:
    try:
        return claim[fact]
    except TypeError:
        return repr(claim)  # an exception, or whatever an imitation says


def late_instruments(bench: Bench, found: Evidence, names: list[list[str]]) -> list[InstrumentDefinition]:
    """One more instrument of each side, which notes in `found` what it knows of the entries `names` when it joins.

    Where a side lives in a process they have one each of their own, which is made when everything is under way.
    """
    args = {"evidence": found.path, "names": names}
    late = [bench.own_class("late v2", LateDriver, args=args), bench.own_actor("late v4", LateActor, args=args)]
    sides = zip(late, (bench.mode.v2, bench.mode.v4), strict=True)
    return [replace(one, worker="own") if side == "process" else one for one, side in sides]


async def _check_late_join(bench: Bench, manager: DualRuntimeManager) -> None:
    """One more instrument on each side; each watches from its own start on."""
    found = bench.evidence("late joiners")
    names = [[entry.instrument, entry.name] for entry in manager.parameters.snapshot()]
    for late in late_instruments(bench, found, names):
        await outcome(manager.add(late))
    present = {(e.instrument, e.name): e.value for e in manager.parameters.snapshot()}
    joined = {note["side"]: {(i, n): value for i, n, value in note["entries"]} for note in found.read("joined")}
    for side in ("v2", "v4"):
        got = joined.get(side, {})
        proves("late join", got == _plain(present), f"{side} got the present state when it joined", got=len(got))


def _plain(entries: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """As they are once they have been noted."""
    return {key: json.loads(json.dumps(value)) for key, value in entries.items()}


async def _check_stale(
    manager: DualRuntimeManager, v2_saw: Sightings, v4_saw: Sightings, unplug: Callable[[], None]
) -> None:
    velocity = 7.0
    await manager.stop_runtime("v4", 3.0)
    gone_ns = utc_ns()
    await until(lambda: v2_saw.saw("stage", "x.velocity", velocity, stale=True), 1.0)
    seen = v2_saw.saw("stage", "x.velocity", velocity, stale=True)
    proves("stale", seen, "V2 saw that V4's entry is no longer kept up to date")
    overdue_ns = v2_saw.overdue_ns("stage", "x.velocity", velocity, gone_ns)
    proves("stale", overdue_ns <= VISIBLE_NS, "and in time", overdue_ms=overdue_ns / 1e6)
    await manager.start_runtime("v4", 10.0)
    entry = manager.parameters.get("stage", "x.position")
    proves("stale", entry is not None and not entry.stale, "a new look makes it fresh again", entry=entry)

    unplug()
    await outcome(manager.command("meter", GetParameter("wavelength")))
    await until(lambda: v4_saw.saw("meter", "wavelength", 640, stale=True), 1.0)
    seen = v4_saw.saw("meter", "wavelength", 640, stale=True)
    proves("stale", seen, "V4 saw that V2's meter is gone", entry=manager.parameters.get("meter", "wavelength"))
