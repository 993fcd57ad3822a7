"""The data of recorded runs, as programs elsewhere get it: bounded, and never all of a run in memory."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from duodaq.storage.reading import RecordedScan, Stream

LARGEST = 64 * 2**20
"""How many bytes of rows one answer has, beyond the first batch of them."""


def rows_of(stream: Stream, start: int, rows: int) -> bytes:
    """So many rows of a stream from the `start`-th on, as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, stream.schema) as writer:
        behind, left, size = start, rows, 0
        for table in stream.tables():
            if left <= 0 or size > LARGEST:
                break
            if behind >= table.num_rows:
                behind -= table.num_rows
                continue
            part = table.slice(behind, left)
            behind = 0
            left -= part.num_rows
            size += part.nbytes
            writer.write_table(part.cast(stream.schema))
    return sink.getvalue().to_pybytes()


def scan_facts(scan: RecordedScan) -> dict[str, Any]:
    """A scan as plain values: what it was, and its points, column by column."""
    return {
        "uid": scan.uid,
        "axes": list(scan.axes),
        "shape": list(scan.shape),
        "planned": scan.planned,
        "complete": scan.complete,
        "units": scan.units,
        "metadata": scan.metadata,
        "points": scan.to_arrow().to_pydict(),
    }
