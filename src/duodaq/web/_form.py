"""What goes to a browser in Arrow's form: an IPC stream of one batch, whose head is made once for all of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What a stream ends with, in Arrow's format: a message of no length."""
_POINTS = (pa.field("t_ms", pa.float64()), pa.field("value", pa.float64()))


class Form(NamedTuple):
    """A schema, and the bytes that a stream of it begins with."""

    schema: pa.Schema
    head: bytes

    @classmethod
    def of(cls, fields: Sequence[pa.Field], **facts: str) -> Form:
        """The form with these columns and facts."""
        schema = pa.schema(fields, metadata={key.encode(): value.encode() for key, value in facts.items()})
        return cls(schema, schema.serialize().to_pybytes())

    def filled(self, columns: Sequence[Any]) -> bytes:
        """A whole stream of one batch."""
        batch = pa.RecordBatch.from_arrays(list(columns), schema=self.schema)
        return b"".join((self.head, batch.serialize(), _END))


def rows_form(kind: str, stream: str, unit: str, rows: int | None = None) -> Form:
    """That of a curve's points: UTC ms and value. `rows` is how many there were, of which these are left."""
    if rows is None:
        return _whole_rows_form(kind, stream, unit)
    return Form.of(_POINTS, kind=kind, stream=stream, unit=unit, rows=str(rows))


@lru_cache(maxsize=1024)
def _whole_rows_form(kind: str, stream: str, unit: str) -> Form:
    return Form.of(_POINTS, kind=kind, stream=stream, unit=unit)
