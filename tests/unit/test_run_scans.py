"""The scans that a run kept, made again from the documents in its event log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import duodaq
from duodaq.bluesky import ScanRun
from duodaq.model import Vector
from duodaq.schema import vector_batch
from duodaq.storage.reading import RecordedScan, Run
from duodaq.testing import growing_run, knife_edge, knife_edge_scan, record_run

T0 = 1_780_000_000_000_000_000
STEP = 100_000_000
Documents = list[tuple[str, dict[str, Any]]]
SNAKE = [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1)]


def kept(path: Path, documents: Iterable[tuple[str, Any]], batches: Iterable[Any] = ()) -> Run:
    return duodaq.open_run(record_run(path / "run", batches, documents=documents))


def scan_of(documents: Documents, axes: dict[str, list[float]], places: list[tuple[int, ...]]) -> ScanRun:
    """What the program that scanned would have."""
    run = ScanRun(axes, places)
    for kind, document in documents:
        run.document(kind, document)
    return run


def grid_documents(positions: dict[str, list[float]], order: list[tuple[int, ...]], lists: bool = True) -> Documents:
    axes = [*positions]
    args = [part for axis in axes for part in (f"<device {axis}>", positions[axis])] if lists else []
    start = {
        "uid": "g",
        "time": T0 / 1e9,
        "hints": {"dimensions": [[[axis], "primary"] for axis in axes]},
        "shape": [len(p) for p in positions.values()],
        "extents": [[p[0], p[-1]] for p in positions.values()],
        "num_points": len(order),
        "plan_pattern_args": {"args": args},
    }
    names = ["voltage", *axes, *(f"{axis}_setpoint" for axis in axes)]
    keys = {name: {"source": "duodaq:x", "dtype": "number", "shape": [], "units": "V"} for name in names}
    found: Documents = [("start", start), ("descriptor", {"uid": "d", "name": "primary", "data_keys": keys})]
    for number, place in enumerate(order):
        at = {axis: positions[axis][index] for axis, index in zip(axes, place, strict=True)}
        data = {"voltage": float(number), **{a: v + 0.01 for a, v in at.items()}}
        data |= {f"{a}_setpoint": v for a, v in at.items()}
        found.append(("event", {"descriptor": "d", "time": T0 / 1e9 + number, "data": data, "seq_num": number + 1}))
    return [*found, ("stop", {"exit_status": "success"})]


def test_a_recorded_scan_is_the_scan_that_was_returned(tmp_path: Path) -> None:
    documents = knife_edge_scan()
    returned = scan_of(documents, {"stage_x": np.linspace(0.5, 3.5, 21).tolist()}, [(n,) for n in range(21)])
    run = kept(tmp_path, documents, knife_edge())
    (scan,) = run.scans
    assert (scan.uid, scan.axes, len(scan), scan.planned) == (returned.uid, returned.axes, 21, 21)
    assert scan.units == returned.units == {"power": "W", "stage_x": "mm", "stage_x_setpoint": "mm"}
    assert scan.metadata == {"sample": "knife 3"}
    assert scan.complete
    assert repr(scan) == "<scan of stage_x: 21 of 21 points, complete>"
    assert scan.to_arrow().equals(returned.to_arrow())
    data = scan.to_xarray()
    assert data.equals(returned.to_xarray())
    assert data.attrs == {
        "sample": "knife 3",
        "scan_uid": returned.uid,
        "run_uid": run.uid,
        "run_directory": str(run.path),
    }
    frame = scan.to_pandas()
    assert frame["power"].tolist() == returned["power"].tolist()
    assert frame.attrs["units"]["power"] == "W"
    assert frame.attrs["run_uid"] == run.uid


def test_the_plot_is_the_points_of_the_scan_and_not_what_streams_have_beside_them(tmp_path: Path) -> None:
    documents = knife_edge_scan()
    for kind, document in documents:
        if kind == "event":
            document["data"]["power"] *= 2  # no stream says this
    run = kept(tmp_path, documents, knife_edge())
    curve = run.plot().axes[0]
    x, y = curve.lines[0].get_data()
    assert x.tolist() == run.scans[-1]["stage_x"].tolist()
    assert y.tolist() == run.scans[-1]["power"].tolist()
    assert (curve.get_xlabel(), curve.get_ylabel()) == ("stage_x (mm)", "power (W)")
    streams = run.plot(x="stage.x").axes[0].lines[0].get_ydata()
    assert streams.tolist() == pytest.approx((y / 2).tolist())


def test_a_scan_that_only_moved_leaves_the_plot_to_the_streams(tmp_path: Path) -> None:
    documents = [(kind, dict(document)) for kind, document in knife_edge_scan()]
    documents[1][1]["data_keys"].pop("power")
    figure = kept(tmp_path, documents, knife_edge()).plot()
    assert figure.axes[0].get_ylabel() == "meter.power (W)"


def test_a_scan_under_way_has_the_points_so_far(tmp_path: Path) -> None:
    with growing_run(tmp_path / "run") as journal:
        for kind, document in knife_edge_scan()[:5]:
            journal.note("document", {"kind": kind, "run": "u", "doc": document})
        journal.commit()
        (scan,) = duodaq.open_run(tmp_path / "run").scans
    assert (len(scan), scan.planned, scan.complete, scan.stop) == (3, 21, False, {})
    assert "under way" in repr(scan)


def without_points(documents: Documents, ended: str) -> Documents:
    return [*(one for one in documents if one[0] == "start"), ("stop", {"exit_status": ended})]


@pytest.mark.parametrize(("status", "word"), [("abort", "aborted"), ("fail", "failed"), ("success", "incomplete")])
def test_a_scan_that_ended_before_its_first_point_says_of_what_it_was_and_how_it_ended(
    tmp_path: Path, status: str, word: str
) -> None:
    (scan,) = kept(tmp_path, without_points(knife_edge_scan(), status)).scans
    assert scan.axes == ("stage_x",)
    assert scan.in_words() == f"scan of stage_x: 0 of 21 points, {word}"
    assert scan.stop["exit_status"] == status
    assert scan.to_arrow().num_rows == len(scan.to_pandas()) == scan.to_xarray().sizes["stage_x"] == 0


def test_a_grid_that_ended_before_its_first_point_has_its_axes_and_is_blank(tmp_path: Path) -> None:
    documents = grid_documents({"y": [1.0, 0.0], "x": [1.0, 2.0, 3.0]}, SNAKE)
    (scan,) = kept(tmp_path, without_points(documents, "abort")).scans
    assert scan.in_words() == "scan of y × x: 0 of 5 points, aborted"
    assert scan.shape == (2, 3)
    assert dict(scan.to_xarray().sizes) == {"y": 2, "x": 3}


def test_a_count_that_ended_before_its_first_point_is_over_time(tmp_path: Path) -> None:
    (scan,) = kept(tmp_path, without_points(counted(voltage=[1.0]), "abort")).scans
    assert (scan.axes, scan.in_words()) == ((), "scan of time: 0 of 1 points, aborted")
    assert dict(scan.to_xarray().sizes) == {"time": 0}


def test_a_run_without_scans_has_none_and_a_window_takes_its_points(tmp_path: Path) -> None:
    assert kept(tmp_path, []).scans == []
    run = kept(tmp_path / "other", knife_edge_scan())
    assert [len(scan) for scan in run.between(T0 + 5 * STEP, T0 + 10 * STEP).scans] == [5]
    assert run.between(T0 - 10 * STEP, T0 - STEP).scans == []


@pytest.mark.parametrize("lists", [True, False])
def test_a_grid_is_over_all_of_its_axes_with_nan_where_no_point_is(tmp_path: Path, lists: bool) -> None:
    positions = {"y": [1.0, 0.0], "x": [1.0, 2.0, 3.0]}
    documents = grid_documents(positions, SNAKE, lists)
    run = kept(tmp_path, documents)
    (scan,) = run.scans
    assert scan.shape == (2, 3)
    data = scan.to_xarray()
    assert data.equals(scan_of(documents, positions, SNAKE).to_xarray())
    np.testing.assert_array_equal(data.voltage, [[0, 1, 2], [np.nan, 4, 3]])
    panel = run.plot().axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("x (V)", "y (V)")
    np.testing.assert_array_equal(panel.collections[0].get_array().filled(np.nan), data.voltage)


def counted(external: bool = False, **data: list[Any]) -> Documents:
    """A count: no axis, events in a page."""
    shape = [3] if external else []
    key = {"source": "duodaq:scope.trace", "dtype": "array" if external else "number", "shape": shape, "units": "V"}
    keys = {name: {**key, "external": "JOURNAL:"} if external else key for name in data}
    count = len(next(iter(data.values())))
    page = {"descriptor": "d", "time": [T0 / 1e9 + n for n in range(count)], "data": data, "timestamps": {}}
    other = {"uid": "b", "name": "baseline", "data_keys": {"room": key}}
    return [
        ("start", {"uid": "c", "hints": {"dimensions": [[["time"], "primary"]]}, "num_points": count}),
        ("descriptor", other),
        ("event", {"descriptor": "b", "time": T0 / 1e9, "data": {"room": 20.0}}),
        ("descriptor", {"uid": "d", "name": "primary", "data_keys": keys}),
        ("event_page", page),
        ("stop", {"exit_status": "success"}),
    ]


def test_a_count_is_over_time_without_its_baseline_and_null_is_nan(tmp_path: Path) -> None:
    (scan,) = kept(tmp_path, counted(voltage=[1.0, float("nan"), 3.0])).scans
    assert (scan.axes, scan.fields(), scan.complete) == ((), ["voltage"], True)
    data = scan.to_xarray()
    assert data.voltage.dims == ("time",)
    np.testing.assert_array_equal(data.voltage, [1.0, np.nan, 3.0])
    assert scan.to_arrow()["voltage"].to_pylist()[2] == 3.0


def test_large_arrays_are_read_from_their_stream_and_are_nan_where_it_has_none(tmp_path: Path) -> None:
    traces = [Vector("scope", "trace", "V", T0 + 77 + n * STEP, n, np.arange(3.0) + n, "v2") for n in range(2)]
    told = [f"duodaq:scope.trace@{round(t / 1e9 * 1e9)}" for t in (T0 + 77, T0 + 77 + STEP, T0 + 7 * STEP)]
    (scan,) = kept(tmp_path, counted(external=True, trace=told), [vector_batch(traces)]).scans
    np.testing.assert_array_equal(scan["trace"], [[0, 1, 2], [1, 2, 3], [np.nan] * 3])
    assert scan.to_xarray().trace.dims == ("time", "trace_0")
    assert scan.to_arrow()["trace"].to_pylist() == told


def test_frames_of_a_scan_are_read_from_the_recording(tmp_path: Path) -> None:
    told = [f"duodaq:camera.frames@{T0 + n * STEP + STEP // 2}" for n in (1, 0)]
    run = kept(tmp_path, counted(external=True, frames=told), knife_edge(3))
    np.testing.assert_array_equal(run.scans[0]["frames"], run["camera.frames"].frames[[1, 0]])
    assert isinstance(run.scans[0], RecordedScan)
