"""The runs of a directory: found by what was said of them, by when they were, and compared."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import pytest
from rich.console import Console

import duodaq
from duodaq.cli._runs import show_differences
from duodaq.errors import StorageError
from duodaq.storage.reading import Runs, differences, find_run, runs
from duodaq.testing import growing_run, knife_edge, record_run


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for number, (sample, tags) in enumerate([("Knife 1", ["good"]), ("knife 2", []), ("grating", ["good", "late"])]):
        settings = {
            "definition": {"name": "bench", "ports": {"dmm": {"tcp": f"10.0.0.{number}:5025"}}},
            "instruments": {"dmm": {"since_ns": 10**18 + number}},
            "parameters": [
                {"instrument": "dmm", "parameter": "nplc", "value": number, "unit": "", "t_ns": 5 + number},
                {"instrument": "stage", "parameter": "x.velocity", "value": 1.0, "unit": "mm/s", "t_ns": 7},
                {"instrument": "laser", "parameter": "power", "value": 1.0 + number, "unit": "W", "t_ns": 7},
            ],
        }
        run = duodaq.open_run(record_run(folder / f"run-{number}", knife_edge(2), provenance=settings))
        run.label(sample=sample, operator="Curie" if number else "Hertz", note=f"note no. {number}", tags=tags)
    with growing_run(folder / "left") as journal:
        journal.write(knife_edge(1))
    (folder / "something else").mkdir()
    (folder / "older").mkdir()
    (folder / "older" / "run.json").write_text('{"format": "duodaq.recording/1"}')
    return folder


def samples(found: Runs) -> list[str]:
    return [run.labels.sample for run in found]


def test_all_runs_are_found_the_latest_last_and_nothing_else(directory: Path) -> None:
    found = runs(directory)
    assert samples(found) == ["Knife 1", "knife 2", "grating", ""]
    assert [run.number for run in found] == [1, 2, 3, 4]
    assert [run.state for run in found] == ["finished"] * 3 + ["unfinished"]
    assert samples(found[:2]) == ["Knife 1", "knife 2"]
    assert found[-1].path.name == "left"


def test_runs_are_found_by_what_was_said_of_them(directory: Path) -> None:
    assert samples(runs(directory, sample="knife*")) == ["Knife 1", "knife 2"]
    assert samples(runs(directory, sample="knife")) == []
    assert samples(runs(directory, operator="curie")) == ["knife 2", "grating"]
    assert samples(runs(directory, tag="good", operator="Curie")) == ["grating"]
    assert samples(runs(directory, text="HERTZ")) == ["Knife 1"]
    assert samples(runs(directory, text="curie grat")) == ["grating"]
    assert samples(runs(directory, text="3")) == ["grating"]
    assert len(runs(directory, state="unfinished")) == 1


def test_runs_are_found_by_when_they_began(directory: Path) -> None:
    second = runs(directory)[1]
    assert second.start is not None
    assert samples(runs(directory, since=second.page.start_ns)) == ["knife 2", "grating", ""]
    assert samples(runs(directory, until=second.page.start_ns)) == ["Knife 1"]
    assert len(runs(directory, since="2020-01-01")) == 4
    assert len(runs(directory, since=dt.datetime(2200, 1, 1))) == 0
    with pytest.raises(ValueError, match="yesterday"):
        runs(directory, since="yesterday")


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot look for runs in .*nowhere"):
        runs(tmp_path / "nowhere")


def test_a_run_is_meant_by_path_name_number_uid_or_last(directory: Path) -> None:
    wanted = directory / "run-1"
    uid = duodaq.open_run(wanted).uid
    for name in (wanted, "run-1", "2", uid):
        assert find_run(name, directory).path == wanted
    assert find_run("last", directory).path.name == "left"
    with pytest.raises(StorageError, match="no run 77"):
        find_run("77", directory)
    with pytest.raises(StorageError, match=r"4 runs in .* are called"):
        find_run(uid[:6], directory)


def test_runs_are_a_table_for_pandas_and_for_people(directory: Path) -> None:
    frame = runs(directory).to_pandas()
    assert frame["sample"].tolist() == ["Knife 1", "knife 2", "grating", ""]
    console = Console(width=160)
    with console.capture() as shown:
        console.print(runs(directory))
    assert "Knife 1" in shown.get()
    assert "good, late" in shown.get()


@pytest.mark.parametrize("width", [80, 120])
def test_each_run_is_one_line_whatever_the_width_and_nothing_is_cut(directory: Path, width: int) -> None:
    console = Console(width=width)
    with console.capture() as shown:
        console.print(runs(directory))
    lines = shown.get().splitlines()
    assert all(len(line) <= width for line in lines)
    assert [line.split()[0] for line in lines[2:6]] == ["1", "2", "3", "4"]
    assert ("run-1" in lines[3]) == (width == 120)
    assert "knife 2" in lines[3]


def test_long_labels_stand_below_their_run_and_long_directories_give_way_to_numbers(tmp_path: Path) -> None:
    for number in range(2):
        run = duodaq.open_run(record_run(tmp_path / f"20260528T10264{number}.123456Z-of-the-knife", knife_edge(1)))
        run.label(sample="a sample with a name of sixty letters, as some people like them", operator="Curie")
    console = Console(width=80)
    with console.capture() as shown:
        console.print(runs(tmp_path))
    lines = [line.rstrip() for line in shown.get().splitlines()]
    assert [line.split()[0] for line in lines[2::2][:2]] == ["1", "2"]
    assert lines[3].strip() == "sample: a sample with a name of sixty letters, as some people like them"
    assert lines[2].endswith("Curie")
    assert "wider window" in lines[-1]


def test_named_things_in_lists_are_compared_by_name_and_what_is_new_is_named_once(tmp_path: Path) -> None:
    psu = {"name": "psu", "timeout_s": 2, "kind": "tcp"}
    for number, ports in enumerate([[psu], [{"name": "dmm", "timeout_s": 1}, {**psu, "timeout_s": 4}]]):
        record_run(tmp_path / f"r{number}", [], provenance={"definition": {"ports": ports, "tags": [1, 2]}})
    found = {d.name: (d.ours, d.theirs) for d in differences(*runs(tmp_path))}
    assert found == {
        "definition.ports.psu.timeout_s": (2, 4),
        "definition.ports.dmm": (None, {"name": "dmm", "timeout_s": 1}),
    }
    said = io.StringIO()
    show_differences("r0", "r1", tmp_path, Console(file=said, width=80), as_json=False)
    lines = [line.split() for line in said.getvalue().splitlines()]
    assert ["ports.psu.timeout_s", "2", "→", "4"] in lines
    assert sum(line[0] == "ports.dmm" and line[1:3] == ["only", "in"] for line in lines) == 1
    assert len(lines) == 3


def test_differences_are_named_and_nothing_else_is(directory: Path) -> None:
    one, other = runs(directory)[:2]
    assert differences(one, one) == []
    found = {d.name: (d.ours, d.theirs) for d in differences(one, other)}
    assert found == {
        "labels.sample": ("Knife 1", "knife 2"),
        "labels.operator": ("Hertz", "Curie"),
        "labels.note": ("note no. 0", "note no. 1"),
        "labels.tags": (["good"], []),
        "definition.ports.dmm.tcp": ("10.0.0.0:5025", "10.0.0.1:5025"),
        "parameters.dmm.nplc": (0, 1),
        "parameters.laser.power": ("1.0 W", "2.0 W"),
    }
