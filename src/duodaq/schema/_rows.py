"""Measurements as rows, and rows as measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from duodaq.errors import SchemaMismatchError
from duodaq.model import Image, Measurement, Scalar, Spectrum, Vector
from duodaq.schema._arrays import as_numpy, numbers
from duodaq.schema._columns import (
    column_of,
    constant_column,
    facts_of,
    json_column,
    name_column,
    names_of,
    sequence_column,
    time_column,
    times_of,
    to_json,
)
from duodaq.schema._frames import pixels_of, tensor_column
from duodaq.schema._schemas import image, scalar, spectrum, vector
from duodaq.schema._stream import ROWS_KEY, described_schema, origin_of, rows_metadata_of

_Head: TypeAlias = tuple[str, str, str, int, int]
"""Instrument, channel, unit, t_ns, sequence."""

_SCALAR, _VECTOR, _SPECTRUM = scalar(), vector(), spectrum()


def scalar_batch(rows: Sequence[Scalar], origin: str | None = None) -> pa.RecordBatch:
    """Scalars of one channel as one batch.

    Args:
        rows: At least one; all of one instrument and channel, and with equal metadata.
        origin: The runtime they come from; that of the first row if not given.

    Raises:
        SchemaMismatchError: There is no row, or they are of several streams.
    """
    first = _first(rows)
    schema = _scalar_schema(first.origin if origin is None else origin, first.instrument, first.channel)
    if first.metadata is not None:
        told = to_json(first.metadata)
        schema = schema.with_metadata({**(schema.metadata or {}), ROWS_KEY: (told or "null").encode()})
    count = len(rows)
    columns = [
        time_column([row.t_ns for row in rows]),
        sequence_column([row.sequence for row in rows]),
        constant_column(first.instrument, count),
        constant_column(first.channel, count),
        numbers(np.array([row.value for row in rows], dtype=np.float64)),
        name_column([row.unit for row in rows]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def vector_batch(rows: Sequence[Vector], origin: str | None = None) -> pa.RecordBatch:
    """Vectors of one channel as one batch. Raises SchemaMismatchError as `scalar_batch` does."""
    columns = [*_head(rows), _list_column([row.values for row in rows]), *_tail(rows)]
    return pa.RecordBatch.from_arrays(columns, schema=_described(_VECTOR, rows, origin))


def spectrum_batch(rows: Sequence[Spectrum], origin: str | None = None) -> pa.RecordBatch:
    """Spectra of one channel as one batch. Raises SchemaMismatchError as `scalar_batch` does."""
    unit, metadata = _tail(rows)
    columns = [
        *_head(rows),
        _list_column([row.values for row in rows]),
        unit,
        _list_column([row.axis for row in rows]),
        name_column([row.axis_unit for row in rows]),
        metadata,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_described(_SPECTRUM, rows, origin))


def image_batch(row: Image, origin: str | None = None) -> pa.RecordBatch:
    """One image as a batch of one row; its pixels are shared, not copied, if they are C-contiguous."""
    rows = [row]
    height, width = row.pixels.shape
    schema = _described(image((height, width), row.pixels.dtype), rows, origin)
    columns = [*_head(rows), *_tail(rows), tensor_column(row.pixels)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def measurement_batch(rows: Sequence[Measurement], origin: str | None = None) -> pa.RecordBatch:
    """Measurements of one channel and one kind as one batch (an image alone).

    Raises:
        SchemaMismatchError: There is no row, they are of several streams or kinds, or there are several images.
    """
    first: Measurement = _first(rows)
    if len(set(map(type, rows))) > 1 or (isinstance(first, Image) and len(rows) > 1):
        raise SchemaMismatchError("one batch holds measurements of one kind, and one image at most")
    if isinstance(first, Image):
        return image_batch(first, origin)
    build: Callable[[Any, str | None], pa.RecordBatch] = _BUILDERS[type(first)]
    return build(rows, origin)


def scalars_of(batch: pa.RecordBatch) -> list[Scalar]:
    """The rows of a scalar batch as measurements, with its origin."""
    origin, facts = origin_of(batch), rows_metadata_of(batch)
    rows = zip(
        names_of(batch, "instrument"),
        names_of(batch, "channel"),
        names_of(batch, "unit"),
        times_of(batch),
        column_of(batch, "sequence").to_pylist(),
        as_numpy(column_of(batch, "value")).tolist(),
        strict=True,
    )
    return [Scalar(who, channel, unit, t_ns, n, value, origin, facts) for who, channel, unit, t_ns, n, value in rows]


def vectors_of(batch: pa.RecordBatch) -> list[Vector]:
    """The rows of a vector batch as measurements; their values share the batch's memory."""
    values = _arrays_of(batch, "values")
    return [Vector(*head, values[i], origin_of(batch), facts) for i, (head, facts) in enumerate(_heads_of(batch))]


def spectra_of(batch: pa.RecordBatch) -> list[Spectrum]:
    """The rows of a spectrum batch as measurements; their values share the batch's memory."""
    values, axes, axis_units = _arrays_of(batch, "values"), _arrays_of(batch, "axis"), names_of(batch, "axis_unit")
    return [
        Spectrum(*head, values[i], axes[i], axis_units[i], origin_of(batch), facts)
        for i, (head, facts) in enumerate(_heads_of(batch))
    ]


def images_of(batch: pa.RecordBatch) -> list[Image]:
    """The rows of an image batch as measurements; their pixels share the batch's memory and are read-only."""
    pixels = pixels_of(batch)
    return [Image(*head, pixels[i], origin_of(batch), facts) for i, (head, facts) in enumerate(_heads_of(batch))]


_BUILDERS: dict[type, Any] = {Scalar: scalar_batch, Vector: vector_batch, Spectrum: spectrum_batch}


@lru_cache(maxsize=1024)
def _scalar_schema(origin: str, instrument: str, channel: str) -> pa.Schema:
    return described_schema(_SCALAR, origin, instrument, channel)  # whose own memory hashes a whole schema


def _first(rows: Sequence[Any]) -> Any:
    if not rows:
        raise SchemaMismatchError("a batch needs at least one row")
    first = rows[0]
    instrument, channel, metadata = first.instrument, first.channel, first.metadata
    for row in rows:
        if row.channel != channel or row.instrument != instrument:
            raise SchemaMismatchError(f"one batch holds one stream, not {instrument}.{channel} and others")
        if row.metadata != metadata and isinstance(row, Scalar):
            raise SchemaMismatchError(f"scalars of {instrument}.{channel} in one batch have different metadata")
    return first


def _described(schema: pa.Schema, rows: Sequence[Any], origin: str | None) -> pa.Schema:
    first = _first(rows)
    return described_schema(schema, first.origin if origin is None else origin, first.instrument, first.channel)


def _head(rows: Sequence[Any]) -> list[Any]:
    return [
        time_column([row.t_ns for row in rows]),
        sequence_column([row.sequence for row in rows]),
        name_column([row.instrument for row in rows]),
        name_column([row.channel for row in rows]),
    ]


def _tail(rows: Sequence[Any]) -> tuple[Any, Any]:
    return name_column([row.unit for row in rows]), json_column([row.metadata for row in rows])


def _heads_of(batch: pa.RecordBatch) -> list[tuple[_Head, dict[str, Any] | None]]:
    heads: Iterable[_Head] = zip(
        names_of(batch, "instrument"),
        names_of(batch, "channel"),
        names_of(batch, "unit"),
        times_of(batch),
        column_of(batch, "sequence").to_pylist(),
        strict=True,
    )
    return list(zip(heads, facts_of(batch), strict=True))


def _list_column(arrays: Sequence[Any]) -> Any:
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int32)
    flat = np.asarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), dtype=np.float64)
    return pa.ListArray.from_arrays(numbers(offsets), numbers(np.ascontiguousarray(flat)))


def _arrays_of(batch: pa.RecordBatch, field: str) -> list[Any]:
    return [as_numpy(row.values) for row in column_of(batch, field)]
