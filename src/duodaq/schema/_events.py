"""Rows that only V4 knows: what an axis did, what a SCPI device was told; and any numbers of a user's own batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from duodaq.errors import SchemaMismatchError
from duodaq.model import Scalar
from duodaq.schema._arrays import flags, floats, texts
from duodaq.schema._columns import column_of, name_column, names_of, sequence_column, time_column, times_of
from duodaq.schema._schemas import scpi_event, stage
from duodaq.schema._stream import channel_of, described_schema, instrument_of, origin_of

_STAGE, _SCPI_EVENT = stage(), scpi_event()
_FIELD_UNIT = b"unit"
_NOT_VALUES = ("timestamp", "sequence")


def stage_batch(
    *,
    instrument: str,
    channel: str,
    t_ns: Sequence[int],
    sequence: Sequence[int],
    axis: Sequence[str],
    position: Sequence[float],
    velocity: Sequence[float | None],
    state: Sequence[str],
    unit: Sequence[str],
    origin: str = "v4",
) -> pa.RecordBatch:
    """Looks at the axes of a motion controller as one batch of the stream ``<instrument>.<channel>``."""
    columns = [
        time_column(t_ns),
        sequence_column(sequence),
        name_column(axis),
        floats(position),
        floats(velocity),
        name_column([str(one) for one in state]),
        name_column(unit),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=described_schema(_STAGE, origin, instrument, channel))


def stage_scalars(batch: pa.RecordBatch) -> list[Scalar]:
    """Each row's position and velocity as channels ``<axis>.position`` and ``<axis>.velocity``; null ones left out."""
    instrument, origin = instrument_of(batch), origin_of(batch)
    rows = zip(
        times_of(batch),
        column_of(batch, "sequence").to_pylist(),
        names_of(batch, "axis"),
        names_of(batch, "unit"),
        column_of(batch, "position").to_pylist(),
        column_of(batch, "velocity").to_pylist(),
        strict=True,
    )
    scalars: list[Scalar] = []
    for t_ns, number, axis, unit, position, velocity in rows:
        scalars.append(Scalar(instrument, f"{axis}.position", unit, t_ns, number, position, origin))
        if velocity is not None:
            scalars.append(Scalar(instrument, f"{axis}.velocity", f"{unit}/s", t_ns, number, velocity, origin))
    return scalars


def scpi_event_batch(
    *,
    instrument: str,
    channel: str = "events",
    t_ns: Sequence[int],
    sequence: Sequence[int],
    command: Sequence[str],
    response: Sequence[str | None],
    success: Sequence[bool],
    error: Sequence[str | None],
    origin: str = "v4",
) -> pa.RecordBatch:
    """What a SCPI device was told and what it said, as one batch of the stream ``<instrument>.<channel>``."""
    columns = [
        time_column(t_ns),
        sequence_column(sequence),
        texts(command),
        texts(response),
        flags(success),
        texts(error),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=described_schema(_SCPI_EVENT, origin, instrument, channel))


def numeric_scalars(batch: pa.RecordBatch) -> list[Scalar]:
    """The numbers of any batch that has `timestamp` and `sequence`: one channel ``<channel>.<field>`` a numeric column.

    The unit is the field's own (its metadata's ``unit``), or else the row's `unit` column.

    Raises:
        SchemaMismatchError: There is no such column, or no number.
    """
    fields = [field for field in batch.schema if field.name not in _NOT_VALUES and _numeric(field.type)]
    if not fields:
        raise SchemaMismatchError("the batch has no numeric column that could become a scalar")
    times, numbers = times_of(batch), column_of(batch, "sequence").to_pylist()
    row_units = names_of(batch, "unit") if "unit" in batch.schema.names else [""] * batch.num_rows
    instrument, channel, origin = instrument_of(batch), channel_of(batch), origin_of(batch)
    scalars: list[Scalar] = []
    for field in fields:
        own = (field.metadata or {}).get(_FIELD_UNIT)
        units = row_units if own is None else [own.decode()] * batch.num_rows
        values: list[Any] = batch.column(field.name).to_pylist()
        name = f"{channel}.{field.name}".removeprefix(".")
        scalars += [
            Scalar(instrument, name, unit, t_ns, number, float(value), origin)
            for t_ns, number, unit, value in zip(times, numbers, units, values, strict=True)
            if value is not None
        ]
    return scalars


def _numeric(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
