"""Anything a lab may answer, as JSON that every reader takes: no NaN, no half characters, no pictures by the way."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

import msgspec
import numpy as np

_MOST_NUMBERS = 4096


def to_json(value: Any) -> bytes:
    """`value` as JSON: what is not finite as null, large arrays as their shape and dtype, the unknown as text."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError):
        return json.dumps(_cleaned(value, 0), ensure_ascii=True, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return _summary(array) if array.size > _MOST_NUMBERS else array.tolist()
    return str(value)


def _summary(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _cleaned(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth > 50:
        return "…"
    if isinstance(value, msgspec.Struct):
        return _cleaned(msgspec.structs.asdict(value), depth + 1)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {str(key): _cleaned(one, depth + 1) for key, one in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(one, depth + 1) for one in cast("list[Any]", value)]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    found = _plain(value)
    return found if isinstance(found, str) else _cleaned(found, depth + 1)
