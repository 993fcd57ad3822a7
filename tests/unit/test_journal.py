"""The writer of a journal: what plain tools find in its files, and what it does when the disk refuses."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from duodaq import schema
from duodaq.errors import LifecycleError, StorageError
from duodaq.model import Scalar
from duodaq.storage.journal import Disk, Journal, JournalReader, RunPage, edit_labels, recover, unfinished_runs
from duodaq.storage.journal._compact import merge, remove
from duodaq.storage.journal._events import unpack_event
from duodaq.testing import QuickDisk, RefusingDisk

T = 1_790_000_000_000_000_000


def scalars(first: int, count: int = 10, channel: str = "voltage", metadata: Any = None) -> pa.RecordBatch:
    rows = [Scalar("dmm", channel, "V", T + n, n, n / 7, "v4", metadata) for n in range(first, first + count)]
    return schema.scalar_batch(rows)


def frame(number: int, shape: tuple[int, int] = (8, 9), dtype: Any = np.uint16) -> pa.RecordBatch:
    pixels = (np.arange(shape[0] * shape[1]) * 31 + number).astype(dtype).reshape(shape)
    return schema.frame_batch(
        pixels, instrument="cam", channel="frames", t_ns=T + number, sequence=number, frame_number=100 + number
    )


def begin(path: Path, disk: Disk | None = None, level: Any = "durable") -> Journal:
    return Journal(str(path), RunPage.of_now(path, level=level, provenance={"lab": "bench"}), disk or QuickDisk())


class SickDisk(RefusingDisk):
    """Refuses one operation on the file of one name, while it is `sick`."""

    def __init__(self, operation: str, name: str) -> None:
        self.sick = False
        super().__init__(lambda o, n: errno.EIO if self.sick and (o, n) == (operation, name) else None)


def put(journal: Journal, *batches: pa.RecordBatch) -> None:
    journal.write(batches)
    journal.commit()


def plain(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


def numbers(path: Path, stream: str = "dmm.voltage") -> list[int]:
    return JournalReader(path).table(stream).column("sequence").to_pylist()


def test_rows_are_a_plain_arrow_stream_while_it_grows_and_when_it_is_done(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    put(journal, scalars(0), scalars(10, metadata={"range": 10}))
    assert plain(tmp_path / "run" / "dmm.voltage.arrows").column("sequence").to_pylist() == [*range(20)]
    put(journal, scalars(20))
    journal.close({})
    assert plain(tmp_path / "run" / "dmm.voltage.arrows").column("value").to_pylist() == [n / 7 for n in range(30)]


def test_a_batch_is_read_as_it_was_published_metadata_included(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    published = [scalars(0), scalars(10, metadata={"range": 10}), scalars(20), scalars(30, metadata={"range": 1})]
    put(journal, *published)
    journal.close({})
    found = [*JournalReader(tmp_path / "run").batches("dmm.voltage")]
    assert [batch.equals(wanted, check_metadata=True) for batch, wanted in zip(found, published, strict=True)] == [
        True
    ] * 4


SHAPES = [(1, 1), (8, 9), (64, 32), (33, 129), (700, 3001), (512, 512)]
FORMS = [(shape, np.uint16, direct) for shape in SHAPES for direct in (True, False)]
FORMS += [((33, 129), dtype, True) for dtype in (np.uint8, np.float64)]


@pytest.mark.parametrize(("shape", "dtype", "direct"), FORMS)
def test_frames_of_any_size_are_a_plain_npy_file(
    tmp_path: Path, shape: tuple[int, int], dtype: Any, direct: bool
) -> None:
    journal = begin(tmp_path / "run", QuickDisk(direct=direct))
    published = [frame(n, shape, dtype) for n in range(4)]
    put(journal, published[0])
    put(journal, *published[1:3])
    put(journal, published[3])
    assert [*JournalReader(tmp_path / "run").batches("cam.frames")] == published
    journal.close({})
    stack = np.load(tmp_path / "run" / "cam.frames.npy")
    np.testing.assert_array_equal(stack, np.concatenate([schema.pixels_of(batch) for batch in published]))
    assert [*JournalReader(tmp_path / "run").batches("cam.frames")] == published


@pytest.mark.parametrize(
    ("shape", "direct", "refused"),
    [((700, 701), True, n) for n in (0, 1, 7)]
    + [((700, 701), False, 2)]
    + [((1024, 512), True, n) for n in (0, 1, 2)]
    + [((2560, 1024), True, n) for n in (0, 4)],
)
def test_many_frames_are_written_together_and_once_more_if_the_disk_refuses(
    tmp_path: Path, shape: tuple[int, int], direct: bool, refused: int
) -> None:
    """They are more than one portion; those of odd shape lie anywhere in memory, and fill what packs them.

    One call of the kernel has up to 4 MiB: four of the frames of 1 MiB, and of those of 5 MiB a part.
    """
    count = 40 if shape != (2560, 1024) else 10
    writes = -100  # the first frame counts for nothing

    def refuses(operation: str, name: str) -> int | None:
        nonlocal writes
        if (operation, name) != ("write", "cam.frames.npy"):
            return None
        writes += 1
        return errno.ENOSPC if writes == refused else None

    disk = RefusingDisk(refuses)
    disk.direct = direct
    journal = begin(tmp_path / "run", disk)
    memory = np.frombuffer(mmap.mmap(-1, count * shape[0] * shape[1] * 2), np.uint16).reshape(count, *shape)
    memory[:] = (np.arange(memory.size) * 31 % 65_521).reshape(memory.shape)
    published: list[pa.RecordBatch] = []
    for first, last in [(0, 1), *((n, n + 3) for n in range(1, count, 3))]:
        some = range(first, last)
        times = [T + n for n in some]
        facts: dict[str, Any] = {"instrument": "cam", "channel": "frames", "sequence": some, "frame_number": some}
        published.append(schema.frame_batch(memory[first:last], t_ns=times, **facts))
    put(journal, published[0])
    writes = 0
    if refused:
        with pytest.raises(OSError, match="space"):
            journal.write(published[1:])
        journal.give_up()
        journal.resume()
    else:
        put(journal, *published[1:])
        assert writes <= (13 if count == 40 else 20)
    journal.close({})
    assert [*JournalReader(tmp_path / "run").batches("cam.frames")] == published
    assert recover(tmp_path / "run", finished_too=True).rows == {"cam.frames": count}


def test_another_shape_of_frames_begins_another_file(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    published = [frame(0), frame(1), frame(2, (3, 4)), frame(3, (3, 4), np.uint8), frame(4)]
    put(journal, *published)
    journal.close({})
    shapes = {path.name: np.load(path).shape for path in (tmp_path / "run").glob("*.npy")}
    assert shapes == {
        "cam.frames.npy": (2, 8, 9),
        "cam.frames~2.npy": (1, 3, 4),
        "cam.frames~3.npy": (1, 3, 4),
        "cam.frames~4.npy": (1, 8, 9),
    }
    assert [*JournalReader(tmp_path / "run").batches("cam.frames")] == published


def test_each_event_is_a_line_of_json_with_its_checksum(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    put(journal, scalars(0))
    journal.note("change", {"instrument": "dmm", "parameter": "nplc", "value": 10})
    journal.close({"exit_status": "success"})
    lines = (tmp_path / "run" / "events.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["name"] for line in lines] == ["start", "descriptor", "change", "stop"]
    assert [unpack_event(line).n for line in lines] == [0, 1, 2, 3]
    assert unpack_event(lines[2].replace(b"10", b"11")) is None


def test_runs_are_numbered_in_their_directory(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        journal = begin(tmp_path / f"run {number}")
        assert journal.page.number == number
        journal.close({})


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    begin(tmp_path / "run").close({})
    with pytest.raises(StorageError, match="already holds"):
        begin(tmp_path / "run")


def test_a_run_that_is_being_written_is_not_repaired(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    put(journal, scalars(0))
    assert unfinished_runs(tmp_path) == []
    with pytest.raises(LifecycleError, match="being written"):
        recover(tmp_path / "run")
    journal.abandon()
    assert unfinished_runs(tmp_path) == [tmp_path / "run"]
    assert recover(tmp_path / "run").rows == {"dmm.voltage": 10}
    assert unfinished_runs(tmp_path) == []


def test_a_lost_end_mark_costs_nothing_and_is_no_gap(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    put(journal, scalars(0))
    journal.close({})
    file = tmp_path / "run" / "dmm.voltage.arrows"
    os.truncate(file, file.stat().st_size - 3)
    assert JournalReader(tmp_path / "run").gaps() == []
    assert recover(tmp_path / "run", finished_too=True).gaps == []
    assert plain(file).num_rows == 10


# --- a disk that refuses


FILES = ["dmm.voltage.arrows", "dmm.voltage.arrows.index", "cam.frames.npy", "cam.frames.npy.index"]
FILES += ["cam.frames.arrows", "journal.index", "events.jsonl"]
SYNCED = [name for name in FILES if not name.endswith((".arrows.index", ".npy.index"))]  # those are at their end only


@pytest.mark.parametrize(("operation", "name"), [*(("write", n) for n in FILES), *(("sync", n) for n in SYNCED)])
def test_after_a_refusal_all_of_it_is_written_again_and_nothing_twice(
    tmp_path: Path, operation: str, name: str
) -> None:
    disk = SickDisk(operation, name)
    journal = begin(tmp_path / "run", disk)
    put(journal, scalars(0), frame(0), frame(1))
    disk.sick = True
    journal.note("change", {"n": 1})
    with pytest.raises(OSError, match=name):
        put(journal, scalars(10), scalars(20), frame(2))
    journal.give_up()
    disk.sick = operation == "sync" and name in ("journal.index", "events.jsonl")  # the old one may go on refusing
    journal.resume()
    put(journal, scalars(30), frame(3))
    journal.close({})
    assert numbers(tmp_path / "run") == [*range(40)]
    reader = JournalReader(tmp_path / "run")
    assert [*reader.batches("cam.frames")] == [frame(n) for n in range(4)]
    assert reader.gaps() == []
    assert sum(event.name == "change" for event in reader.events) == 1
    assert recover(tmp_path / "run", finished_too=True).rows == {"dmm.voltage": 40, "cam.frames": 4}


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize(
    "name", ["cam.frames.npy", "cam.frames.npy.index", "cam.frames.arrows", "cam.frames.arrows.index"]
)
def test_an_end_that_the_disk_refuses_is_made_again_and_is_no_damage(tmp_path: Path, operation: str, name: str) -> None:
    """Whatever has the end already then: the frames when the rows cannot be ended, an index when a sync fails."""
    disk = SickDisk(operation, name)
    journal = begin(tmp_path / "run", disk)
    put(journal, scalars(0), frame(0), frame(1))
    disk.sick = True
    with pytest.raises(OSError, match=name):
        journal.close({})
    journal.give_up()
    disk.sick = False
    journal.resume()
    journal.close({})
    reader = JournalReader(tmp_path / "run")
    assert [*reader.batches("cam.frames")] == [frame(0), frame(1)]
    assert reader.gaps() == []
    assert recover(tmp_path / "run", finished_too=True).gaps == []


@pytest.mark.parametrize(("operation", "name"), [*(("write", n) for n in FILES), *(("sync", n) for n in SYNCED)])
def test_what_was_given_up_for_good_is_no_damage(tmp_path: Path, operation: str, name: str) -> None:
    """Whoever gives it up has counted it as lost; nothing of it is left that could be found to be missing once more."""
    disk = SickDisk(operation, name)
    journal = begin(tmp_path / "run", disk)
    put(journal, scalars(0), frame(0), frame(1))
    disk.sick = True
    journal.note("change", {"n": 1})
    with pytest.raises(OSError, match=name):
        put(journal, scalars(10), scalars(20), frame(2))
    journal.give_up()
    journal.abandon()
    assert JournalReader(tmp_path / "run").gaps() == []
    found = recover(tmp_path / "run")
    assert (found.rows, found.gaps) == ({"dmm.voltage": 10, "cam.frames": 2}, [])


@pytest.mark.parametrize(("operation", "name"), [("sync", "dmm.voltage~2.arrows"), ("write", "journal.index")])
def test_what_is_merged_keeps_both_copies_of_its_entries_if_the_disk_refuses_then(
    tmp_path: Path, operation: str, name: str
) -> None:
    disk = SickDisk(operation, name)
    path = tmp_path / "run"
    journal = Journal(str(path), RunPage.of_now(path, level="durable", provenance={}), disk, stretch=70)
    for n in range(80):
        put(journal, scalars(n, 1))
    asked = journal.next_merge()
    assert asked is not None
    merged = merge(disk, journal.path, asked)
    if operation == "sync":
        journal.adopt(merged)
    disk.sick = True
    with pytest.raises(OSError, match=name):
        journal.adopt(merged) if operation == "write" else put(journal, scalars(80, 1))
    journal.give_up()
    disk.sick = False
    journal.resume()
    remove(disk, journal.path, [stretch.name for stretch in journal.take_replaced()[0]])
    journal.close({})
    assert not (path / "dmm.voltage.arrows").exists()
    index = (path / f"{asked.name}.index").read_bytes()
    (path / f"{asked.name}.index").write_bytes(index[:64] + bytes(len(index) - 64))
    assert numbers(path) == [*range(80 if operation == "write" else 81)]
    assert JournalReader(path).gaps() == []


def test_a_disk_that_goes_on_refusing_leaves_no_litter(tmp_path: Path) -> None:
    sick = False
    disk = RefusingDisk(lambda o, n: errno.ENOSPC if sick and o in ("write", "create") else None)
    journal = begin(tmp_path / "run", disk)
    put(journal, scalars(0), frame(0))
    sick = True
    before = {*os.listdir(tmp_path / "run")}
    with pytest.raises(OSError, match="space"):
        put(journal, scalars(10), frame(1))
    for _ in range(5):
        journal.give_up()
        with pytest.raises(OSError, match="space"):
            journal.resume()
    sick = False
    journal.give_up()
    journal.resume()
    assert {*os.listdir(tmp_path / "run")} - before == {
        f"{name}{suffix}"
        for name in ("dmm.voltage~2.arrows", "cam.frames~2.arrows", "cam.frames~2.npy")
        for suffix in ("", ".index")
    }
    journal.close({})
    assert numbers(tmp_path / "run") == [*range(20)]


def test_a_run_whose_directory_is_gone_goes_on_in_a_new_one(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    put(journal, scalars(0), frame(0))
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="gone"):
        put(journal, scalars(10), frame(1))
    journal.give_up()
    journal.note("failure", {"error": "gone"})
    journal.resume()
    put(journal, scalars(20))
    journal.close({})
    reader = JournalReader(tmp_path / "run")
    assert reader.page == journal.page
    assert numbers(tmp_path / "run") == [*range(10, 30)]
    assert [event.name for event in reader.events][:2] == ["failure", "start"]


def test_a_run_that_was_moved_is_written_on_where_it_is(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    put(journal, scalars(0))
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    put(journal, scalars(10), frame(0))
    journal.close({})
    assert numbers(tmp_path / "elsewhere") == [*range(20)]
    assert not (tmp_path / "run").exists()


def test_a_disk_that_comes_back_is_written_on(tmp_path: Path) -> None:
    """As one that was pulled out and mounted again: the same files, under descriptors that are not theirs any more."""
    sick = False
    disk = RefusingDisk(lambda o, n: errno.EIO if sick else None)
    journal = begin(tmp_path / "run", disk)
    put(journal, scalars(0))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    sick = True
    with pytest.raises(OSError, match="error"):
        put(journal, scalars(10))
    journal.give_up()
    (tmp_path / "run").rename(tmp_path / "gone")
    (tmp_path / "copy").rename(tmp_path / "run")
    sick = False
    journal.resume()
    journal.close({})
    assert numbers(tmp_path / "run") == [*range(20)]
    assert [event.name for event in JournalReader(tmp_path / "run").events].count("start") == 1


def test_superseded_segments_are_not_read_and_are_removed_by_a_repair(tmp_path: Path) -> None:
    """What a failure gave up and a loss of power brought back is in the segment that follows."""
    disk = SickDisk("sync", "dmm.voltage.arrows")
    disk.remove = lambda directory, name: None if name.startswith("dmm") else os.unlink(name, dir_fd=directory)
    disk.truncate = lambda file, length: None if disk.name_of(file).startswith("dmm") else os.ftruncate(file, length)
    journal = begin(tmp_path / "run", disk)
    disk.sick = True
    with pytest.raises(OSError, match="dmm"):
        put(journal, scalars(0), frame(0))
    journal.give_up()
    journal.resume()
    put(journal, scalars(10))
    assert plain(tmp_path / "run" / "dmm.voltage.arrows").num_rows == 10
    assert numbers(tmp_path / "run") == [*range(20)]
    journal.abandon()
    assert recover(tmp_path / "run").rows == {"dmm.voltage": 20, "cam.frames": 1}
    assert numbers(tmp_path / "run") == [*range(20)]


# --- read by others


def test_polars_reads_a_growing_journal_a_finished_one_and_one_that_was_repaired(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    journal = begin(tmp_path / "run")
    put(journal, scalars(0), scalars(10, metadata={"range": 10}), scalars(20))
    file = tmp_path / "run" / "dmm.voltage.arrows"
    assert polars.read_ipc_stream(file)["sequence"].to_list() == [*range(30)]
    journal.close({})
    assert polars.read_ipc_stream(file)["value"].to_list() == [n / 7 for n in range(30)]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) * 3 // 4] ^= 1
    file.write_bytes(damaged)
    (gap,) = recover(tmp_path / "run", finished_too=True).gaps
    left = [n for n in range(30) if not gap.after < n < (gap.before or 30)]
    assert polars.read_ipc_stream(file)["sequence"].to_list() == left


def test_duckdb_reads_rows_and_events(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    journal = begin(tmp_path / "run")
    put(journal, scalars(0), frame(0))
    with (
        duckdb.connect() as database,
        pa.OSFile(str(tmp_path / "run" / "dmm.voltage.arrows")) as file,
        pa.ipc.open_stream(file) as rows,
    ):
        database.register("rows", rows)
        assert database.sql("select count(*), max(sequence) from rows").fetchall() == [(10, 9)]
        events = str(tmp_path / "run" / "events.jsonl")
        told = f"select name from read_json('{events}', format = 'newline_delimited', union_by_name = true) order by n"
        assert database.sql(told).fetchall() == [("start",), ("descriptor",), ("descriptor",), ("descriptor",)]
    journal.close({})


def test_labels_can_be_given_and_edited_at_any_time(tmp_path: Path) -> None:
    journal = begin(tmp_path / "run")
    edit_labels(tmp_path / "run", sample="knife 3", tags=["beam"])
    journal.close({})
    edit_labels(tmp_path / "run", note="shutter stuck", tags=["beam", "again"])
    labels = JournalReader(tmp_path / "run").labels
    assert labels.pop("edited").endswith("+00:00")
    assert labels == {"sample": "knife 3", "note": "shutter stuck", "tags": ["beam", "again"]}
    with pytest.raises(StorageError, match="no journal"):
        edit_labels(tmp_path, note="nothing here")
