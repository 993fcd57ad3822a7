"""From what a foreign driver returns to a measurement: pure, except that arrays are copied once.

A driver may use the array it returned again for its next reading, so it is copied here, at the border, in the driver's
own thread; behind the border it is read-only and nobody copies it again.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

from duodaq.errors import ReplyFormatError
from duodaq.model import Image, Measurement, Scalar, Spectrum, Vector

ORIGIN = "v2"
_NUMBERS: tuple[type[Any], ...] = (numbers.Real, np.bool_)
_ARRAYS: tuple[type[Any], ...] = (np.ndarray, list, tuple)
_PIXELS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float64))


class Reading:
    """A value as a driver returned it, taken apart: what it is made of, in which unit, and when (UTC ns)."""

    __slots__ = ("axis", "axis_unit", "kind", "t_ns", "unit", "value")

    def __init__(self, value: Any, unit: str, t_ns: int, axis_unit: str = "") -> None:
        self.t_ns = t_ns
        self.axis: npt.NDArray[np.float64] | None = None
        self.axis_unit = axis_unit
        plain, own_unit = split_unit(value)
        self.unit = own_unit or unit
        self.value: Any
        if (pair := _as_pair(plain)) is not None:
            self.kind = "spectrum"
            (first, first_unit), (second, second_unit) = pair
            self.axis, self.value = _floats(first), _floats(second)
            self.axis_unit, self.unit = first_unit or axis_unit, second_unit or self.unit
        else:
            self.kind, self.value = _classify(plain)

    def measurement(
        self, instrument: str, channel: str, sequence: int, metadata: dict[str, Any] | None = None
    ) -> Measurement:
        """The measurement that this reading is, under its channel and number."""
        name = (instrument, channel, self.unit, self.t_ns, sequence)
        if self.kind == "scalar":
            return Scalar(*name, self.value, ORIGIN, metadata)
        if self.kind == "vector":
            return Vector(*name, self.value, ORIGIN, metadata)
        if self.axis is not None:
            return Spectrum(*name, self.value, self.axis, self.axis_unit, ORIGIN, metadata)
        return Image(*name, self.value, ORIGIN, metadata)


def split_unit(value: Any) -> tuple[Any, str]:
    """The bare magnitude and the unit of a quantity (pint's, or whatever looks like it); anything else as it is."""
    magnitude = getattr(value, "magnitude", None)
    units = getattr(value, "units", None)
    if magnitude is None or units is None:
        return value, ""
    try:
        return magnitude, f"{units:~}"
    except (TypeError, ValueError):
        return magnitude, str(units)


def _as_pair(value: Any) -> tuple[tuple[Any, str], tuple[Any, str]] | None:
    """Axis and values, if `value` is a pair of arrays of one length: how drivers hand out a spectrum."""
    if not (isinstance(value, tuple) and len(value) == 2):  # pyright: ignore[reportUnknownArgumentType]  # foreign
        return None
    first, second = (split_unit(part) for part in value)  # pyright: ignore[reportUnknownVariableType]  # foreign
    sizes = [np.shape(part) for part, _ in (first, second) if isinstance(part, _ARRAYS)]
    if len(sizes) == 2 and sizes[0] == sizes[1] and len(sizes[0]) == 1:
        return first, second
    return None


def _classify(value: Any) -> tuple[str, Any]:
    if isinstance(value, _NUMBERS):
        return "scalar", float(value)
    if isinstance(value, str | bytes):
        return "scalar", _number(value)
    if isinstance(value, (*_ARRAYS, np.generic)):
        return _classify_array(_array(value))
    raise ReplyFormatError(f"{_shown(value)} is no measurement: expected a number, an array or a quantity")


def _classify_array(array: npt.NDArray[Any]) -> tuple[str, Any]:
    if array.ndim == 0:
        return "scalar", float(array)
    if array.ndim == 1:
        return "vector", _floats(array)
    if array.ndim == 2:
        return "image", _pixels(array)
    raise ReplyFormatError(f"an array of shape {array.shape} is neither a number, a vector nor an image")


def _array(value: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ReplyFormatError(f"{_shown(value)} is not an array: {error}") from error
    if array.dtype.kind not in "buif":
        raise ReplyFormatError(f"{_shown(value)} has no plain numbers in it")
    return array


def _floats(value: Any) -> npt.NDArray[np.float64]:
    array = np.array(_array(value), dtype=np.float64)
    array.flags.writeable = False
    return array


def _pixels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    wanted = array.dtype if array.dtype in _PIXELS else np.dtype(np.uint8 if array.dtype.kind == "b" else np.float64)
    pixels = np.array(array, dtype=wanted, order="C")
    pixels.flags.writeable = False
    return pixels


def _number(text: str | bytes) -> float:
    try:
        return float(text)
    except ValueError:
        raw = text if isinstance(text, bytes) else text.encode(errors="replace")
        raise ReplyFormatError(f"{_shown(text)} is not a number", reply=raw) from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
