"""Recordings: whole, readable by plain tools, acknowledged when they are safe, honest about what the disk refused."""

import asyncio
import errno
import json
import os
import resource
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from duodaq import schema
from duodaq.bridge import Bridge
from duodaq.clock import monotonic_s, pause
from duodaq.dataplane import Hub
from duodaq.errors import LifecycleError, StorageError, StorageFullError
from duodaq.model import Measurement, Scalar
from duodaq.storage import JournalReader, Recorder, Watermark, _tally, recover
from duodaq.storage.journal import _rows
from duodaq.testing import QuickDisk, RefusingDisk

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
    assert summary.files == {
        "dmm.voltage.arrows": 100,
        "dmm.current.arrows": 100,
        "cam.frames.arrows": 10,
        "cam.frames.npy": 10,
    }
    assert summary.rows == {"dmm.voltage": 100, "dmm.current": 100, "cam.frames": 10}
    table = read(tmp_path / "run" / "dmm.voltage.arrows")
    assert table.column("sequence").to_pylist() == list(range(100))
    assert table.column("value").to_pylist() == [n / 2 for n in range(100)]
    frames = np.load(tmp_path / "run" / "cam.frames.npy")
    np.testing.assert_array_equal(frames[3], np.full((4, 5), 30, np.uint16))
    assert [*JournalReader(tmp_path / "run").batches("cam.frames")] == [frame(number) for number in range(0, 100, 10)]


async def test_the_page_and_the_event_log_say_what_it_is(hub, tmp_path):
    recorder = Recorder(tmp_path, hub, provenance={"sample": "knife 3"}, code=Path(__file__).parent)
    await recorder.start()
    hub.publish(scalars(0, 5))
    recorder.note("change", {"instrument": "dmm", "parameter": "nplc", "value": 10})
    await recorder.flush(timeout_s=5)
    assert not JournalReader(tmp_path).finished
    summary = await recorder.stop()
    page = json.loads((tmp_path / "run.json").read_text())
    assert page["provenance"] == {"sample": "knife 3"}
    assert (page["uid"], page["number"]) == (summary.uid, summary.number)
    assert page["start"].endswith("+00:00")
    assert {"python", "duodaq", "pyarrow"} <= page["versions"].keys()
    events = [(event.name, event.doc) for event in JournalReader(tmp_path).events]
    assert [name for name, _ in events] == ["start", "change", "descriptor", "stop"]
    assert events[2][1]["name"] == "dmm.voltage"
    assert events[2][1]["segment"]["file"] == "dmm.voltage.arrows"
    stop = events[3][1]
    assert (stop["exit_status"], stop["num_events"], stop["lost"]) == ("success", {"dmm.voltage": 5}, {})
    assert stop["ledger"]["balanced"] is True


async def test_a_new_frame_shape_begins_new_files(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    for number, height in enumerate([4, 4, 6, 4]):
        hub.publish(frame(number, height))
    summary = await recorder.stop()
    assert {name: count for name, count in summary.files.items() if name.endswith(".npy")} == {
        "cam.frames.npy": 2,
        "cam.frames~2.npy": 1,
        "cam.frames~3.npy": 1,
    }
    assert np.load(tmp_path / "cam.frames~2.npy").shape == (1, 6, 5)


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
    assert await recorder.flush(timeout_s=5)
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


class HeldDisk(QuickDisk):
    """One on which nothing is written or synced while `free` is not set."""

    def __init__(self):
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def write(self, file, parts, offset):
        assert self.free.wait(10)
        super().write(file, parts, offset)


async def test_a_slow_disk_holds_up_nobody_and_nothing_is_lost(hub, tmp_path):
    disk = HeldDisk()
    recorder = Recorder(tmp_path, hub, disk=disk)
    await recorder.start()
    disk.free.clear()
    for number in range(200):
        hub.publish(scalars(number, 1))
    stopping = asyncio.create_task(recorder.stop())
    await pause(0.02)
    assert not stopping.done()
    disk.free.set()
    summary = await stopping
    assert summary.complete
    assert summary.files == {"dmm.voltage.arrows": 200}


@pytest.mark.parametrize("when_full", ["slow", "count"])
async def test_a_full_queue_slows_those_who_can_wait_or_counts_as_configured(hub, tmp_path, when_full):
    disk = HeldDisk()
    recorder = Recorder(tmp_path, hub, capacity=2, when_full=when_full, disk=disk)
    await recorder.start()
    disk.free.clear()
    hub.publish(scalars(0, 1))
    while hub.ledger().row("dmm.voltage", "recorder").in_flight:
        await pause(0.005)
    for number in range(1, 4):
        hub.publish(scalars(number, 1))
    waiting = asyncio.create_task(hub.publish_wait(scalars(4, 1), 10))
    await pause(0.02)
    assert waiting.done() == (when_full == "count")
    disk.free.set()
    await waiting
    await recorder.flush(timeout_s=5)
    hub.publish(scalars(5, 1))
    summary = await recorder.stop()
    lost = [3] if when_full == "slow" else [3, 4]
    assert not summary.complete
    assert sum(summary.lost.values()) == len(lost)
    assert read(tmp_path / "dmm.voltage.arrows").column("sequence").to_pylist() == [
        number for number in range(6) if number not in lost
    ]
    (gap,) = JournalReader(tmp_path).gaps()
    assert (gap.stream, gap.reason, gap.rows, gap.after, gap.before) == (
        "dmm.voltage",
        "overflow",
        len(lost),
        2,
        lost[-1] + 1,
    )


async def test_a_queue_that_fills_is_an_alarm_before_anything_is_lost(hub, tmp_path):
    disk = HeldDisk()
    recorder = Recorder(tmp_path, hub, max_bytes=40_000, disk=disk)
    await recorder.start()
    disk.free.clear()
    hub.publish(scalars(0, 10))
    while hub.ledger().row("dmm.voltage", "recorder").in_flight:
        await pause(0.005)
    for number in range(10, 600, 100):
        hub.publish(scalars(number, 100))
    (figures,) = hub.figures()
    assert figures.full_alarms == 1
    assert figures.dropped == 0
    disk.free.set()
    assert (await recorder.stop()).complete


async def test_numbers_that_jump_are_a_gap_in_the_event_log(hub, tmp_path):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    for first in (0, 10, 25):
        hub.publish(scalars(first, 10))
    assert (await recorder.stop()).complete
    (gap,) = JournalReader(tmp_path).gaps()
    assert (gap.reason, gap.rows, gap.after, gap.before) == ("missing", 5, 19, 25)


async def test_a_step_of_the_wall_clock_is_an_event_and_never_in_the_data(hub, tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    real = _tally.wall_ns
    monkeypatch.setattr(_tally, "wall_ns", lambda: real() - 3_600_000_000_000)
    hub.publish(scalars(0, 10))
    await recorder.stop()
    (event,) = [event for event in JournalReader(tmp_path).events if event.name == "clock"]
    assert event.doc["step_ns"] == pytest.approx(-3.6e12, abs=1e9)


@pytest.mark.parametrize("level", ["durable", "kernel"])
async def test_a_row_is_acknowledged_when_it_is_safe(hub, tmp_path, level):
    disk = HeldDisk()
    syncs = []
    disk.sync = syncs.append
    recorder = Recorder(tmp_path, hub, level=level, disk=disk)
    await recorder.start()
    syncs.clear()
    disk.free.clear()
    hub.publish(scalars(0, 10))
    assert not await recorder.acknowledged("dmm.voltage", 9, timeout_s=0.05)
    assert recorder.watermark("dmm.voltage").sequence == -1
    disk.free.set()
    assert await recorder.acknowledged("dmm.voltage", 9, timeout_s=5)
    assert await recorder.acknowledged("dmm.voltage", 9, level="kernel", timeout_s=5)
    assert recorder.watermark("dmm.voltage") == Watermark(10, 9)
    assert bool(syncs) == (level == "durable")
    if level == "kernel":
        with pytest.raises(LifecycleError, match="kernel"):
            recorder.watermark("dmm.voltage", "durable")
    waiting = asyncio.create_task(recorder.acknowledged("dmm.voltage", 1000))
    await pause(0)
    await recorder.stop()
    assert await waiting is False


async def test_stop_keeps_its_budget_when_the_disk_hangs(hub, tmp_path):
    disk = HeldDisk()
    recorder = Recorder(tmp_path, hub, disk=disk)
    await recorder.start()
    disk.free.clear()
    hub.publish(scalars(0, 1))
    while not hub.ledger().row("dmm.voltage", "recorder").delivered:
        await pause(0.005)
    for number in range(1, 5):
        hub.publish(scalars(number, 1))
    summary = await recorder.stop(0.05)
    assert summary.error is not None
    assert "0.05 s" in summary.error
    assert summary.lost == {"closed": 4}
    assert not summary.complete
    disk.free.set()
    while recorder._thread.is_alive():
        await pause(0.005)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_a_disk_that_refuses_for_a_while_costs_nothing(hub, tmp_path, operation, code):
    sick = False
    disk = RefusingDisk(lambda o, n: code if sick and o == operation else None)
    recorder = Recorder(tmp_path, hub, disk=disk)
    await recorder.start()
    hub.publish(scalars(0, 10))
    hub.publish(frame(0))
    assert await recorder.flush(timeout_s=5)
    sick = True
    hub.publish(scalars(10, 10))
    hub.publish(frame(1))
    assert not await recorder.flush(timeout_s=0.15)
    assert recorder.refusing
    assert os.strerror(code) in str(recorder.error)
    assert isinstance(recorder.error, StorageFullError) == (code != errno.EIO)
    sick = False
    hub.publish(scalars(20, 10))
    assert await recorder.flush(timeout_s=5)
    summary = await recorder.stop()
    assert summary.complete
    assert summary.error == str(recorder.error)
    reader = JournalReader(tmp_path)
    assert reader.table("dmm.voltage").column("sequence").to_pylist() == [*range(30)]
    assert [*reader.batches("cam.frames")] == [frame(0), frame(1)]
    assert [event.name for event in reader.events if event.name in ("failure", "resume")] == ["failure", "resume"]


async def test_a_recording_may_end_with_the_first_refusal(hub, tmp_path):
    sick = False
    disk = RefusingDisk(lambda o, n: errno.ENOSPC if sick and o == "write" else None)
    recorder = Recorder(tmp_path, hub, disk=disk, on_failure="end")
    await recorder.start()
    hub.publish(scalars(0, 10))
    assert await recorder.flush(timeout_s=5)
    sick = True
    hub.publish(scalars(10, 10))
    assert await recorder.flush(timeout_s=5)
    sick = False
    hub.publish(scalars(20, 10))
    summary = await recorder.stop()
    assert summary.lost == {"disk": 20}
    assert not summary.complete
    assert read(tmp_path / "dmm.voltage.arrows").num_rows == 10
    assert recover(tmp_path).rows == {"dmm.voltage": 10}


async def test_a_disk_that_has_room_again_before_its_time_is_up_takes_all_of_it_at_the_end(hub, tmp_path):
    """It is asked again for as long as stopping may take, not five times."""
    asked: list[float] = []

    def refuses(operation: str, name: str) -> int | None:
        if not sick or operation != "write":
            return None
        asked.append(monotonic_s())
        return errno.ENOSPC if len(asked) <= 12 else None

    sick = False
    recorder = Recorder(tmp_path, hub, disk=RefusingDisk(refuses))
    await recorder.start()
    hub.publish(scalars(0, 10))
    assert await recorder.flush(timeout_s=5)
    sick = True
    hub.publish(scalars(10, 10))
    summary = await recorder.stop(timeout_s=20)
    assert (summary.lost, summary.rows) == ({}, {"dmm.voltage": 20})


@pytest.mark.parametrize("fails", ["run.json.part", "events.jsonl.part", "journal.index", "labels.json.part"])
@pytest.mark.parametrize("is_there", [False, True])
async def test_a_run_that_could_not_be_begun_leaves_nothing(hub, tmp_path, fails, is_there):
    place = tmp_path / "run"
    if is_there:
        place.mkdir()
        (place / "notes.txt").touch()
    disk = RefusingDisk(lambda o, n: errno.ENOSPC if o == "write" and n == fails else None)
    with pytest.raises(StorageFullError):
        await Recorder(place, hub, labels={"sample": "a"}, disk=disk).start()
    assert place.exists() is is_there
    assert not is_there or [*place.iterdir()] == [place / "notes.txt"]
    recorder = Recorder(place, hub)
    await recorder.start()
    await recorder.stop()


async def test_a_disk_that_is_full_at_the_end_is_named_and_counted(hub, tmp_path):
    sick = False
    disk = RefusingDisk(lambda o, n: errno.ENOSPC if sick and o == "write" else None)
    recorder = Recorder(tmp_path, hub, disk=disk)
    await recorder.start()
    hub.publish(scalars(0, 10))
    assert await recorder.flush(timeout_s=5)
    sick = True
    hub.publish(scalars(10, 10))
    summary = await recorder.stop(timeout_s=0.5)
    assert summary.lost == {"disk": 10}
    assert "No space" in (summary.error or "")
    assert recover(tmp_path).rows == {"dmm.voltage": 10}


async def test_a_file_that_may_not_grow_is_followed_by_another(hub, tmp_path):
    """A real refusal, by the kernel: each file of this process may have 300 kB."""
    recorder = Recorder(tmp_path, hub)
    await recorder.start()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        for number in range(0, 30_000, 1000):
            hub.publish(scalars(number, 1000))
        assert await recorder.flush(timeout_s=20)
        summary = await recorder.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert summary.complete
    assert isinstance(recorder.error, StorageFullError)
    assert len([name for name in summary.files if name.startswith("dmm.voltage")]) >= 3
    rows = [read(tmp_path / name).num_rows for name in summary.files]
    assert sum(rows) == 30_000
    assert JournalReader(tmp_path).table("dmm.voltage").column("sequence").to_pylist() == [*range(30_000)]


async def test_a_directory_that_goes_away_is_made_again_with_all_that_is_new(hub, tmp_path):
    recorder = Recorder(tmp_path / "run", hub)
    await recorder.start()
    hub.publish(scalars(0, 7))
    assert await recorder.flush(timeout_s=5)
    shutil.rmtree(tmp_path / "run")
    hub.publish(scalars(7, 7))
    assert await recorder.flush(timeout_s=5)
    summary = await recorder.stop()
    assert "gone" in (summary.error or "")
    reader = JournalReader(tmp_path / "run")
    assert reader.table("dmm.voltage").column("sequence").to_pylist() == [*range(7, 14)]
    assert (summary.lost, summary.complete) == ({"directory": 7}, False)
    stop = reader.events[-1].doc
    assert (stop["exit_status"], stop["lost"]) == ("fail", {"directory": 7})
    page = stop["books"]["dmm.voltage"]
    assert (page["produced"], page["stored"], page["lost"], page["balanced"]) == (14, 7, {"directory": 7}, True)
    assert [(gap.rows, gap.reason) for gap in reader.gaps("dmm.voltage")] == [(7, "directory")]


async def test_what_a_full_disk_cost_is_known_after_a_repair(hub, tmp_path):
    """The disk takes no batch any more, but the few bytes of an event; the program then ends without a stop."""
    sick = False
    disk = RefusingDisk(lambda o, n: errno.ENOSPC if sick and o == "write" and not n.startswith("events") else None)
    recorder = Recorder(tmp_path, hub, disk=disk)
    await recorder.start()
    hub.publish(scalars(0, 10))
    assert await recorder.flush(timeout_s=5)
    sick = True
    hub.publish(scalars(10, 10))
    summary = await recorder.stop(timeout_s=0.5)
    assert summary.lost == {"disk": 10}
    found = recover(tmp_path)
    assert (found.rows, found.lost) == ({"dmm.voltage": 10}, {"disk": 10})
    assert JournalReader(tmp_path).events[-1].doc["lost"] == {"disk": 10}


async def test_rows_that_are_refused_are_known_after_a_kill(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "LONGEST_BATCH", 10_000)
    recorder = Recorder(tmp_path / "run", hub)
    await recorder.start()
    hub.publish(scalars(0, 10))
    hub.publish(scalars(10, 2000))
    assert await recorder.flush(timeout_s=5)
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    await recorder.stop()
    found = recover(tmp_path / "killed")
    assert (found.rows, found.lost) == ({"dmm.voltage": 10}, {"no form": 2000})


@pytest.mark.parametrize("refuses", [False, True])
async def test_the_books_balance_where_arrow_has_no_form_for_a_batch(hub, tmp_path, monkeypatch, refuses):
    """Whether the disk takes it at once, or only when it is written again."""
    monkeypatch.setattr(_rows, "LONGEST_BATCH", 10_000)
    left = [1 if refuses else 0]

    def decide(operation: str, name: str) -> int | None:
        if operation == "sync" and name.startswith("journal") and left[0]:
            left[0] -= 1
            return errno.ENOSPC
        return None

    recorder = Recorder(tmp_path, hub, disk=RefusingDisk(lambda o, n: decide(o, n) if begun else None))
    begun = False
    await recorder.start()
    begun = True
    hub.publish(scalars(0, 10))
    hub.publish(scalars(10, 2000))
    hub.publish(scalars(2010, 10))
    summary = await recorder.stop()
    assert (summary.rows, summary.lost) == ({"dmm.voltage": 20}, {"no form": 2000})
    events = JournalReader(tmp_path).events
    page = events[-1].doc["books"]["dmm.voltage"]
    assert (page["produced"], page["stored"], page["lost"], page["balanced"]) == (2020, 20, {"no form": 2000}, True)
    assert [event.doc["rows"] for event in events if event.name == "gap"] == [2000]
    assert ("resume" in [event.name for event in events]) is refuses


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
    assert {name for name in summary.files if name.endswith(".arrows")} == {
        "cam.frames%7E2.arrows",
        "cam.frames.arrows",
        "cam.frames~2.arrows",
    }
    assert set(JournalReader(tmp_path).streams) == {"cam.frames", "cam.frames~2"}
