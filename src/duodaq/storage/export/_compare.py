"""Whether what was written is what the journal has, bit by bit: a NaN equals the same NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.reading._arrow import compute as pc

_TEXTS = "USOT"
_BITS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def same_table(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same columns with the same values."""
    if one.column_names != other.column_names or one.num_rows != other.num_rows:
        return False
    return all(same_column(one.column(name), other.column(name)) for name in one.column_names)


def same_column(one: Any, other: Any) -> bool:
    """Whether two columns hold the same values; dictionaries count as what they stand for."""
    return _same(_whole(one), _whole(other))


def same_array(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether two numpy arrays have the same shape and bits; texts the same characters."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind in _TEXTS or other.dtype.kind in _TEXTS:
        return bool(one.tolist() == other.tolist())
    if one.dtype != other.dtype:
        return False
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def _whole(column: Any) -> Any:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _same(one: Any, other: Any) -> bool:
    if pa.types.is_dictionary(one.type) and one.type == other.type and one.dictionary.equals(other.dictionary):
        one, other = one.indices, other.indices
    one, other = _plain(one), _plain(other)
    if len(one) != len(other) or one.type != other.type:
        return False
    kind = one.type
    if one.null_count or other.null_count:
        if not one.is_null().equals(other.is_null()):
            return False
        one, other = pc.drop_null(one), pc.drop_null(other)
    if pa.types.is_floating(kind):
        bits = _BITS[kind.bit_width]
        return bool(one.view(bits).equals(other.view(bits)))
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return all(_same(pc.struct_field(one, n), pc.struct_field(other, n)) for n in names)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if not pc.list_value_length(one).equals(pc.list_value_length(other)):
            return False
        return _same(pc.list_flatten(one), pc.list_flatten(other))
    return bool(one.equals(other))


def _plain(array: Any) -> Any:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
