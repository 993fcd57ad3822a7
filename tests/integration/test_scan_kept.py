"""A scan is kept by the lab, whatever becomes of the program that scans."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq.bluesky import ScanInterruptedError
from duodaq.errors import NotInControlError, StorageError
from duodaq.storage.journal import JournalReader

pytest.importorskip("serial")
pytestmark = pytest.mark.serial

SCAN = """
import sys, duodaq
lab = duodaq.connect(sys.argv[1])
tell = lambda name, doc: print("points", doc["seq_num"], flush=True) if name == "event" else None
lab.scan(lab.stage.x, [0.5 * n for n in range(1, 50)], [lab.dmm], progress=False, on_document=tell, sample="knife 9")
"""


DETACHED = """
import sys, time, duodaq
lab = duodaq.connect(sys.argv[1])
lab.stage.control("anna")
scan = lab.scan(lab.stage.x, [0.5, 1.0, 1.5, 2.0], [lab.dmm], detach=True, sample="knife 10")
print("begun", scan.number, flush=True)
scan.wait()
"""


def on_the_page(place: str, body: Any = None) -> tuple[int, Any]:
    """What the page's server answers: status and body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(place, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def documents(run: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(e.doc["kind"], e.doc["doc"]) for e in JournalReader(run).events if e.name == "document"]


def test_a_killed_notebook_leaves_the_lab_undisturbed_its_scan_ended_and_its_points_kept(
    simulated_lab: Any, start_program: Any
) -> None:
    running = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    running.wait_for("Attach with")
    with duodaq.connect(simulated_lab.name) as other:
        before = other.dmm.status()
        scanning = start_program("-c", SCAN, simulated_lab.name)
        scanning.wait_for("points 3")
        page = other.status()["page"]
        (shown,) = on_the_page(f"{page}api/scans")[1]
        assert shown["state"] == "running"
        assert shown["done"] >= 2
        move = {"kind": "execute", "name": "move", "args": ["x", 20.0]}
        refused, why = on_the_page(f"{page}api/instruments/stage/command", move)
        assert (refused, why["error"]) == (409, "NotInControlError"), "the page does not move what is being scanned"
        assert why["holder"].startswith("scan 1 of ")
        with pytest.raises(NotInControlError, match="scan 1 of"):
            other.stage.x.move(20.0)
        assert other.dmm.read("voltage").unit == "V", "another notebook reads meanwhile"
        simulated_lab.until(simulated_lab.is_moving)
        scanning.interrupt(signal.SIGKILL)

        simulated_lab.until(lambda: other.status()["recording"] is None)
        assert simulated_lab.is_safe(), "what it moved stands"
        assert other.holders() == {}
        assert on_the_page(f"{page}api/scans/1")[1]["why"] == "the program that scanned has ended"
        assert other.dmm.status()["since_ns"] == before["since_ns"], "nothing was restarted"
        assert other.dmm.read("voltage").unit == "V"

        again = other.scan(other.stage.x, [1.0, 1.5], other.dmm, progress=False)
        assert again.complete

        anna = start_program("-c", DETACHED, simulated_lab.name)
        anna.wait_for("begun 3")
        anna.interrupt(signal.SIGKILL)
        scan = other.scans[3]
        assert scan.wait(60).state == "complete", "it needs nobody"
        assert len(scan.points()) == 4
        simulated_lab.until(lambda: other.holders() == {} and other.status()["recording"] is None)
    running.interrupt()
    assert running.end() == 0, running.said

    first, second, third = duodaq.runs(simulated_lab.file.parent / "runs")
    assert first.labels.sample == "knife 9"
    assert first.state == "finished"
    kept = documents(first.path)
    points = [doc for kind, doc in kept if kind == "event"]
    assert len(points) >= 3
    assert [doc["seq_num"] for doc in points] == list(range(1, len(points) + 1))
    assert kept[-1][0] == "stop"
    assert kept[-1][1]["exit_status"] == "abort"
    assert "has ended" in kept[-1][1]["reason"]
    assert third.labels.sample == "knife 10"
    assert second.path == again.directory
    assert len(second["dmm.voltage"]) >= 2


def test_a_scan_within_a_recording_goes_into_it(simulated_lab: Any) -> None:
    with duodaq.open(simulated_lab.file) as lab:
        directory = lab.start_recording()
        run = lab.scan(lab.stage.x, [1.0, 1.5], lab.dmm, progress=False)
        assert lab.status()["recording"] == str(directory), "what was begun by hand is ended by hand"
        lab.stop_recording()
        none = lab.scan(lab.stage.x, [1.0], lab.dmm, progress=False, record=False)
    assert run.directory == directory
    assert none.directory is None
    assert [kind for kind, _ in documents(directory)] == ["start", "descriptor", "event", "event", "stop"]
    (recorded,) = duodaq.runs(directory.parent)
    (scan,) = recorded.scans
    assert scan.complete
    assert scan.to_arrow().equals(run.to_arrow())
    assert scan.to_xarray().identical(run.to_xarray().assign_attrs(run_uid=recorded.uid))
    x, y = recorded.plot().axes[0].lines[0].get_data()
    assert (x.tolist(), y.tolist()) == (run["stage_x"].tolist(), run["voltage"].tolist())


def test_a_grid_comes_out_over_both_axes(simulated_lab: Any) -> None:
    simulated_lab.rewrite("axes.x = {", "axes.y = { number = 2, unit = 'mm', limits = [0, 25] }\naxes.x = {")
    with duodaq.open(simulated_lab.file) as lab:
        run = lab.grid((lab.stage.y, [1.0, 2.0]), (lab.stage.x, [1.0, 1.5, 2.0]), read=lab.dmm, progress=False)
    assert run.complete
    assert run["stage_x_setpoint"].tolist() == [1.0, 1.5, 2.0, 2.0, 1.5, 1.0]
    data = run.to_xarray()
    assert data.voltage.dims == ("stage_y", "stage_x")
    assert data.voltage.shape == (2, 3)
    assert run.directory is not None
    assert duodaq.open_run(run.directory).scans[0].to_xarray().equals(data)
    assert data.stage_x_readback.values == pytest.approx(data.stage_x.values[None, :].repeat(2, 0), abs=0.01)


def test_a_scan_that_cannot_be_recorded_moves_nothing(simulated_lab: Any) -> None:
    (simulated_lab.file.parent / "runs").write_text("in the way")
    with duodaq.open(simulated_lab.file) as lab:
        here = lab.stage.x.read_position().value
        with pytest.raises(StorageError, match="runs"):
            lab.scan(lab.stage.x, [3.0, 4.0], lab.dmm, progress=False)
        assert lab.stage.x.read_position().value == pytest.approx(here, abs=0.001)


def test_an_interrupted_scan_says_where_its_points_are(simulated_lab: Any) -> None:
    def fail(name: str, _: Any) -> None:
        if name == "event":
            raise RuntimeError("the user's own mistake")

    with duodaq.open(simulated_lab.file) as lab, pytest.raises(ScanInterruptedError, match="own mistake") as caught:
        lab.scan(lab.stage.x, [1.0, 1.5], lab.dmm, progress=False, on_document=fail)
    directory = caught.value.run.directory
    assert directory is not None
    kinds = [kind for kind, _ in documents(directory)]
    assert kinds[:3] == ["start", "descriptor", "event"]
    assert kinds[-1] == "stop"


def test_a_scan_from_the_command_line(simulated_lab: Any, start_program: Any, duodaq_command: Any) -> None:
    running = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    running.wait_for("Attach with")
    at = ("--lab", simulated_lab.name)
    done = duodaq_command("scan", "stage.x", "1", "2", "3", "--read", "dmm", "--sample", "knife 4", "--tag", "a", *at)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 points are in" in done.stdout
    assert "stage_x 1 … 2 mm" in done.stdout.replace("0.999", "1").replace("1.999", "2")
    told = duodaq_command("scan", "stage.x", "1", "1.5", "2", "--read", "dmm", "--json", *at)
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["point"] for line in lines[:2]] == [1, 2]
    assert lines[-1]["complete"]
    for words, sentence in (
        (("stage.q", "1", "2", "3"), "The axes of stage are: stage.x"),
        (("stage.x", "1", "2", "3", "--read", "nobody"), "There are: dmm, shutter, stage"),
        (("stage.x", "1", "2", "3", "--settle", "soon"), "not a duration"),
        (("stage.x", "1", "26", "3"), "outside the limits"),
    ):
        refused = duodaq_command("scan", *words, *at)
        assert refused.returncode in (1, 2)
        assert sentence in refused.stderr
    running.interrupt()
    assert running.end() == 0
    first, second = duodaq.runs(simulated_lab.file.parent / "runs")
    assert (first.labels.sample, first.labels.tags) == ("knife 4", ("a",))
    assert str(second.path) == lines[-1]["directory"]
