"""A repair keeps what it cuts, names what is missing, and passes over nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from duodaq import open_run
from duodaq.app._log_runs import ended_runs
from duodaq.model import Scalar
from duodaq.schema import scalar_batch
from duodaq.storage.export import finalise_and_note
from duodaq.storage.journal import JournalReader, edit_labels, recover, unfinished_runs
from duodaq.storage.reading._labels import Labels, labels_are_whole, read_labels
from duodaq.testing._recorded import growing_run, knife_edge, record_run

T = 1_780_000_000_000_000_000


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A run that was killed: 60 batches of dmm.v, and a scan with frames."""
    rows = [scalar_batch([Scalar("dmm", "v", "V", T + n, n, float(n), "v2")]) for n in range(60)]
    with growing_run(tmp_path / "run") as journal:
        journal.write(rows + knife_edge(4))
        journal.commit()
    return tmp_path / "run"


def remove_indices(run: Path) -> None:
    for index in run.glob("*.index"):
        index.unlink()


def cut_indices_and_flip_a_bit(run: Path) -> None:
    for index in run.glob("*.index"):
        if index.name != "journal.index":
            os.truncate(index, 64)
    flip(run / "journal.index", 20)


def cut_all_indices(run: Path) -> None:
    for index in run.glob("*.index"):
        os.truncate(index, 64)


def cut_half_of_the_entries(run: Path) -> None:
    os.truncate(run / "dmm.v.arrows.index", 64 + 30 * 32)
    os.truncate(run / "journal.index", 64)


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [remove_indices, cut_indices_and_flip_a_bit, cut_all_indices, cut_half_of_the_entries])
def test_what_no_entry_covers_is_kept_and_named(cut_off: Path, harm) -> None:
    before = {path.name: path.read_bytes() for path in cut_off.iterdir() if path.suffix in (".arrows", ".npy")}
    harm(cut_off)
    found = recover(cut_off)
    (gap,) = [gap for gap in found.gaps if gap.file == "dmm.v.arrows"]
    assert (gap.stream, gap.reason, gap.rows) == ("dmm.v", "unconfirmed", None)
    for name, data in before.items():
        left = (cut_off / name).read_bytes().removesuffix(b"\xff\xff\xff\xff\0\0\0\0")
        parts = sorted((cut_off / "damage").glob(f"{name}@*"), key=lambda path: int(path.name.rpartition("@")[2]))
        kept = b"".join(part.read_bytes() for part in parts)
        assert kept.rstrip(b"\0")[-2000:] in data
        if name.endswith(".arrows"):
            assert left + kept == data
        else:
            assert len(left) + len(kept) >= len(data.rstrip(b"\0"))
        assert {f"damage/{part.name}" for part in parts} <= {*found.kept}
    assert gap in [one._replace(entries=None) for one in JournalReader(cut_off).gaps("dmm.v")]
    again = recover(cut_off, finished_too=True)
    assert [one.file for one in again.gaps if one.stream == "dmm.v"] == ["dmm.v.arrows"]


def test_a_file_that_nothing_describes_is_named_and_stays(cut_off: Path) -> None:
    data = (cut_off / "dmm.v.arrows").read_bytes()
    (cut_off / "dmm.v.arrows.index").unlink()
    (cut_off / "journal.index").unlink()
    lines = (cut_off / "events.jsonl").read_bytes().splitlines(keepends=True)
    (cut_off / "events.jsonl").write_bytes(b"".join(line for line in lines if b"dmm.v" not in line))
    found = recover(cut_off)
    assert [(gap.stream, gap.reason) for gap in found.gaps if gap.file == "dmm.v.arrows"] == [("dmm.v", "unconfirmed")]
    assert (cut_off / "dmm.v.arrows").read_bytes() == data


def test_an_ordinary_end_keeps_nothing_and_names_nothing(cut_off: Path) -> None:
    found = recover(cut_off)
    assert (found.gaps, found.kept, found.lost, found.unidentified) == ([], [], {}, False)
    assert not (cut_off / "damage").exists()


@pytest.mark.parametrize("how", ["gone", "empty", "zeros"])
def test_a_run_without_a_name_is_found_and_repaired(cut_off: Path, how: str) -> None:
    uid = open_run(cut_off).uid
    for name in ("run.json", "events.jsonl"):
        file = cut_off / name
        data = b"" if how == "empty" else bytes(file.stat().st_size)
        file.unlink() if how == "gone" else file.write_bytes(data)
    assert unfinished_runs(cut_off.parent) == [cut_off]
    found = recover(cut_off)
    assert found.unidentified
    assert found.rows == {"dmm.v": 60, "stage.x": 4, "meter.power": 4, "camera.frames": 4}
    assert found.gaps == []
    run = open_run(cut_off)
    assert run.uid == uid
    assert run["dmm.v"].to_arrow().num_rows == 60
    assert unfinished_runs(cut_off.parent) == []


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "analysis"
    other.mkdir()
    (other / "fit.npy").write_bytes(b"x" * 5000)
    (other / "table.index").write_bytes(b"y" * 100)
    assert unfinished_runs(tmp_path) == []
    assert sorted(path.name for path in other.iterdir()) == ["fit.npy", "table.index"]


def test_losses_that_were_noted_are_summed_after_a_kill(tmp_path: Path) -> None:
    with growing_run(tmp_path / "run") as journal:
        journal.write(knife_edge(2))
        for reason, rows in (("overflow", 5), ("overflow", 2), ("disk", 3), ("missing", 9)):
            journal.note("gap", {"stream": "stage.x", "rows": rows, "reason": reason, "after": 1, "before": None})
        journal.commit()
    found = recover(tmp_path / "run")
    assert found.lost == {"overflow": 7, "disk": 3}
    assert [gap.rows for gap in found.gaps] == [5, 2, 3, 9]
    assert JournalReader(tmp_path / "run").events[-1].doc["lost"] == {"overflow": 7, "disk": 3}


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_spoiled_labels_are_known_to_be(cut_off: Path, place: int) -> None:
    edit_labels(cut_off, tags=["keep"], note="the chiller failed")
    assert labels_are_whole(cut_off)
    assert JournalReader(cut_off).labels["tags"] == ["keep"]
    flip(cut_off / "labels.json", place)
    changed = read_labels(cut_off) != Labels(
        note="the chiller failed", tags=("keep",), edited=read_labels(cut_off).edited
    )
    assert not labels_are_whole(cut_off) or not changed
    assert "keep" in edit_labels(cut_off, note="other")["tags"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"tags": 3}'])
def test_torn_labels_are_known_to_be(cut_off: Path, text: bytes) -> None:
    (cut_off / "labels.json").write_bytes(text)
    assert not labels_are_whole(cut_off)
    (cut_off / "labels.json").unlink()
    assert labels_are_whole(cut_off)


def test_a_run_of_a_log_whose_labels_are_spoiled_is_kept(tmp_path: Path) -> None:
    told = {"lab": "weeks", "log": {"name": "room", "part": 1, "previous": None}}
    run = record_run(tmp_path / "room-1", knife_edge(2), provenance=told)
    finalise_and_note(run, ["parquet"])
    assert [one.may_go for one in ended_runs(tmp_path, "room", "weeks", tmp_path / "x")[0]] == [True]
    edit_labels(run, tags=["keep"])
    flip(run / "labels.json", 0)
    assert [one.may_go for one in ended_runs(tmp_path, "room", "weeks", tmp_path / "x")[0]] == [False]
