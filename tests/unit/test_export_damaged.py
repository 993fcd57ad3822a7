"""Damage is never exported, nor finalised, unseen; and a run is exported while it grows and is merged."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

import duodaq
from duodaq.cli._runs import export_run
from duodaq.errors import TornFileError
from duodaq.model import Scalar
from duodaq.schema import scalar_batch
from duodaq.storage.export import export, finalise, finalise_and_note
from duodaq.storage.export._compare import same_table
from duodaq.storage.journal import recover
from duodaq.storage.journal._sealed import SealedParquet
from duodaq.storage.reading._rows import JournalRows
from duodaq.testing import growing_run, knife_edge, record_run

T0 = 1_780_000_000_000_000_000
STREAM = "dmm.v"


def rows(start: int, stop: int) -> list[pa.RecordBatch]:
    return [scalar_batch([Scalar("dmm", "v", "V", T0 + n * 10**8, n, n * 1.1, "v2")]) for n in range(start, stop)]


def flip(file: Path, place: int | None = None) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 4
    file.write_bytes(content)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A finished run of which one row is damaged."""
    path = record_run(tmp_path / "run", rows(0, 40))
    flip(path / "dmm.v.arrows")
    return path


def test_a_damaged_journal_is_not_removed_and_the_record_says_why(damaged: Path) -> None:
    told = finalise_and_note(damaged, ["parquet"], remove_journal=True)
    assert json.loads((damaged / "finalised.json").read_bytes()) == told
    assert told["journal"] == "kept"
    assert "dmm.v lacks 1 row" in told["error"]
    assert told["missing"] == {STREAM: 1}
    assert told["files"] == ["dmm.v.parquet"]
    assert (damaged / "dmm.v.arrows").exists()
    assert (damaged / "dmm.v.arrows.index").exists()
    assert sum(gap.rows or 0 for gap in duodaq.open_run(damaged)[STREAM].gaps()) == 1


def test_damage_is_an_error_of_finalising_where_the_journal_is_kept_anyway(damaged: Path) -> None:
    told = finalise_and_note(damaged, ["parquet"])
    assert "dmm.v lacks 1 row" in told["error"]


def test_damage_that_the_event_log_names_does_not_keep_the_journal(damaged: Path) -> None:
    recover(damaged, finished_too=True)
    told = finalise_and_note(damaged, ["parquet"], remove_journal=True)
    assert (told["journal"], told["error"], told["missing"]) == ("removed", None, {STREAM: 1})
    assert duodaq.open_run(damaged)[STREAM].to_arrow().num_rows == 39
    assert export(damaged, "csv", damaged.parent / "out").missing == {STREAM: 1}


def test_further_damage_keeps_the_journal(damaged: Path) -> None:
    recover(damaged, finished_too=True)
    flip(damaged / "dmm.v.arrows", (damaged / "dmm.v.arrows").stat().st_size // 4)
    with pytest.raises(TornFileError, match="lacks 1 row"):
        finalise(damaged, remove_journal=True)
    assert (damaged / "dmm.v.arrows").exists()


def test_a_damaged_frame_keeps_the_journal(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", knife_edge(3))
    flip(path / "camera.frames.npy", 4096 + 24 * 32 * 2 + 5)
    with pytest.raises(TornFileError, match=r"camera\.frames lacks 1 row"):
        finalise(path, remove_journal=True)
    assert len([*path.glob("*.arrows")]) == 3


@pytest.mark.parametrize("to", ["parquet", "csv", "hdf5"])
def test_an_export_of_a_damaged_run_says_what_is_missing_and_ends_with_1(
    damaged: Path, tmp_path: Path, to: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"out{'.nxs' if to == 'hdf5' else ''}"
    assert export_run(str(damaged), [to], tmp_path, target, None, Console(), as_json=False) == 1
    said = capsys.readouterr().out
    assert "dmm.v lacks 1 row" in said
    assert "equal to the journal" not in said
    assert export_run(str(damaged), [to], tmp_path, target, None, Console(), as_json=True) == 1
    assert json.loads(capsys.readouterr().out)[0]["missing"] == {STREAM: 1}


def test_sound_frames_are_exported_with_the_rows_that_they_are_of(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", knife_edge(3))
    sound = duodaq.open_run(path)["camera.frames"].frames[[0, 2]]
    flip(path / "camera.frames.npy", 4096 + 24 * 32 * 2 + 5)
    done = export(path, "parquet", tmp_path / "out")
    assert done.missing == {"camera.frames": 1}
    assert np.array_equal(np.load(tmp_path / "out" / "camera.frames.npy"), sound)
    assert np.load(tmp_path / "out" / "camera.frames.rows.npy").tolist() == [0, 2]


# --- Parquet is the only copy


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose rows are in Parquet only."""
    path = record_run(tmp_path_factory.mktemp("kept") / "run", rows(0, 60))
    finalise(path, remove_journal=True)
    return path


def test_no_flipped_bit_of_parquet_gives_another_value(kept: Path) -> None:
    file = kept / "dmm.v.parquet"
    content, wanted = file.read_bytes(), duodaq.open_run(kept)[STREAM].to_arrow()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    chosen = random.Random(5).sample(range(len(content)), 150)
    errors = 0
    try:
        for place in sorted({*chosen, *range(footer - 6, footer + 6), *range(len(content) - 9, len(content))}):
            flip(file, place)
            try:
                found = duodaq.open_run(kept)[STREAM].to_arrow()
            except TornFileError as error:
                errors += str(file) in str(error)
            else:
                assert same_table(found, wanted)
                assert found.schema.equals(wanted.schema, check_metadata=True)
            file.write_bytes(content)
    finally:
        file.write_bytes(content)
    assert errors > 150


def test_each_row_group_has_a_checksum_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from duodaq.storage.export import _parquet

    monkeypatch.setattr(_parquet, "_GROUP_ROWS", 16)
    path = record_run(tmp_path / "run", rows(0, 40))
    finalise(path, remove_journal=True)
    file = path / "dmm.v.parquet"
    with SealedParquet(file) as found:
        assert found.num_row_groups == 3
        place = found.metadata.row_group(1).column(0).data_page_offset + 3
        flip(file, place)
        assert [found.read_row_group(n).num_rows for n in (0, 2)] == [16, 8]
        with pytest.raises(TornFileError, match="row group 1 is not as it was written"):
            found.read_row_group(1)


def test_pages_have_the_checksums_that_other_readers_know(kept: Path) -> None:
    import pyarrow.parquet as pq

    file = kept / "dmm.v.parquet"
    content = file.read_bytes()
    try:
        column = pq.ParquetFile(file).metadata.row_group(0).column(0)
        flip(file, column.data_page_offset + column.total_compressed_size - 4)
        with pytest.raises(OSError, match="CRC"):
            pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
    finally:
        file.write_bytes(content)


# --- a run that grows


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_rows_that_come_between_writing_and_verifying_are_not_missed(
    tmp_path: Path, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with growing_run(tmp_path / "run") as journal:
        journal.write(rows(0, 20))
        tables = JournalRows.tables

        written = 20

        def growing(self: JournalRows, *args: Any, **kwargs: Any) -> Iterator[pa.Table]:
            nonlocal written
            journal.write(rows(written, written + 7))
            written += 7
            return tables(self, *args, **kwargs)

        monkeypatch.setattr(JournalRows, "tables", growing)
        done = export(tmp_path / "run", to, tmp_path / "out")
    text = (tmp_path / "out" / f"dmm.v.{to}").read_bytes()
    assert done.missing == {}
    if to == "csv":
        assert text.count(b"\n") == 1 + 27
    else:
        with SealedParquet(tmp_path / "out" / "dmm.v.parquet") as found:
            assert found.metadata.num_rows == 27
