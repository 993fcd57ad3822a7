"""Columns of Arrow as numpy arrays with names, dimensions and units: what xarray, NeXus and Zarr are made from.

The value of a channel is called as its channel is, as in a scan: ``power``; an axis ``stage_x``, its velocity
``stage_x_velocity``. What is the same in every row (instrument, unit) becomes an attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

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
_WORDS = ("instrument", "channel", "unit", "axis_unit")
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
    return units_of(table.schema, lambda name: distinct(table.column(name)))


def units_of(schema: pa.Schema, values_of: Callable[[str], set[Any]]) -> dict[str, str]:
    """The unit of each column that has one, where `values_of` says which values occur in a column of texts."""
    own = {f.name: f.metadata[UNIT_KEY].decode() for f in schema if f.metadata and UNIT_KEY in f.metadata}
    kind = schema_name(schema)
    if kind and "unit" in schema.names and len(units := values_of("unit")) == 1:
        unit = str(next(iter(units)))
        own |= {name: unit for name in _IN_UNIT if name in schema.names}
        if kind == "stage/1":
            own["velocity"] = f"{unit}/s"
    if kind == "spectrum/1" and len(units := values_of("axis_unit")) == 1:
        own["axis"] = str(next(iter(units)))
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


class Extremes:
    """What all rows of a stream have in common, which decides how each is written: found by looking at all of them."""

    def __init__(self) -> None:
        self.rows = 0
        self.texts: dict[str, set[Any]] = {}
        self.told: set[str] = set()
        self.nulls: set[str] = set()
        self.largest: dict[str, int] = {}
        self.shortest: dict[str, int] = {}
        self.longest: dict[str, int] = {}
        self.axis: npt.NDArray[Any] | None = None
        self.one_axis = True

    def look(self, table: pa.Table) -> None:
        """Take some more rows into account."""
        self.rows += table.num_rows
        for field in table.schema:
            column = table.column(field.name)
            if field.name in _WORDS:
                self.texts.setdefault(field.name, set()).update(distinct(column))
            if column.null_count < len(column):
                self.told.add(field.name)
            self._look(field.name, column)
        if schema_name(table.schema) == "spectrum/1" and self.one_axis and table.num_rows:
            self._look_at_axis(table.column("axis"))

    def _look(self, name: str, column: Any) -> None:
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            self._look(name, _storage(column))
        elif pa.types.is_struct(kind):
            for one, part in _fields(column):
                self._look(f"{name}.{one}", part)
        elif _is_list(kind):
            lengths = _lengths(column)
            if len(lengths):
                self.shortest[name] = min(int(lengths.min()), self.shortest.get(name, int(lengths.min())))
                self.longest[name] = max(int(lengths.max()), self.longest.get(name, 0))
            self._look(f"{name}[]", pc.list_flatten(column))
        else:
            if column.null_count:
                self.nulls.add(name)
            if pa.types.is_integer(kind) and column.null_count < len(column):
                found = pc.min_max(column).as_py()
                self.largest[name] = max(abs(found["min"]), abs(found["max"]), self.largest.get(name, 0))

    def _look_at_axis(self, column: Any) -> None:
        lengths = _lengths(column)
        flat = np.asarray(pc.list_flatten(column).to_numpy())
        if self.axis is None:
            self.axis = flat[: int(lengths[0])]
        same = bool((lengths == len(self.axis)).all()) and bool(len(self.axis))
        self.one_axis = same and bool((flat.reshape(len(lengths), -1) == self.axis).all())


def look_at(tables: Iterable[pa.Table]) -> Extremes:
    """What all of some tables have in common."""
    found = Extremes()
    for table in tables:
        found.look(table)
    return found


def named(stream: str, table: pa.Table, of_all: Extremes | None = None) -> Named:
    """The rows of a stream as numpy arrays; if they are only some of it, by what `of_all` of it have in common."""
    whole = look_at([table]) if of_all is None else of_all
    units = units_of(table.schema, lambda name: whole.texts.get(name, set()))
    names = names_of(stream, table.schema)
    facts = {
        key.decode().removeprefix("duodaq."): value.decode()
        for key, value in (table.schema.metadata or {}).items()
        if key.startswith(b"duodaq.") and key not in (_PIXELS_UNIT, b"duodaq.metadata")
    }
    columns: list[Column] = []
    for field in table.schema:
        if field.name in _PLACES:
            continue
        if _is_text(field.type) and whole.rows:
            if field.name not in whole.told:
                continue
            if field.name in _WORDS and len(told := whole.texts[field.name]) == 1:
                if field.name not in ("unit", "axis_unit"):
                    facts[field.name] = str(next(iter(told)))
                continue
        called = names.get(field.name, field.name)
        columns += _columns(field.name, called, table.column(field.name), units.get(field.name, ""), whole)
    columns, axes = _common_axis(columns, whole)
    return Named(_times(table), columns, facts, axes, table.num_rows)


def _common_axis(columns: list[Column], whole: Extremes) -> tuple[list[Column], dict[str, Column]]:
    """Spectra that were all taken over the same axis: it is a coordinate then."""
    axis = next((column for column in columns if column.name == "axis"), None)
    if axis is None or whole.axis is None or not whole.one_axis:
        return columns, {}
    width = len(whole.axis)
    shared = axis._replace(dims=(), values=whole.axis)
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


def _columns(path: str, name: str, column: Any, unit: str, whole: Extremes) -> list[Column]:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _columns(path, name, _storage(column), unit, whole)
    if pa.types.is_struct(kind):
        return [
            part
            for one, values in _fields(column)
            for part in _columns(f"{path}.{one}", f"{name}_{one}", values, unit, whole)
        ]
    if _is_list(kind):
        return _lists(path, name, column, unit, whole)
    return [Column(name, (), _flat(path, column, whole), unit)]


def _lists(path: str, name: str, column: Any, unit: str, whole: Extremes) -> list[Column]:
    """Lists as rows of one length, filled up with NaN; how long each was, if they differ."""
    if not (pa.types.is_floating(column.type.value_type) or pa.types.is_integer(column.type.value_type)):
        return [Column(name, (), np.array([str(v) for v in column.to_pylist()], dtype=np.str_), unit)]
    lengths = _lengths(column)
    flat = _flat(f"{path}[]", pc.list_flatten(column), whole)
    width = whole.longest.get(path, 0)
    dims = (f"{name}_index",)
    if whole.shortest.get(path) == width:
        return [Column(name, dims, flat.reshape(len(lengths), width), unit)]
    filled = np.full((len(lengths), width), np.nan)
    filled[np.arange(width) < lengths[:, None]] = flat
    return [Column(name, dims, filled, unit), Column(f"{name}_length", (), lengths)]


def _flat(path: str, column: Any, whole: Extremes) -> npt.NDArray[Any]:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())
    if pa.types.is_boolean(kind) and path not in whole.nulls:
        return np.asarray(column, dtype=np.bool_)
    if pa.types.is_integer(kind):
        if path not in whole.nulls:
            return np.asarray(column)
        if whole.largest.get(path, 0) <= _EXACT:
            return np.array([np.nan if v is None else v for v in column.to_pylist()], dtype=np.float64)
    return np.array(["" if v is None else str(v) for v in column.to_pylist()], dtype=np.str_)


def _storage(column: Any) -> Any:
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column.storage


def _fields(column: Any) -> list[tuple[str, Any]]:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    return [(name, pc.struct_field(whole, name)) for name in names]


def _lengths(column: Any) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
