"""Runs in other forms: equal to the journal, put in their place at once, and nothing that is not equal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import zarr

import duodaq
from duodaq.errors import LifecycleError, StorageError, StorageFullError
from duodaq.model import Scalar, Spectrum, Vector
from duodaq.schema import frame_batch, scalar_batch, scpi_event_batch, spectrum_batch, vector_batch
from duodaq.storage.export import FORMATS, _pieces, export, finalise
from duodaq.storage.export._aside import aside
from duodaq.storage.export._compare import same_array, same_column
from duodaq.storage.reading import Stream
from duodaq.testing import growing_run, knife_edge, record_run

pytestmark = pytest.mark.usefixtures("zarr_is_awake")
T0 = 1_780_000_000_000_000_000
SUFFIX = {"parquet": "", "csv": "", "hdf5": ".nxs", "zarr": ".zarr"}


def awkward() -> list[pa.RecordBatch]:
    """Not-a-number, infinities, nulls, quotes, line ends, names with slashes, one-row batches, changing frames."""
    values = [np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308]
    batches = [
        scalar_batch([Scalar("meter", "power", "W", T0 + n, n, value, "v2", {"n": n} if n % 2 else None)])
        for n, value in enumerate(values)
    ]
    batches.append(
        scpi_event_batch(
            instrument="dmm",
            t_ns=[T0, T0 + 1, T0 + 2],
            sequence=[0, 1, 2],
            command=['FUNC "VOLT"', "*IDN?", ""],
            response=["", None, "a,b\nc\td µ"],
            success=[True, False, True],
            error=[None, "", '-113,"Undefined header"'],
        )
    )
    batches.append(scalar_batch([Scalar("odd/name", "x ~ y", "", T0, 0, 1.0, "v4")]))
    batches.append(
        spectrum_batch(
            [Spectrum("osa", "trace", "dBm", T0 + n, n, np.arange(3.0), np.arange(3.0), "nm") for n in range(2)]
        )
    )
    batches.append(vector_batch([Vector("scope", "wave", "V", T0 + n, n, np.arange(n + 1.0)) for n in range(3)]))
    for number, (shape, dtype) in enumerate([((5, 7), "uint16"), ((3, 4), "uint8"), ((5, 7), "uint16")]):
        pixels = (np.arange(np.prod(shape)).reshape(shape) + number).astype(dtype)
        facts = {"t_ns": T0 + number, "sequence": number, "frame_number": number}
        batches.append(frame_batch(pixels, instrument="camera", channel="frames", **facts))
    facts = {b"duodaq.stream": b"mine.table", b"duodaq.instrument": b"mine"}
    columns = {
        "count": pa.array([1, None, 3], pa.int64()),
        "when": pa.array([T0, None, T0], pa.timestamp("us")),  # further than nanoseconds reach
        "name": pa.array(["a", None, ""]),
        "on": pa.array([True, None, False]),
    }
    schema = pa.schema([(name, column.type) for name, column in columns.items()], facts)
    return [*batches, pa.record_batch([*columns.values()], schema=schema)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("runs") / "odd", awkward())


@pytest.mark.parametrize("to", FORMATS)
def test_everything_awkward_is_written_and_verified(odd: Path, tmp_path: Path, to: Any) -> None:
    done = export(odd, to, tmp_path / f"out{SUFFIX[to]}")
    assert done.format == to
    assert done.files
    assert all(Path(file).exists() for file in done.files)
    assert done.size > 0
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".old"))]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    "batches", [[], [scalar_batch([Scalar("m", "p", "W", T0, 0, 1.0, "v2")])]], ids=["empty", "one row"]
)
def test_a_run_of_nothing_or_one_row_is_exported(batches: list[pa.RecordBatch], tmp_path: Path, to: Any) -> None:
    path = record_run(tmp_path / "run", batches)
    done = export(path, to)
    assert len(done.files) == (1 if to in ("hdf5", "zarr") or batches else 0)


@pytest.mark.parametrize("to", FORMATS)
def test_a_growing_run_is_exported_as_it_is(tmp_path: Path, to: Any) -> None:
    with growing_run(tmp_path / "run") as journal:
        journal.write(knife_edge(3))
        done = export(tmp_path / "run", to, tmp_path / f"out{SUFFIX[to]}")
        journal.write(knife_edge(2, T0 * 2 // 2 + 10**12))
    assert done.files


@pytest.mark.parametrize("to", ["hdf5", "zarr"])
def test_frames_that_come_while_a_growing_run_is_exported_are_left_out(
    tmp_path: Path, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come between the rows and the frames, which are looked for behind one another."""
    stream_named = Stream.named

    with growing_run(tmp_path / "run") as journal:
        journal.write(knife_edge(3))

        def named(self: Stream) -> Any:
            found = stream_named(self)
            journal.write(knife_edge(2, T0 + 10**12))
            return found

        monkeypatch.setattr(Stream, "named", named)
        done = export(tmp_path / "run", to, tmp_path / f"out{SUFFIX[to]}")
    assert done.files
    pixels = _arrays(Path(done.files[0]), "camera.frames")["frames"]
    assert pixels.shape[0] == 3


def _arrays(path: Path, stream: str) -> dict[str, Any]:
    """What a NeXus file or a Zarr store has of a stream."""
    if path.suffix == ".zarr":
        return {name: array[...] for name, array in zarr.open_group(path, mode="r")[stream].arrays()}
    with h5py.File(path) as file:
        return {
            name: data[()]
            for name, data in file["entry"][stream.replace(".", "_")].items()
            if getattr(data, "shape", ())
        }


def long_and_odd() -> list[pa.RecordBatch]:
    """Rows of which a part shows less than the whole: the last ones have longer texts and lists, and lack numbers."""
    scalars = [
        scalar_batch(
            [Scalar("meter", "power", "W", T0 + n, n, n / 7, "v2", {"n": "ä" * (n // 400)}) for n in range(k, k + 400)]
        )
        for k in range(0, 1200, 400)
    ]
    lists = [vector_batch([Vector("scope", "wave", "V", T0 + n, n, np.arange(3.0 + (n > 200)))]) for n in range(240)]
    facts = {b"duodaq.stream": b"mine.table", b"duodaq.instrument": b"mine"}
    tables: list[pa.RecordBatch] = []
    for k in range(0, 2000, 500):
        numbers = [*range(k, k + 500)]
        late = [None if n == 1700 else n for n in numbers]
        columns = {"n": pa.array(numbers, pa.int64()), "late": pa.array(late, pa.int64()),
                   "on": pa.array([None if n == 1999 else True for n in numbers]),
                   "text": pa.array([None if n < 1600 else "x" * (n - 1590) for n in numbers])}  # fmt: skip
        schema = pa.schema([(name, column.type) for name, column in columns.items()], facts)
        tables.append(pa.record_batch([*columns.values()], schema=schema))
    return [*scalars, *lists, *tables]


@pytest.mark.parametrize("to", ["hdf5", "zarr"])
def test_by_portions_the_same_is_written_as_all_at_once(
    tmp_path: Path, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record_run(tmp_path / "run", long_and_odd())
    whole = Path(export(path, to, tmp_path / f"whole{SUFFIX[to]}").files[0])
    monkeypatch.setattr(_pieces, "PORTION_BYTES", 1)
    monkeypatch.setattr("duodaq.storage.reading._index._AT_ONCE_BYTES", 40_000)
    assert sum(1 for _ in _pieces.Portions(duodaq.open_run(path)["mine.table"])) > 1
    parts = Path(export(path, to, tmp_path / f"parts{SUFFIX[to]}").files[0])
    for stream in ("meter.power", "scope.wave", "mine.table"):
        one, other = _arrays(whole, stream), _arrays(parts, stream)
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert values.dtype == other[name].dtype
            assert np.array_equal(values, other[name], equal_nan=values.dtype.kind == "f"), (stream, name)


@pytest.mark.parametrize("to", ["hdf5", "zarr"])
def test_a_long_run_is_not_loaded_whole(tmp_path: Path, to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = scalar_batch([Scalar("meter", "power", "W", T0 + n, n, n / 7, "v2") for n in range(20_000)])
    path = record_run(tmp_path / "run", [one] * 16)
    held: list[int] = []
    monkeypatch.setattr(_pieces, "PORTION_BYTES", 2**19)
    monkeypatch.setattr("duodaq.storage.reading._index._AT_ONCE_BYTES", 2**18)
    before = pa.total_allocated_bytes()

    def watch(stream: str, done: int, total: int) -> None:
        held.append(pa.total_allocated_bytes() - before)

    export(path, to, tmp_path / f"out{SUFFIX[to]}", progress=watch)
    assert len(held) > 10
    assert max(held) < duodaq.open_run(path)["meter.power"].to_arrow().nbytes / 4


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_not_equal_never_takes_its_place(tmp_path: Path, to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record_run(tmp_path / "run", knife_edge(3))
    target = tmp_path / f"out{SUFFIX[to]}"
    _spoil(monkeypatch, to)
    with pytest.raises(StorageError, match="journal"):
        export(path, to, target)
    assert [p for p in tmp_path.rglob("*") if p.is_relative_to(target) and p.is_file()] == []
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]


def _spoil(monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """Let what is written be wrong in its last value, between writing and verifying."""
    from duodaq.storage.export import _csv, _nexus, _parquet, _zarr

    def spoiled(write: Callable[..., Any], column: Callable[[Any], Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            return write(*[column(one) for one in args], **kwargs)

        return instead

    if to in ("parquet", "csv"):
        module = {"parquet": _parquet, "csv": _csv}[to]
        grouped = _parquet.grouped
        calls: list[int] = []

        def wrong(tables: Any) -> Any:
            for table in grouped(tables):
                calls.append(1)
                yield _one_value_wrong(table) if "position" in table.column_names and len(calls) == 1 else table

        if to == "parquet":
            monkeypatch.setattr(module, "grouped", wrong)
        else:
            readable = _csv.readable
            seen: list[int] = []

            def misread(table: pa.Table) -> pa.Table:
                seen.append(1)
                wrong_now = "position" in table.column_names and table.num_rows and not any(s == 2 for s in seen)
                if wrong_now:
                    seen.append(2)
                return readable(_one_value_wrong(table) if wrong_now else table)

            monkeypatch.setattr(module, "readable", misread)
        return
    module = {"hdf5": _nexus, "zarr": _zarr}[to]
    monkeypatch.setattr(module, "_stored", spoiled(module._stored, _one_wrong))


def _one_value_wrong(table: pa.Table) -> pa.Table:
    place = table.column_names.index("position")
    values = table.column("position").to_numpy().copy()
    values[-1] = np.nextafter(values[-1], 1e9)
    return table.set_column(place, table.schema.field(place), pa.array(values))


def _one_wrong(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        wrong = value.copy()
        wrong.flat[-1] = 1e300
        return wrong
    return value


def test_a_wrong_frame_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from duodaq.storage.export import _nexus

    copied = _nexus._copied

    def wrong(data: Any, *rest: Any) -> Any:
        dataset = copied(data, *rest)
        dataset[1, 2, 3] += 1
        return dataset

    monkeypatch.setattr(_nexus, "_copied", wrong)
    path = record_run(tmp_path / "run", knife_edge(3))
    with pytest.raises(StorageError, match="camera_frames/frames is not what the journal holds"):
        export(path, "hdf5", tmp_path / "out.nxs")


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record_run(tmp_path / "run", knife_edge(3))
    export(path, "hdf5", tmp_path / "out.nxs")
    before = (tmp_path / "out.nxs").read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError, match="No space left"):
        export(path, "hdf5", tmp_path / "out.nxs")
    assert (tmp_path / "out.nxs").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [".run-number", "out.nxs", "run"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", knife_edge(3))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    for to in ("hdf5", "zarr"):
        done = export(path, to, mine)
        assert Path(done.files[0]).parent == mine
        assert export(path, to, done.files[0]).files == done.files
    (mine / "run.zarr" / "zarr.json").unlink()
    assert Path(export(path, "zarr", mine / "run.zarr").files[0]) == mine / "run.zarr" / "run.zarr"
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_a_file_takes_the_place_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match="is a folder"), aside(tmp_path / "mine") as place:
        place.write_text("one file")
    with pytest.raises(StorageError, match="is a folder"), aside(tmp_path / "mine") as place:
        place.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


def test_frames_at_home_are_referred_to_and_elsewhere_inside(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", knife_edge(3))
    home = export(path, "hdf5").files[0]
    away = export(path, "hdf5", tmp_path / "away.nxs").files[0]
    outside = export(path, "hdf5", tmp_path / "outside.nxs", frames="external").files[0]
    with h5py.File(home) as a, h5py.File(away) as b, h5py.File(outside) as c:
        one, other, third = (file["entry/camera_frames/frames"] for file in (a, b, c))
        assert one.external[0][0] == str(path / "camera.frames.npy")
        assert third.external == one.external
        assert other.external is None
        assert 32008 in [int(code) for code in other._filters]  # bitshuffle, as HDF5 numbers it
        assert np.array_equal(one[()], other[()])
        assert np.array_equal(one[()], third[()])


def test_damaged_frames_are_left_out_with_their_rows_and_counted(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", knife_edge(5))
    file, offset, _, _ = duodaq.open_run(path)["camera.frames"].frames.files()[0]
    with open(file, "r+b") as out:
        out.seek(offset + 2 * 24 * 32 * 2)
        out.write(b"\x01\x02\x03")
    for frames in ("inside", "external"):
        written = export(path, "hdf5", tmp_path / f"{frames}.nxs", frames=frames).files[0]
        with h5py.File(written) as found:
            data = found["entry/camera_frames"]
            assert data["frames"].shape == (4, 24, 32)
            assert data["frame_number"][()].tolist() == [1, 2, 4, 5]
            assert data.attrs["duodaq_damaged_frames"] == 1


def test_progress_is_told_for_every_stream_until_its_end(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", knife_edge(4))
    for to in FORMATS:
        told: dict[str, tuple[int, int]] = {}
        export(
            path,
            to,
            tmp_path / f"out{SUFFIX[to]}",
            progress=lambda s, done, total, t=told: t.update({s: (done, total)}),
        )
        assert told == {"stage.x": (4, 4), "meter.power": (4, 4), "camera.frames": (4, 4)}


def test_a_finished_run_is_finalised_and_read_on_without_its_journal_of_rows(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", awkward())
    run = duodaq.open_run(path)
    before = {stream.name: stream.to_arrow() for stream in run}
    facts = {stream.name: (len(stream), stream.start, stream.stop, stream.units) for stream in run}
    done = finalise(path, ("parquet", "hdf5"), remove_journal=True)
    assert [one.format for one in done] == ["parquet", "hdf5"]
    assert not [*path.glob("*.arrows"), *path.glob("*.arrows.index")]
    again = duodaq.open_run(path)
    for name, table in before.items():
        found = again[name].to_arrow()
        assert found.column_names == table.column_names
        assert all(same_column(found[c], table[c]) for c in table.column_names)
    assert {stream.name: (len(stream), stream.start, stream.stop, stream.units) for stream in again} == facts
    assert [s.shape for s in again["camera.frames"].stacks] == [(2, 5, 7), (1, 3, 4)]
    assert again["meter.power"].between(T0 + 4).to_arrow().num_rows == 2


def test_a_run_that_is_not_finished_is_not_finalised(tmp_path: Path) -> None:
    with growing_run(tmp_path / "run") as journal:
        journal.write(knife_edge(2))
        with pytest.raises(LifecycleError, match="wait for its end"):
            finalise(tmp_path / "run")
    with pytest.raises(LifecycleError, match="duodaq recover"):
        finalise(tmp_path / "run")
    assert not [*(tmp_path / "run").glob("*.parquet")]


def test_rows_are_removed_only_where_parquet_has_them(tmp_path: Path) -> None:
    path = record_run(tmp_path / "run", knife_edge(2))
    with pytest.raises(LifecycleError, match="only where Parquet holds them"):
        finalise(path, ("hdf5",), remove_journal=True)
    assert len([*path.glob("*.arrows")]) == 3


def test_the_comparison_sees_every_bit() -> None:
    nan, other = np.array([np.nan]), np.array([np.nan]).view(np.int64) ^ 1
    assert same_array(nan, nan.copy())
    assert not same_array(nan, other.view(np.float64))
    assert not same_array(np.array([0.0]), np.array([-0.0]))
    assert not same_array(np.arange(3), np.arange(3.0))
    assert not same_array(np.arange(3), np.arange(4))
    column = pa.array([1.0, None, np.nan])
    assert same_column(column, pa.array([1.0, None, np.nan]))
    assert not same_column(column, pa.array([1.0, 2.0, np.nan]))
    assert not same_column(pa.array([[1.0], [2.0, 3.0]]), pa.array([[1.0, 2.0], [3.0]]))
    assert not same_column(pa.array([{"a": 1}]), pa.array([{"a": 2}]))
    one = pa.array(["x", "y"]).dictionary_encode()
    assert same_column(one, pa.DictionaryArray.from_arrays([1, 0], ["y", "x"]))
    assert not same_column(one, pa.DictionaryArray.from_arrays([0, 1], ["y", "x"]))
