"""Columns of Arrow as numpy arrays with names, dimensions and units: what xarray, NeXus and Zarr are made from.

The value of a channel is called as its channel is, as in a scan: ``power``; an axis ``stage_x``, its velocity
``stage_x_velocity``. What is the same in every row (instrument, unit) becomes an attribute.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.schema import schema_name
from duodaq.storage.reading._arrow import Table
from duodaq.storage.reading._arrow import compute as pc

UNIT_KEY = b"unit"
_PIXELS_UNIT = b"duodaq.unit"
_PLACES = frozenset({"timestamp", "pixels_segment", "pixels_frame"})
_IN_UNIT = ("value", "values", "position")
_EXACT = 2**53


class Column(NamedTuple):
    """Values of shape (rows, …): `name`, the names of the dimensions behind the first, `unit` ("" for none)."""

    name: str
    dims: tuple[str, ...]
    values: npt.NDArray[Any]
    unit: str = ""


class Named(NamedTuple):
    """What a stream's rows come to.

    Attributes:
        times_ns: UTC nanoseconds; None if it has no timestamps.
        columns: Its columns, without what is the same in every row.
        facts: What is the same in every row.
        axes: The coordinates of dimensions behind the first, by dimension, where all rows have the same.
        rows: How many there are.
    """

    times_ns: npt.NDArray[np.int64] | None
    columns: list[Column]
    facts: dict[str, str]
    axes: dict[str, Column]
    rows: int

    def only(self, rows: npt.NDArray[np.int64]) -> Named:
        """Some of the rows."""
        if len(rows) == self.rows:
            return self
        columns = [column._replace(values=column.values[rows]) for column in self.columns]
        times = None if self.times_ns is None else self.times_ns[rows]
        return self._replace(times_ns=times, columns=columns, rows=len(rows))

    @property
    def signal(self) -> Column | None:
        """The column that this is about: the first of numbers that is not a count."""
        numbers = [c for c in self.columns if np.issubdtype(c.values.dtype, np.floating)]
        return numbers[0] if numbers else None


def names_of(stream: str, schema: pa.Schema) -> dict[str, str]:
    """What a stream's columns are called outside of its table."""
    facts = schema.metadata or {}
    instrument = facts.get(b"duodaq.instrument", b"").decode() or stream.partition(".")[0]
    channel = stream.removeprefix(instrument).removeprefix(".") or stream
    kind = schema_name(schema)
    if kind in ("scalar/1", "vector/1", "spectrum/1"):
        return {"value": channel, "values": channel}
    if kind == "stage/1":
        axis = f"{instrument}_{channel}"
        return {"position": axis, "velocity": f"{axis}_velocity", "state": f"{axis}_state"}
    return {"pixels": channel}


def distinct(column: Any) -> set[Any]:
    """The values that occur; cheap for dictionaries."""
    found: set[Any] = set()
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        if pa.types.is_dictionary(chunk.type) and len(chunk.dictionary) == 1 and not chunk.null_count:
            found.add(chunk.dictionary[0].as_py())
        else:
            found |= set(pc.unique(chunk).to_pylist())
    return found


def units_in(table: pa.Table) -> dict[str, str]:
    """The unit of each column that has one, and the same in all rows."""
    schema = table.schema
    own = {f.name: f.metadata[UNIT_KEY].decode() for f in schema if f.metadata and UNIT_KEY in f.metadata}
    kind = schema_name(schema)
    if kind and "unit" in schema.names and len(units := distinct(table.column("unit"))) == 1:
        unit = str(units.pop())
        own |= {name: unit for name in _IN_UNIT if name in schema.names}
        if kind == "stage/1":
            own["velocity"] = f"{unit}/s"
    if kind == "spectrum/1" and len(units := distinct(table.column("axis_unit"))) == 1:
        own["axis"] = str(units.pop())
    if "exposure_s" in schema.names:
        own.setdefault("exposure_s", "s")
    return {name: unit for name, unit in own.items() if unit}


def pixels_unit(schema: pa.Schema) -> str:
    """The unit of a pixel's value."""
    return (schema.metadata or {}).get(_PIXELS_UNIT, b"").decode()


def with_units(table: pa.Table) -> pa.Table:
    """The same table, its fields saying their units."""
    units = units_in(table)
    fields = [
        f.with_metadata({**(f.metadata or {}), UNIT_KEY: units[f.name].encode()}) if f.name in units else f
        for f in table.schema
    ]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    return Table.from_arrays(table.columns, schema=schema)


def named(stream: str, table: pa.Table) -> Named:
    """The rows of a stream as numpy arrays."""
    units, names = units_in(table), names_of(stream, table.schema)
    facts = {
        key.decode().removeprefix("duodaq."): value.decode()
        for key, value in (table.schema.metadata or {}).items()
        if key.startswith(b"duodaq.") and key not in (_PIXELS_UNIT, b"duodaq.metadata")
    }
    columns: list[Column] = []
    for field in table.schema:
        if field.name in _PLACES:
            continue
        column = table.column(field.name)
        if _is_text(field.type) and table.num_rows:
            told = distinct(column)
            if told == {None}:
                continue
            if len(told) == 1 and field.name in ("instrument", "channel", "unit", "axis_unit"):
                if field.name not in ("unit", "axis_unit"):
                    facts[field.name] = str(told.pop())
                continue
        columns += _columns(names.get(field.name, field.name), column, units.get(field.name, ""))
    columns, axes = _common_axis(columns) if schema_name(table.schema) == "spectrum/1" else (columns, {})
    return Named(_times(table), columns, facts, axes, table.num_rows)


def _common_axis(columns: list[Column]) -> tuple[list[Column], dict[str, Column]]:
    """Spectra that were all taken over the same axis: it is a coordinate then."""
    axis = next((column for column in columns if column.name == "axis"), None)
    if axis is None or axis.values.ndim != 2 or not len(axis.values) or not (axis.values == axis.values[0]).all():
        return columns, {}
    width = axis.values.shape[1]
    shared = axis._replace(dims=(), values=axis.values[0])
    rest = [
        column._replace(dims=("axis",)) if column.dims and column.values.shape[1] == width else column
        for column in columns
        if column is not axis
    ]
    return rest, {"axis": shared}


def _times(table: pa.Table) -> npt.NDArray[np.int64] | None:
    if "timestamp" not in table.column_names:
        return None
    column: Any = table.column("timestamp")
    return column.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()


def _columns(name: str, column: Any, unit: str) -> list[Column]:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _columns(name, pa.chunked_array([c.storage for c in column.chunks], kind.storage_type), unit)
    if pa.types.is_struct(kind):
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        return [part for one in fields for part in _columns(f"{name}_{one}", pc.struct_field(whole, one), unit)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(name, column, unit)
    return [Column(name, (), _flat(column), unit)]


def _lists(name: str, column: Any, unit: str) -> list[Column]:
    """Lists as rows of one length, filled up with NaN; how long each was, if they differ."""
    if not (pa.types.is_floating(column.type.value_type) or pa.types.is_integer(column.type.value_type)):
        return [Column(name, (), np.array([str(v) for v in column.to_pylist()], dtype=np.str_), unit)]
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
    flat = _flat(pc.list_flatten(column))
    width = int(lengths.max()) if len(lengths) else 0
    dims = (f"{name}_index",)
    if len(lengths) and (lengths == width).all():
        return [Column(name, dims, flat.reshape(len(lengths), width), unit)]
    whole = np.full((len(lengths), width), np.nan)
    whole[np.arange(width) < lengths[:, None]] = flat
    return [Column(name, dims, whole, unit), Column(f"{name}_length", (), lengths)]


def _flat(column: Any) -> npt.NDArray[Any]:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.asarray(column, dtype=np.bool_)
    if pa.types.is_integer(kind):
        if not column.null_count:
            return np.asarray(column)
        known = [abs(value) for value in cast("list[int]", pc.drop_null(column).to_pylist())]
        if max(known, default=0) <= _EXACT:
            return np.array([np.nan if v is None else v for v in column.to_pylist()], dtype=np.float64)
    return np.array(["" if v is None else str(v) for v in column.to_pylist()], dtype=np.str_)


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
