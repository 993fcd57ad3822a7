"""Runs that had ended, and `recover --all`: what is sound is not written to, and nothing is replaced by less."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import duodaq
from duodaq import clock
from duodaq.cli._runs import recover_runs
from duodaq.errors import StorageError
from duodaq.storage import JournalReader, recover
from duodaq.storage.export import FORMATS, export, finalise, finalise_and_note
from duodaq.testing import growing_run, knife_edge, record_run

pytestmark = pytest.mark.usefixtures("zarr_is_awake")
ROWS = {"stage.x": 4, "meter.power": 4, "camera.frames": 4}
SUFFIX = {"parquet": "", "csv": "", "hdf5": ".nxs", "zarr": ".zarr"}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def names(path: Path) -> list[str]:
    return [event.name for event in JournalReader(path).events]


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


def rows(path: Path) -> dict[str, int]:
    return {stream.name: stream.to_arrow().num_rows for stream in duodaq.open_run(path)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("sound") / "run", knife_edge(4))


@pytest.fixture(scope="module")
def in_parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = record_run(tmp_path_factory.mktemp("parquet") / "run", knife_edge(4))
    assert finalise_and_note(path, ["parquet"], remove_journal=True)["error"] is None
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda path: Path(shutil.copytree(path, tmp_path / "copy"))


def test_a_sound_run_that_ended_is_checked_and_not_written_to(sound: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(sound)
    before = contents(path)
    found = recover(path, finished_too=True)
    assert (found.rows, found.gaps, found.changed) == (ROWS, [], False)
    assert contents(path) == before


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "not noted"])
def test_a_run_whose_rows_are_in_parquet_is_checked_there_and_not_written_to(
    in_parquet: Path, copy: Callable[[Path], Path], noted: bool
) -> None:
    path = copy(in_parquet)
    if not noted:
        (path / "finalised.json").unlink()  # as after a kill between the removal and the note
    before = contents(path)
    assert recover_runs(path, Console(quiet=True), all_too=True, as_json=False) == 0
    found = recover(path, finished_too=True)
    assert (found.rows, found.gaps, found.changed) == (ROWS, [], False)
    assert contents(path) == before
    assert rows(path) == ROWS
    assert duodaq.open_run(path)["meter.power"].gaps() == []


def test_damage_of_a_run_that_ended_is_mended_and_its_end_stays_what_it_was(
    sound: Path, copy: Callable[[Path], Path]
) -> None:
    path = copy(sound)
    before = duodaq.open_run(path)
    flip(path / "meter.power.arrows", 0.7)
    found = recover(path, finished_too=True)
    assert found.changed
    assert [gap.stream for gap in found.gaps] == ["meter.power"]
    assert names(path)[-3:] == ["gap", "recovered", "stop"]
    run = duodaq.open_run(path)
    assert run.events[-1].doc["exit_status"] == "success"
    assert run.stop == before.stop
    mended = contents(path)
    assert not recover(path, finished_too=True).changed
    assert contents(path) == mended


@pytest.mark.parametrize(
    "name", ["meter.power.arrows.index", "camera.frames.npy", "camera.frames.npy.index", "run.json"]
)
def test_damage_anywhere_in_a_run_that_ended_is_seen(sound: Path, copy: Callable[[Path], Path], name: str) -> None:
    path = copy(sound)
    flip(path / name, 0.9)
    assert recover(path, finished_too=True).changed
    assert not recover(path, finished_too=True).changed


def test_a_segment_that_is_gone_is_seen(sound: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(sound)
    (path / "meter.power.arrows").unlink()
    found = recover(path, finished_too=True)
    assert found.changed
    assert [gap.stream for gap in found.gaps] == ["meter.power"]


def test_damaged_parquet_is_named_and_left_as_it_is(in_parquet: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(in_parquet)
    flip(path / "meter.power.parquet", 0.05)
    before = contents(path)
    found = recover(path, finished_too=True)
    assert [(gap.stream, gap.reason, gap.rows) for gap in found.gaps] == [("meter.power", "damage", 4)]
    assert contents(path) == before
    (path / "stage.x.parquet").write_bytes(b"")
    assert {gap.stream for gap in recover(path, finished_too=True).gaps} == {"meter.power", "stage.x"}


def test_parquet_with_fewer_rows_than_were_kept_is_named(
    in_parquet: Path, copy: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = copy(in_parquet)
    fewer = record_run(tmp_path / "fewer", [batch for batch in knife_edge(3) if batch.num_rows])
    export(fewer, "parquet", tmp_path / "out")
    shutil.copy(tmp_path / "out" / "meter.power.parquet", path)
    (gap,) = recover(path, finished_too=True).gaps
    assert (gap.stream, gap.rows) == ("meter.power", 1)


def test_parquet_is_read_though_an_empty_journal_lies_beside_it(in_parquet: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(in_parquet)
    for stream in ROWS:
        (path / f"{stream}.arrows").write_bytes(b"")
    assert rows(path) == ROWS
    export(path, "parquet")
    assert rows(path) == ROWS
    finalise_and_note(path, ["parquet"])
    assert duodaq.open_run(path).finalised is not None
    assert json.loads((path / "finalised.json").read_text())["journal"] == "removed"
    assert rows(path) == ROWS


@pytest.mark.parametrize("form", FORMATS)
def test_a_result_with_more_rows_is_not_replaced(tmp_path: Path, form: str) -> None:
    many = record_run(tmp_path / "many", knife_edge(4))
    few = record_run(tmp_path / "few", knife_edge(3))
    target = tmp_path / f"out{SUFFIX[form]}"
    export(many, form, target)
    place = target if target.is_dir() else tmp_path
    before = contents(place)
    with pytest.raises(StorageError, match="4 rows, and would have 3") as refused:
        export(few, form, target)
    assert refused.value.left == "nothing was touched; remove it first"
    assert contents(place) == before
    export(many, form, target)


def test_a_journal_that_lost_rows_does_not_replace_its_parquet(sound: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(sound)
    export(path, "parquet")
    flip(path / "meter.power.arrows", 0.7)
    before = contents(path)
    with pytest.raises(StorageError, match="4 rows"):
        finalise(path, ["parquet"], remove_journal=True)
    assert contents(path) == before


def test_a_crashed_run_took_until_the_last_that_is_known_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with growing_run(tmp_path / "left") as journal:
        journal.write(knife_edge(4))
        journal.commit()
    last_ns = JournalReader(tmp_path / "left").events[-1].t_ns
    now_ns = clock.utc_ns()
    monkeypatch.setattr("duodaq.clock.utc_ns", lambda: now_ns + 3600 * 10**9)
    recover(tmp_path / "left")
    run = duodaq.open_run(tmp_path / "left")
    rows_ns = max(int(s.stop.timestamp() * 1e9) for s in run if s.stop is not None)
    assert run.events[-1].doc["last_ns"] == max(last_ns, rows_ns if rows_ns <= now_ns else 0)
    assert run.duration is not None
    assert run.duration < dt.timedelta(minutes=1)
    assert run.events[-1].t_ns >= now_ns + 3600 * 10**9


@pytest.mark.parametrize("name", ["camera.frames.npy", "meter.power.arrows"])
def test_a_gap_is_in_the_event_log_once_however_often_a_run_is_mended(
    sound: Path, copy: Callable[[Path], Path], name: str
) -> None:
    path = copy(sound)
    os.truncate(path / name, 0)
    recover(path, finished_too=True)
    first = names(path).count("gap")
    flip(path / "stage.x.arrows", 0.6)
    assert len(recover(path, finished_too=True).gaps) == first + 1
    assert names(path).count("gap") == first + 1
