"""Rows as CSV: times as ISO 8601 with offset, lists and records as JSON, all else as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from duodaq.errors import StorageError
from duodaq.storage.export._compare import same_table
from duodaq.storage.export._parts import write_parts
from duodaq.storage.export._progress import Counting, Progress
from duodaq.storage.reading import Run
from duodaq.storage.reading._arrow import Table
from duodaq.storage.reading._arrow import compute as pc
from duodaq.storage.reading._arrow import csv as arrow_csv
from duodaq.storage.reading._rows import Rows


def write_csv(run: Run, folder: Path, progress: Progress) -> list[Path]:
    """Write and verify a CSV file for each part of each stream.

    Raises:
        StorageError: The disk refused, or what it holds is not what the journal does. No file is left half done.
    """
    return write_parts(run, folder, "csv", progress, _write, _verify, _try_out)


def _write(part: Rows, place: Path, progress: Counting) -> int:
    csv = arrow_csv()
    rows = 0
    with csv.CSVWriter(place, readable(part.schema.empty_table()).schema) as writer:
        for table in part.tables():
            writer.write_table(readable(table))
            rows += table.num_rows
            progress(rows)
    return rows


def _try_out(table: pa.Table, place: Any) -> None:
    csv = arrow_csv()
    schema = readable(table.schema.empty_table()).schema
    csv.write_csv(readable(table), place)
    place.seek(0)
    options = csv.ConvertOptions(column_types=schema)
    parsing = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(place, convert_options=options, parse_options=parsing) as reader:
        reader.read_all()


def readable(table: pa.Table) -> pa.Table:
    """Columns that CSV has words for."""
    columns = [_readable(table.column(field.name), field.type) for field in table.schema]
    return pa.table(columns, names=table.column_names)


def _readable(column: Any, kind: Any) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pc.binary_join_element_wise(pc.strftime(column, "%Y-%m-%dT%H:%M:%S"), "+00:00", "")
    if pa.types.is_nested(kind):
        texts = [None if value is None else msgspec.json.encode(value).decode() for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column


def _verify(part: Rows, place: Path) -> None:
    csv = arrow_csv()
    schema = readable(part.schema.empty_table()).schema
    options = csv.ConvertOptions(
        column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
    )
    parsing = csv.ParseOptions(newlines_in_values=True)
    wanted = _batches(part)
    waiting: pa.Table = next(wanted, schema.empty_table())
    with csv.open_csv(place, convert_options=options, parse_options=parsing) as reader:
        for batch in reader:
            read = Table.from_batches([batch])
            while waiting.num_rows < read.num_rows:
                more = next(wanted, None)
                if more is None:
                    break
                waiting = pa.concat_tables([waiting, more])
            if not same_table(waiting.slice(0, read.num_rows), read):
                raise StorageError(f"{place.name} does not hold what the journal does", left="the journal is untouched")
            waiting = waiting.slice(read.num_rows)
    if waiting.num_rows or next(wanted, None) is not None:
        raise StorageError(f"{place.name} holds less than the journal does", left="the journal is untouched")


def _batches(part: Rows) -> Iterator[pa.Table]:
    return (readable(table) for table in part.tables())
