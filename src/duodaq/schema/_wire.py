"""The wire log as Arrow: one row a record, and what the ports are in the schema's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from duodaq.model import WireRecord
from duodaq.schema._schemas import SCHEMA_KEY

WIRE_NAME = "wire/1"
PORTS_KEY = b"duodaq.ports"
LAB_KEY = b"duodaq.lab"

_FIELDS = (
    pa.field("timestamp", pa.timestamp("ns"), nullable=False),
    pa.field("sequence", pa.uint64(), nullable=False),
    pa.field("port", pa.string(), nullable=False),
    pa.field("direction", pa.string(), nullable=False),
    pa.field("holder", pa.string(), nullable=False),
    pa.field("exchange", pa.uint64(), nullable=False),
    pa.field("trace_id", pa.string()),
    pa.field("data", pa.binary(), nullable=False),
)


def wire(ports: Mapping[str, Mapping[str, Any]] | None = None, lab: str = "") -> pa.Schema:
    """One record of a wire log a row; see docs/reference/wire-log.md.

    Args:
        ports: What each port is, by name (codec, address, timeout_s …): plain values.
        lab: The lab's name.
    """
    metadata = {SCHEMA_KEY: WIRE_NAME.encode(), LAB_KEY: lab.encode(), PORTS_KEY: msgspec.json.encode(ports or {})}
    return pa.schema(_FIELDS, metadata)


def wire_batch(records: Sequence[WireRecord], schema: pa.Schema) -> pa.RecordBatch:
    """`records` as one batch of `schema`, which is `wire(…)`."""
    columns = (
        [r.t_ns for r in records],
        [r.sequence for r in records],
        [r.port for r in records],
        [r.direction for r in records],
        [r.holder for r in records],
        [r.exchange for r in records],
        [r.trace_id for r in records],
        [r.data for r in records],
    )
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _FIELDS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def wire_records(batch: pa.RecordBatch | pa.Table) -> list[WireRecord]:
    """The records of a batch or a table of ``wire/1``."""
    t_ns = batch.column("timestamp").cast(pa.int64()).to_pylist()
    names = ("port", "direction", "data", "holder", "exchange", "trace_id", "sequence")
    rest = (batch.column(name).to_pylist() for name in names)
    return [WireRecord(*fields) for fields in zip(t_ns, *rest, strict=True)]
