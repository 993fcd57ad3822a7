"""Columns made and read: the few shapes that all schemas share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from duodaq.errors import SchemaMismatchError
from duodaq.schema._arrays import numbers, texts

_LONGEST_CONSTANT = 4096
_ZEROS = numbers(np.zeros(_LONGEST_CONSTANT, np.int32))


def time_column(t_ns: Sequence[int]) -> Any:
    """UTC nanoseconds as timestamp[ns]."""
    return numbers(np.array(t_ns, dtype=np.int64), pa.timestamp("ns"))


def sequence_column(sequence: Sequence[int]) -> Any:
    """Sequence numbers as uint64."""
    return numbers(np.array(sequence, dtype=np.uint64))


def name_column(names: Sequence[str]) -> Any:
    """Strings as a dictionary column; cheap when they are all the same."""
    first = names[0]
    if all(name is first or name == first for name in names):
        return constant_column(first, len(names))
    return texts(names).dictionary_encode()


def constant_column(name: str, length: int) -> Any:
    """One string, `length` times."""
    if length > _LONGEST_CONSTANT:
        return pa.DictionaryArray.from_arrays(numbers(np.zeros(length, np.int32)), texts([name]))
    return _constant(name).slice(0, length)


def json_column(metadata: Sequence[dict[str, Any] | None]) -> Any:
    """Metadata as JSON, null where there is none."""
    return texts([to_json(facts) for facts in metadata])


def to_json(facts: dict[str, Any] | None) -> str | None:
    """Measurement metadata as JSON; what JSON has no form for is written as text, numpy numbers as numbers."""
    return None if facts is None else msgspec.json.encode(facts, enc_hook=_plain).decode()


def times_of(batch: pa.RecordBatch) -> list[int]:
    """The timestamps as UTC nanoseconds."""
    return column_of(batch, "timestamp").view(pa.int64()).to_pylist()


def names_of(batch: pa.RecordBatch, field: str) -> list[str]:
    """A dictionary or string column as strings; cheap when its dictionary has one entry."""
    column = column_of(batch, field)
    if pa.types.is_dictionary(column.type) and len(column.dictionary) == 1 and not column.null_count:
        return [column.dictionary[0].as_py()] * len(column)
    return column.to_pylist()


def facts_of(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """The metadata column as dictionaries."""
    texts: list[str | None] = column_of(batch, "metadata").to_pylist()
    return [None if text is None else msgspec.json.decode(text) for text in texts]


def column_of(batch: pa.RecordBatch, field: str) -> Any:
    """One column.

    Raises:
        SchemaMismatchError: The batch has none of that name.
    """
    index = batch.schema.get_field_index(field)  # by name takes `column` ten times as long; of two it knows neither
    if index >= 0:
        return batch.column(index)
    if field not in batch.schema.names:
        raise SchemaMismatchError(f"the batch has no column {field!r}; it has {', '.join(batch.schema.names)}")
    return batch.column(field)


@lru_cache(maxsize=1024)
def _constant(name: str) -> Any:
    return pa.DictionaryArray.from_arrays(_ZEROS, texts([name]))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, np.ndarray):
        return cast("np.ndarray[Any, Any]", value).tolist()
    return str(value)
