"""Where the rows of a stream are: in the journal, or in the Parquet files that it was turned into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from duodaq.storage.journal._catalog import Catalog, SegmentFacts
from duodaq.storage.journal._layout import ROWS
from duodaq.storage.journal._parquet import parquet_of
from duodaq.storage.journal._sealed import SealedParquet
from duodaq.storage.reading._index import Extent
from duodaq.storage.reading._moments import ALL, Window
from duodaq.storage.reading._rows import JournalRows, Rows, cut, times_ns

_STREAM_KEY = b"duodaq.stream"


def rows_of(look: Callable[[], Catalog], stream: str) -> list[Rows]:
    """The parts of a stream's rows, in order; but for those that nothing gives a schema, of which `gaps` tells."""
    catalog = look()
    parts: list[Rows] = []
    for facts in catalog.segments:
        if facts.stream != stream or facts.header.kind != ROWS:
            continue
        final = parquet_of(catalog.path, facts)
        if final is None and facts.head is None and ((catalog.path / facts.file).exists() or catalog.is_current):
            continue
        parts.append(JournalRows(look, facts) if final is None else ParquetRows(final, facts))
    return parts


class ParquetRows:
    """Rows of a Parquet file that a segment was turned into."""

    def __init__(self, path: Path, facts: SegmentFacts) -> None:
        self._path = path
        self._facts = facts
        self.rows_read = 0

    @property
    def file(self) -> str:
        return self._facts.file

    @property
    def span(self) -> tuple[int, int]:
        return self._facts.span

    @cached_property
    def _file(self) -> SealedParquet:
        return SealedParquet(self._path)

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow

    @property
    def extent(self) -> Extent:
        rows = self._file.metadata.num_rows
        if not rows or "timestamp" not in self.schema.names:
            return Extent(rows)
        last = self._file.num_row_groups - 1
        first_ns = int(times_ns(self._file.read_row_group(0, ["timestamp"]))[0])
        return Extent(rows, first_ns, int(times_ns(self._file.read_row_group(last, ["timestamp"]))[-1]))

    def first(self) -> pa.Table | None:
        return self._file.read_row_group(0).slice(0, 1) if self._file.metadata.num_rows else None

    def tables(self, window: Window = ALL, skip: int = 0) -> Iterator[pa.Table]:
        self.rows_read = 0
        for number in range(self._file.num_row_groups):
            table = self._file.read_row_group(number)
            before, self.rows_read = self.rows_read, self.rows_read + table.num_rows
            table = cut(table.slice(max(0, skip - before)), window)
            if table.num_rows:
                yield table
