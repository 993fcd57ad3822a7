import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pyarrow as pa
import pytest

from duodaq.bridge import ParameterTable
from duodaq.clock import pause
from duodaq.dataplane import Policy
from duodaq.errors import LifecycleError, OutOfRangeError
from duodaq.model import (
    Execute,
    GetParameter,
    Image,
    InstrumentDefinition,
    InstrumentState,
    ReadChannel,
    Recover,
    SetParameter,
    SnapFrame,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.schema import pixels_of, schema_name
from duodaq.sim import pvcam
from duodaq.v4 import DataPublisher, V4Runtime

pytest.importorskip("pyvcam")

CAMERA = InstrumentDefinition(
    "camera",
    "v4",
    "duodaq:PvcamActor",
    args={"roi": [100, 200, 64, 48], "exposure_s": 0.001},
    options={"restart": "never"},
)


@pytest.fixture
def seam():
    yield pvcam.install(seed=1)
    pvcam.uninstall()


@asynccontextmanager
async def lab(definition: InstrumentDefinition = CAMERA):
    broker, publisher = Broker(), DataPublisher()
    runtime = V4Runtime(broker, ParameterTable(), publisher)
    await runtime.add(definition)
    try:
        await runtime.start(20)
        yield runtime, publisher
    finally:
        await runtime.stop(5)
        await broker.aclose()


async def execute(runtime: V4Runtime, name: str, **options: object):
    return await runtime.command("camera", Execute(name, (), options))


async def take(rows, count: int) -> list[pa.RecordBatch]:
    return [await rows.get(timeout_s=5) for _ in range(count)]


@pytest.mark.alone("a reader kept waiting for 16 frames of a few ms loses some")
async def test_a_stream_delivers_frames_with_the_cameras_own_numbers(seam) -> None:
    async with lab() as (runtime, publisher):
        rows = publisher.subscribe("test", capacity=4096)
        await runtime.command("camera", StartAcquisition())
        assert runtime.instruments()[0].state is InstrumentState.ACQUIRING
        assert await execute(runtime, "is_streaming") is True
        batches = await take(rows, 10)
        await runtime.command("camera", StopAcquisition())
        assert await execute(runtime, "is_streaming") is False
        rows.close()
        assert {schema_name(batch.schema) for batch in batches} == {"camera_frame/1"}
        assert [batch.column("frame_number")[0].as_py() for batch in batches] == list(range(1, 11))
        assert [batch.column("sequence")[0].as_py() for batch in batches] == list(range(10))
        assert batches[0].column("roi")[0].as_py() == {"x": 100, "y": 200, "width": 64, "height": 48}
        assert pixels_of(batches[0]).shape == (1, 48, 64)
        assert batches[0].column("exposure_s")[0].as_py() == pytest.approx(0.001)


async def test_pixels_reach_arrow_without_a_copy(seam) -> None:
    seen: list[np.ndarray] = []
    async with lab() as (runtime, publisher):
        rows = publisher.subscribe("test")
        image = await runtime.command("camera", SnapFrame())
        assert isinstance(image, Image)
        assert image.pixels.shape == (48, 64)
        reading = await runtime.command("camera", ReadChannel("frames"))
        (batch,) = await take(rows, 1)
        rows.close()
        seen.append(pixels_of(batch))
        assert np.shares_memory(seen[0], reading.pixels)
        assert isinstance(batch.schema.field("pixels").type, pa.FixedShapeTensorType)


@pytest.mark.alone("a reader kept waiting for 16 frames of a few ms loses some")
async def test_a_frame_the_camera_lost_is_counted_as_a_gap(seam) -> None:
    pvcam.configure(lose_frames=frozenset({3, 4, 7}))
    async with lab() as (runtime, publisher):
        rows = publisher.subscribe("test", capacity=4096)
        await runtime.command("camera", StartAcquisition())
        batches = await take(rows, 6)
        await runtime.command("camera", StopAcquisition())
        rows.close()
        assert [batch.column("frame_number")[0].as_py() for batch in batches] == [1, 2, 5, 6, 8, 9]
        assert [batch.column("sequence")[0].as_py() for batch in batches] == list(range(6))
        assert await runtime.command("camera", GetParameter("frames_lost")) == 3


async def test_a_reader_that_blocks_costs_frames_and_every_one_is_accounted_for(seam) -> None:
    slow = InstrumentDefinition(
        "camera", "v4", "duodaq:PvcamActor", args={**CAMERA.args, "buffer_frames": 4}, options=CAMERA.options
    )
    async with lab(slow) as (runtime, publisher):
        rows = publisher.subscribe("test", capacity=2, policy=Policy.BLOCK)
        await runtime.command("camera", StartAcquisition())
        await pause(0.5)
        batches = await take(rows, 10)
        await runtime.command("camera", StopAcquisition())
        batches += [rows.get_nowait() for _ in range(rows.occupancy)]
        rows.close()
        numbers = [batch.column("frame_number")[0].as_py() for batch in batches]
        gaps = numbers[-1] - len(numbers)
        assert gaps > 0
        assert [batch.column("sequence")[0].as_py() for batch in batches] == list(range(len(batches)))
        assert gaps <= await runtime.command("camera", GetParameter("frames_lost"))


@pytest.mark.parametrize("way", ["stop", "stop acquisition", "remove"])
async def test_a_reader_that_takes_nothing_holds_up_no_stop(seam, way: str) -> None:
    async with lab() as (runtime, publisher):
        rows = publisher.subscribe("test", capacity=2, policy=Policy.BLOCK)
        await runtime.command("camera", StartAcquisition())
        async with asyncio.timeout(20):
            while rows.occupancy < 2:
                await pause(0.005)
        await pause(0.05)  # the next frame waits for room
        async with asyncio.timeout(2):
            if way == "remove":
                await runtime.remove("camera")
            else:
                await runtime.command("camera", Stop() if way == "stop" else StopAcquisition(), 2.0)
        if way != "remove":
            assert await runtime.command("camera", GetParameter("frames_lost")) >= 1
            assert not (await runtime.command("camera", Execute("is_streaming")))
        assert rows.occupancy == 2
        rows.close()


async def test_settings_change_under_a_running_stream(seam) -> None:
    async with lab() as (runtime, publisher):
        rows = publisher.subscribe("test", capacity=4096)
        await runtime.command("camera", StartAcquisition())
        await take(rows, 2)
        await execute(runtime, "configure_roi", roi=[0, 0, 32, 32])
        await execute(runtime, "set_binning", binning=2)
        await execute(runtime, "set_timing", exposure_s=0.002)
        for _ in range(200):
            (batch,) = await take(rows, 1)
            if batch.column("exposure_s")[0].as_py() == pytest.approx(0.002):
                break
        rows.close()
        assert pixels_of(batch).shape == (1, 16, 16)
        assert batch.column("binning")[0].as_py() == {"x": 2, "y": 2}
        assert await execute(runtime, "is_streaming") is True
        assert await runtime.command("camera", GetParameter("exposure_s")) == 0.002
        with pytest.raises(LifecycleError, match="streams"):
            await runtime.command("camera", SnapFrame())


async def test_what_the_camera_does_not_take_is_refused_and_changes_nothing(seam) -> None:
    async with lab() as (runtime, _):
        for name, value in (("roi", [4000, 0, 10, 10]), ("binning", 0), ("gain", 99), ("exposure_s", -1.0)):
            with pytest.raises(OutOfRangeError):
                await runtime.command("camera", SetParameter(name, value))
        with pytest.raises(OutOfRangeError, match="no setting"):
            await runtime.command("camera", StartAcquisition({"colour": "red"}))
        assert await execute(runtime, "is_streaming") is False
        image = await runtime.command("camera", SnapFrame())
        assert image.pixels.shape == (48, 64)


async def test_capabilities_are_plain_values(seam) -> None:
    async with lab() as (runtime, _):
        facts = await execute(runtime, "get_capabilities")
        assert facts["sensor_size"] == [2048, 2048]
        assert facts["serial"]
        assert facts["frame_numbers"] is True


async def test_a_stop_ends_a_stream_promptly_even_during_a_long_exposure(seam) -> None:
    async with lab() as (runtime, _):
        await runtime.command("camera", StartAcquisition({"exposure_s": 10.0}))
        await pause(0.1)
        began_s = asyncio.get_running_loop().time()
        await runtime.command("camera", Stop())
        assert asyncio.get_running_loop().time() - began_s < 5.0, "the exposure itself takes 10 s"
        assert await execute(runtime, "is_streaming") is False


async def test_a_stream_that_dies_in_the_camera_is_said(seam) -> None:
    pvcam.configure(stall_after=3)
    async with lab() as (runtime, _):
        await runtime.command("camera", StartAcquisition())
        for _ in range(100):
            await pause(0.05)
            if runtime.instruments()[0].state is InstrumentState.ERROR:
                break
        assert "ended by itself" in runtime.instruments()[0].message
        pvcam.configure(stall_after=None)
        await runtime.command("camera", Recover())
        assert runtime.instruments()[0].state is InstrumentState.ACQUIRING
        assert await execute(runtime, "is_streaming") is True


async def test_the_shipped_simulator_stands_in_where_the_lab_file_says_so() -> None:
    simulated = InstrumentDefinition("camera", "v4", "duodaq:PvcamActor", args={**CAMERA.args, "simulated": True})
    async with lab(simulated) as (runtime, _):
        assert pvcam.installed()
        assert (await runtime.command("camera", SnapFrame())).pixels.shape == (48, 64)
    assert not pvcam.installed()
