"""A run as a Zarr store: a group for each stream, whose arrays name their dimensions, as xarray reads them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duodaq.errors import StorageError
from duodaq.storage.export._aside import aside
from duodaq.storage.export._compare import same_array
from duodaq.storage.export._earlier import refuse_to_lose_groups, zarr_rows
from duodaq.storage.export._pieces import Piece, as_integers, pieces
from duodaq.storage.export._progress import Progress
from duodaq.storage.reading import Run

_EPOCH = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_CHUNK_ROWS = 2**18


def write_zarr(run: Run, path: Path, progress: Progress) -> list[Path]:
    """Write and verify a Zarr store (version 3).

    Raises:
        StorageError: The disk refused, or what it holds is not what the journal does. Nothing is left half done.
    """
    zarr: Any = importlib.import_module("zarr")
    with aside(path) as place:
        root = zarr.open_group(place, mode="w", attributes=run.facts)
        found = list(pieces(run))
        for piece in found:
            _write(root, piece, progress)
        root = zarr.open_group(place, mode="r")
        for piece in found:
            _verify(root[piece.name], piece)
        refuse_to_lose_groups(path, place, zarr_rows)
    return [path]


def _write(root: Any, piece: Piece, progress: Progress) -> None:
    rows = piece.rows
    group = root.create_group(piece.name, attributes={**rows.facts, "damaged_frames": piece.missing})
    over = "row" if rows.times_ns is None else "time"
    if rows.times_ns is not None:
        _array(group, "time", rows.times_ns, (over,), dict(_EPOCH))
    for column in rows.columns:
        _array(group, column.name, column.values, (over, *column.dims), {"units": column.unit} if column.unit else {})
    for name, axis in rows.axes.items():
        _array(group, name, axis.values, (name,), {"units": axis.unit} if axis.unit else {})
    stack = piece.stack
    if stack is None:
        progress(piece.stream.name, rows.rows, rows.rows)
        return
    shape = tuple(max(1, n) for n in stack.shape)
    frames = group.create_array(
        piece.frames,
        shape=stack.shape,
        dtype=stack.dtype,
        chunks=(1, *shape[1:]),
        dimension_names=(over, "y", "x"),
        attributes={"units": piece.unit} if piece.unit else {},
    )
    for number, frame in enumerate(stack):
        frames[number] = frame
        progress(piece.stream.name, number + 1, len(stack))


def _array(group: Any, name: str, values: npt.NDArray[Any], dims: tuple[str, ...], attributes: dict[str, Any]) -> None:
    stored = _storable(values)
    kind: Any = "string" if values.dtype.kind == "U" else stored.dtype
    chunks = tuple(max(1, min(n, _CHUNK_ROWS if i == 0 else n)) for i, n in enumerate(stored.shape))
    if values.dtype.kind == "M":
        attributes = {**attributes, **_EPOCH, "units": f"{_UNITS[as_integers(values)[1]]} since 1970-01-01"}
    array = group.create_array(
        name, shape=stored.shape, dtype=kind, chunks=chunks, dimension_names=dims, attributes=attributes
    )
    if stored.size:
        array[...] = stored


def _storable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind == "M":
        return as_integers(values)[0]
    return values.astype(object) if values.dtype.kind == "U" else values


def _verify(group: Any, piece: Piece) -> None:
    wanted = {column.name: column.values for column in piece.rows.columns}
    wanted |= {name: axis.values for name, axis in piece.rows.axes.items()}
    if piece.rows.times_ns is not None:
        wanted["time"] = piece.rows.times_ns
    for name, values in wanted.items():
        if not same_array(np.asarray(group[name][...]), _storable(values)):
            raise StorageError(f"{piece.name}/{name} is not what the journal holds", left="the journal is untouched")
    if piece.stack is not None:
        there = group[piece.frames]
        if there.shape != piece.stack.shape or not all(
            same_array(np.asarray(there[n]), frame) for n, frame in enumerate(piece.stack)
        ):
            what = f"{piece.name}/{piece.frames} is not what the journal holds"
            raise StorageError(what, left="the journal is untouched")
