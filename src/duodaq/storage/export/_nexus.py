"""A run as one NeXus HDF5 file.

``/entry`` (NXentry) has an NXdata for each stream and each scan, with `signal`, `axes` and units, and says which of
them to look at first (`default`): the scan, if there is one. ``/entry/instrument`` has a group for each instrument,
with links to its data. Frames are compressed (bitshuffle and LZ4), or stay where they are and are referred to (external
storage).
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from duodaq.errors import StorageError
from duodaq.storage.export._aside import aside
from duodaq.storage.export._compare import same_array
from duodaq.storage.export._earlier import nexus_rows, refuse_to_lose_groups
from duodaq.storage.export._pieces import Piece, another_than, as_integers, pieces
from duodaq.storage.export._progress import Progress
from duodaq.storage.export._saying import saying
from duodaq.storage.export._scans import scan_pieces, write_scan_group
from duodaq.storage.reading import Column, FrameStack, Named, Run

Frames = Literal["inside", "external", "relative"]
_ORIGIN = "${ORIGIN}"
"""The folder of the file itself, as HDF5 calls it."""
_OWNERS = {"stage/1": ("NXpositioner", {"value": "", "velocity": "_velocity"})}
_OWN = ("title",)
"""What each NXdata has besides its columns."""


def write_nexus(run: Run, path: Path, progress: Progress, *, frames: Frames = "inside") -> list[Path]:
    """Write and verify one NeXus file.

    Args:
        run: What to write.
        path: The file.
        progress: Told how far it is.
        frames: ``inside``: compressed in the file; ``external``: where they are, without a copy, by the absolute paths
            of the run's files: it reads them as long as those stay; ``relative``: likewise, by their paths from the
            file's own folder, which may be moved. HDF5 takes such paths from where a program runs, unless it is told
            otherwise: ``HDF5_EXTFILE_PREFIX='${ORIGIN}'`` in the environment.

    Raises:
        StorageError: The disk refused, or what it holds is not what the journal does. No file is left half done.
    """
    h5py: Any = importlib.import_module("h5py")
    with aside(path) as place:
        with h5py.File(place, "w", libver=("earliest", "v110")) as file:
            found = _named_for_nexus(pieces(run))
            entry = _frame_of_file(h5py, file, run, path)
            for piece in found:
                with saying("hdf5", piece.stream.name):
                    _write_piece(h5py, entry, piece, frames, path.parent, progress)
            scans = scan_pieces(run, {*entry, *(piece.name for piece in found)})
            for scan in scans:
                with saying("hdf5", scan.name):
                    write_scan_group(_group(entry, scan.name, "NXdata"), scan)
            shown = [scan.name for scan in scans if scan.signals] or [piece.name for piece in found if piece.rows.rows]
            if shown:
                entry.attrs["default"] = shown[0]
        with h5py.File(place, "r") as file:
            for piece in found:
                with saying("hdf5", piece.stream.name):
                    _verify(h5py, file["entry"][piece.name], piece)
        refuse_to_lose_groups(path, place, nexus_rows)
    return [path]


def _named_for_nexus(found: Iterable[Piece]) -> list[Piece]:
    """Pieces by names of letters, digits and underscores, each another one."""
    taken: set[str] = set()
    renamed: list[Piece] = []
    for piece in found:
        name = another_than(taken, _nexus_name(piece.name))
        taken.add(name)
        frames = another_than(_OWN, _nexus_name(piece.frames)) if piece.stack is not None else ""
        own = (*_OWN, frames, "x", "y") if frames else _OWN
        renamed.append(piece._replace(name=name, rows=piece.rows.renamed(_nexus_name, *own), frames=frames))
    return renamed


def _nexus_name(name: str) -> str:
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{plain}" if plain[:1].isdigit() or not plain else plain


def _frame_of_file(h5py: Any, file: Any, run: Run, path: Path) -> Any:
    file.attrs["NX_class"] = "NXroot"
    file.attrs["default"] = "entry"
    file.attrs["file_name"] = str(path)
    file.attrs["file_time"] = datetime.now(UTC).isoformat()
    file.attrs["creator"] = "duodaq"
    file.attrs["HDF5_Version"] = h5py.version.hdf5_version
    file.attrs["h5py_version"] = h5py.version.version
    entry = _group(file, "entry", "NXentry")
    labels = run.labels
    entry["title"] = " ".join(part for part in (run.title, labels.sample) if part)
    entry["entry_identifier"] = run.uid
    entry["program_name"] = "duodaq"
    entry["program_name"].attrs["version"] = metadata.version("duodaq")
    for name, moment in (("start_time", run.start), ("end_time", run.stop)):
        if moment is not None:
            entry[name] = moment.isoformat()
    if labels.note:
        entry["experiment_description"] = labels.note
    if labels.operator:
        _group(entry, "user", "NXuser")["name"] = labels.operator
    if labels.sample:
        _group(entry, "sample", "NXsample")["name"] = labels.sample
    notes = _group(entry, "duodaq", "NXcollection")
    notes["labels"] = msgspec.json.encode(labels).decode()
    if run.uid:
        notes["run"] = json.dumps(run.page.facts(), default=str)
    _group(entry, "instrument", "NXinstrument")
    return entry


def _write_piece(h5py: Any, entry: Any, piece: Piece, frames: Frames, home: Path, progress: Progress) -> None:
    data = _group(entry, piece.name, "NXdata")
    data["title"] = piece.stream.name
    if piece.missing:
        data.attrs["duodaq_damaged_frames"] = piece.missing
    rows = _write_rows(h5py, data, piece, progress)
    signal = rows.signal
    if piece.stack is not None:
        _write_frames(data, piece, frames, home, progress)
        _say_axes(data, piece.frames, ("y", "x"), rows)
    elif signal is not None:
        _say_axes(data, signal.name, signal.dims, rows)
        others = [c.name for c in rows.columns if c.values.shape == signal.values.shape and c.unit and c is not signal]
        if others:
            data.attrs["auxiliary_signals"] = others
    _link(entry["instrument"], piece, data)


def _write_rows(h5py: Any, data: Any, piece: Piece, progress: Progress) -> Named:
    """Write the rows, a portion at a time; the first portion, which has every column, with its shape and unit."""
    first: Named | None = None
    start_ns, texts = 0, piece.rows.text_bytes()
    for at, rows in piece.rows:
        if first is None:
            first, start_ns = rows, _make_columns(h5py, data, rows, piece, texts)
        behind = at + rows.rows
        if rows.times_ns is not None:
            data["time"][at:behind] = (rows.times_ns - start_ns) / 1e9
            data["timestamp"][at:behind] = rows.times_ns
        for column in rows.columns:
            data[column.name][at:behind] = _stored(column.values, data[column.name].dtype)
        progress(piece.stream.name, behind, piece.rows.rows)
    assert first is not None
    return first


def _make_columns(h5py: Any, data: Any, first: Named, piece: Piece, texts: dict[str, int]) -> int:
    """Make the datasets of all columns; the time from which `time` counts."""
    count = piece.rows.rows
    for name, value in first.facts.items():
        data.attrs[f"duodaq_{name}"] = value
    start = 0
    if first.times_ns is not None:
        start = int(first.times_ns[0]) if len(first.times_ns) else 0
        moment = datetime.fromtimestamp(start / 1e9, UTC).isoformat()
        data.create_dataset("time", (count,), np.float64)
        data["time"].attrs.update({"units": "s", "long_name": f"time since {moment} (s)", "start": moment})
        data.create_dataset("timestamp", (count,), np.int64)
        data["timestamp"].attrs.update({"units": "ns", "long_name": "UTC nanoseconds since 1970"})
    for column in first.columns:
        kind: Any = column.values.dtype
        if kind.kind == "U":
            kind = h5py.string_dtype("utf-8", texts[column.name])
        elif kind.kind == "M":
            kind = np.dtype(np.int64)
        true = piece.rows.true_names.get(column.name, column.name)
        with saying("hdf5", piece.stream.name, partial(str, true)):
            _describe(data.create_dataset(column.name, (count, *column.values.shape[1:]), kind), column)
        if true != column.name:
            data[column.name].attrs["duodaq_name"] = true.replace("\0", "\\0")
    for name, axis in first.axes.items():
        data[name] = axis.values
        _describe(data[name], axis._replace(name=name))
    return start


def _say_axes(data: Any, signal: str, dims: tuple[str, ...], rows: Named) -> None:
    """Say what is to be plotted over what; a dimension without a coordinate gets its indices as one."""
    names = ["row" if rows.times_ns is None else "time", *dims]
    for place, name in enumerate(names):
        if name not in data:
            pixels = name in ("x", "y")
            data[name] = np.arange(data[signal].shape[place], dtype=np.float64 if pixels else np.int64)
            data[name].attrs["long_name"] = f"{name} (pixels)" if pixels else name
            if pixels:
                data[name].attrs["units"] = "pixels"
        data.attrs[f"{name}_indices"] = [place]
    data.attrs["signal"] = signal
    data.attrs["axes"] = names


def _describe(dataset: Any, column: Column) -> None:
    if column.values.dtype.kind == "M":
        dataset.attrs["units"] = as_integers(column.values)[1]
    if column.unit or column.values.dtype.kind == "f":
        dataset.attrs["units"] = column.unit
    dataset.attrs["long_name"] = f"{column.name} ({column.unit})" if column.unit else column.name


def _stored(values: npt.NDArray[Any], kind: Any) -> npt.NDArray[Any]:
    if values.dtype.kind == "U":
        return np.char.encode(values, "utf-8").astype(kind)
    return as_integers(values)[0] if values.dtype.kind == "M" else values


def _write_frames(data: Any, piece: Piece, frames: Frames, home: Path, progress: Progress) -> None:
    stack = piece.stack
    assert stack is not None
    if frames != "inside" and len(stack):
        size, home = stack.nbytes // len(stack), home.resolve()
        places = [(path.resolve(), offset, count * size) for path, offset, _, count in stack.files()]
        if frames == "relative":
            parts = [(os.path.relpath(path, home), offset, length) for path, offset, length in places]
        else:
            parts = [(str(path), offset, length) for path, offset, length in places]
        dataset = data.create_dataset(piece.frames, stack.shape, stack.dtype, external=parts)
    else:
        dataset = _copied(data, piece, stack, progress)
    dataset.attrs["units"] = piece.unit or "counts"
    dataset.attrs["long_name"] = f"{piece.frames} ({piece.unit or 'counts'})"
    dataset.attrs["interpretation"] = "image"


def _copied(data: Any, piece: Piece, stack: FrameStack, progress: Progress) -> Any:
    plugin: Any = importlib.import_module("hdf5plugin")
    chunks = (1, *stack.shape[1:]) if stack.size else None
    filters: Any = plugin.Bitshuffle(cname="lz4") if stack.size else {}
    dataset = data.create_dataset(piece.frames, stack.shape, stack.dtype, chunks=chunks, **filters)
    for number, frame in enumerate(stack):
        dataset[number] = frame
        progress(piece.stream.name, number + 1, len(stack))
    return dataset


def _link(instrument: Any, piece: Piece, data: Any) -> None:
    """Say what measured it: the data once more under its instrument, as NeXus links."""
    signal = data.attrs.get("signal")
    if signal is None:
        return
    kind, fields = _OWNERS.get(piece.stream.kind, ("NXdetector", {"data": ""}))
    owner = _group(instrument, piece.name, kind)
    owner["name" if kind == "NXpositioner" else "local_name"] = piece.stream.name
    for name, suffix in fields.items():
        source = f"{signal}{suffix}"
        if source in data:
            data[source].attrs["target"] = data[source].name
            owner[name] = data[source]


def _group(parent: Any, name: str, kind: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _verify(h5py: Any, data: Any, piece: Piece) -> None:
    for at, rows in piece.rows:
        wanted = {column.name: column.values for column in rows.columns}
        if rows.times_ns is not None:
            wanted["timestamp"] = rows.times_ns
        places = {name: slice(at, at + rows.rows) for name in wanted}
        wanted |= {name: axis.values for name, axis in rows.axes.items()}
        for name, values in wanted.items():
            there = data[name]
            part = places.get(name, ())
            read = there.asstr()[part] if there.dtype.kind in "SO" else there[part]
            if values.dtype.kind == "M":
                read = read.view(values.dtype)
            right = name not in places or there.shape[0] == piece.rows.rows
            if not right or not same_array(np.asarray(read), values):
                raise StorageError(f"{data.name}/{name} is not what the journal holds", left="the journal is untouched")
    if piece.stack is not None:
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_efile_prefix(_ORIGIN.encode())
        there = h5py.Dataset(h5py.h5d.open(data.id, piece.frames.encode(), access))
        if there.shape != piece.stack.shape or not all(
            same_array(there[n], frame) for n, frame in enumerate(piece.stack)
        ):
            what = f"{data.name}/{piece.frames} is not what the journal holds"
            raise StorageError(what, left="the journal is untouched")
