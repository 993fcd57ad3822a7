"""The rows of one segment as tables: checked, in order, from whichever form is on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from duodaq.errors import SchemaMismatchError, StorageError
from duodaq.schema import schema_name
from duodaq.storage.journal._catalog import Catalog, SegmentFacts
from duodaq.storage.journal._check import RowsCheck
from duodaq.storage.journal._encode import decode, schema_of
from duodaq.storage.reading._arrow import Table
from duodaq.storage.reading._index import Extent, RowsIndex
from duodaq.storage.reading._moments import ALL, Window

METADATA = "metadata"
ROWS_KEY = b"duodaq.metadata"
_OWN = b"duodaq."
_AT_ONCE_BYTES = 8 * 2**20
_METADATA_TYPE = pa.dictionary(pa.int32(), pa.string())


class SegmentMovedError(StorageError):
    """A segment was merged into another one while it was read: look again."""


class Rows(Protocol):
    """The rows of one schema of a stream.

    Attributes:
        file: The segment that they are in, or were when it was turned into something else.
        span: The first and the last segment, as they were recorded, that this is or stands for.
        rows_read: How many rows, from the first on, `tables` has gone through so far, last time.
    """

    rows_read: int

    @property
    def file(self) -> str: ...

    @property
    def span(self) -> tuple[int, int]: ...

    @property
    def schema(self) -> pa.Schema:
        """Of every table; costs no reading of rows."""
        ...

    @property
    def extent(self) -> Extent:
        """How much there is now."""
        ...

    def first(self) -> pa.Table | None:
        """The first few rows; None if there are none."""
        ...

    def tables(self, window: Window = ALL, skip: int = 0) -> Iterator[pa.Table]:
        """All rows, in order, but for the first `skip`.

        Raises:
            SegmentMovedError: They were merged with others meanwhile, and are to be read there.
        """
        ...


class JournalRows:
    """Rows out of the journal, each batch against its checksum. What is damaged is left out.

    Scalars, which keep what their rows share (`metadata`) beside their columns, get a column of it like all others.

    Args:
        look: The run's catalogue as it is now.
        facts: The segment.
    """

    def __init__(self, look: Callable[[], Catalog], facts: SegmentFacts) -> None:
        self._look = look
        self._facts = facts
        self.rows_read = 0

    @property
    def file(self) -> str:
        """Where they are."""
        return self._facts.file

    @property
    def span(self) -> tuple[int, int]:
        return self._facts.span

    @cached_property
    def _head(self) -> bytes:
        head = self._facts.head or RowsCheck(self._look(), self._facts).head
        if head is None:
            if self._was_merged():
                raise self._moved()
            raise StorageError(f"{self.file} has no readable schema, and its descriptor is gone, too")
        return head

    @property
    def schema(self) -> pa.Schema:
        return with_metadata_field(schema_of(self._head))

    @property
    def extent(self) -> Extent:
        told = RowsIndex(self._folder, self._facts).extent(self._head)
        return self._counted() if told is None else told

    def first(self) -> pa.Table | None:
        batch = RowsIndex(self._folder, self._facts).first_batch(self._head)
        return next(self.tables(), None) if batch is None else _table_of([batch])

    def tables(self, window: Window = ALL, skip: int = 0) -> Iterator[pa.Table]:
        for parts in self._portions(window, whole=bool(skip)):
            table = decoded(self._head, parts)
            before, self.rows_read = self.rows_read, self.rows_read + table.num_rows
            table = cut(table.slice(max(0, skip - before)), window)
            if table.num_rows:
                yield table

    def _portions(self, window: Window, *, whole: bool) -> Iterator[list[bytes]]:
        """Quickly, as long as the index agrees with the file; batch by batch, with both copies of its entries, else."""
        index = RowsIndex(self._folder, self._facts)
        first = 1 if whole else index.first_entry(window.start_ns)
        self.rows_read = index.rows_before(first)
        portions = index.portions(first, window.stop_ns)
        while True:
            try:
                yield [next(portions)]
            except StopIteration as end:
                left: int | None = end.value
                break
        if left is not None and self._was_merged():
            raise self._moved()
        if left is not None:
            yield from patient_portions(RowsCheck(self._look(), self._facts), left, window.stop_ns)

    @property
    def _folder(self) -> Path:
        return self._look().path

    def _was_merged(self) -> bool:
        if (self._folder / self.file).exists():
            return False
        return all(facts.id != self._facts.id for facts in self._look().segments)

    def _moved(self) -> SegmentMovedError:
        return SegmentMovedError(f"{self.file} was merged with others", left="it is to be read there")

    def _counted(self) -> Extent:
        rows, first, last = 0, 0, 0
        for table in self.tables():
            rows += table.num_rows
            if "timestamp" in table.column_names:
                times = times_ns(table)
                first, last = first or int(times[0]), int(times[-1])
        return Extent(rows, first, last)


class FirstRows:
    """The first rows of a part, for whoever must not see what has come since.

    Args:
        part: The part.
        count: How many of its rows.
    """

    def __init__(self, part: Rows, count: int) -> None:
        self._part = part
        self._count = count
        self.rows_read = 0

    @property
    def file(self) -> str:
        return self._part.file

    @property
    def span(self) -> tuple[int, int]:
        return self._part.span

    @property
    def schema(self) -> pa.Schema:
        return self._part.schema

    @property
    def extent(self) -> Extent:
        return self._part.extent._replace(rows=self._count)

    def first(self) -> pa.Table | None:
        return self._part.first() if self._count else None

    def tables(self, window: Window = ALL, skip: int = 0) -> Iterator[pa.Table]:
        self.rows_read = skip
        for table in self._part.tables(skip=skip):
            some = table.slice(0, self._count - self.rows_read)
            self.rows_read += some.num_rows
            if (wanted := cut(some, window)).num_rows:
                yield wanted
            if self.rows_read >= self._count:
                return


def patient_portions(check: RowsCheck, first: int, stop_ns: int | None) -> Iterator[list[bytes]]:
    parts: list[bytes] = []
    size = 0
    for place in check.batches(first):
        if not place.is_rows or place.data is None or place.entry is None:
            continue
        if stop_ns is not None and place.entry.t_ns >= stop_ns:
            break
        parts.append(place.data)
        size += len(place.data)
        if size >= _AT_ONCE_BYTES:
            yield parts
            parts, size = [], 0
    if parts:
        yield parts


def decoded(head: bytes, parts: list[bytes]) -> pa.Table:
    """The rows in the messages of batches. One by one only where a batch can have metadata of its own."""
    if any(_OWN in part for part in parts):
        return _table_of(decode(head, parts))
    reader: Any = ipc.open_stream(pa.py_buffer(b"".join([head, *parts])))
    return _with_metadata(reader.read_all().combine_chunks(), _shared(reader.schema))


def _table_of(batches: list[pa.RecordBatch]) -> pa.Table:
    """Batches as a table with the metadata of the first, each row with its own in its column."""
    first = batches[0].schema
    if schema_name(first) != "scalar/1":
        plain = [batch.replace_schema_metadata(first.metadata) for batch in batches]
        return Table.from_batches(plain, first)
    tables = [_with_metadata(Table.from_batches([b]), _shared(b.schema)) for b in batches]
    return pa.concat_tables([table.replace_schema_metadata(tables[0].schema.metadata) for table in tables])


def with_metadata_field(schema: pa.Schema) -> pa.Schema:
    """The schema of the tables that batches of `schema` become."""
    if schema_name(schema) != "scalar/1" or METADATA in schema.names:
        return schema
    facts = {key: value for key, value in (schema.metadata or {}).items() if key != ROWS_KEY}
    return schema.append(pa.field(METADATA, _METADATA_TYPE)).with_metadata(facts)


def _with_metadata(table: pa.Table, shared: bytes | None) -> pa.Table:
    schema = with_metadata_field(table.schema)
    if len(schema) == table.num_columns:
        return table
    column = _shared_column(shared, table.num_rows)
    return Table.from_arrays([*table.columns, column], schema=schema)


def _shared(schema: pa.Schema) -> bytes | None:
    return (schema.metadata or {}).get(ROWS_KEY)


def _shared_column(shared: bytes | None, rows: int) -> Any:
    if shared is None or shared == b"null":
        return pa.nulls(rows, _METADATA_TYPE)
    text = pa.array([shared.decode()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), text)


def times_ns(table: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The timestamps of rows as UTC nanoseconds."""
    column: Any = table.column("timestamp")
    return column.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()


def cut(table: pa.Table, window: Window) -> pa.Table:
    """The rows of a table within a window."""
    if window.is_all or not table.num_rows:
        return table
    if "timestamp" not in table.column_names:
        raise SchemaMismatchError("rows without a timestamp are in no window of time", left="take all of them")
    times = times_ns(table)
    inside = np.ones(len(times), bool)
    if window.start_ns is not None:
        inside &= times >= window.start_ns
    if window.stop_ns is not None:
        inside &= times < window.stop_ns
    return table if inside.all() else table.filter(pa.array(inside))
