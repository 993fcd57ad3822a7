"""What a recorder was not made for: odd batches, long names, too many files, faults of its own. No other suffers."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from duodaq import open_run, schema
from duodaq.app._file_limit import raise_file_limit
from duodaq.dataplane import Hub
from duodaq.errors import DataError
from duodaq.model import Scalar
from duodaq.storage import JournalReader, Recorder
from duodaq.storage._tally import Tally
from duodaq.storage.journal import Journal, RunPage, recover
from duodaq.storage.journal._layout import ROWS, file_name
from duodaq.testing import QuickDisk

T = 1_790_000_000_000_000_000
TIMES = pa.array([T], pa.timestamp("ns"))


def key(batch: pa.RecordBatch) -> str:
    try:
        return schema.stream_of(batch)
    except DataError:
        return "?"


@pytest.fixture
def hub() -> Hub[pa.RecordBatch]:
    return Hub("v4", key=key, weigh=lambda batch: batch.num_rows)


def scalars(first: int, count: int = 5) -> pa.RecordBatch:
    return schema.scalar_batch([Scalar("dmm", "voltage", "V", T + n, n, n / 2) for n in range(first, first + count)])


def batch_of(name: str, metadata: dict[bytes, bytes] | None = None, **columns: Any) -> pa.RecordBatch:
    fields = [pa.field(one, column.type) for one, column in columns.items()]
    told = {b"duodaq.stream": name.encode(), **(metadata or {})}
    return pa.RecordBatch.from_arrays([*columns.values()], schema=pa.schema(fields, metadata=told))


def pictures(values: list[Any], kind: Any) -> Any:
    storage = pa.array(values, pa.list_(kind, 4))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(kind, (2, 2)), storage)


ONE = pictures([[1, 2, 3, 4]], pa.uint8())
DEEP = pa.array([1])
for _ in range(70):
    DEEP = pa.StructArray.from_arrays([DEEP], ["a"])

NO_FORM = {
    "negative": batch_of("odd.a", sequence=pa.array([-1]), timestamp=TIMES, pixels=ONE),
    "fraction": batch_of("odd.b", sequence=pa.array([1.5]), timestamp=TIMES, pixels=ONE),
    "text": batch_of("odd.c", sequence=pa.array(["1"]), timestamp=TIMES, pixels=ONE),
    "late": batch_of("odd.d", sequence=pa.array([1]), timestamp=pa.array([2**62], pa.timestamp("s")), pixels=ONE),
    "late row": batch_of("odd.e", sequence=pa.array([1]), timestamp=pa.array([2**62], pa.timestamp("s"))),
    "no picture": batch_of("odd.f", sequence=pa.array([1]), timestamp=TIMES, pixels=pictures([None], pa.uint8())),
    "no pixel": batch_of(
        "odd.g", sequence=pa.array([1]), timestamp=TIMES, pixels=pictures([[1, None, 3, 4]], pa.float64())
    ),
    "deep": batch_of("odd.h", sequence=pa.array([1]), d=DEEP),
}
STORED = {
    "booleans": batch_of(
        "odd.i", sequence=pa.array([1]), timestamp=TIMES, pixels=pictures([[True, False, True, True]], pa.bool_())
    ),
    "times": batch_of(
        "odd.j", sequence=pa.array([1]), timestamp=TIMES, pixels=pictures([[1, 2, 3, None]], pa.timestamp("ns"))
    ),
    "nothing": batch_of("odd.k", sequence=pa.array([], pa.int64())),
    "slash": batch_of("../" + "é" * 60, sequence=pa.array([1])),
    "x" * 300: batch_of("x" * 300, sequence=pa.array([1])),
    "y": batch_of("x" * 299 + "y", sequence=pa.array([1])),
}


async def test_an_odd_batch_is_refused_and_counted_and_stops_nobody(
    hub: Hub[pa.RecordBatch], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path / "run", hub, disk=QuickDisk())
    await recorder.start()
    hub.publish(scalars(0))
    for batch in [*NO_FORM.values(), *STORED.values(), *NO_FORM.values()]:
        hub.publish(batch)
    hub.publish(pa.RecordBatch.from_pydict({"a": pa.array([], pa.int64())}))
    hub.publish(pa.RecordBatch.from_pydict({"a": pa.array([1])}))
    hub.publish(scalars(5))
    assert await recorder.flush(timeout_s=10)
    assert recorder.recording
    assert recorder.error is None
    told = [one.getMessage() for one in caplog.records if "rows cannot be recorded" in one.getMessage()]
    assert len(told) == len(NO_FORM) + 1, "once for each stream"
    assert await recorder.acknowledged("dmm.voltage", 9)
    for batch in NO_FORM.values():
        assert recorder.watermark(schema.stream_of(batch)).rows == 0
    assert not await recorder.acknowledged("odd.h", 1), "it is not there"
    assert await recorder.acknowledged("odd.i", 1)
    summary = await recorder.stop()
    assert summary.lost == {"no form": 2 * len(NO_FORM), "no stream": 1}
    reader = JournalReader(tmp_path / "run")
    assert {gap.stream for gap in reader.gaps()} == {*map(key, NO_FORM.values()), "no stream"}
    for batch in STORED.values():
        if batch.num_rows:
            (found,) = reader.batches(schema.stream_of(batch))
            assert found.to_pydict() == batch.to_pydict()
            assert found.schema.metadata == batch.schema.metadata
    books = reader.events[-1].doc["books"]
    assert all(page["balanced"] for stream, page in books.items() if stream not in ("?", "no stream"))
    assert not recover(tmp_path / "run", finished_too=True).changed


async def test_a_mask_is_recorded_and_read_back_as_it_was(hub: Hub[pa.RecordBatch], tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run", hub, disk=QuickDisk())
    await recorder.start()
    luck = np.random.default_rng(1)
    masks = luck.integers(0, 2, (3, 5, 7)).astype(bool)
    for n, mask in enumerate(masks):
        facts = {"instrument": "cam", "channel": "mask", "t_ns": T + n, "sequence": n, "frame_number": n}
        hub.publish(schema.frame_batch(mask, **facts))
    summary = await recorder.stop()
    assert summary.complete
    np.testing.assert_array_equal(open_run(tmp_path / "run")["cam.mask"].frames, masks)
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "cam.mask.npy"), masks)
    found = [*JournalReader(tmp_path / "run").batches("cam.mask")]
    assert [one.column("pixels").storage.to_pylist()[0] for one in found] == masks.reshape(3, -1).tolist()


async def test_metadata_without_a_value_is_read_back(hub: Hub[pa.RecordBatch], tmp_path: Path) -> None:
    told = [{b"k": b"", b"a": b"1"}, {b"k": b"", b"a": b"2"}, {b"a": b"3"}, {b"a": b"3", b"new": b""}, {b"k": b"v"}]
    batches = [batch_of("odd.x", facts, sequence=pa.array([n])) for n, facts in enumerate(told)]
    recorder = Recorder(tmp_path / "run", hub, disk=QuickDisk())
    await recorder.start()
    for batch in batches:
        hub.publish(batch)
    await recorder.stop()
    found = [*JournalReader(tmp_path / "run").batches("odd.x")]
    assert [one.schema.metadata for one in found] == [one.schema.metadata for one in batches]


def test_a_name_that_is_too_long_is_shortened_and_told_from_others() -> None:
    names = ["é" * 60, "é" * 59 + "è", "x" * 300, "x" * 200, "a~" * 70]
    files = [file_name(name, 10**6, ROWS) + ".index.part" for name in names]
    assert len({*files}) == len(names)
    assert all(len(file.encode()) <= 255 for file in files)
    assert file_name("x" * 200, 1, ROWS) == "x" * 200 + ".arrows"


class FewFiles(QuickDisk):
    """One that has no file for streams whose name begins with `odd`."""

    full = False

    def create(self, directory: int, name: str, *, direct: bool = False) -> int:
        if self.full and name.startswith("odd"):
            raise OSError(errno.EMFILE, "too many open files")
        return super().create(directory, name, direct=direct)


async def test_a_stream_that_can_have_no_file_is_refused_alone_until_it_can(
    hub: Hub[pa.RecordBatch], tmp_path: Path
) -> None:
    disk = FewFiles()
    disk.full = True
    recorder = Recorder(tmp_path / "run", hub, disk=disk)
    await recorder.start()
    hub.publish(batch_of("odd.a", sequence=pa.array([0])))
    hub.publish(batch_of("odd.f", sequence=pa.array([0]), timestamp=TIMES, pixels=ONE))
    hub.publish(scalars(0))
    assert await recorder.flush(timeout_s=10)
    assert recorder.error is None
    disk.full = False
    hub.publish(batch_of("odd.a", sequence=pa.array([1])))
    hub.publish(batch_of("odd.f", sequence=pa.array([1]), timestamp=TIMES, pixels=ONE))
    assert await recorder.flush(timeout_s=10)
    assert [await recorder.acknowledged("odd.a", n) for n in (0, 1)] == [False, True]
    summary = await recorder.stop()
    assert summary.lost == {"no file": 2}
    assert summary.rows == {"dmm.voltage": 5, "odd.a": 1, "odd.f": 1}
    assert open_run(tmp_path / "run")["odd.f"].to_arrow().column("sequence").to_pylist() == [1]


@pytest.mark.parametrize("together", [True, False])
def test_what_is_refused_is_counted_as_itself_whatever_was_written_with_it(tmp_path: Path, together: bool) -> None:
    disk = FewFiles()
    disk.full = True
    journal = Journal(str(tmp_path / "run"), RunPage.of_now(tmp_path, level="durable", provenance={}), disk)
    batches = [batch_of("odd.a", sequence=pa.array([0])), scalars(0), NO_FORM["text"]]
    batches.append(batch_of("odd.f", sequence=pa.array([0]), timestamp=TIMES, pixels=ONE))
    for group in [batches] if together else [[one] for one in batches]:
        journal.write(group)
        journal.commit()
    assert journal.counts == {"dmm.voltage": 5}
    assert journal.refused == {"odd.a": {"no file": 1}, "odd.f": {"no file": 1}, "odd.c": {"no form": 1}}
    journal.abandon()


async def test_what_nobody_thought_of_ends_the_recording_and_is_said(
    hub: Hub[pa.RecordBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path / "run", hub, disk=QuickDisk())
    await recorder.start()
    hub.publish(scalars(0))
    assert await recorder.flush(timeout_s=10)
    write = Journal.write

    def broken(self: Journal, batches: Any) -> None:
        write(self, batches)
        if batches:
            raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Journal, "write", broken)
    hub.publish(scalars(5))
    assert await recorder.flush(timeout_s=10), "it is counted as lost"
    assert not recorder.recording
    assert "a fault of ours" in str(recorder.error)
    hub.publish(scalars(10))
    assert await recorder.flush(timeout_s=10)
    assert [await recorder.acknowledged("dmm.voltage", n) for n in (4, 5, 12)] == [True, False, False]
    run = open_run(tmp_path / "run")
    assert run.state == "finished"
    stop = run.events[-1].doc
    assert (stop["exit_status"], stop["lost"], stop["num_events"]) == ("fail", {"recorder": 5}, {"dmm.voltage": 5})
    assert stop["books"]["dmm.voltage"]["balanced"]
    monkeypatch.undo()
    ended = await recorder.rotate(tmp_path / "next")
    assert ended.lost == {"recorder": 10}
    assert not ended.complete
    hub.publish(scalars(15))
    summary = await recorder.stop()
    assert summary.complete
    assert summary.rows == {"dmm.voltage": 5}


class HeldDisk(QuickDisk):
    """One on which a write fails so often, or a sync takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = 0
        self.between: Any = None

    def write(self, file: int, parts: Any, offset: int) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError(errno.ENOSPC, "no space")
        super().write(file, parts, offset)

    def sync(self, file: int) -> None:
        if self.between is not None:
            between, self.between = self.between, None
            between()
        super().sync(file)


@pytest.mark.parametrize("level", ["kernel", "durable"])
async def test_one_refused_write_that_is_over_costs_no_acknowledgement(
    hub: Hub[pa.RecordBatch], tmp_path: Path, level: Any
) -> None:
    disk = HeldDisk()
    recorder = Recorder(tmp_path / "run", hub, level=level, disk=disk)
    await recorder.start()
    hub.publish(scalars(0))
    assert await recorder.flush(timeout_s=10)
    disk.fails = 1
    hub.publish(scalars(5))
    for one in ("kernel", level):
        assert await recorder.flush(level=one, timeout_s=10)
        assert await recorder.acknowledged("dmm.voltage", 9, level=one, timeout_s=10)
        assert recorder.watermark("dmm.voltage", one).rows == 10
    assert (await recorder.stop()).complete


async def test_rows_that_were_lost_are_never_acknowledged(hub: Hub[pa.RecordBatch], tmp_path: Path) -> None:
    disk = HeldDisk()
    recorder = Recorder(tmp_path / "run", hub, when_full="count", capacity=2, disk=disk)
    await recorder.start()
    hub.publish(scalars(7, 1))
    assert await recorder.flush(timeout_s=10)
    disk.between = lambda: [hub.publish(scalars(n, 1)) for n in range(9, 30)]
    hub.publish(scalars(8, 1))
    assert await recorder.flush(timeout_s=10)
    hub.publish(scalars(30, 1))
    assert await recorder.flush(timeout_s=10)
    told = [n for n in range(31) if await recorder.acknowledged("dmm.voltage", n, timeout_s=10)]
    await recorder.stop()
    assert told == JournalReader(tmp_path / "run").table("dmm.voltage").column("sequence").to_pylist()
    assert told == [7, 8, 9, 10, 30]


async def test_what_is_given_up_is_never_acknowledged(hub: Hub[pa.RecordBatch], tmp_path: Path) -> None:
    disk = HeldDisk()
    recorder = Recorder(tmp_path / "a", hub, on_failure="end", disk=disk)
    await recorder.start()
    hub.publish(scalars(0))
    assert await recorder.flush(timeout_s=10)
    disk.fails = 1
    hub.publish(scalars(5))
    assert await recorder.flush(timeout_s=10)
    await recorder.rotate(tmp_path / "b")
    hub.publish(scalars(10))
    assert await recorder.flush(timeout_s=10)
    found = [await recorder.acknowledged("dmm.voltage", n, timeout_s=10) for n in range(15)]
    assert found == [True] * 5 + [False] * 5 + [True] * 5
    assert recorder.watermark("dmm.voltage").rows == 10
    await recorder.stop()


async def test_what_is_lost_while_a_run_is_ended_is_in_the_books_of_one_run(
    hub: Hub[pa.RecordBatch], tmp_path: Path
) -> None:
    disk = HeldDisk()
    recorder = Recorder(tmp_path / "a", hub, when_full="count", capacity=2, disk=disk)
    await recorder.start()
    hub.publish(scalars(0, 1))
    assert await recorder.flush(timeout_s=10)
    close = Journal.close

    def slow(self: Journal, stop: dict[str, Any]) -> None:
        for n in range(1, 10):
            hub.publish(scalars(n, 1))
        close(self, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "close", slow)
        one = await recorder.rotate(tmp_path / "b")
    other = await recorder.stop()
    lost = produced = stored = 0
    for name in "ab":
        book = JournalReader(tmp_path / name).events[-1].doc["books"]["dmm.voltage"]
        assert book["balanced"]
        lost += sum(book["lost"].values())
        produced, stored = produced + book["produced"], stored + book["stored"]
    assert (produced, stored, lost) == (10, 3, 7)
    assert sum(one.lost.values()) + sum(other.lost.values()) == 7


def test_of_many_losses_the_oldest_are_told_coarsely_and_none_is_promised() -> None:
    tally = Tally()
    for n in range(0, 6000, 2):
        tally.look([scalars(n, 1)])
    mark = tally.marks()["dmm.voltage"]
    assert len(mark.lost) == 1000
    assert not any(mark.has(n) for n in range(1, 6000, 2))
    assert all(mark.has(n) for n in range(4004, 6000, 2))
    tally.look([scalars(0, 3)])
    assert [n for n in range(10) if tally.marks()["dmm.voltage"].has(n)] == [0, 1, 2]
    tally.lose([scalars(2, 1)])
    assert [n for n in range(10) if tally.marks()["dmm.voltage"].has(n)] == [0, 1]
    assert tally.marks()["dmm.voltage"].watermark.sequence == 1


@pytest.mark.parametrize("file", ["dmm.voltage.arrows", "cam.f.npy"])
async def test_a_file_that_somebody_removed_is_noticed_at_the_next_commit(
    hub: Hub[pa.RecordBatch], tmp_path: Path, file: str
) -> None:
    def pair(n: int) -> list[pa.RecordBatch]:
        return [scalars(n, 1), batch_of("cam.f", sequence=pa.array([n]), timestamp=TIMES, pixels=ONE)]

    recorder = Recorder(tmp_path / "run", hub, disk=QuickDisk())
    await recorder.start()
    for n in range(2):
        for batch in pair(n):
            hub.publish(batch)
        assert await recorder.flush(timeout_s=10)
    (tmp_path / "run" / file).unlink()
    for n in range(2, 4):
        for batch in pair(n):
            hub.publish(batch)
        assert await recorder.flush(timeout_s=10)
    assert "is gone" in str(recorder.error)
    summary = await recorder.stop()
    assert summary.lost == {"directory": 2}
    reader = JournalReader(tmp_path / "run")
    stream = "dmm.voltage" if file.startswith("dmm") else "cam.f"
    found = {
        name: [n for b in reader.batches(name) for n in b.column("sequence").to_pylist()] for name in reader.streams
    }
    assert found == {"dmm.voltage": [0, 1, 2, 3], "cam.f": [0, 1, 2, 3], stream: [2, 3]}
    assert {gap.stream for gap in reader.gaps()} == {stream}


def test_a_lab_may_have_as_many_files_as_the_system_lets_it() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert raise_file_limit() == (2**20 if hard == resource.RLIM_INFINITY else min(hard, 2**20))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
