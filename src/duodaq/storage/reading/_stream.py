"""One stream of a run: lazily, for whichever program one likes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from duodaq.errors import SchemaMismatchError, StorageError
from duodaq.schema import schema_name
from duodaq.storage.journal._catalog import Catalog
from duodaq.storage.journal._layout import FRAMES
from duodaq.storage.journal._reader import Gap, JournalReader
from duodaq.storage.journal._succession import Succession
from duodaq.storage.reading._arrow import Table
from duodaq.storage.reading._card import counted
from duodaq.storage.reading._columns import Named, named, units_in, with_units
from duodaq.storage.reading._frames import FrameStack, stacks
from duodaq.storage.reading._moments import ALL, Moment, Window, moment_ns, utc
from duodaq.storage.reading._rows import Rows, SegmentMovedError
from duodaq.storage.reading._sources import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import duckdb
    import pandas  # pyright: ignore[reportMissingTypeStubs] - it brings no types
    import polars
    import xarray


T = TypeVar("T")


class Stream:
    """One stream of a run. Nothing is read before it is asked for; of a run that grows, everything there is then.

    It is an Arrow stream itself (``__arrow_c_stream__``): ``pyarrow.table(stream)``, ``polars.DataFrame(stream)`` and
    DuckDB take it as it is.

    Attributes:
        name: Its id: ``<instrument>.<channel>``.
        window: The times within which rows are taken.
    """

    def __init__(self, look: Callable[[], Catalog], name: str, facts: dict[str, Any], window: Window = ALL) -> None:
        self._look = look
        self._facts = facts
        self.name = name
        self.window = window

    @property
    def origin(self) -> tuple[Callable[[], Catalog], str, dict[str, Any]]:
        """What another stream of the same run is made of."""
        return self._look, self.name, self._facts

    # --- what it is

    @property
    def parts(self) -> list[Rows]:
        """What it consists of: a part for each time that its schema changed, or a file was begun anew."""
        return rows_of(self._look, self.name)

    @property
    def schema(self) -> pa.Schema:
        """Of its rows, all parts together.

        Raises:
            SchemaMismatchError: Parts of it have nothing in common that would hold both; take `parts`.
        """
        schemas = self.settled(lambda parts: [part.schema for part in parts])
        if not schemas:
            return pa.schema([])
        try:
            return pa.unify_schemas(_unique(schemas), promote_options="permissive").with_metadata(schemas[0].metadata)
        except pa.ArrowException as error:
            raise SchemaMismatchError(
                f"{self.name} changed its columns: {error}", left="read each of `parts`"
            ) from error

    @property
    def kind(self) -> str:
        """The name of its schema, ``"scalar/1"``; "" for one of a user's own."""
        return schema_name(self.schema)

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column that has one, at the beginning."""
        first = self.settled(lambda parts: next((t for part in parts if (t := part.first()) is not None), None))
        return {} if first is None else units_in(first)

    def __len__(self) -> int:
        if not self.window.is_all:
            return sum(table.num_rows for table in self.tables(["timestamp"]))
        return self.settled(lambda parts: sum(part.extent.rows for part in parts))

    @property
    def start(self) -> datetime | None:
        """When its first row was, in UTC."""
        known = self.settled(lambda parts: [extent.first_ns for p in parts if (extent := p.extent).first_ns])
        return utc(min(known)) if known else None

    @property
    def stop(self) -> datetime | None:
        """When its last row was, so far, in UTC."""
        known = self.settled(lambda parts: [extent.last_ns for p in parts if (extent := p.extent).last_ns])
        return utc(max(known)) if known else None

    def gaps(self) -> list[Gap]:
        """What is missing: told by whoever recorded, and found by checking everything now."""
        return JournalReader(self._look().path).gaps(self.name)

    def between(self, start: Moment | None = None, stop: Moment | None = None) -> Stream:
        """The same stream from `start` on and before `stop`; only that part of the file is read.

        Args:
            start: A datetime, ISO 8601, numpy's datetime64, or UTC nanoseconds; None: from the beginning.
            stop: Likewise; None: to the end.
        """
        wanted = Window(*(None if moment is None else moment_ns(moment) for moment in (start, stop)))
        return Stream(self._look, self.name, self._facts, self.window.within(wanted))

    # --- rows

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows as tables of some megabytes, in order, each batch checked."""
        schema = self.schema
        wanted = schema.names if columns is None else list(columns)
        fields = pa.schema([schema.field(name) for name in wanted], metadata=schema.metadata)
        for table in self.whole_tables(self.window):
            yield _fitted(table, fields)

    def whole_tables(self, window: Window) -> Iterator[pa.Table]:
        """The rows as each part has them. What is merged with others meanwhile is read on where it is then."""
        read, parts = Succession(), self.parts
        while (part := next((p for p in parts if not read.is_read(p.span)), None)) is not None:
            try:
                yield from part.tables(window, read.read_of(part.span))
            except SegmentMovedError:
                read.part_of(part.span, part.rows_read)
                parts = self.parts
            else:
                read.whole(part.span, part.rows_read)

    def settled(self, ask: Callable[[list[Rows]], T]) -> T:
        """What `ask` says of its parts: asked again if they were merged meanwhile, which makes fewer of them."""
        while True:
            try:
                return ask(self.parts)
            except SegmentMovedError:
                continue

    def reader(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows as an Arrow reader: once, without ever holding all of them in memory."""
        schema = self.schema
        fields = schema if columns is None else pa.schema([schema.field(c) for c in columns], metadata=schema.metadata)
        batches = (batch for table in self.tables(columns) for batch in table.to_batches())
        return pa.RecordBatchReader.from_batches(fields, batches)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.reader().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return cast("Any", self.schema).__arrow_c_schema__()

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None) -> Any:
        """A pyarrow.dataset Scanner: once, with its `columns`, its `filter`, and never all rows in memory."""
        dataset = importlib.import_module("pyarrow.dataset")
        names = None if columns is None else list(columns)
        return dataset.Scanner.from_batches(self.reader(), columns=names, filter=filter)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as a table. Units are in the fields' metadata, as in a scan's."""
        tables = list(self.tables(columns))
        if not tables:
            schema = self.schema
            wanted = schema.names if columns is None else list(columns)
            return pa.schema([schema.field(n) for n in wanted], metadata=schema.metadata).empty_table()
        return with_units(pa.concat_tables(tables))

    def to_pandas(self, columns: Sequence[str] | None = None) -> pandas.DataFrame:
        """All rows as a DataFrame over `timestamp` (UTC, naive); ``attrs["units"]`` has the units."""
        table = self.to_arrow(columns)
        frame: Any = table.to_pandas()
        if "timestamp" in table.column_names:
            frame = frame.set_index("timestamp")
        frame.attrs.update({"units": units_in(table), "stream": self.name, **self._facts})
        return frame

    def to_polars(self) -> polars.LazyFrame:
        """The rows as a LazyFrame: read when it is collected, and only what it needs then is kept."""
        polars: Any = importlib.import_module("polars")
        source: Any = importlib.import_module("polars.io.plugins").register_io_source

        def read(
            columns: list[str] | None, predicate: Any, rows: int | None, _: int | None
        ) -> Iterator[polars.DataFrame]:
            left = rows
            for table in self.tables():
                frame = polars.from_arrow(table)
                if left is not None:
                    frame = frame.head(left)
                    left -= frame.height
                if predicate is not None:
                    frame = frame.filter(predicate)
                yield frame if columns is None else frame.select(columns)
                if left == 0:
                    return

        return source(read, schema=lambda: polars.from_arrow(self.schema.empty_table()).schema)

    def to_xarray(self) -> xarray.Dataset:
        """Its rows as a Dataset over `time` (UTC), with ``attrs["units"]``; frames stay on the disk until used.

        Variables are called as in a scan: the channel's name, or ``<instrument>_<axis>`` for a position.
        """
        from duodaq.storage.reading._xarray import dataset

        return dataset(self, self._facts)

    def duckdb(self, connection: Any = None) -> duckdb.DuckDBPyRelation:
        """The rows as a relation of DuckDB, which reads the file each time that it is asked something.

        Args:
            connection: Where it shall be; there it is known by the stream's name. A new one if not given.
        """
        duckdb: Any = importlib.import_module("duckdb")
        place: Any = duckdb.connect() if connection is None else connection
        place.register(self.name, self)
        return place.sql(f'FROM "{self.name}"')

    def named(self) -> Named:
        """The rows as numpy arrays, by the names that they have in xarray, NeXus and Zarr."""
        return named(self.name, self.to_arrow())

    # --- frames

    @property
    def has_frames(self) -> bool:
        """Whether there are frames behind its rows."""
        return any(facts.header.kind == FRAMES for facts in self._look().segments if facts.stream == self.name)

    @property
    def frames(self) -> FrameStack:
        """Its frames, as an array that reads what it is asked for.

        Raises:
            StorageError: There are none, or they are of several shapes or dtypes: take `stacks`.
        """
        found = self.stacks
        if len(found) != 1:
            shapes = ", ".join(f"{stack.shape[1:]} {stack.dtype}" for stack in found)
            what = f"frames of several kinds ({shapes}); take `stacks`" if found else "no frames"
            raise StorageError(f"{self.name} has {what}")
        return found[0]

    @property
    def stacks(self) -> list[FrameStack]:
        """Its frames, one array for each shape and dtype."""
        if not self.has_frames:
            return []
        columns = ["pixels_segment", "pixels_frame"]
        rows = [t for t in self.tables(columns) if t.num_rows]
        segments = tuple(f for f in self._look().segments if f.stream == self.name and f.header.kind == FRAMES)
        numbers = [np.concatenate([np.asarray(t.column(c)) for t in rows]) if rows else np.empty(0) for c in columns]
        places = np.stack([column.astype(np.int64) for column in numbers], axis=1)
        return stacks(self._look, self.name, segments, places)

    def __repr__(self) -> str:
        units = ", ".join(dict.fromkeys(self.units.values()))
        pictures = " with frames" if self.has_frames else ""
        return f"<stream {self.name}: {counted(len(self), 'row')}{pictures}{f' in {units}' if units else ''}>"


def _unique(schemas: list[pa.Schema]) -> list[pa.Schema]:
    """Schemas without metadata of their own, each once."""
    found: list[pa.Schema] = []
    for schema in schemas:
        plain = schema.remove_metadata()
        if plain not in found:
            found.append(plain)
    return found


def _fitted(table: pa.Table, fields: pa.Schema) -> pa.Table:
    have = table.schema
    if have.equals(fields, check_metadata=True):
        return table
    columns = [
        table.column(field.name).cast(field.type) if field.name in have.names else pa.nulls(table.num_rows, field.type)
        for field in fields
    ]
    return Table.from_arrays(columns, schema=fields)
