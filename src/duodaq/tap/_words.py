"""What is said over a tap's socket, pure.

The reader says one line of JSON, an `Opening`; the lab answers with one, ``{"ok": subscriber}`` or ``{"error": why}``,
or ``{"unknown": why}`` if it knows no such stream.
From then on the reader says credits, each a u32 (little-endian), and the lab plain Arrow IPC streams, one behind the
other: a new one where the columns change. Each batch has a `Told` as custom metadata.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pyarrow as pa

TOLD = b"duodaq.tap"
CREDIT = struct.Struct("<I")
LONGEST_LINE = 65536


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which stream, and for whom.

    Attributes:
        stream: Its id.
        name: Who reads, for the ledger.
        capacity: How many batches may wait at the lab; the oldest is dropped for one more.
        max_bytes: How much memory they may keep there.
        wait: Whether to wait for a stream that the lab does not know yet; if not, that is refused.
    """

    stream: str
    name: str = "reader"
    capacity: int = 1024
    max_bytes: int = 64 * 2**20
    wait: bool = False


class Told(msgspec.Struct, frozen=True):
    """What goes with a batch.

    Attributes:
        number: Counts what this reader was sent, from 0: a number that is missing was lost on the way.
        missed: Rows that were dropped for this reader since the batch before.
        dropped: Rows that were dropped for this reader in all.
        metadata: The batch's own metadata where it is otherwise than the stream's schema says; None: it is not.
    """

    number: int
    missed: int = 0
    dropped: int = 0
    metadata: dict[str, str] | None = None


def same_columns(one: pa.Schema, other: pa.Schema) -> bool:
    """Whether batches of both can go into one stream: the same fields, with the same metadata of their own."""
    return one.equals(other) and [field.metadata for field in one] == [field.metadata for field in other]


def own_metadata(first: pa.Schema, schema: pa.Schema) -> dict[str, str] | None:
    """The metadata of a batch where it differs from that of the stream's first."""
    if first.equals(schema, check_metadata=True):
        return None
    ours: dict[bytes, bytes] = schema.metadata or {}
    return {key.decode(): value.decode() for key, value in ours.items()}


def with_metadata(batch: Any, told: Told) -> Any:
    """The batch with the metadata that it was published with."""
    return batch if told.metadata is None else batch.replace_schema_metadata(told.metadata)
