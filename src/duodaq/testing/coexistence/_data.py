"""Data from one runtime to the other: two of the twelve."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
import pyarrow as pa

from duodaq.clock import Deadline, pause, utc_ns
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute, Image, InstrumentDefinition, ReadChannel, Scalar, StartAcquisition, StopAcquisition
from duodaq.schema import pixels_of, stream_of
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._endpoints import (
    Arrival,
    Chart,
    Heard,
    Reading,
    address_of,
    batches_in,
    digest,
    meter,
    readings_in,
)
from duodaq.testing.coexistence._proof import proves
from duodaq.testing.coexistence._relay import carried_to_v2, carried_to_v4, listener
from duodaq.v4 import handler
from duodaq.v4.instruments import PvcamActor


async def test_data_flow_v2_to_v4(bench: Bench) -> None:
    """Readings of a V2 driver arrive at a V4 actor with equal value, unit, channel, time and sequence number."""
    meter_sim = await bench.simulator("newport1830c")
    (await bench.table()).set_shutter(True)
    device, heard = bench.evidence("meter"), Heard(bench.evidence("listener"), bench.gate("listener", is_open=True))
    manager = bench.manager(
        [meter(device), listener(bench, heard, "meter.power")],
        [bench.serial_port("meter", meter_sim, "newport1830c")],
    )
    async with carried_to_v4(bench, manager, heard, "meter.power"):
        await manager.start()
        witness = manager.v2_data.subscribe("witness", capacity=65536)

        await outcome(manager.command("meter", StartAcquisition()))
        await until(lambda: device.count("said") >= 60, 5.0)
        await outcome(manager.command("meter", StopAcquisition()))
        await until(lambda: len(heard) >= device.count("said"), 2.0)

    rows, said = heard.items, readings_in(device)
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


def _between(rows: list[Arrival], said: list[Reading]) -> bool:
    nexts = [*(s.before_ns for s in said[1:]), utc_ns()]
    return all(s.after_ns <= r.t_ns <= n for r, s, n in zip(rows, said, nexts, strict=True))


async def test_data_flow_v4_to_v2(bench: Bench) -> None:
    """Positions and camera frames of V4 arrive at a V2 driver unchanged: no echo, and no copy of pixels."""
    stage_sim = await bench.simulator("esp300")
    heard = Heard(bench.evidence("chart"), bench.gate("chart", is_open=True))
    manager = bench.manager(
        [bench.stage(), _camera(), bench.own_class("chart", Chart, args=heard.args)],
        [bench.serial_port("stage", stage_sim, "esp300")],
    )
    async with carried_to_v2(bench, manager, heard) as relay:
        await manager.start()
        witness = manager.v4_data.subscribe("witness", capacity=65536)
        read, frames = await _measure_with_v4(manager, heard)
        batches = batches_in(witness)
        witness.close()
        position = (await bench.table()).state().positions.get(1, 0.0)
    await manager.shutdown(3.0)
    _check_positions(heard, read, position)
    rows = sum(b.num_rows for b in batches)
    proves("no echo", rows == len(read) + frames, "V4 has each of its own once", rows=rows, produced=len(read) + frames)
    images = [one for one in relay.items if isinstance(one, Image)]
    _check_frames(heard, images, [b for b in batches if stream_of(b) == "camera.frames"], frames)


class CountFrames(msgspec.Struct, frozen=True):
    """How many frames the camera itself says were read from it."""


class CountingCamera(PvcamActor):
    """The simulated camera, in whichever process it lives; it can be asked for the camera's own count."""

    operations: ClassVar = {**PvcamActor.operations, "count_frames": CountFrames}

    @handler(CountFrames)
    async def count_frames(self, message: CountFrames) -> int:
        """Frames read, by the camera's own count."""
        from duodaq.sim import pvcam  # only where there is a camera to count for

        return sum(report["read"] for report in pvcam.camera_report().values())


def _camera() -> InstrumentDefinition:
    args = {"simulated": True, "seed": 1, "roi": [100, 200, 64, 48], "exposure_s": 0.005}
    return InstrumentDefinition("camera", "v4", CountingCamera, args=args, options={"restart": "never"})


async def _measure_with_v4(manager: DualRuntimeManager, heard: Heard) -> tuple[list[Scalar], int]:
    """Take positions and frames while V2 listens: the positions as their caller got them, and the camera's count."""

    async def frames_read() -> int:
        counted = await outcome(manager.command("camera", Execute("count_frames"), 2.0))
        return counted if isinstance(counted, int) else 0

    await outcome(manager.command("stage", Execute("move", ("x", 1.5))))
    read = [await outcome(manager.command("stage", ReadChannel("x.position"))) for _ in range(20)]
    await outcome(manager.command("camera", StartAcquisition()))
    limit = Deadline(5.0)
    while await frames_read() < 20 and not limit.passed:
        await pause(0.01)
    await outcome(manager.command("camera", StopAcquisition()))
    frames = await frames_read()
    await until(lambda: len(heard) >= 2 * len(read) + frames, 2.0)
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


def _check_frames(heard: Heard, images: list[Image], batches: list[pa.RecordBatch], frames: int) -> None:
    """What V2's driver noted of the frames, the frames that V2's distributor gave, and what V4 published."""
    arrived = heard.of("camera.frames")
    numbers = [one.frame_number for one in arrived]
    counts = len(arrived), len(images)
    proves("frames arrive", counts == (frames, frames) and frames >= 20, "every frame", got=counts, camera=frames)
    own = [batch.column("frame_number")[0].as_py() for batch in batches]
    proves("frames arrive", numbers == own and own == sorted(set(own)), "by the camera's own numbers", got=numbers)
    published = [pixels_of(batch)[0] for batch in batches]
    pairs = list(zip(images, published, strict=False))
    same = all(np.array_equal(image.pixels, pixels) for image, pixels in pairs)
    same = same and [one.value for one in arrived] == [digest(pixels) for pixels in published]
    proves("pixels", same and len(pairs) == frames, "equal pixels", frames=len(pairs))
    shared = [np.shares_memory(image.pixels, pixels) for image, pixels in pairs]
    proves("no copy", all(shared), "V2's pixels are V4's memory", copied=shared.count(False))
    here = [one.address == address_of(pixels) for one, pixels in zip(arrived, published, strict=True) if one.address]
    proves("no copy", all(here), "and at the driver still, if it shares a process with them", copied=here.count(False))
    times = [batch.column("timestamp").cast(pa.int64())[0].as_py() for batch in batches]
    proves("time", [one.t_ns for one in arrived] == times, "the frames' times", got=times[:2])
