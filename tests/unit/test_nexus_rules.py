"""The NeXus file keeps to the rules of the standard: classes, default, signal, axes, names, units, links."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

import duodaq
from duodaq.model import Spectrum, Vector
from duodaq.schema import frame_batch, spectrum_batch, vector_batch
from duodaq.storage.export import export
from duodaq.testing import knife_edge, record_run

T0 = 1_780_000_000_000_000_000
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
CLASSES = {"NXroot", "NXentry", "NXdata", "NXinstrument", "NXdetector", "NXpositioner", "NXuser", "NXsample"}


def batches() -> list[pa.RecordBatch]:
    axis = np.arange(3.0)
    spectra = [Spectrum("osa", "trace", "dBm", T0 + n, n, axis, axis + 600, "nm") for n in range(2)]
    vectors = [Vector("scope", "ch.1", "V", T0 + n, n, np.arange(n + 1.0)) for n in range(3)]
    other = frame_batch(
        np.ones((3, 4), "u1"), instrument="camera", channel="frames", t_ns=T0, sequence=99, frame_number=9
    )
    facts = {b"duodaq.stream": b"2nd.thing", b"duodaq.instrument": b"2nd"}
    plain = pa.record_batch([pa.array([1.5, 2.5])], schema=pa.schema([("level", pa.float64())], facts))
    return [*knife_edge(5), other, spectrum_batch(spectra), vector_batch(vectors), plain]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run = duodaq.open_run(record_run(folder / "run", batches(), provenance={"lab": "bench"}))
    run.label(sample="knife 3", operator="Curie", note="aligned first", tags=["good"])
    return Path(export(run, "hdf5", folder / "out.nxs").files[0])


@pytest.fixture
def file(written: Path) -> Iterator[Any]:
    with h5py.File(written, "r") as opened:
        yield opened


def groups(file: Any) -> list[Any]:
    found: list[Any] = [file]
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Group) else None)
    return found


def datas(file: Any) -> list[Any]:
    return [group for group in groups(file) if group.attrs["NX_class"] == "NXdata"]


def test_every_group_has_a_class_and_every_name_is_one_of_nexus(file: Any) -> None:
    assert {group.attrs["NX_class"] for group in groups(file)} == CLASSES | {"NXcollection"}
    names: list[str] = []
    file.visit(names.append)
    assert [name for name in names if not all(NAME.fullmatch(part) for part in name.split("/"))] == []


def test_default_leads_from_the_root_to_something_to_plot(file: Any) -> None:
    entry = file[file.attrs["default"]]
    assert entry.attrs["NX_class"] == "NXentry"
    data = entry[entry.attrs["default"]]
    assert data.attrs["NX_class"] == "NXdata"
    assert data[data.attrs["signal"]].size


def test_every_data_group_has_a_signal_and_an_axis_of_its_length_for_each_dimension(file: Any) -> None:
    found = datas(file)
    names = {"stage_x", "meter_power", "camera_frames", "camera_frames_2", "osa_trace", "scope_ch_1", "_2nd_thing"}
    assert {data.name.rpartition("/")[2] for data in found} == names
    for data in found:
        signal = data[data.attrs["signal"]]
        axes = [str(name) for name in data.attrs["axes"]]
        assert len(axes) == signal.ndim
        for place, name in enumerate(axes):
            assert data[name].shape == (signal.shape[place],)
            assert data.attrs[f"{name}_indices"].tolist() == [place]
        for other in data.attrs.get("auxiliary_signals", []):
            assert data[other].shape == signal.shape


def test_units_are_those_of_the_channels(file: Any) -> None:
    entry = file["entry"]
    units = {"meter_power/power": "W", "stage_x/stage_x": "mm", "stage_x/stage_x_velocity": "mm/s"}
    units |= {
        "osa_trace/trace": "dBm",
        "osa_trace/axis": "nm",
        "camera_frames/frames": "counts",
        "meter_power/time": "s",
    }
    units["camera_frames/exposure_s"] = "s"
    assert {name: entry[name].attrs["units"] for name in units} == units


def test_the_entry_says_what_when_who_and_which(file: Any) -> None:
    entry = file["entry"]
    assert entry["title"].asstr()[()] == "run 1 knife 3"
    start, end = (dt.datetime.fromisoformat(entry[name].asstr()[()]) for name in ("start_time", "end_time"))
    assert start <= end
    assert start.tzinfo is not None
    assert entry["sample/name"].asstr()[()] == "knife 3"
    assert entry["user/name"].asstr()[()] == "Curie"
    assert entry["experiment_description"].asstr()[()] == "aligned first"


def test_instruments_link_to_their_data(file: Any) -> None:
    instrument = file["entry/instrument"]
    assert instrument["stage_x"].attrs["NX_class"] == "NXpositioner"
    assert instrument["camera_frames"].attrs["NX_class"] == "NXdetector"
    linked = instrument["meter_power/data"]
    assert linked.attrs["target"] == "/entry/meter_power/power"
    assert linked == file["entry/meter_power/power"]
    assert instrument["stage_x/velocity"] == file["entry/stage_x/stage_x_velocity"]


def test_frames_of_another_shape_are_a_group_of_their_own_with_their_own_rows(file: Any) -> None:
    one, other = file["entry/camera_frames"], file["entry/camera_frames_2"]
    assert one["frames"].shape == (5, 24, 32)
    assert other["frames"].shape == (1, 3, 4)
    assert one["frame_number"][()].tolist() == [1, 2, 3, 4, 5]
    assert other["sequence"][()].tolist() == [99]


def test_a_validator_of_the_field_has_nothing_to_say(written: Path) -> None:
    nexus = pytest.importorskip("nexusformat.nexus", reason="needs nexusformat")
    root = nexus.nxload(str(written))
    assert root.entry.check(level="warning") == (0, 0)
    assert root.entry.meter_power.nxsignal.shape == (5,)
    assert [axis.nxname for axis in root.entry.osa_trace.nxaxes] == ["time", "axis"]
