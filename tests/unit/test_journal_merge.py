"""Slow channels are merged while they are recorded: the same rows in fewer bytes, at any moment, for any reader."""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import duodaq
from duodaq import schema
from duodaq.clock import pause
from duodaq.dataplane import Hub
from duodaq.model import Scalar
from duodaq.storage import JournalReader, Recorder, recover
from duodaq.storage._compactor import Compactor
from duodaq.storage.export import export, finalise
from duodaq.storage.journal import Disk, Gap, Journal, RunPage
from duodaq.storage.journal._catalog import Catalog
from duodaq.storage.journal._compact import merge, remove
from duodaq.storage.journal._prune import prune
from duodaq.storage.journal._sealed import SealedParquet
from duodaq.storage.reading._rows import JournalRows, SegmentMovedError
from duodaq.testing import QuickDisk, TracedDisk, after_power_loss

T = 1_790_000_000_000_000_000
STRETCH = 70
STREAMS = ("room.temperature", "room.pressure", "stage.axes")


def row(channel: str, n: int, metadata: Any = None) -> pa.RecordBatch:
    return schema.scalar_batch([Scalar("room", channel, "degC", T + n * 10**9, n, n / 7, "v2", metadata)])


def axis(n: int) -> pa.RecordBatch:
    """Rows whose dictionaries change from batch to batch."""
    return schema.stage_batch(
        instrument="stage", channel="axes", t_ns=[T + n], sequence=[n], axis=["x"], position=[n / 3],
        velocity=[None], state=["Idle" if n % 3 else "Moving"], unit=["mm"],
    )  # fmt: skip


def at_second(n: int) -> list[pa.RecordBatch]:
    """What is published then: one of the channels changes its metadata now and then."""
    return [row("temperature", n), row("pressure", n, {"range": n // 50} if n % 200 > 100 else None), axis(n)]


def journal_at(path: Path, disk: Disk | None = None, level: Any = "durable") -> Journal:
    page = RunPage.of_now(path, level=level, provenance={})
    journal = Journal(str(path), page, disk or QuickDisk(), stretch=STRETCH)
    journal._fan_in = 3
    return journal


def tidy(journal: Journal, disk: Disk, most: int = 1000) -> int:
    """Merge what is worth it, as the recorder has it done; how often."""
    for done in range(most):
        asked = journal.next_merge()
        if asked is None:
            return done
        journal.adopt(merge(disk, journal.path, asked))
        journal.commit()
        gone, parts, dead = journal.take_replaced()
        remove(disk, journal.path, [stretch.name for stretch in gone])
        journal.pruned(parts, prune(disk, journal.path, parts, dead))
    return most


def record(journal: Journal, seconds: range, disk: Disk, *, merging: bool = True) -> None:
    for n in seconds:
        journal.write(at_second(n))
        journal.commit()
        if merging:
            tidy(journal, disk)


def as_published(stream: str, count: int) -> list[pa.RecordBatch]:
    return [at_second(n)[STREAMS.index(stream)] for n in range(count)]


def rows_of(batches: Iterator[pa.RecordBatch] | list[pa.RecordBatch]) -> list[tuple[Any, Any]]:
    """Each row, with the metadata of its batch."""
    return [(batch.schema.metadata, values) for batch in batches for values in batch.to_pylist()]


@functools.cache
def published(stream: str, count: int) -> list[tuple[Any, Any]]:
    return rows_of(as_published(stream, count))


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 700 seconds whose program was killed."""
    path = tmp_path_factory.mktemp("merged") / "run"
    disk = QuickDisk()
    journal = journal_at(path, disk, "kernel")
    journal._part_descriptors = 8
    record(journal, range(700), disk)
    journal.abandon()
    assert len([*path.glob("events*.jsonl")]) > 2
    return path


@pytest.mark.parametrize("stream", STREAMS)
def test_every_row_is_as_it_was_published(merged: Path, stream: str) -> None:
    reader = JournalReader(merged)
    assert rows_of(reader.batches(stream)) == published(stream, 700)
    assert not reader.gaps()
    opened = duodaq.open_run(merged)[stream]
    assert len(opened) == 700
    assert opened.to_arrow().column("sequence").to_pylist() == [*range(700)]
    assert opened.between(T + 10 * 10**9, T + 20 * 10**9).to_arrow().num_rows == (10 if stream != "stage.axes" else 0)


def test_it_is_in_few_files_that_any_arrow_reader_reads(merged: Path) -> None:
    files = sorted(merged.glob("room.temperature*.arrows"))
    assert len(files) < 12
    tables = [pa.ipc.open_stream(path.read_bytes()).read_all() for path in files]
    assert sorted(n for table in tables for n in table.column("sequence").to_pylist()) == [*range(700)]
    assert not [*merged.glob("*.part")]


def test_a_merged_row_costs_a_tenth(tmp_path: Path) -> None:
    sizes: list[int] = []
    for merging in (False, True):
        path, disk = tmp_path / str(merging), QuickDisk()
        journal = journal_at(path, disk, "kernel")
        journal._stretch = 1024
        journal._part_records = 512
        for n in range(2048):
            journal.write([row("temperature", n)])
            journal.commit()
        if merging:
            tidy(journal, disk)
        journal.close({})
        assert JournalReader(path).table("room.temperature").num_rows == 2048
        sizes.append(sum(f.stat().st_size for f in path.iterdir() if "temperature" in f.name or "journal" in f.name))
    assert sizes[1] < sizes[0] / 10


def test_the_index_of_the_run_forgets_what_was_merged(tmp_path: Path) -> None:
    disk = QuickDisk()
    journal = journal_at(tmp_path / "run", disk)
    journal._part_records = 100
    record(journal, range(800), disk)
    journal.abandon()
    catalog = Catalog(tmp_path / "run")
    there = {facts.id for facts in catalog.segments}
    known = sum(len(entries) for entries in catalog.mirror.values())
    assert known < 900
    assert there <= set(catalog.mirror)
    for facts in catalog.segments:
        own, mirrored = catalog.entries(facts)
        assert [mirrored[n] for n in range(len(own))] == own


def small_logs(path: Path, seconds: int, disk: Disk) -> Journal:
    """A run whose event logs announce few segments each."""
    journal = journal_at(path, disk)
    journal._part_descriptors = 6
    for n in range(0, seconds, 5):
        if n % 100 == 50:
            journal.note("change", {"instrument": "room", "parameter": "fan", "value": n})
        journal.write([batch for second in range(n, n + 5) for batch in at_second(second)])
        journal.commit()
        tidy(journal, disk)
    return journal


def test_the_event_log_forgets_segments_that_were_merged_and_nothing_else(tmp_path: Path) -> None:
    disk = QuickDisk()
    journal = small_logs(tmp_path / "run", 1000, disk)
    logs = [*(tmp_path / "run").glob("events*.jsonl")]
    assert len(logs) < 8
    assert not [*(tmp_path / "run").glob("*.part")]
    journal.close({"exit_status": "success"})
    reader = JournalReader(tmp_path / "run")
    told = [event for event in reader.events if event.name == "descriptor"]
    assert len(told) < 40, "of some 65"
    assert {event.doc["segment"]["id"] for event in told} >= {facts.id for facts in Catalog(tmp_path / "run").segments}
    assert [event.doc["value"] for event in reader.events if event.name == "change"] == [*range(50, 1000, 100)]
    assert reader.finished
    assert not reader.gaps()
    assert duodaq.open_run(tmp_path / "run").state == "finished"
    assert rows_of(reader.batches("room.temperature")) == published("room.temperature", 1000)


def test_who_looks_while_event_logs_are_put_together_sees_every_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = QuickDisk()
    journal = small_logs(tmp_path / "run", 500, disk)
    before = Catalog(tmp_path / "run")
    lost = before.event_logs[-2]
    read_bytes = Path.read_bytes

    def vanishes(path: Path) -> bytes:
        if path.name == lost and path.exists():
            data = read_bytes(path)
            path.unlink()
            with open(path.with_name("events.jsonl"), "ab") as first:
                first.write(data)
            raise FileNotFoundError(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", vanishes)
    assert Catalog(tmp_path / "run").events == before.events
    journal.abandon()


def test_an_event_log_that_cannot_be_pruned_stays_as_it_is(tmp_path: Path) -> None:
    class Full(QuickDisk):
        refuses = False

        def rename(self, directory: int, name: str, to: str) -> None:
            if self.refuses and "events" in name:
                raise OSError(28, "No space left on device")
            super().rename(directory, name, to)

    disk = Full()
    journal = journal_at(tmp_path / "run", disk)
    journal._part_descriptors = 6
    recorder = Compactor(journal, disk)
    for n in range(0, 600, 5):
        disk.refuses = n > 200
        journal.write([batch for second in range(n, n + 5) for batch in at_second(second)])
        journal.commit()
        recorder.order()
        recorder.finish()
        recorder.settle()
    journal.close({})
    recorder.close()
    assert not [gap for stream in STREAMS for gap in JournalReader(tmp_path / "run").gaps(stream)]
    assert rows_of(JournalReader(tmp_path / "run").batches(STREAMS[0])) == published(STREAMS[0], 600)


def test_a_repair_keeps_every_row_and_removes_what_is_not_needed(merged: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(merged, path)
    (path / "room.temperature~99.arrows.part").touch()
    found = recover(path, disk=QuickDisk())
    assert found.rows == dict.fromkeys(STREAMS, 700)
    assert not found.gaps
    for stream in STREAMS:
        assert rows_of(JournalReader(path).batches(stream)) == published(stream, 700)
    assert not [*path.glob("*.part")]


def test_it_is_exported_and_finalised_like_any_other(merged: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(merged, path)
    export(path, "parquet")
    recover(path, disk=QuickDisk())
    finalise(path, remove_journal=True)
    for stream in STREAMS:
        assert duodaq.open_run(path)[stream].to_arrow(["sequence"]).column(0).to_pylist() == [*range(700)]
    assert not [*path.glob("room.*.arrows")]


@pytest.mark.parametrize("merges", [1, 3])
def test_who_reads_while_it_is_merged_gets_every_row_once(tmp_path: Path, merges: int) -> None:
    disk = QuickDisk()
    journal = journal_at(tmp_path / "run", disk)
    record(journal, range(500), disk, merging=False)
    reader, stream = JournalReader(tmp_path / "run"), duodaq.open_run(tmp_path / "run")["room.temperature"]
    items, tables = reader.items("room.temperature"), stream.tables(["sequence"])
    taken: list[Any] = []
    told: list[int] = []
    for _ in range(2000):
        item, table = next(items, None), next(tables, None)
        if item is not None:
            taken.append(item)
        if table is not None:
            told += table.column("sequence").to_pylist()
        tidy(journal, disk, merges)  # with several in a turn, it overtakes the readers
        assert len(stream) == 500
        if item is None and table is None:
            break
    assert any(facts.header.replaces for facts in stream._look().segments if facts.stream == stream.name)
    assert not [one for one in taken if isinstance(one, Gap)]
    assert rows_of(taken) == published("room.temperature", 500)
    assert told == [*range(500)]
    journal.abandon()


def test_who_looked_before_a_merge_and_reads_after_it_gets_every_row(tmp_path: Path) -> None:
    disk = QuickDisk()
    journal = journal_at(tmp_path / "run", disk)
    record(journal, range(300), disk, merging=False)
    reader = JournalReader(tmp_path / "run")
    tidy(journal, disk)
    for stream in STREAMS:
        assert rows_of(reader.batches(stream)) == published(stream, 300)
    journal.abandon()


def test_what_is_damaged_is_not_merged_and_is_named(tmp_path: Path) -> None:
    disk = QuickDisk()
    journal = journal_at(tmp_path / "run", disk)
    record(journal, range(200), disk, merging=False)
    asked = journal.next_merge()
    assert asked is not None
    file = tmp_path / "run" / asked.sources[0].name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(duodaq.DuodaqError, match="not as it was written"):
        merge(disk, journal.path, asked)
    journal.spare(asked)
    tidy(journal, disk)
    journal.close({})
    stream = asked.stream
    (gap,) = JournalReader(tmp_path / "run").gaps()
    assert (gap.stream, gap.reason, gap.rows, gap.file) == (stream, "damage", 1, asked.sources[0].name)
    assert len(rows_of(JournalReader(tmp_path / "run").batches(stream))) == 199


@pytest.mark.parametrize("seed", range(10))
def test_damage_to_a_merged_run_never_gives_a_wrong_row(merged: Path, tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    path = tmp_path / "run"
    shutil.copytree(merged, path)
    victim = luck.choice(sorted(p for p in path.iterdir() if p.suffix in (".arrows", ".index", ".jsonl")))
    data = bytearray(victim.read_bytes())
    for _ in range(luck.randrange(1, 4)):
        data[luck.randrange(len(data))] ^= 1 << luck.randrange(8)
    victim.write_bytes(data)
    for repaired in (False, True):
        if repaired:
            recover(path, disk=QuickDisk())
        reader = JournalReader(path)
        for stream in STREAMS:
            found, all_of_it = rows_of(reader.batches(stream)), published(stream, 700)
            numbers = [values["sequence"] for _, values in found]
            assert numbers == sorted(set(numbers))
            assert found == [all_of_it[n] for n in numbers]
            if victim.suffix != ".arrows":
                assert len(found) == 700, "there are two copies of everything but the rows"
            if len(found) < 700:
                assert reader.gaps(stream)


@pytest.mark.parametrize("repaired", [False, True])
def test_a_merged_segment_whose_index_is_spoiled_is_known_by_its_descriptor(
    merged: Path, tmp_path: Path, repaired: bool
) -> None:
    path = tmp_path / "run"
    shutil.copytree(merged, path)
    for facts in Catalog(path).segments:
        if facts.header.replaces is not None:
            index = path / f"{facts.file}.index"
            index.write_bytes(b"spoiled!" + index.read_bytes()[8:])
    if repaired:
        assert not recover(path, disk=QuickDisk()).gaps
    for stream in STREAMS:
        assert rows_of(JournalReader(path).batches(stream)) == published(stream, 700)
        assert len(duodaq.open_run(path)[stream].to_arrow()) == 700


class Kept(random.Random):
    """Chance for a kill, which takes nothing back that the kernel has."""

    def random(self) -> float:
        return 0.9

    def choice(self, seq: Any) -> Any:
        return seq[0]


class Trace:
    """A recording with merges, as the disk saw it; `promised` says after how many steps how many seconds counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = TracedDisk()
        self.promised = [(0, 0)]
        journal = journal_at(path, self.disk)
        journal._part_records = 150
        journal._part_descriptors = 5
        for n in range(0, 450, 5):
            for second in range(n, n + 5):
                journal.write(at_second(second))
            journal.commit()
            self.promised.append((len(self.disk.steps), n + 5))
            tidy(journal, self.disk, 1)
        journal.close({})
        self.promised.append((len(self.disk.steps), 450))
        kinds = ("rename", "remove")
        self.moments = [i for i, step in enumerate(self.disk.steps) if step.kind in kinds and i > 20]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return Trace(tmp_path_factory.mktemp("trace") / "run")


def end_suddenly(trace: Trace, image: Path, luck: random.Random, steps: int) -> None:
    shutil.rmtree(image, ignore_errors=True)
    promised = max(seconds for at, seconds in trace.promised if at <= steps)
    assert after_power_loss(trace.disk.steps[:steps], trace.path, image, luck)
    for repaired in (False, True):
        if repaired:
            gaps = [gap for gap in recover(image, disk=QuickDisk()).gaps if gap.rows]
            assert all(gap.after is not None and gap.after >= promised - 1 for gap in gaps), "a row that counted"
        for stream in STREAMS:
            found = rows_of(JournalReader(image).batches(stream))
            assert found[:promised] == published(stream, 450)[:promised]
            numbers = [values["sequence"] for _, values in found]
            assert numbers == sorted(set(numbers)), "nothing is there twice"
            run = duodaq.open_run(image)
            read = run[stream].to_arrow() if stream in run else pa.table({})
            assert (read.column("sequence").to_pylist() if read.num_columns else []) == numbers


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_of_power_around_a_merge_costs_no_durable_row(trace: Trace, tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    for _ in range(5):
        end_suddenly(trace, tmp_path / "image", luck, luck.choice(trace.moments) + luck.randrange(-12, 13))


class OnlyTheLastName(random.Random):
    """Chance for a loss of power by which, of names that nobody had synced, the last one alone came to the disk."""

    def __init__(self, unsynced: int) -> None:
        super().__init__(0)
        self.unsynced = unsynced

    def random(self) -> float:
        self.unsynced -= 1
        return 0.0 if self.unsynced > 0 else 0.9

    def choice(self, seq: Any) -> Any:
        return seq[0]


def test_a_loss_of_power_that_leaves_only_the_last_of_the_names_costs_no_row(trace: Trace, tmp_path: Path) -> None:
    steps = trace.disk.steps
    at_merges = [i for i in trace.moments if steps[i].kind == "rename" and steps[i].name.endswith(".arrows.index")]
    assert len(at_merges) > 20
    for moment in at_merges[:: len(at_merges) // 10]:
        synced = max(i for i in range(moment) if steps[i].kind == "syncdir")
        named = sum(steps[i].what == str(trace.path) for i in range(synced + 1, moment + 1))
        end_suddenly(trace, tmp_path / "image", OnlyTheLastName(named), moment + 1)


def test_a_kill_at_any_step_of_a_merge_costs_no_row(trace: Trace, tmp_path: Path) -> None:
    luck = random.Random(1)
    for moment in luck.sample(trace.moments, 12):
        end_suddenly(trace, tmp_path / "image", Kept(), moment + luck.randrange(-2, 3))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 140))
def test_a_thousand_losses_of_power_around_merges_cost_no_durable_row(trace: Trace, tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    for _ in range(25):
        end_suddenly(trace, tmp_path / "image", luck, luck.choice(trace.moments) + luck.randrange(-12, 13))


async def test_a_recorder_has_it_done_beside_its_own_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duodaq.storage._turn.Journal", functools.partial(Journal, stretch=STRETCH))
    hub: Hub[pa.RecordBatch] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    recorder = Recorder(tmp_path / "run", hub, level="kernel", disk=QuickDisk())
    await recorder.start()
    for n in range(600):
        for batch in at_second(n):
            hub.publish(batch)
        if n % 20 == 0:
            await recorder.flush(timeout_s=10)
            await pause(0)
    summary = await recorder.stop()
    assert summary.complete
    assert summary.rows == dict.fromkeys(STREAMS, 600)
    run = duodaq.open_run(tmp_path / "run")
    assert run.state == "finished"
    assert any(facts.header.replaces for facts in run.look().segments)
    for stream in STREAMS:
        assert rows_of(JournalReader(run.path).batches(stream)) == published(stream, 600)
    left = {facts.file for facts in run.look().segments}
    assert {path.name for path in run.path.glob("*.arrows")} == left == {*summary.files}


def test_a_segment_that_is_gone_before_its_descriptor_was_seen_is_looked_for_where_it_was_merged(
    tmp_path: Path,
) -> None:
    disk = QuickDisk()
    journal = journal_at(tmp_path / "run", disk)
    try:
        record(journal, range(300), disk, merging=False)
        parts = [part for stream in duodaq.open_run(tmp_path / "run") for part in stream.parts]
        tidy(journal, disk)
        here = {facts.file for facts in Catalog(tmp_path / "run").segments}
        merged = [part for part in parts if part.file not in here]
        assert merged
        for part in merged:
            assert isinstance(part, JournalRows)
            part._facts = part._facts._replace(head=None)
            for ask in (part.first, lambda part=part: part.schema, lambda part=part: part.extent):
                with pytest.raises(SegmentMovedError):
                    ask()
    finally:
        journal.abandon()


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_what_was_merged_during_an_export_leaves_no_file_of_before(
    tmp_path: Path, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = QuickDisk()
    journal = journal_at(tmp_path / "run", disk)
    try:
        record(journal, range(300), disk, merging=False)
        run = duodaq.open_run(tmp_path / "run")
        wanted = {stream.name: stream.to_arrow().num_rows for stream in run}
        tables, seen = JournalRows.tables, list[int]()

        def merging(self: JournalRows, *args: Any, **kwargs: Any) -> Iterator[pa.Table]:
            seen.append(1)
            if len(seen) == 4:  # one part was written and verified, and another one written
                tidy(journal, disk)
            return tables(self, *args, **kwargs)

        monkeypatch.setattr(JournalRows, "tables", merging)
        done = export(run, to, tmp_path / "out")
        assert sorted(map(str, (tmp_path / "out").iterdir())) == sorted(done.files)
        assert len(done.files) == sum(len(stream.parts) for stream in duodaq.open_run(tmp_path / "run"))
        for stream, count in wanted.items():
            assert sum(_rows_in(Path(file)) for file in done.files if Path(file).name.startswith(stream)) == count
        assert {stream.name: stream.to_arrow().num_rows for stream in run} == wanted
        assert done.missing == {}
    finally:
        journal.abandon()


def _rows_in(file: Path) -> int:
    if file.suffix == ".csv":
        return file.read_bytes().count(b"\n") - 1
    with SealedParquet(file) as found:
        return found.metadata.num_rows
