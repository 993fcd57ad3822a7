"""Which batches the journal has a form for. Any other is refused and counted, and is in no other's way.

Rules for whoever edits this: a batch is looked at before anything of it is written, and nothing here touches the disk.
So whatever is raised is about the batch; and behind it nothing but the disk can fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from duodaq.errors import DataError
from duodaq.schema import pixels_of, stream_of
from duodaq.storage.journal._encode import BatchEncoder, schema_of
from duodaq.storage.journal._stream import PIXELS, StreamState, is_of_frames

_MOST_NUMBER = 2**64
_LEAST_NS, _MOST_NS = -(2**63), 2**63


class NoFormError(Exception):
    """There is no form for a batch; it says why."""


class NoFileError(Exception):
    """A stream cannot have a file now, for a reason that is its own or the program's, and not the disk's."""


def name_in(batch: pa.RecordBatch) -> str | None:
    """The stream that a batch names; None if it names none."""
    try:
        return stream_of(batch)
    except (DataError, ValueError):  # or in bytes that are no text
        return None


def encoder_for(state: StreamState, batch: pa.RecordBatch) -> BatchEncoder | None:
    """What a batch needs that begins a segment; None for one that fits into the present one.

    Raises:
        NoFormError: It cannot be stored, or could not be read again.
    """
    try:
        for told in _wrong(batch):
            raise NoFormError(told)
        if not state.begins_with(batch):
            return None
        encoder = BatchEncoder(state.as_rows(batch))
        schema_of(encoder.head)  # deeper than Arrow reads
    except NoFormError:
        raise
    except Exception as error:  # whatever Arrow or numpy say of it: nothing here touches the disk
        raise NoFormError(f"{type(error).__name__}: {error}") from error
    return encoder


def column_of(batch: pa.RecordBatch, name: str) -> list[int]:
    """A column of numbers, or of times as UTC nanoseconds; zeros if there is none."""
    place = batch.schema.get_field_index(name)
    if place < 0:
        return [0] * batch.num_rows
    column: Any = batch.column(place)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns")).view(pa.int64())
    return [value or 0 for value in column.to_pylist()]


def _wrong(batch: pa.RecordBatch) -> Iterator[str]:
    place = batch.schema.get_field_index("timestamp")
    if place >= 0:
        kind = batch.schema.field(place).type
        if pa.types.is_timestamp(kind) and kind.unit != "ns":
            batch.column(place).cast(pa.timestamp("ns"))  # raises if a time is not within what nanoseconds can say
    if not is_of_frames(batch.schema):
        return
    pixels: Any = batch.column(PIXELS)
    if pixels.null_count or pixels.storage.flatten().null_count:
        yield "a picture with nulls: numbers cannot say that; mask it in a column of its own"
    if len(pixels_of(batch)) != batch.num_rows:
        yield "a picture for each row is needed"
    for name, least, most in (("sequence", 0, _MOST_NUMBER), ("timestamp", _LEAST_NS, _MOST_NS)):
        if not all(type(value) is int and least <= value < most for value in column_of(batch, name)):
            yield f"{name} of a frame must be a whole number from {least} to {most - 1}"
