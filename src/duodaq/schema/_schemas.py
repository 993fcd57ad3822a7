"""The Arrow schemas of live data and recordings.

Every schema carries its name and version in its metadata (``duodaq.schema: scalar/1``). A field is never renamed or
given another meaning under the same version. Time is ``timestamp[ns]``: naive, and UTC by contract.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SCHEMA_KEY = b"duodaq.schema"
NAME = pa.dictionary(pa.int32(), pa.string())

_TIME = pa.field("timestamp", pa.timestamp("ns"), nullable=False)
_SEQUENCE = pa.field("sequence", pa.uint64(), nullable=False)
_INSTRUMENT = pa.field("instrument", NAME, nullable=False)
_CHANNEL = pa.field("channel", NAME, nullable=False)
_UNIT = pa.field("unit", NAME, nullable=False)
_METADATA = pa.field("metadata", pa.string())


def scalar() -> pa.Schema:
    """One number a row: timestamp, sequence, instrument, channel, value, unit."""
    return _named("scalar/1", (_TIME, _SEQUENCE, _INSTRUMENT, _CHANNEL, pa.field("value", pa.float64()), _UNIT))


def vector() -> pa.Schema:
    """One float64 array a row; `metadata` is JSON or null."""
    values = pa.field("values", pa.list_(pa.float64()), nullable=False)
    return _named("vector/1", (_TIME, _SEQUENCE, _INSTRUMENT, _CHANNEL, values, _UNIT, _METADATA))


def spectrum() -> pa.Schema:
    """One spectrum a row: `values` in `unit` over `axis` in `axis_unit`; `metadata` is JSON or null."""
    values = pa.field("values", pa.list_(pa.float64()), nullable=False)
    axis = pa.field("axis", pa.list_(pa.float64()), nullable=False)
    axis_unit = pa.field("axis_unit", NAME, nullable=False)
    fields = (_TIME, _SEQUENCE, _INSTRUMENT, _CHANNEL, values, _UNIT, axis, axis_unit, _METADATA)
    return _named("spectrum/1", fields)


def image(shape: tuple[int, int], dtype: npt.DTypeLike) -> pa.Schema:
    """One image of `shape` (height, width) a row; `metadata` is JSON or null."""
    pixels = pa.field("pixels", tensor(shape, dtype), nullable=False)
    return _named("image/1", (_TIME, _SEQUENCE, _INSTRUMENT, _CHANNEL, _UNIT, _METADATA, pixels))


def scpi_event() -> pa.Schema:
    """One SCPI command a row: what was sent, what came back, and whether the device was content."""
    return _named(
        "scpi_event/1",
        (
            _TIME,
            _SEQUENCE,
            pa.field("command", pa.string(), nullable=False),
            pa.field("response", pa.string()),
            pa.field("success", pa.bool_(), nullable=False),
            pa.field("error", pa.string()),
        ),
    )


def stage() -> pa.Schema:
    """One look at one axis a row; `velocity` is in `unit` per second, null where it is not known."""
    return _named(
        "stage/1",
        (
            _TIME,
            _SEQUENCE,
            pa.field("axis", NAME, nullable=False),
            pa.field("position", pa.float64(), nullable=False),
            pa.field("velocity", pa.float64()),
            pa.field("state", NAME, nullable=False),
            _UNIT,
        ),
    )


def camera_frame(shape: tuple[int, int], dtype: npt.DTypeLike) -> pa.Schema:
    """One camera frame of `shape` (height, width) a row; `frame_number` is the camera's own."""
    size = [pa.field(name, pa.int32(), nullable=False) for name in ("x", "y", "width", "height")]
    return _named(
        "camera_frame/1",
        (
            _TIME,
            _SEQUENCE,
            pa.field("frame_number", pa.uint64(), nullable=False),
            pa.field("pixel_format", NAME, nullable=False),
            pa.field("roi", pa.struct(size), nullable=False),
            pa.field("binning", pa.struct(size[:2]), nullable=False),
            pa.field("exposure_s", pa.float64()),
            pa.field("pixels", tensor(shape, dtype), nullable=False),
        ),
    )


@lru_cache(maxsize=256)
def _tensor(shape: tuple[int, ...], dtype: str) -> pa.FixedShapeTensorType:
    return pa.fixed_shape_tensor(pa.from_numpy_dtype(np.dtype(dtype)), shape)


def tensor(shape: tuple[int, ...], dtype: npt.DTypeLike) -> pa.FixedShapeTensorType:
    """The fixed-shape tensor type of one image."""
    return _tensor(tuple(int(n) for n in shape), np.dtype(dtype).str)


def _named(name: str, fields: tuple[pa.Field, ...]) -> pa.Schema:
    return pa.schema(fields, metadata={SCHEMA_KEY: name.encode()})
