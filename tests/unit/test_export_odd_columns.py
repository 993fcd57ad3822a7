"""Columns that a form has no way to say, and names that it cannot have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr

from duodaq.errors import StorageError
from duodaq.storage.export import _record, export
from duodaq.storage.export._record import finalise_and_note
from duodaq.testing import record_run

pytestmark = pytest.mark.usefixtures("zarr_is_awake")
NUMBERS = pa.array([1.0, 2.0])
UNION = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])])


def run_with(path: Path, *columns: tuple[str, Any]) -> Path:
    told = [("sequence", pa.array([0, 1])), *columns]
    schema = pa.schema([(name, column.type) for name, column in told], {b"duodaq.stream": b"odd.table"})
    return record_run(path, [pa.record_batch([column for _, column in told], schema=schema)])


@pytest.mark.parametrize(
    ("to", "column"),
    [
        ("parquet", UNION),
        ("csv", UNION),
        ("parquet", pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([2.0]))),
        ("parquet", pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))),
        ("csv", pa.array([b"a", b"\xff"])),
        ("csv", pa.array(np.array([1, 2], np.float16))),
    ],
)
def test_a_column_that_cannot_be_written_is_named_and_the_record_says_so(to: Any, column: Any, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", ("fine", NUMBERS), ("mine", column))
    with pytest.raises(StorageError, match=f"column 'mine' of odd.table cannot be written as {to}: "):
        export(run, to)
    told = finalise_and_note(run, [to], remove_journal=to == "parquet")
    assert "column 'mine' of odd.table" in told["error"]
    assert told["journal"] == "kept"
    assert json.loads((run / "finalised.json").read_text()) == told
    assert sorted(path.name for path in run.glob("*.arrows")) == ["odd.table.arrows"]
    assert not [*run.glob(".*.part")]


@pytest.mark.parametrize("to", ["parquet", "csv", "hdf5", "zarr"])
def test_columns_of_one_name_are_said_to_be(to: Any, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", ("mine", NUMBERS), ("mine", NUMBERS))
    assert "odd.table has several columns called 'mine'" in finalise_and_note(run, [to])["error"]


def test_an_error_that_nobody_thought_of_is_in_the_record_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("an odd one")

    run = run_with(tmp_path / "run")
    monkeypatch.setattr(_record, "finalise", refuse)
    assert finalise_and_note(run, ["hdf5"])["error"] == "an error of duodaq's own, TypeError: an odd one"


def test_names_that_a_file_cannot_have_are_spelled_otherwise_and_say_what_they_are(tmp_path: Path) -> None:
    names = ["", ".", "..", "a", "a/b", "a_b", "title", "time", "zarr.json", "nul\0", "v" * 300]
    times = ("timestamp", pa.array([1, 2], pa.timestamp("ns")))
    lists = ("list", pa.array([[1.0], [1.0, 2.0]]))
    columns = [(name, pa.array([float(n), n + 0.5])) for n, name in enumerate([*names, "list_length"])]
    run = run_with(tmp_path / "run", times, lists, *columns)
    for to, opened in (("hdf5", h5py.File), ("zarr", zarr.open_group)):
        (file,) = export(run, to).files
        group: Any = opened(file, mode="r")["entry/odd_table" if to == "hdf5" else "odd.table"]
        found = {array.attrs.get("duodaq_name", name): array[...].tolist() for name, array in _arrays(group)}
        for number, name in enumerate([*names, "list_length"]):
            there = name.replace("\0", "\\0") if to == "hdf5" else name
            assert found[there] == [number, number + 0.5], (to, name)
        if to == "hdf5":
            group.file.close()


def _arrays(group: Any) -> list[tuple[str, Any]]:
    """With the file's own first: a column of the same name says which it is."""
    found = [*group.items()] if isinstance(group, h5py.Group) else [*group.arrays()]
    return sorted(
        ((name, array) for name, array in found if array.shape), key=lambda one: "duodaq_name" in one[1].attrs
    )


def test_streams_whose_names_become_the_same_are_groups_of_their_own(tmp_path: Path) -> None:
    streams = [b"odd.a/b", b"odd.a_b", b".."]
    schemas = [pa.schema([("value", pa.float64())], {b"duodaq.stream": stream}) for stream in streams]
    run = record_run(tmp_path / "run", [pa.record_batch([NUMBERS], schema=schema) for schema in schemas])
    assert len([*zarr.open_group(export(run, "zarr").files[0], mode="r").groups()]) == 3
    with h5py.File(export(run, "hdf5").files[0]) as file:
        assert [group.attrs.get("NX_class") for group in file["entry"].values()].count("NXdata") == 3
