"""Rows as Parquet: a file for each segment, small, and read by everything."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from duodaq.errors import StorageError
from duodaq.storage.export._compare import same_table
from duodaq.storage.export._parts import write_parts
from duodaq.storage.export._progress import Counting, Progress
from duodaq.storage.journal._sealed import SealedParquet, room_for_seal, seal
from duodaq.storage.reading import Run
from duodaq.storage.reading._arrow import Table, parquet
from duodaq.storage.reading._columns import UNIT_KEY, units_in
from duodaq.storage.reading._rows import Rows

_GROUP_ROWS = 2**18


def write_parquet(run: Run, folder: Path, progress: Progress) -> list[Path]:
    """Write and verify a Parquet file for each part of each stream.

    Raises:
        StorageError: The disk refused, or what it holds is not what the journal does. No file is left half done.
    """
    return write_parts(run, folder, "parquet", progress, partial(_write, run), _verify, parquet().write_table)


def _write(run: Run, part: Rows, place: Path, progress: Counting) -> int:
    first = part.first()
    units = {} if first is None else units_in(first)
    while True:
        rows, differing = _write_with(run, part, place, units, progress)
        if not differing:
            return rows
        units = {name: unit for name, unit in units.items() if name not in differing}


def _write_with(run: Run, part: Rows, place: Path, units: dict[str, str], progress: Counting) -> tuple[int, set[str]]:
    """Write with these units; how many rows, and which units turned out not to hold for all of them."""
    pq = parquet()
    schema = _schema(run, part, units)
    encodings, texts = _encodings(schema)
    rows = groups = 0
    writer = pq.ParquetWriter(
        place,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=texts,
        column_encoding=encodings,
        write_page_checksum=True,
    )
    with contextlib.closing(writer):
        for table in grouped(part.tables()):
            now = units_in(table)
            differing = {name for name, unit in units.items() if now.get(name) != unit}
            if differing:
                return rows, differing
            writer.write_table(Table.from_arrays(table.columns, schema=schema), row_group_size=_GROUP_ROWS)
            rows += table.num_rows
            groups += 1
            progress(rows)
        writer.add_key_value_metadata(room_for_seal(groups))
    seal(place)
    return rows, set()


def _schema(run: Run, part: Rows, units: dict[str, str]) -> pa.Schema:
    fields = [
        f.with_metadata({**(f.metadata or {}), UNIT_KEY: units[f.name].encode()}) if f.name in units else f
        for f in part.schema
    ]
    told = {b"duodaq.run": json.dumps(run.facts).encode(), b"duodaq.units": json.dumps(units).encode()}
    return pa.schema(fields, metadata={**(part.schema.metadata or {}), **told})


def grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables of so many rows that each is worth a row group."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= _GROUP_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, _GROUP_ROWS)
            waiting, rows = [whole.slice(_GROUP_ROWS)], rows - _GROUP_ROWS
    if rows:
        yield pa.concat_tables(waiting)


def _encodings(schema: pa.Schema) -> tuple[dict[str, str], list[str]]:
    """How each column of numbers is packed, by its path; and the columns of texts."""
    encodings: dict[str, str] = {}
    texts: list[str] = []
    for field in schema:
        for path, kind in _leaves(field.name, field.type):
            if pa.types.is_floating(kind) and kind.bit_width > 16:
                encodings[path] = "BYTE_STREAM_SPLIT"
            elif pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
                encodings[path] = "DELTA_BINARY_PACKED"
            elif not pa.types.is_boolean(kind):
                texts.append(path)
    return encodings, texts


def _leaves(path: str, kind: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(kind, pa.BaseExtensionType):
        yield from _leaves(path, kind.storage_type)
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _leaves(f"{path}.{kind.field(i).name}", kind.field(i).type)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind.value_type if pa.types.is_dictionary(kind) else kind


def _verify(part: Rows, place: Path) -> None:
    with SealedParquet(place) as file:
        number = 0
        for table in grouped(part.tables()):
            if number >= file.num_row_groups or not same_table(table, file.read_row_group(number)):
                raise StorageError(f"{place.name} does not hold what the journal does", left="the journal is untouched")
            number += 1
        if number != file.num_row_groups:
            raise StorageError(f"{place.name} holds more than the journal does", left="the journal is untouched")
