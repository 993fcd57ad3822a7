"""A segment as an event descriptor: Bluesky's words for what is in it, and ours for where it lies."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import pyarrow as pa

from duodaq import clock
from duodaq.storage.journal._frames import FramesSegment
from duodaq.storage.journal._layout import KINDS
from duodaq.storage.journal._rows import RowsSegment
from duodaq.storage.journal._run import uuid7


def descriptor(stream: str, segment: RowsSegment | FramesSegment, run: UUID) -> dict[str, Any]:
    """The document of the event that announces a segment."""
    header = segment.header
    place: dict[str, Any] = {
        "id": header.segment,
        "kind": KINDS[header.kind],
        "file": segment.name,
        "salt": header.salt,
        "follows": header.follows,
        "follows_entries": header.follows_entries,
    }
    if isinstance(segment, RowsSegment):
        keys = {field.name: _data_key(field, stream) for field in segment.encoder.schema}
        if header.replaces is not None:
            place["replaces"] = list(header.replaces)
        place["head"] = base64.b64encode(segment.encoder.head).decode()
    else:
        shape = list(segment.shape)
        keys = {"pixels": {"source": stream, "dtype": "array", "shape": shape, "dtype_numpy": segment.dtype.str}}
        place |= {
            "dtype": segment.dtype.str,
            "shape": shape,
            "frame_bytes": header.frame_bytes,
            "data_start": header.data_start,
            "direct": segment.direct,
        }
    return {
        "uid": str(uuid7()),
        "run_start": str(run),
        "time": clock.utc_ns() / 1e9,
        "name": stream,
        "data_keys": keys,
        "segment": place,
    }


def _data_key(field: pa.Field, stream: str) -> dict[str, Any]:
    key: dict[str, Any] = {"source": stream, "dtype": _dtype(field.type), "shape": [], "arrow": str(field.type)}
    unit = (field.metadata or {}).get(b"unit")
    return key if unit is None else {**key, "units": unit.decode()}


def _dtype(kind: Any) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind):
        return "number"
    return "array" if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) else "string"
