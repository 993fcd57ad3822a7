"""Rows that have left the journal: Parquet, read back and found equal, took their place, and they were removed.

Rules for whoever edits this: a segment of which only the Parquet is left is whole, not damaged. Whatever mends a
journal leaves it alone; whatever reads one reads the Parquet.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from duodaq.errors import TornFileError
from duodaq.storage.journal._catalog import Catalog, SegmentFacts
from duodaq.storage.journal._layout import FINALISED, ROWS
from duodaq.storage.journal._sealed import SealedParquet

REMOVED = "removed"


def finalised(folder: Path) -> dict[str, Any]:
    """What `finalised.json` says; nothing if it is not there, or not whole."""
    try:
        told: Any = json.loads((folder / FINALISED).read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def parquet_of(folder: Path, facts: SegmentFacts) -> Path | None:
    """The Parquet file that holds a segment's rows in place of the journal; None if the journal holds them."""
    if facts.header.kind != ROWS:
        return None
    path = folder / facts.file
    final = path.with_suffix(".parquet")
    if not final.exists():
        return None
    return final if not path.exists() or finalised(folder).get("journal") == REMOVED else None


def rows_were_removed(catalog: Catalog) -> bool:
    """Whether the journal's rows were removed since Parquet holds them: then there is nothing in it to be mended."""
    if finalised(catalog.path).get("journal") == REMOVED:
        return True
    return any(parquet_of(catalog.path, facts) is not None for facts in catalog.segments)


def rows_expected(catalog: Catalog, stream: str) -> int | None:
    """How many rows of a stream were kept when it was finalised, or recorded; None if nobody said."""
    told: Any = finalised(catalog.path).get("rows")
    if isinstance(told, dict) and stream in told:
        return cast("int", told[stream])
    stops = [event.doc.get("num_events") for event in catalog.events if event.name == "stop"]
    return None if not stops or not stops[0] else stops[0].get(stream)


def parquet_batches(path: Path) -> Iterator[pa.RecordBatch | int | None]:
    """The rows of a Parquet file in order, its pages' checksums checked; in place of a group that cannot be read how
    many rows it had, and None in place of a file that cannot be read.
    """
    try:
        file = SealedParquet(path)
    except TornFileError:
        yield None
        return
    with file:
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group)
            except TornFileError:
                yield cast("int", file.metadata.row_group(group).num_rows)
            else:
                yield from table.to_batches()


def open_parquet(path: Path) -> Any:
    """A Parquet file whose pages are checked as they are read.

    Raises:
        OSError: It cannot be read.
        ArrowInvalid: It is not whole.
    """
    return importlib.import_module("pyarrow.parquet").ParquetFile(path, page_checksum_verification=True)
