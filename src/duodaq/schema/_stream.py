"""What a batch says about itself in its schema's metadata: which schema, which stream, from where."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from duodaq.errors import SchemaMismatchError
from duodaq.schema._schemas import SCHEMA_KEY

INSTRUMENT_KEY = b"duodaq.instrument"
ORIGIN_KEY = b"duodaq.origin"
STREAM_KEY = b"duodaq.stream"
ROWS_KEY = b"duodaq.metadata"

Described = TypeVar("Described", pa.Schema, pa.RecordBatch)


def stream_id(instrument: str, channel: str) -> str:
    """The id of a stream, the same in both runtimes: ``<instrument>.<channel>``."""
    return f"{instrument}.{channel}"


def with_origin(described: Described, origin: str, instrument: str, stream: str) -> Described:
    """The same schema or batch (its buffers shared), saying which runtime, instrument and stream it belongs to."""
    if isinstance(described, pa.RecordBatch):
        return described.replace_schema_metadata(_facts(described.schema.metadata, origin, instrument, stream))
    return described.with_metadata(_facts(described.metadata, origin, instrument, stream))


def schema_name(schema: pa.Schema) -> str:
    """The name and version of one of our schemas, ``"scalar/1"``; "" if it is none of ours."""
    return _fact(schema, SCHEMA_KEY) or ""


def stream_of(batch: pa.RecordBatch) -> str:
    """The id of the stream that a batch belongs to.

    Raises:
        SchemaMismatchError: The batch does not say.
    """
    return stream_of_schema(batch.schema)


def stream_of_schema(schema: pa.Schema) -> str:
    """The id of the stream that batches of a schema belong to.

    Raises:
        SchemaMismatchError: It does not say.
    """
    stream = _fact(schema, STREAM_KEY)
    if stream is None:
        raise SchemaMismatchError("the batch does not name its stream; make it with the builders of duodaq.schema")
    return stream


def origin_of(batch: pa.RecordBatch) -> str:
    """The runtime that produced a batch, "v2" or "v4"; "" if it does not say."""
    return _fact(batch.schema, ORIGIN_KEY) or ""


def instrument_of(batch: pa.RecordBatch) -> str:
    """The instrument that a batch comes from; without the metadata, the first part of its stream id."""
    return _fact(batch.schema, INSTRUMENT_KEY) or stream_of(batch).partition(".")[0]


def channel_of(batch: pa.RecordBatch) -> str:
    """The channel that a batch comes from: its stream id without the instrument."""
    return stream_of(batch).removeprefix(instrument_of(batch)).removeprefix(".")


def rows_metadata_of(batch: pa.RecordBatch) -> dict[str, Any] | None:
    """The measurement metadata that all rows of a batch share, where it has no column of its own."""
    text = _fact(batch.schema, ROWS_KEY)
    return None if text is None else msgspec.json.decode(text)


@lru_cache(maxsize=1024)
def described_schema(schema: pa.Schema, origin: str, instrument: str, channel: str) -> pa.Schema:
    """`schema` with its origin, instrument and stream filled in; remembered, since streams go on for long."""
    return with_origin(schema, origin, instrument, stream_id(instrument, channel))


def _facts(present: dict[bytes, bytes] | None, origin: str, instrument: str, stream: str) -> dict[bytes, bytes]:
    told = {ORIGIN_KEY: origin.encode(), INSTRUMENT_KEY: instrument.encode(), STREAM_KEY: stream.encode()}
    return {**(present or {}), **told}


def _fact(schema: pa.Schema, key: bytes) -> str | None:
    value = (schema.metadata or {}).get(key)
    return None if value is None else value.decode()
