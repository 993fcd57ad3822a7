"""Recordings: whole, readable by plain pyarrow, honest about what the disk did not take."""

import asyncio
import json
import resource
import shutil
import threading

import numpy as np
import pyarrow as pa
import pytest

from duodaq import schema
from duodaq.bridge import Bridge
from duodaq.clock import pause
from duodaq.dataplane import Hub
from duodaq.errors import LifecycleError, StorageError
from duodaq.model import Measurement, Scalar
from duodaq.storage import Recorder
from duodaq.storage._stream_file import StreamFile

T = 1_790_000_000_000_000_000


def scalars(first: int, count: int, channel: str = "voltage", unit: str = "V", metadata=None) -> pa.RecordBatch:
    numbers = range(first, first + count)
    rows = [Scalar("dmm", channel, unit, T + n, n, n / 2, "v4", metadata) for n in numbers]
    return schema.scalar_batch(rows)


def frame(number: int, height: int = 4) -> pa.RecordBatch:
    pixels = np.full((height, 5), number, np.uint16)
    return schema.frame_batch(
        pixels, instrument="cam", channel="frames", t_ns=T, sequence=number, frame_number=100 + number
    )


@pytest.fixture
def hub() -> Hub[pa.RecordBatch]:
    return Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)


def read(path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


async def test_every_row_of_every_stream_is_in_its_file(hub, tmp_path):
    recorder = Recorder(tmp_path / "run", hub, provenance={"sample": "knife 3"})
    await recorder.start()
    for number in range(0, 100, 10):
        hub.publish(scalars(number, 10))
        hub.publish(scalars(number, 10, "current", "A"))
        hub.publish(frame(number))
    summary = await recorder.stop()
    assert summary.complete
    assert summary.files == {"dmm.voltage.arrows": 100, "dmm.current.arrows": 100, "cam.frames.arrows": 10}
    table = read(tmp_path / "run" / "dmm.voltage.arrows")
    assert table.column("sequence").to_pylist() == list(range(100))
    assert table.column("value").to_pylist() == [n / 2 for n in range(100)]
    frames = read(tmp_path / "run" / "cam.frames.arrows").column("pixels").chunk(3).to_numpy_ndarray()
    np.testing.assert_array_equal(frames, np.full((1, 4, 5), 30, np.uint16))


async def test_the_page_beside_the_data_says_what_it_is(hub, tmp_path):
    recorder = Recorder(tmp_path, hub, provenance={"sample": "knife 3"})
    await recorder.start()
    assert json.loads((tmp_path / "run.json").read_text())["stop"] is None
    hub.publish(scalars(0, 5))
    await recorder.stop()
    page = json.loads((tmp_path / "run.json").read_text())
    assert page["provenance"] == {"sample": "knife 3"}
    assert page["streams"] == {"dmm.voltage.arrows": "dmm.voltage"}
    assert page["summary"]["complete"] is True
    assert page["ledger"]["balanced"] is True
    assert page["start"] < page["stop"]
    assert page["stop"].endswith("+00:00")


async def test_a_new_frame_shape_begins_a_new_part(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    for number, height in enumerate([4, 4, 6, 4]):
        hub.publish(frame(number, height))
    summary = await recorder.stop()
    assert summary.files == {"cam.frames.arrows": 2, "cam.frames~2.arrows": 1, "cam.frames~3.arrows": 1}
    assert read(tmp_path / "cam.frames~2.arrows").column("frame_number").to_pylist() == [102]


async def test_metadata_that_changes_goes_with_its_batch(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    hub.publish(scalars(0, 1, metadata={"range": 1}))
    hub.publish(scalars(1, 1, metadata={"range": 10}))
    await recorder.stop()
    with pa.OSFile(str(tmp_path / "dmm.voltage.arrows")) as file:
        reader = pa.ipc.open_stream(file)
        facts = [reader.read_next_batch_with_custom_metadata().custom_metadata for _ in range(2)]
    assert json.loads(reader.schema.metadata[b"duodaq.metadata"]) == {"range": 1}
    assert facts[0] is None or not dict(facts[0])
    assert json.loads(facts[1][b"duodaq.metadata"]) == {"range": 10}


async def test_files_can_be_read_while_they_grow(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    hub.publish(scalars(0, 10))
    while not hub.ledger().row("dmm.voltage", "recorder").delivered or not (tmp_path / "dmm.voltage.arrows").exists():
        await pause(0.005)
    await pause(0.05)
    assert read(tmp_path / "dmm.voltage.arrows").num_rows == 10
    await recorder.stop()


async def test_files_are_complete_when_the_hub_closes_during_a_recording(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    for number in range(50):
        hub.publish(scalars(number, 1))
    hub.close()
    summary = await recorder.stop()
    assert summary.complete
    assert read(tmp_path / "dmm.voltage.arrows").num_rows == 50


async def test_v2_data_is_recorded_through_the_bridge(hub, tmp_path):
    v2: Hub[Measurement] = Hub("v2")
    bridge, recorder = Bridge(v2, hub), Recorder(tmp_path, hub)
    await bridge.start()
    await recorder.start()
    for number in range(1000):
        v2.publish(Scalar("dmm", "voltage", "V", T + number, number, float(number), "v2"))
    await bridge.stop(10)
    summary = await recorder.stop()
    assert summary.files == {"dmm.voltage.arrows": 1000}
    assert read(tmp_path / "dmm.voltage.arrows").column("sequence").to_pylist() == list(range(1000))


async def test_a_slow_disk_holds_up_nobody_and_nothing_is_lost(hub, tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    disk, write = threading.Event(), StreamFile.write

    def slow(self, batch):
        assert disk.wait(10)
        write(self, batch)

    monkeypatch.setattr(StreamFile, "write", slow)
    for number in range(200):
        hub.publish(scalars(number, 1))
    stopping = asyncio.create_task(recorder.stop())
    await pause(0.02)
    assert not stopping.done()
    disk.set()
    summary = await stopping
    assert summary.complete
    assert summary.files == {"dmm.voltage.arrows": 200}


async def test_a_publisher_that_can_wait_is_slowed_and_one_that_cannot_has_its_overflow_counted(
    hub, tmp_path, monkeypatch
):
    recorder = Recorder(tmp_path, hub, capacity=2)
    await recorder.start()
    disk, write = threading.Event(), StreamFile.write

    def stalled(self, batch):
        assert disk.wait(10)
        write(self, batch)

    monkeypatch.setattr(StreamFile, "write", stalled)
    hub.publish(scalars(0, 1))
    while hub.ledger().row("dmm.voltage", "recorder").in_flight:
        await pause(0.005)
    for number in range(1, 4):
        hub.publish(scalars(number, 1))
    waiting = asyncio.create_task(hub.publish_wait(scalars(4, 1), 10))
    await pause(0.02)
    assert not waiting.done()
    disk.set()
    await waiting
    summary = await recorder.stop()
    assert summary.lost == {"overflow": 1}
    assert not summary.complete
    assert read(tmp_path / "dmm.voltage.arrows").column("sequence").to_pylist() == [0, 1, 2, 4]


async def test_stop_keeps_its_budget_when_the_disk_hangs(hub, tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    disk = threading.Event()
    monkeypatch.setattr(StreamFile, "write", lambda self, batch: disk.wait(10) and None)
    for number in range(5):
        hub.publish(scalars(number, 1))
    while not hub.ledger().row("dmm.voltage", "recorder").delivered:
        await pause(0.005)
    summary = await recorder.stop(0.05)
    assert summary.error is not None
    assert "0.05 s" in summary.error
    assert summary.lost == {"closed": 4}
    disk.set()
    while recorder._thread.is_alive():
        await pause(0.005)


async def test_a_full_disk_is_named_counted_and_leaves_whole_batches(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        for number in range(0, 200_000, 1000):
            hub.publish(scalars(number, 1000))
        hub.publish(scalars(0, 3, "current", "A"))
        while hub.ledger().row("dmm.current", "recorder").in_flight:
            await pause(0.005)
        summary = await recorder.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(recorder.error, StorageError)
    assert summary.error is not None
    assert "dmm.voltage" in summary.error
    assert summary.files["dmm.current.arrows"] == 3
    written = 0
    for name, rows in summary.files.items():
        assert read(tmp_path / name).num_rows == rows
        written += rows
    assert written + summary.lost["disk"] == 200_003
    assert summary.lost["disk"] > 0


async def test_a_directory_that_goes_away_costs_only_new_streams(hub, tmp_path):
    recorder = Recorder(tmp_path / "run", hub)
    await recorder.start()
    shutil.rmtree(tmp_path / "run")
    hub.publish(scalars(0, 7))
    summary = await recorder.stop()
    assert summary.lost == {"disk": 7}
    assert "dmm.voltage" in (summary.error or "")


async def test_a_place_that_cannot_be_written_is_refused_at_the_start(hub, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot record"):
        await Recorder(tmp_path / "file" / "run", hub).start()
    assert hub.subscriptions() == ()


async def test_a_recording_is_never_written_over(hub, tmp_path):
    first = Recorder(tmp_path, hub)
    await first.start()
    await first.stop()
    with pytest.raises(StorageError, match="already holds"):
        await Recorder(tmp_path, hub).start()


async def test_a_second_recording_does_not_inherit_the_losses_of_the_first(hub, tmp_path):
    for number in (1, 2):
        recorder = Recorder(tmp_path / str(number), hub)
        await recorder.start()
        hub.publish(schema.scalar_batch([Scalar("dmm", "voltage", "V", T, 0, 1.0)]))
        summary = await recorder.stop()
        assert await recorder.stop() is summary
        assert summary.complete
        assert summary.files == {"dmm.voltage.arrows": 1}


async def test_a_recorder_is_used_once(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    with pytest.raises(LifecycleError):
        await recorder.stop()
    await recorder.start()
    with pytest.raises(LifecycleError):
        await recorder.start()
    await recorder.stop()


async def test_a_channel_name_never_leaves_the_directory(hub, tmp_path):
    recorder = Recorder(tmp_path / "run", hub)
    await recorder.start()
    hub.publish(scalars(0, 1, "../../escape"))
    summary = await recorder.stop()
    assert list(summary.files) == ["dmm...%2F..%2Fescape.arrows"]
    assert read(tmp_path / "run" / "dmm...%2F..%2Fescape.arrows").num_rows == 1


async def test_a_channel_named_like_another_s_second_part_has_a_file_of_its_own(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    rows = [Scalar("cam", "frames~2", "V", T, 0, 0.5, "v4", None)]
    for batch in (schema.scalar_batch(rows), frame(1), frame(2, height=8)):
        hub.publish(batch)
    summary = await recorder.stop()
    assert summary.complete
    assert summary.files == {"cam.frames%7E2.arrows": 1, "cam.frames.arrows": 1, "cam.frames~2.arrows": 1}
