"""Damage to any file of a journal costs what it hit and nothing else, is named, and never gives a wrong value."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duodaq import open_run, schema
from duodaq.model import Scalar
from duodaq.storage.journal import Gap, Journal, JournalReader, RunPage, recover
from duodaq.storage.journal._check import RowsCheck
from duodaq.storage.journal._layout import FRAMES
from duodaq.testing import QuickDisk

T = 1_790_000_000_000_000_000
SHAPES = [(8, 9)] * 8 + [(3, 5)] * 2 + [(32, 64)] * 4 + [(8, 9)] * 3


def scalars(first: int, count: int, metadata: Any = None) -> pa.RecordBatch:
    return schema.scalar_batch(
        [Scalar("dmm", "voltage", "V", T + n, n, n / 7, "v4", metadata) for n in range(first, first + count)]
    )


def frame(number: int, shape: tuple[int, int]) -> pa.RecordBatch:
    pixels = (np.arange(shape[0] * shape[1]) * 31 + number * 7 + 1).astype(np.uint16).reshape(shape)
    return schema.frame_batch(
        pixels, instrument="cam", channel="frames", t_ns=T + number, sequence=number, frame_number=100 + number
    )


def axis(number: int) -> pa.RecordBatch:
    """Rows whose dictionaries change from batch to batch."""
    return schema.stage_batch(
        instrument="stage",
        channel="axes",
        t_ns=[T + number] * 2,
        sequence=[2 * number, 2 * number + 1],
        axis=["x", "y"],
        position=[number / 3, number / 5],
        velocity=[None, 1.5],
        state=["Idle" if number % 3 else "Moving", "Homing" if number % 5 else "Idle"],
        unit=["mm", "mm"],
    )


@dataclass(repr=False)
class Original:
    """A journal, and what is in it: for each stream the rows by sequence number, and where their bytes lie."""

    path: Path
    rows: dict[str, dict[int, pa.RecordBatch]] = field(default_factory=dict)
    places: dict[str, dict[int, list[tuple[str, int, int]]]] = field(default_factory=dict)

    def hit(self, stream: str, damaged: Callable[[str, int, int], bool]) -> set[int]:
        """The rows of which `damaged` says that it changed a byte."""
        return {number for number, spans in self.places[stream].items() if any(damaged(*span) for span in spans)}


def row_by_row(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    for i, number in enumerate(batch.column("sequence").to_pylist()):
        yield number, batch.slice(i, 1)


def write(path: Path, *, closed: bool) -> Original:
    journal = Journal(str(path), RunPage.of_now(path, level="durable", provenance={"lab": "bench"}), QuickDisk())
    rows: dict[str, dict[int, pa.RecordBatch]] = {}
    number = 0
    for turn, shape in enumerate(SHAPES):
        batches = [scalars(number, 1 + turn % 7, {"range": turn} if turn % 4 == 3 else None), axis(turn)]
        batches += [frame(turn, shape)]
        number += 1 + turn % 7
        journal.write(batches)
        if turn % 2:
            journal.commit()
        for batch in batches:
            rows.setdefault(schema.stream_of(batch), {}).update(row_by_row(batch))
    journal.commit()
    if closed:
        journal.close({"exit_status": "success"})
    else:
        journal.abandon()
    original = Original(path, rows)
    original.places = {stream: {} for stream in rows}
    reader = JournalReader(path)
    for stream in rows:
        for facts in reader.segments(stream):
            if facts.header.kind == FRAMES:
                continue
            check = RowsCheck(reader._catalog, facts)
            for place in check.batches():
                if not place.is_rows:
                    continue
                assert place.entry is not None
                batch = pa.ipc.open_stream(check.head + place.data).read_all()
                for i, sequence in enumerate(batch.column("sequence").to_pylist()):
                    spans = [(facts.file, place.entry.offset, place.entry.end)]
                    if "pixels_frame" in batch.column_names:
                        segment, at = (batch.column(f"pixels_{name}")[i].as_py() for name in ("segment", "frame"))
                        owner = next(one for one in reader.segments(stream) if one.id == segment)
                        start = owner.header.data_start + at * owner.header.frame_bytes
                        spans.append((owner.file, start, start + owner.header.frame_bytes))
                    original.places[stream][sequence] = spans
    return original


@pytest.fixture(scope="module", params=[True, False], ids=["finished", "killed"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Original:
    return write(tmp_path_factory.mktemp("journal") / "run", closed=request.param)


@dataclass(frozen=True)
class Damage:
    """Something done to the file at `place` (0 to 1) of the list of files."""

    kind: str
    file: float
    place: float
    bit: int = 0

    def inflict(self, path: Path) -> tuple[str, Callable[[str, int, int], bool]]:
        """Do it; which file, and whether it changed any byte of a range of a file."""
        files = sorted(one for one in path.iterdir() if one.is_file())
        file = files[min(int(self.file * len(files)), len(files) - 1)]
        before = file.read_bytes()
        at = min(int(self.place * len(before)), max(len(before) - 1, 0))
        after = bytearray(before)
        if self.kind == "truncated":
            after = after[:at]
        elif self.kind == "zeroed":
            page = at // 512 * 512
            after[page : page + 512] = bytes(len(after[page : page + 512]))
        elif self.kind == "flipped" and before:
            after[at] ^= 1 << self.bit
        file.write_bytes(after)

        def damaged(name: str, start: int, end: int) -> bool:
            return name == file.name and before[start:end] != bytes(after[start:end])

        return file.name, damaged


damages = st.builds(
    Damage,
    st.sampled_from(["truncated", "zeroed", "flipped"]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
)


def assert_is_what_was_not_hit(path: Path, original: Original, hit: dict[str, set[int]]) -> None:
    reader, run = JournalReader(path), open_run(path)
    for stream, wanted in original.rows.items():
        rows = run[stream].to_arrow(["sequence"]).column("sequence").to_pylist()
        assert {*rows} >= wanted.keys() - hit[stream], "a frame that is damaged leaves its row"
        assert {*rows} <= wanted.keys()
        found: dict[int, pa.RecordBatch] = {}
        gaps: list[Gap] = []
        for item in reader.items(stream):
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                found.update(row_by_row(item))
        assert found.keys() == wanted.keys() - hit[stream]
        for number, row in found.items():
            assert row.equals(wanted[number]), (stream, number)
            assert row.schema.metadata == wanted[number].schema.metadata
        named = [
            n for gap in gaps for n in range((gap.after if gap.after is not None else -1) + 1, gap.before or 10**6)
        ]
        assert hit[stream] <= set(named), (stream, gaps)
        assert not gaps or hit[stream], (stream, gaps)
        counted = [gap.rows for gap in gaps]
        if None not in counted:
            assert sum(counted) == len(hit[stream]), (stream, gaps)


@given(damages)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_costs_what_it_hit_and_is_named(original: Original, tmp_path: Path, damage: Damage) -> None:
    inflict_and_mend(original, tmp_path, damage)


@pytest.mark.soak
@given(damages)
@settings(max_examples=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_of_any_kind_costs_what_it_hit_and_is_named(original: Original, tmp_path: Path, damage: Damage) -> None:
    inflict_and_mend(original, tmp_path, damage)


def inflict_and_mend(original: Original, tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "copy"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(original.path, path)
    _, damaged = damage.inflict(path)
    hit = {stream: original.hit(stream, damaged) for stream in original.rows}
    assert_is_what_was_not_hit(path, original, hit)
    found = recover(path, finished_too=True, disk=QuickDisk())
    assert found.rows == {stream: len(rows) - len(hit[stream]) for stream, rows in original.rows.items()}
    assert_is_what_was_not_hit(path, original, hit)
    assert_any_reader_reads_to_the_end(path, original, hit)


def assert_any_reader_reads_to_the_end(path: Path, original: Original, hit: dict[str, set[int]]) -> None:
    for stream in ("dmm.voltage", "stage.axes"):
        with pa.OSFile(str(path / f"{stream}.arrows")) as file:
            table = pa.ipc.open_stream(file).read_all()
        assert set(table.column("sequence").to_pylist()) == original.rows[stream].keys() - hit[stream]
    for file in path.glob("*.npy"):
        assert np.load(file).ndim == 3
