"""Rows are read quickly where an index is whole, and patiently where anything is wrong: both ways see the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import duodaq
from duodaq.errors import StorageError
from duodaq.model import Scalar
from duodaq.schema import scalar_batch
from duodaq.storage.journal import JournalReader
from duodaq.storage.journal._check import RowsCheck
from duodaq.storage.reading._index import RowsIndex
from duodaq.storage.reading._rows import decoded, patient_portions
from duodaq.testing import growing_run

T0 = 1_780_000_000_000_000_000
SIZES = [1, 3, 7, 1, 20] * 4
IN_WATTS = 12
FIRST_IN_DBM = sum(SIZES[:IN_WATTS])
FILES = ("meter.power.arrows", "meter.power.arrows.index", "journal.index", "events.jsonl")


def batches(sizes: list[int]) -> list[pa.RecordBatch]:
    made: list[pa.RecordBatch] = []
    first = 0
    for number, size in enumerate(sizes):
        told = {"batch": number} if number % 5 == 4 else None
        unit = "W" if number < IN_WATTS else "dBm"  # another dictionary than the first batch has
        rows = [Scalar("meter", "power", unit, T0 + n, n, float(n), "v2", told) for n in range(first, first + size)]
        made.append(scalar_batch(rows))
        first += size
    return made


def write(path: Path, sizes: list[int], *, closed: bool) -> Path:
    with growing_run(path) as journal:
        for batch in batches(sizes):
            journal.write([batch])
        journal.commit()
        if closed:
            journal.close({"exit_status": "success"})
    return path


@pytest.fixture(scope="module", params=[True, False], ids=["closed", "left"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "run", SIZES, closed=request.param)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_read_after_damage_are_those_that_the_checked_reader_finds(
    original: Path, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "copy"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(original, path)
    for _ in range(data.draw(st.integers(0, 2))):
        _damage(path / data.draw(st.sampled_from(FILES)), data)
    try:
        run = duodaq.open_run(path)
    except StorageError:
        return  # neither the page nor the event log is left: both readers say so
    if "meter.power" not in run:
        return
    found = run["meter.power"].to_arrow() if _readable(run["meter.power"]) else None
    wanted = [row for batch in JournalReader(path).batches("meter.power") for row in batch["sequence"].to_pylist()]
    assert ([] if found is None else found["sequence"].to_pylist()) == wanted
    if found is not None and wanted:
        assert found["value"].to_pylist() == [float(n) for n in wanted]
        assert found["unit"].to_pylist() == ["W" if n < FIRST_IN_DBM else "dBm" for n in wanted]
    if found is not None:
        start = data.draw(st.integers(-5, 140))
        stop = data.draw(st.integers(start, 150))
        window = run["meter.power"].between(T0 + start, T0 + stop).to_arrow()["sequence"].to_pylist()
        assert window == [n for n in wanted if start <= n < stop]


def _readable(stream: Any) -> bool:
    try:
        return bool(stream.schema.names)
    except StorageError:
        return False


def _damage(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    if not content:
        return
    place = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(("flip", "cut", "zero"))):
        case "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[place:]
        case _:
            content[place : place + 512] = bytes(len(content[place : place + 512]))
    file.write_bytes(content)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=40), closed=st.booleans())
def test_the_quick_way_reads_what_the_patient_one_does(tmp_path: Path, sizes: list[int], closed: bool) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    run = duodaq.open_run(write(tmp_path / "run", sizes, closed=closed))
    facts = run.look().segments[0]
    index = RowsIndex(run.path, facts)
    ends: list[int | None] = []

    def walk() -> Iterator[bytes]:
        ends.append((yield from index.portions(1, None)))

    quick = list(walk())
    assert ends == [None if closed else len(sizes) + 1]
    check = RowsCheck(run.look(), facts)
    assert check.head is not None
    patient = [part for parts in patient_portions(check, 1, None) for part in parts]
    assert b"".join(quick) == b"".join(patient)
    assert decoded(check.head, quick).equals(decoded(check.head, patient))
    assert run["meter.power"].to_arrow().num_rows == len(run["meter.power"]) == sum(sizes)


def test_times_in_an_index_are_not_believed_before_they_are_checked(original: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy"
    shutil.copytree(original, path)
    file = path / "meter.power.arrows.index"
    content = bytearray(file.read_bytes())
    for entry in range(5, 9):
        content[64 + 32 * entry + 16 : 64 + 32 * entry + 24] = content[64 + 32 * 4 + 16 : 64 + 32 * 4 + 24]
    file.write_bytes(content)
    window = duodaq.open_run(path)["meter.power"].between(T0 + 12, T0 + 40).to_arrow()
    assert window["sequence"].to_pylist() == list(range(12, 40))


@pytest.mark.parametrize("pair", [(3, 5), (1, 2), (4, 19)])
def test_entries_that_stand_in_each_others_place_are_not_taken_for_what_they_are_not(
    original: Path, tmp_path: Path, pair: tuple[int, int]
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(original, path)
    file = path / "meter.power.arrows.index"
    content = bytearray(file.read_bytes())
    one, other = (slice(64 + 32 * n, 96 + 32 * n) for n in pair)
    content[one], content[other] = content[other], content[one]
    file.write_bytes(content)
    run = duodaq.open_run(path)
    assert run["meter.power"].to_arrow()["sequence"].to_pylist() == list(range(sum(SIZES)))
    window = run["meter.power"].between(T0 + 2, T0 + 30).to_arrow()
    assert window["sequence"].to_pylist() == list(range(2, 30))
