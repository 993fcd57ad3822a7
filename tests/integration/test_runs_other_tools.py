"""Recordings read by programs that know nothing of duodaq: while they grow, and when they are done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr

import duodaq
from duodaq.model import Scalar
from duodaq.schema import scalar_batch
from duodaq.storage.export import export
from duodaq.storage.reading import Run
from duodaq.testing import growing_run, knife_edge, record_run

pytestmark = pytest.mark.usefixtures("polars_is_awake", "zarr_is_awake")
T0 = 1_780_000_000_000_000_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return duodaq.open_run(record_run(tmp_path_factory.mktemp("runs") / "knife", knife_edge()))


def published(stream: str) -> list[pa.RecordBatch]:
    return [b for b in knife_edge() if (b.schema.metadata or {})[b"duodaq.stream"].decode() == stream]


def values(stream: str, column: str) -> list[Any]:
    return [value for batch in published(stream) for value in batch[column].to_pylist()]


def pictures() -> np.ndarray[Any, Any]:
    return np.concatenate([batch["pixels"].to_numpy_ndarray() for batch in published("camera.frames")])


def rows_so_far(path: Path) -> pa.Table:
    """As pyarrow reads a stream that has no end yet: batch by batch, until there is none."""
    batches: list[pa.RecordBatch] = []
    with pa.ipc.open_stream(path) as reader:
        while True:
            try:
                batches.append(reader.read_next_batch())
            except (StopIteration, pa.ArrowInvalid, OSError):
                return pa.Table.from_batches(batches, reader.schema)


def test_plain_arrow_and_numpy_read_the_journal_when_it_is_done(run: Run) -> None:
    with pa.ipc.open_stream(run.path / "meter.power.arrows") as reader:
        assert reader.read_all()["value"].to_pylist() == values("meter.power", "value")
    assert pl.read_ipc_stream(run.path / "stage.x.arrows")["position"].to_list() == values("stage.x", "position")
    assert np.array_equal(np.load(run.path / "camera.frames.npy", mmap_mode="r"), pictures())


def test_plain_arrow_and_polars_read_the_journal_while_it_grows(tmp_path: Path) -> None:
    with growing_run(tmp_path / "run") as journal:
        for n in range(4):
            journal.write([scalar_batch([Scalar("meter", "power", "W", T0 + n, n, float(n), "v2")])])
            assert rows_so_far(tmp_path / "run" / "meter.power.arrows")["value"].to_pylist() == list(range(n + 1))
        mine = duodaq.open_run(tmp_path / "run")["meter.power"]
        assert pl.DataFrame(mine)["value"].to_list() == [0, 1, 2, 3]
        assert duckdb.sql("SELECT sum(value) FROM mine").fetchall() == [(6.0,)]


READER = """
import json, sys
import duodaq
run = duodaq.open_run(sys.argv[1])
stream = run["meter.power"]
print(json.dumps([len(stream), stream.to_arrow()["value"].to_pylist(), run.state]))
"""


def test_another_process_reads_a_run_that_grows(tmp_path: Path) -> None:
    with growing_run(tmp_path / "run") as journal:
        for n in range(3):
            journal.write([scalar_batch([Scalar("meter", "power", "W", T0 + n, n, float(n), "v2")])])
        command = [sys.executable, "-c", READER, str(tmp_path / "run")]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert json.loads(told.stdout) == [3, [0.0, 1.0, 2.0], "recording"]
        journal.write([scalar_batch([Scalar("meter", "power", "W", T0 + 3, 3, 3.0, "v2")])])
        journal.close({"exit_status": "success"})
    assert len(duodaq.open_run(tmp_path / "run")["meter.power"]) == 4


def test_parquet_is_equal_for_pyarrow_polars_and_duckdb(run: Run, tmp_path: Path) -> None:
    export(run, "parquet", tmp_path / "out")
    file = tmp_path / "out" / "meter.power.parquet"
    wanted = values("meter.power", "value")
    table = pq.read_table(file)
    assert table["value"].to_pylist() == wanted
    assert table.schema.field("value").metadata[b"unit"] == b"W"
    assert json.loads(table.schema.metadata[b"duodaq.run"])["uid"] == run.uid
    assert ds.dataset(file).to_table(columns=["value"])["value"].to_pylist() == wanted
    assert pl.read_parquet(file)["value"].to_list() == wanted
    assert [v for (v,) in duckdb.sql(f"SELECT value FROM '{file}'").fetchall()] == wanted
    columns = pq.ParquetFile(file).metadata.row_group(0)
    packed = {columns.column(i).path_in_schema: columns.column(i).encodings for i in range(columns.num_columns)}
    assert "BYTE_STREAM_SPLIT" in packed["value"]
    assert "DELTA_BINARY_PACKED" in packed["timestamp"]
    assert "DELTA_BINARY_PACKED" in packed["sequence"]
    assert np.array_equal(np.load(tmp_path / "out" / "camera.frames.npy"), pictures())
    camera = pl.read_parquet(tmp_path / "out" / "camera.frames.parquet")
    assert camera["roi"][0] == {"x": 0, "y": 0, "width": 32, "height": 24}


@pytest.mark.parametrize("frames", ["inside", "external"])
def test_nexus_is_equal_for_h5py_and_plain_xarray(run: Run, tmp_path: Path, frames: Any) -> None:
    written = export(run, "hdf5", tmp_path / "out.nxs", frames=frames).files[0]
    with h5py.File(written) as file:
        power = file["entry/meter_power"]
        assert power["power"][()].tolist() == values("meter.power", "value")
        assert power["power"].attrs["units"] == "W"
        times = [t.value for t in values("meter.power", "timestamp")]
        assert power["timestamp"][()].tolist() == times
        assert power["time"][()] == pytest.approx((np.array(times) - times[0]) / 1e9)
        assert file["entry/stage_x/stage_x_state"].asstr()[()].tolist() == ["idle"] * 21
        assert np.array_equal(file["entry/camera_frames/frames"][()], pictures())
        assert json.loads(file["entry/duodaq/run"][()])["uid"] == run.uid


def test_a_run_with_relative_frames_can_be_moved(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "before"
    shutil.copytree(run.path, home)
    written = export(Run(home), "hdf5", home / "run.nxs", frames="relative").files[0]
    with h5py.File(written) as file:
        assert [name for name, _, _ in file["entry/camera_frames/frames"].external] == ["camera.frames.npy"]
    moved = home.rename(tmp_path / "behind")
    read = "import h5py, sys; print(int(h5py.File(sys.argv[1])['entry/camera_frames/frames'][()].sum()))"
    told = {**os.environ, "HDF5_EXTFILE_PREFIX": "${ORIGIN}"}
    for folder, environment in ((Path("/"), told), (moved, None)):
        command = [sys.executable, "-c", read, str(moved / "run.nxs")]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert int(ended.stdout) == int(pictures().sum())


def test_zarr_is_equal_for_zarr_and_xarray(run: Run, tmp_path: Path) -> None:
    written = export(run, "zarr", tmp_path / "out.zarr").files[0]
    root = zarr.open_group(written, mode="r")
    assert root.attrs["uid"] == run.uid
    assert root["meter.power/power"][...].tolist() == values("meter.power", "value")
    assert root["meter.power/power"].metadata.dimension_names == ("time",)
    data = xr.open_zarr(written, group="camera.frames", consolidated=False, chunks=None)
    assert np.array_equal(data["frames"].values, pictures())
    assert data["frames"].dims == ("time", "y", "x")
    assert data["time"].values.tolist() == [t.value for t in values("camera.frames", "timestamp")]
    assert xr.open_zarr(written, group="meter.power", consolidated=False, chunks=None)["power"].attrs["units"] == "W"


def test_csv_is_equal_for_polars_and_duckdb(run: Run, tmp_path: Path) -> None:
    export(run, "csv", tmp_path)
    file = tmp_path / "meter.power.csv"
    wanted = values("meter.power", "value")
    assert pl.read_csv(file)["value"].to_list() == wanted
    assert [v for (v,) in duckdb.sql(f"SELECT value FROM '{file}'").fetchall()] == wanted
    first = file.read_text().splitlines()[1].split(",")[0]
    assert first == '"2026-05-28T20:26:40.025000000+00:00"'
