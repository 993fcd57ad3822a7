"""Runs on the command line: what is printed, what is written, and the exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import duodaq
from duodaq.cli._runs import export_run
from duodaq.errors import ConfigError
from duodaq.testing import growing_run, knife_edge, record_run

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for number in range(2):
        run = duodaq.open_run(record_run(folder / f"run-{number}", knife_edge(3), provenance={"nplc": number}))
        run.label(sample=f"knife {number}")
    return folder


def test_runs_are_listed_and_filtered(directory: Path, duodaq_command: Command) -> None:
    listed = duodaq_command("runs", "--dir", directory)
    assert listed.returncode == 0
    assert "knife 0" in listed.stdout
    assert "run-1" in listed.stdout
    some = duodaq_command("runs", "sample=*1", "--dir", directory, "--json")
    assert [run["sample"] for run in json.loads(some.stdout)] == ["knife 1"]
    words = duodaq_command("runs", "--dir", directory, "--json", "knife", "0")
    assert [run["number"] for run in json.loads(words.stdout)] == [1]
    assert duodaq_command("runs", "--dir", directory, "grating").stdout == "No such runs.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "--dir", "nowhere"], "cannot look for runs in nowhere"),
        (["runs", "colour=red"], "runs have no 'colour'"),
        (["runs", "since=yesterday"], "Times are written as"),
        (["runs", "show", "7"], "there is no run 7"),
        (["runs", "diff", "1", "7"], "there is no run 7"),
        (["export", "1", "--to", "word"], "Known: parquet, hdf5, zarr, csv"),
        (["export", "1", "--to", "hdf5", "--frames", "somewhere"], "Known: inside, external, relative"),
        (["recover", "nowhere"], "cannot read nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_with_2(
    words: list[str], said: str, directory: Path, duodaq_command: Command
) -> None:
    place = [] if "--dir" in words or "recover" in words else ["--dir", directory]
    ended = duodaq_command(*words, *place)
    assert ended.returncode == 2
    assert said in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_one_run_is_shown(directory: Path, duodaq_command: Command) -> None:
    assert "camera.frames" in duodaq_command("runs", "show", "1", "--dir", directory).stdout
    told = json.loads(duodaq_command("runs", "--dir", directory, "show", "last", "--json").stdout)
    assert told["streams"]["meter.power"] == {"rows": 3, "units": {"value": "W"}, "frames": False}
    assert told["provenance"] == {"nplc": 1}


def test_differences_end_with_1_and_none_with_0(directory: Path, duodaq_command: Command) -> None:
    ended = duodaq_command("runs", "diff", "1", "2", "--dir", directory, "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout) == {"labels.sample": ["knife 0", "knife 1"], "nplc": [0, 1]}
    same = duodaq_command("runs", "diff", "1", "run-0", "--dir", directory)
    assert same.returncode == 0
    assert "do not differ" in same.stdout


def test_labels_are_given(tmp_path: Path, duodaq_command: Command) -> None:
    path = record_run(tmp_path / "run", [])
    ended = duodaq_command("runs", "label", path, "--note", "it drifted", "--tag", "a", "--tag", "b")
    assert ended.returncode == 0
    labels = duodaq.open_run(path).labels
    assert (labels.note, labels.tags) == ("it drifted", ("a", "b"))


def test_a_run_is_exported(directory: Path, tmp_path: Path, duodaq_command: Command) -> None:
    command = [
        "export",
        "1",
        "--dir",
        directory,
        "--to",
        "parquet",
        "--to",
        "hdf5",
        "--out",
        tmp_path / "out",
        "--json",
    ]
    ended = duodaq_command(*command)
    assert ended.returncode == 0
    told = json.loads(ended.stdout)
    assert [one["format"] for one in told] == ["parquet", "hdf5"]
    assert (tmp_path / "out" / "meter.power.parquet").exists()
    assert (tmp_path / "out" / "run-0.nxs").exists()
    plain = duodaq_command("export", directory / "run-0", "--to", "csv", "--out", tmp_path / "csv")
    assert "read back and equal to the journal" in plain.stdout
    assert "hdf5plugin" not in plain.stdout


@pytest.mark.usefixtures("zarr_is_awake")
def test_what_a_file_of_frames_needs_is_said_and_a_name_gets_its_suffix(
    directory: Path, tmp_path: Path, duodaq_command: Command
) -> None:
    out = tmp_path / "for-marie"
    ended = duodaq_command("export", directory / "run-0", "--to", "hdf5", "--out", out)
    assert ended.returncode == 0
    assert "`import hdf5plugin` before you open it" in ended.stdout
    assert f"{out}.nxs" in ended.stdout
    told = duodaq_command("export", directory / "run-0", "--to", "zarr", "--out", out, "--json")
    assert json.loads(told.stdout)[0] == {
        "format": "zarr",
        "files": [f"{out}.zarr"],
        "bytes": json.loads(told.stdout)[0]["bytes"],
        "plugin": None,
        "missing": {},
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["for-marie.nxs", "for-marie.zarr"]


def test_what_a_form_needs_is_named_where_it_is_missing(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"h5py is not installed.*duodaq\[data\]"):
        export_run("1", ["hdf5"], directory, tmp_path / "out.nxs", None, Console(), as_json=False)
    assert [*tmp_path.iterdir()] == []


def test_what_a_crash_left_is_finished(tmp_path: Path, duodaq_command: Command) -> None:
    with growing_run(tmp_path / "runs" / "left") as journal:
        journal.write(knife_edge(4))
        journal.commit()
    record_run(tmp_path / "runs" / "whole", knife_edge(1))
    ended = duodaq_command("recover", tmp_path / "runs", "--json")
    assert ended.returncode == 0
    told = json.loads(ended.stdout)
    assert [Path(place).name for place in told] == ["left"]
    assert told[str(tmp_path / "runs" / "left")]["rows"] == {"stage.x": 4, "meter.power": 4, "camera.frames": 4}
    assert duodaq.open_run(tmp_path / "runs" / "left").state == "finished"
    again = duodaq_command("recover", tmp_path / "runs")
    assert again.returncode == 0
    assert "No unfinished runs" in again.stdout


def test_what_is_missing_is_named_with_1(tmp_path: Path, duodaq_command: Command) -> None:
    with growing_run(tmp_path / "left") as journal:
        for batch in knife_edge(4):
            journal.write([batch])
        journal.commit()
    file = tmp_path / "left" / "meter.power.arrows"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ended = duodaq_command("recover", tmp_path / "left")
    assert ended.returncode == 1
    assert "meter.power: 1 row (damage)" in ended.stdout
    again = duodaq_command("recover", tmp_path / "left", "--all")
    assert again.returncode == 1


def test_a_run_that_is_written_is_left_alone(tmp_path: Path, duodaq_command: Command) -> None:
    with growing_run(tmp_path / "live") as journal:
        journal.write(knife_edge(2))
        ended = duodaq_command("recover", tmp_path)
        assert ended.returncode == 0
        assert "No unfinished runs" in ended.stdout
        listed = json.loads(duodaq_command("runs", "--dir", tmp_path, "--json").stdout)
        assert listed[0]["state"] == "recording"
        journal.close({"exit_status": "success"})
    assert len(duodaq.open_run(tmp_path / "live")["meter.power"]) == 2
