"""A disk that is really full, and one that is really read-only: a file system of 3 MB, mounted for the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.faults.fault_table import JOURNAL

from duodaq import schema
from duodaq.dataplane import Hub
from duodaq.errors import StorageFullError
from duodaq.model import Scalar
from duodaq.storage import JournalReader, Recorder, recover

T = 1_790_000_000_000_000_000


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=3m", "duodaq-test", str(place))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


def rows(first: int, count: int = 1000) -> pa.RecordBatch:
    return schema.scalar_batch(
        [Scalar("dmm", "voltage", "V", T + n, n, n / 7, "v4") for n in range(first, first + count)]
    )


def frame(number: int) -> pa.RecordBatch:
    pixels = np.full((256, 256), number, np.uint16)
    return schema.frame_batch(
        pixels, instrument="cam", channel="frames", t_ns=T + number, sequence=number, frame_number=number
    )


def make_hub() -> Hub[pa.RecordBatch]:
    return Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)


@pytest.mark.fault("full disk", by=JOURNAL)
async def test_a_full_disk_is_named_and_recording_resumes_when_there_is_room(small_disk: Path) -> None:
    hub = make_hub()
    recorder = Recorder(small_disk / "run", hub)
    await recorder.start()
    (small_disk / "other").write_bytes(bytes(1_800_000))
    hub.publish(rows(0))
    hub.publish(frame(0))
    assert await recorder.flush(timeout_s=5)
    for number in range(1, 12):
        hub.publish(rows(1000 * number))
        hub.publish(frame(number))
    assert not await recorder.flush(timeout_s=0.5)
    assert recorder.refusing
    assert isinstance(recorder.error, StorageFullError)
    assert "No space left" in str(recorder.error)
    (small_disk / "other").unlink()
    assert await recorder.flush(timeout_s=10)
    summary = await recorder.stop()
    assert summary.complete
    reader = JournalReader(small_disk / "run")
    assert reader.table("dmm.voltage").column("sequence").to_pylist() == [*range(12_000)]
    assert [*reader.batches("cam.frames")] == [frame(number) for number in range(12)]


@pytest.mark.fault("full disk", by=JOURNAL)
async def test_what_was_acknowledged_on_a_disk_that_stays_full_is_whole(small_disk: Path) -> None:
    hub = make_hub()
    recorder = Recorder(small_disk / "run", hub, on_failure="end")
    await recorder.start()
    for number in range(30):
        hub.publish(frame(number))
        hub.publish(rows(1000 * number))
    await recorder.flush(timeout_s=10)
    row, picture = recorder.watermark("dmm.voltage").sequence, recorder.watermark("cam.frames").sequence
    summary = await recorder.stop()
    assert summary.lost["disk"] > 0
    assert not summary.complete
    found = recover(small_disk / "run", finished_too=True)
    assert found.rows.get("dmm.voltage", 0) >= row + 1
    assert found.rows.get("cam.frames", 0) >= picture + 1


@pytest.mark.fault("no place", by=JOURNAL)
async def test_a_read_only_place_is_refused_at_the_start(small_disk: Path) -> None:
    mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(StorageFullError, match="Read-only"):
        await Recorder(small_disk / "run", make_hub()).start()
