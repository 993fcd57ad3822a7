"""A run as a Zarr store: a group for each stream, whose arrays name their dimensions, as xarray reads them."""

from __future__ import annotations

import importlib
import re
from functools import partial
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
from duodaq.storage.export._saying import saying
from duodaq.storage.export._scans import scan_pieces, write_scan_arrays
from duodaq.storage.reading import Named, Run

_EPOCH = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_CHUNK_ROWS = 2**18
_CHUNK_BYTES = 4 * 2**20
_NO_NAME = re.compile(r"[/\\\0]")
_LONGEST = 200


def write_zarr(run: Run, path: Path, progress: Progress) -> list[Path]:
    """Write and verify a Zarr store (version 3).

    Raises:
        StorageError: The disk refused, or what it holds is not what the journal does. Nothing is left half done.
    """
    zarr: Any = importlib.import_module("zarr")
    with aside(path) as place:
        root = zarr.open_group(place, mode="w", attributes=run.facts)
        found = [_named_for_zarr(piece) for piece in pieces(run)]
        for piece in found:
            with saying("zarr", piece.stream.name):
                _write(root, piece, progress)
        for scan in scan_pieces(run, [piece.name for piece in found]):
            with saying("zarr", scan.name):
                write_scan_arrays(root, scan)
        root = zarr.open_group(place, mode="r")
        for piece in found:
            with saying("zarr", piece.stream.name):
                _verify(root[piece.name], piece)
        refuse_to_lose_groups(path, place, zarr_rows)
    return [path]


def _named_for_zarr(piece: Piece) -> Piece:
    frames = _zarr_name(piece.frames) if piece.stack is not None else ""
    return piece._replace(rows=piece.rows.renamed(_zarr_name, *filter(None, [frames])), frames=frames)


def _zarr_name(name: str) -> str:
    """A name that a store in a folder takes: a file system's, and no path."""
    plain = _NO_NAME.sub("_", name).encode()[:_LONGEST].decode(errors="ignore")
    return f"{plain}_" if not plain.strip(".") or plain == "zarr.json" else plain


def _write(root: Any, piece: Piece, progress: Progress) -> None:
    group: Any = None
    for at, rows in piece.rows:
        if group is None:
            group = _make(root, piece, rows)
        behind = at + rows.rows
        if rows.times_ns is not None and rows.rows:
            group["time"][at:behind] = rows.times_ns
        for column in rows.columns:
            if column.values.size:
                group[column.name][at:behind] = _stored(column.values)
        progress(piece.stream.name, behind, piece.rows.rows)
    stack = piece.stack
    if stack is None:
        return
    frames = group[piece.frames]
    some = frames.chunks[0]
    for first in range(0, len(stack), some):  # whole chunks: each is packed, and stored, once
        frames[first : first + some] = stack[first : first + some]
        progress(piece.stream.name, min(first + some, len(stack)), len(stack))


def _make(root: Any, piece: Piece, first: Named) -> Any:
    """Make the group of a piece, with all its arrays."""
    group = root.create_group(piece.name, attributes={**first.facts, "damaged_frames": piece.missing})
    count, over = piece.rows.rows, "row" if first.times_ns is None else "time"
    if first.times_ns is not None:
        _array(group, "time", (count,), first.times_ns, (over,), dict(_EPOCH))
    for column in first.columns:
        shape = (count, *column.values.shape[1:])
        units = {"units": column.unit} if column.unit else {}
        true = piece.rows.true_names.get(column.name, column.name)
        told = {**units, "duodaq_name": true} if true != column.name else units
        with saying("zarr", piece.stream.name, partial(str, true)):
            _array(group, column.name, shape, column.values, (over, *column.dims), told)
    for name, axis in first.axes.items():
        units = {"units": axis.unit} if axis.unit else {}
        _array(group, name, axis.values.shape, axis.values, (name,), units)[...] = axis.values
    stack = piece.stack
    if stack is not None:
        frame = max(1, stack.nbytes // max(1, len(stack)))
        chunk = max(1, min(len(stack), _CHUNK_BYTES // frame))
        group.create_array(
            piece.frames,
            shape=stack.shape,
            dtype=stack.dtype,
            chunks=(chunk, *(max(1, n) for n in stack.shape[1:])),
            dimension_names=(over, "y", "x"),
            attributes={"units": piece.unit} if piece.unit else {},
        )
    return group


def _array(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    like: npt.NDArray[Any],
    dims: tuple[str, ...],
    attributes: dict[str, Any],
) -> Any:
    kind: Any = "string" if like.dtype.kind == "U" else _storable(like).dtype
    chunks = tuple(max(1, min(n, _CHUNK_ROWS if i == 0 else n)) for i, n in enumerate(shape))
    if like.dtype.kind == "M":
        attributes = {**attributes, **_EPOCH, "units": f"{_UNITS[as_integers(like)[1]]} since 1970-01-01"}
    return group.create_array(name, shape=shape, dtype=kind, chunks=chunks, dimension_names=dims, attributes=attributes)


def _stored(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return _storable(values)


def _storable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind == "M":
        return as_integers(values)[0]
    return values.astype(object) if values.dtype.kind == "U" else values


def _verify(group: Any, piece: Piece) -> None:
    for at, rows in piece.rows:
        wanted = {column.name: column.values for column in rows.columns}
        if rows.times_ns is not None:
            wanted["time"] = rows.times_ns
        places: dict[str, Any] = {name: slice(at, at + rows.rows) for name in wanted}
        wanted |= {name: axis.values for name, axis in rows.axes.items()}
        for name, values in wanted.items():
            there = group[name]
            right = name not in places or there.shape[0] == piece.rows.rows
            if not right or not same_array(np.asarray(there[places.get(name, ...)]), _storable(values)):
                raise StorageError(
                    f"{piece.name}/{name} is not what the journal holds", left="the journal is untouched"
                )
    stack = piece.stack
    if stack is not None:
        there = group[piece.frames]
        some = there.chunks[0]
        if there.shape != stack.shape or not all(
            same_array(np.asarray(there[n : n + some]), stack[n : n + some]) for n in range(0, len(stack), some)
        ):
            what = f"{piece.name}/{piece.frames} is not what the journal holds"
            raise StorageError(what, left="the journal is untouched")
