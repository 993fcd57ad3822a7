"""The points of a scan go with every form of its run: what was read over where, with units."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from rich.console import Console

import duodaq
from duodaq.cli._runs import export_run, show_run
from duodaq.storage.export import export
from duodaq.storage.reading import Run
from duodaq.testing import knife_edge, knife_edge_scan, record_run

pytestmark = pytest.mark.usefixtures("zarr_is_awake")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return duodaq.open_run(record_run(tmp_path / "runs" / "knife", knife_edge(5), documents=knife_edge_scan(5)))


def test_csv_has_a_row_for_each_point_with_units_in_its_header(run: Run, tmp_path: Path) -> None:
    export(run, "csv", tmp_path / "out")
    with open(tmp_path / "out" / "scan.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["time", "power (W)", "stage_x (mm)", "stage_x_setpoint (mm)"]
    (scan,) = run.scans
    assert [float(row["power (W)"]) for row in rows] == scan["power"].tolist()
    assert [float(row["stage_x (mm)"]) for row in rows] == scan["stage_x"].tolist()


def test_parquet_has_the_points_with_their_units(run: Run, tmp_path: Path) -> None:
    export(run, "parquet", tmp_path / "out")
    table: Any = pq.read_table(tmp_path / "out" / "scan.parquet")
    assert table.equals(run.scans[0].to_arrow())
    assert table.schema.field("power").metadata[b"unit"] == b"W"


def test_a_nexus_file_shows_the_scan_first(run: Run, tmp_path: Path) -> None:
    export(run, "hdf5", tmp_path / "out.nxs")
    with h5py.File(tmp_path / "out.nxs") as file:
        data: Any = file["entry"][file["entry"].attrs["default"]]
        assert data.name == "/entry/scan"
        assert data.attrs["NX_class"] == "NXdata"
        assert (data.attrs["signal"], list(data.attrs["axes"])) == ("power", ["stage_x"])
        assert data["power"][:].tolist() == run.scans[0]["power"].tolist()
        assert (data["power"].attrs["units"], data["stage_x"].attrs["units"]) == ("W", "mm")
        assert data["stage_x"][:].tolist() == run.scans[0]["stage_x"].tolist()


def test_a_zarr_store_has_a_group_with_the_points(run: Run, tmp_path: Path) -> None:
    export(run, "zarr", tmp_path / "out.zarr")
    group: Any = zarr.open_group(tmp_path / "out.zarr", mode="r")["scan"]
    assert np.asarray(group["power"]).tolist() == run.scans[0]["power"].tolist()
    assert group["power"].metadata.dimension_names == ("stage_x",)
    assert group["stage_x"].attrs["units"] == "mm"


def test_a_run_says_what_was_scanned_and_how_small_it_is(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    out = Console(width=200)
    show_run("last", run.path.parent, out, as_json=False)
    assert "scan of stage_x: 5 of 5 points, complete" in capsys.readouterr().out
    show_run("last", run.path.parent, out, as_json=True)
    (scan,) = json.loads(capsys.readouterr().out)["scans"]
    assert (scan["axes"], scan["points"], scan["complete"]) == (["stage_x"], 5, True)
    export_run("last", ["csv"], run.path.parent, None, None, out, as_json=False)
    assert " kB, read back" in capsys.readouterr().out


def grid_documents() -> list[tuple[str, dict[str, Any]]]:
    """Three of the six points of a grid, with a text and an array that is of another length at each of them."""
    start = {
        "uid": "g",
        "time": 1.78e9,
        "hints": {"dimensions": [[[axis], "primary"] for axis in ("y", "x")]},
        "shape": [2, 3],
        "extents": [[0.0, 1.0], [0.0, 2.0]],
        "num_points": 6,
    }
    keys: dict[str, Any] = {n: {"source": "s", "dtype": "number", "shape": [], "units": "V"} for n in ("v", "x", "y")}
    keys |= {"word": {"source": "s", "dtype": "string", "shape": []}}
    keys |= {"wave": {"source": "s", "dtype": "array", "shape": [2]}}
    found: list[tuple[str, dict[str, Any]]] = [("start", start)]
    found.append(("descriptor", {"uid": "d", "name": "primary", "data_keys": keys}))
    for n in range(3):
        data = {"v": 5.0 + n, "y": 0.0, "x": float(n), "word": "w", "wave": [1.0] * (n + 1)}
        found.append(("event", {"descriptor": "d", "time": 1.78e9 + n, "data": data, "seq_num": n + 1}))
    return [*found, ("stop", {"exit_status": "abort"})]


def test_a_grid_that_was_broken_off_is_written_over_both_axes(tmp_path: Path) -> None:
    run = duodaq.open_run(record_run(tmp_path / "grid", knife_edge(3), documents=grid_documents()))
    for form in ("csv", "parquet", "hdf5", "zarr"):
        export(run, form, tmp_path / "out")
    assert len((tmp_path / "out" / "scan.csv").read_text().splitlines()) == 4
    with h5py.File(tmp_path / "out" / "grid.nxs") as file:
        data: Any = file["entry/scan"]
        assert (data.attrs["signal"], list(data.attrs["axes"])) == ("v", ["y", "x"])
        np.testing.assert_array_equal(data["v"][:], [[5, 6, 7], [np.nan] * 3])
        assert set(data) == {"title", "v", "wave", "x", "y", "x_readback", "y_readback"}
        np.testing.assert_array_equal(data["wave"][0, 1], [1.0, 1.0, np.nan])  # shorter there than at the next point
    assert "scan of y × x: 3 of 6 points, aborted" in run.scans[0].in_words()
