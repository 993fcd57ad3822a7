"""Arrow arrays made from their buffers.

Not by ``pa.array``: whatever it is given, that imports pandas where it is installed, which costs a quarter of a second
and 30 MB in every process, each worker included.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def numbers(values: npt.NDArray[Any], kind: Any = None) -> Any:
    """A contiguous array of shape (n,) as an Arrow array that shares its memory; of type `kind` if that is given."""
    return pa.Array.from_buffers(
        _arrow_type(values.dtype) if kind is None else kind, len(values), [None, pa.py_buffer(values)]
    )


def floats(values: Sequence[float | None]) -> Any:
    """Numbers as float64; null where there is none."""
    filled = np.array([0.0 if value is None else value for value in values], dtype=np.float64)
    return pa.Array.from_buffers(pa.float64(), len(values), [_valid(values), pa.py_buffer(filled)])


def texts(values: Sequence[str | None]) -> Any:
    """Texts as UTF-8 strings; null where there is none."""
    parts = [b"" if value is None else value.encode() for value in values]
    ends = np.zeros(len(parts) + 1, dtype=np.int32)
    np.cumsum([len(part) for part in parts], out=ends[1:])
    body = pa.py_buffer(b"".join(parts))
    return pa.Array.from_buffers(pa.string(), len(parts), [_valid(values), pa.py_buffer(ends), body])


def flags(values: Sequence[bool]) -> Any:
    """Booleans, a bit each."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def structs(kind: Any, **fields: npt.NDArray[Any]) -> Any:
    """Records of the struct type `kind`, a column of numbers for each of its fields, in its order."""
    columns = [numbers(np.ascontiguousarray(fields[f.name], f.type.to_pandas_dtype())) for f in kind]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def as_numpy(column: Any, dtype: Any = np.float64) -> npt.NDArray[Any]:
    """A column of numbers without nulls as a read-only array that shares its memory (``to_numpy`` imports pandas)."""
    if column.null_count or column.type != _arrow_type(dtype):
        return np.array(column.to_pylist(), dtype=dtype)
    return np.frombuffer(
        column.buffers()[1], dtype=dtype, count=len(column), offset=column.offset * np.dtype(dtype).itemsize
    )


@lru_cache(maxsize=64)
def _arrow_type(dtype: Any) -> Any:
    return pa.from_numpy_dtype(dtype)


def _valid(values: Sequence[Any]) -> Any:
    return _bits([value is not None for value in values]) if any(value is None for value in values) else None


def _bits(values: Sequence[bool]) -> Any:
    return pa.py_buffer(np.packbits(np.array(values, dtype=bool), bitorder="little"))
