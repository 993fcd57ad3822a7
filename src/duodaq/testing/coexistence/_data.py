"""Data and state from one runtime to the other: three of the twelve."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from duodaq.clock import block, pause, utc_ns
from duodaq.dual import DualRuntimeManager
from duodaq.errors import LifecycleError
from duodaq.model import (
    Execute,
    GetParameter,
    Image,
    InstrumentDefinition,
    ParameterEntry,
    ReadChannel,
    Scalar,
    SetParameter,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.schema import pixels_of, stream_of
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._endpoints import (
    Heard,
    Reading,
    Tap,
    batches_in,
    listening_actor,
    listening_class,
    meter,
)
from duodaq.testing.coexistence._proof import proves
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

VISIBLE_NS = 50_000_000
"""A change is visible on the other side within this."""


async def test_data_flow_v2_to_v4(bench: Bench) -> None:
    """Readings of a V2 driver arrive at a V4 actor with equal value, unit, channel, time and sequence number."""
    meter_sim = await bench.simulator("newport1830c")
    (await bench.table()).set_shutter(True)
    said: list[Reading] = []
    heard = Heard()
    heard.opened.set()
    manager = bench.manager(
        [meter(said), bench.own_actor("listener", listening_actor(heard, "meter.power"))],
        [bench.serial_port("meter", meter_sim, "newport1830c")],
    )
    await manager.start()
    witness = manager.v2_data.subscribe("witness", capacity=65536)

    await outcome(manager.command("meter", StartAcquisition()))
    await until(lambda: len(said) >= 60, 5.0)
    await outcome(manager.command("meter", StopAcquisition()))
    await until(lambda: len(heard) >= len(said), 2.0)

    rows: list[Scalar] = heard.items
    produced = meter_sim.report()["produced"].get("D", 0)
    proves("arrives", len(rows) == produced >= 60, "all that the device produced", got=len(rows), produced=produced)
    proves("value", [r.value for r in rows] == [s.value for s in said], "the device's own numbers", got=rows[:2])
    proves("unit", {r.unit for r in rows} == {"W"}, "the unit of the channel", got=rows[0])
    names = {(r.instrument, r.channel) for r in rows}
    proves("channel", names == {("meter", "power")}, "instrument and channel", got=names)
    proves("time", _between(rows, said), "each time lies behind its own exchange and before the next", got=rows[:2])
    proves("sequence", [r.sequence for r in rows] == list(range(len(rows))), "from 0, without a gap", got=rows[:3])
    twice = witness.occupancy - produced
    witness.close()
    proves("no echo", twice == 0, "V2 has each reading once", more=twice)


def _between(rows: list[Scalar], said: list[Reading]) -> bool:
    nexts = [*(s.before_ns for s in said[1:]), utc_ns()]
    return all(s.after_ns <= r.t_ns <= n for r, s, n in zip(rows, said, nexts, strict=True))


async def test_data_flow_v4_to_v2(bench: Bench) -> None:
    """Positions and camera frames of V4 arrive at a V2 driver unchanged: no echo, and no copy of pixels."""
    from duodaq.sim import pvcam

    stage_sim = await bench.simulator("esp300")
    tap, heard = Tap(), Heard()
    manager = bench.manager(
        [bench.stage(), _camera(), bench.own_class("chart", listening_class(heard, tap))],
        [bench.serial_port("stage", stage_sim, "esp300")],
    )
    tap.v2_data = manager.v2_data
    pvcam.install(seed=1)
    try:
        await manager.start()
        witness = manager.v4_data.subscribe("witness", capacity=65536)
        read, frames = await _measure_with_v4(manager, heard, pvcam.camera_report)
        batches = batches_in(witness)
        witness.close()
        position = (await bench.table()).state().positions.get(1, 0.0)
    finally:
        await manager.shutdown(3.0)
        pvcam.uninstall()
    _check_positions(heard, read, position)
    rows = sum(b.num_rows for b in batches)
    proves("no echo", rows == len(read) + frames, "V4 has each of its own once", rows=rows, produced=len(read) + frames)
    _check_frames(heard, [b for b in batches if stream_of(b) == "camera.frames"], frames)


def _camera() -> InstrumentDefinition:
    args = {"roi": [100, 200, 64, 48], "exposure_s": 0.005}
    return InstrumentDefinition("camera", "v4", "duodaq:PvcamActor", args=args, options={"restart": "never"})


async def _measure_with_v4(
    manager: DualRuntimeManager, heard: Heard, camera_report: Callable[[], dict[str, dict[str, Any]]]
) -> tuple[list[Scalar], int]:
    """Take positions and frames while V2 listens: the positions as their caller got them, and the camera's count."""

    def frames_read() -> int:
        return sum(report["read"] for report in camera_report().values())

    heard.opened.set()
    listening = asyncio.ensure_future(outcome(manager.command("chart", Execute("listen"), 20.0)))
    await outcome(manager.command("stage", Execute("move", ("x", 1.5))))
    read = [await outcome(manager.command("stage", ReadChannel("x.position"))) for _ in range(20)]
    await outcome(manager.command("camera", StartAcquisition()))
    await until(lambda: frames_read() >= 20, 5.0)
    await outcome(manager.command("camera", StopAcquisition()))
    frames = frames_read()
    await until(lambda: len(heard) >= 2 * len(read) + frames, 2.0)
    heard.ended.set()
    await asyncio.wait({listening}, timeout=2.0)
    return read, frames


def _check_positions(heard: Heard, read: list[Scalar], position: float) -> None:
    arrived = heard.of("stage.x.position")
    proves("arrives", len(arrived) == len(read) > 0, "every position", got=len(arrived), read=len(read))
    told = [getattr(r, "value", None) for r in read]
    proves("value", [a.value for a in arrived] == told, "the positions that were read", got=arrived[:2], read=told[:2])
    proves("value", abs(arrived[-1].value - position) < 0.01, "where the stage is", got=arrived[-1], truth=position)
    proves("unit", {a.unit for a in arrived} == {"mm"}, "the unit of the axis", got=arrived[0])
    proves("time", [a.t_ns for a in arrived] == [r.t_ns for r in read], "the times of the readings", got=arrived[:2])
    proves("sequence", [a.sequence for a in arrived] == [r.sequence for r in read], "their numbers", got=arrived[:2])


def _check_frames(heard: Heard, batches: list[pa.RecordBatch], frames: int) -> None:
    images: list[Image] = heard.of("camera.frames")
    numbers = [(image.metadata or {}).get("frame_number") for image in images]
    proves("frames arrive", len(images) == frames >= 20, "every frame that was read", got=len(images), camera=frames)
    own = [batch.column("frame_number")[0].as_py() for batch in batches]
    proves("frames arrive", numbers == own and own == sorted(set(own)), "by the camera's own numbers", got=numbers)
    pairs = list(zip(images, batches, strict=False))
    same = all(np.array_equal(image.pixels, pixels_of(batch)[0]) for image, batch in pairs)
    proves("pixels", same and len(pairs) == frames, "equal pixels", frames=len(pairs))
    shared = [np.shares_memory(image.pixels, pixels_of(batch)) for image, batch in pairs]
    proves("no copy", all(shared), "V2's pixels are V4's memory", copied=shared.count(False))
    times = [batch.column("timestamp").cast(pa.int64())[0].as_py() for batch in batches]
    proves("time", [image.t_ns for image in images] == times, "the frames' times", got=times[:2])


async def test_state_synchronization(bench: Bench) -> None:
    """The parameter table: changes are visible on the other side in time; conflicts, late joiners and stale entries."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    tap = Tap()
    v4_saw, v2_saw = Sightings(), Sightings()
    observer = bench.own_actor("observer", _observing_actor(v4_saw))
    watcher = bench.own_class("watcher", _watching_class(tap, v2_saw))
    ports = [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")]
    rival = bench.own_class("rival", _rival_class(tap))
    manager = bench.manager([meter([], watched=("wavelength",)), bench.stage(), observer, watcher, rival], ports)
    tap.table = manager.parameters
    await manager.start()
    watching = asyncio.ensure_future(outcome(manager.command("watcher", Execute("watch"), 30.0)))
    try:
        await _check_visible(manager, "meter", "wavelength", [600, 610, 620, 630, 640], v4_saw, "visible in v4")
        device = meter_sim.report()["settings"].get("W")
        proves("the device agrees", device == 640, "the meter has what the table says", device=device)
        await _check_visible(manager, "stage", "x.velocity", [3.0, 4.0, 5.0, 6.0, 7.0], v2_saw, "visible in v2")
        await _check_position(bench, manager, v2_saw)
        await _check_conflict(manager)
        await _check_late_join(bench, manager)
        await _check_stale(manager, v2_saw, v4_saw, meter_sim.unplug)
    finally:
        v2_saw.ended.set()
        await asyncio.wait({watching}, timeout=2.0)


class Sightings:
    """What one side saw of the other's entries: for every value of each, the last look that still showed it."""

    def __init__(self) -> None:
        self.last_ns: dict[tuple[str, str, Any, bool], int] = {}
        self.ended = threading.Event()

    def look(self, table: Any, *entries: tuple[str, str]) -> None:
        """Look at `entries` now."""
        for instrument, name in entries:
            t_ns = utc_ns()
            entry = table.get(instrument, name)
            if entry is not None:
                self.last_ns[instrument, name, entry.value, entry.stale] = t_ns

    def saw(self, instrument: str, name: str, value: Any, stale: bool = False) -> bool:
        return (instrument, name, value, stale) in self.last_ns

    def overdue_ns(self, instrument: str, name: str, value: Any, changed_ns: int) -> int:
        """How long after `changed_ns` a look was begun that still showed `value`."""
        return self.last_ns.get((instrument, name, value, False), changed_ns) - changed_ns


_WATCHED_V2 = (("stage", "x.velocity"), ("stage", "x.position"))
_WATCHED_V4 = (("meter", "wavelength"),)
_CONTESTED = 100


class Claim(msgspec.Struct, frozen=True):
    """Write a foreign entry, and then race for entries that nobody owns yet."""


def _observing_actor(saw: Sightings) -> type[InstrumentActor]:
    class Observer(InstrumentActor):
        operations = {"claim": Claim}  # noqa: RUF012 - as the base class has it

        async def connect(self) -> None:
            self.run_beside(self._observe())

        async def _observe(self) -> None:
            while True:
                saw.look(self.context.parameters, *_WATCHED_V4)
                await pause(0.001)

        @handler(Claim)
        async def claim(self, message: Claim) -> dict[str, Any]:
            return _claim(self.context.parameters.put, "v4", "meter", "wavelength")

    return Observer


def _watching_class(tap: Tap, saw: Sightings) -> type:
    class Watcher:
        def __init__(self) -> None:
            self.table = tap.table

        def watch(self) -> None:
            while not saw.ended.is_set():
                saw.look(self.table, *_WATCHED_V2)
                block(0.001)

    return Watcher


def _rival_class(tap: Tap) -> type:
    class Rival:
        def claim(self) -> dict[str, Any]:
            return _claim(tap.table.put, "v2", "stage", "x.velocity")

    return Rival


def _claim(put: Callable[..., ParameterEntry], owner: str, instrument: str, name: str) -> dict[str, Any]:
    """Try to write another's entry, then to be the first at each of some that nobody owns."""
    refusal = ""
    try:
        put(owner, instrument, name, -1)
    except LifecycleError as error:
        refusal = str(error)
    won: set[str] = set()
    for number in range(_CONTESTED):
        with contextlib.suppress(LifecycleError):
            put(owner, "shared", f"entry {number}", owner)
            won.add(f"entry {number}")
    return {"refusal": refusal, "won": won}


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
    await until(lambda: any(k[:2] == ("stage", "x.position") and abs(k[2] - 0.75) < 0.01 for k in saw.last_ns), 1.0)
    truth = (await bench.table()).state().positions.get(1, 0.0)
    entry = manager.parameters.get("stage", "x.position")
    agrees = entry is not None and abs(entry.value - truth) < 0.01 and abs(truth - 0.75) < 0.01
    proves("the device agrees", agrees, "the table has where the stage is", entry=entry, truth=truth)
    seen = [k[2] for k in saw.last_ns if k[:2] == ("stage", "x.position")]
    proves("visible in v2", any(abs(v - truth) < 0.01 for v in seen), "V2 saw where it is", saw=seen[-3:])


def _refusal_in(claim: Any) -> str:
    try:
        return claim["refusal"]
    except TypeError:
        return repr(claim)  # an exception, or whatever an imitation says


async def _check_conflict(manager: DualRuntimeManager) -> None:
    table = manager.parameters
    before = table.get("meter", "wavelength"), table.get("stage", "x.velocity")
    claims: tuple[Any, ...] = await asyncio.gather(
        outcome(manager.command("rival", Execute("claim"))), outcome(manager.command("observer", Execute("claim")))
    )
    refusals = [_refusal_in(claim) for claim in claims]
    told = "belongs to v4" in refusals[0] and "belongs to v2" in refusals[1]
    proves("conflict", told, "who writes the other's entry is refused, and told whose it is", told=refusals)
    after = table.get("meter", "wavelength"), table.get("stage", "x.velocity")
    proves("conflict", before == after, "the entries are as they were", before=before, after=after)
    by_v2, by_v4 = (claim["won"] for claim in claims)
    proves("conflict", not by_v2 & by_v4 and len(by_v2 | by_v4) == _CONTESTED, "one owner each", v2=by_v2, v4=by_v4)
    shared = [e for e in table.snapshot() if e.instrument == "shared"]
    kept = all(e.value == e.owner and e.name in (by_v2 if e.owner == "v2" else by_v4) for e in shared)
    proves("conflict", kept and len(shared) == _CONTESTED, "the winner's value stands", entries=len(shared))


async def _check_late_join(bench: Bench, manager: DualRuntimeManager) -> None:
    """One more instrument on each side; each watches from its own start on."""
    found: dict[str, dict[tuple[str, str], Any]] = {"v2": {}, "v4": {}}

    class LateActor(InstrumentActor):
        async def connect(self) -> None:
            _present(manager.parameters, found["v4"])

    class LateDriver:
        def __init__(self) -> None:
            _present(manager.parameters, found["v2"])

    await outcome(manager.add(bench.own_class("late v2", LateDriver)))
    await outcome(manager.add(bench.own_actor("late v4", LateActor)))
    present = {(e.instrument, e.name): e.value for e in manager.parameters.snapshot()}
    for side, joined in found.items():
        proves("late join", joined == present, f"{side} got the present state when it joined", got=len(joined))


def _present(table: Any, into: dict[tuple[str, str], Any]) -> None:
    """What a new watcher of the table is given without any further change."""
    with contextlib.closing(table.watch(f"late joiner {id(into)}")) as changes:
        for _ in range(changes.occupancy):
            entry = changes.get_nowait()
            into[entry.instrument, entry.name] = entry.value


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
