"""Frames as fixed-shape tensors: from numpy and back without a copy."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.errors import SchemaMismatchError
from duodaq.model import Image
from duodaq.schema._arrays import floats, structs
from duodaq.schema._columns import column_of, constant_column, names_of, sequence_column, time_column, times_of
from duodaq.schema._schemas import camera_frame, tensor
from duodaq.schema._stream import channel_of, instrument_of, origin_of, schema_name, stream_id, with_origin

_UNIT_KEY = b"duodaq.unit"
_HEAD = struct.Struct("=qQQ")
_TIME, _NUMBER = pa.timestamp("ns"), pa.uint64()
_SMALL_BYTES = 32 * 2**10
_OF_PIXELS = frozenset({"camera_frame/1", "image/1"})


def tensor_column(pixels: npt.NDArray[Any]) -> Any:
    """Images of shape (n, height, width), or one of (height, width), as a tensor column.

    The column shares the array's memory if that is C-contiguous (else it is copied once): whoever hands it over does
    not write to it any more.
    """
    _, height, width = _size_of(pixels.shape)
    return _tensors(pixels, tensor((height, width), pixels.dtype), pa.from_numpy_dtype(pixels.dtype))


def _size_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) not in (2, 3):
        raise SchemaMismatchError(f"pixels have shape {shape}; (n, height, width) is needed")
    count, height, width = shape if len(shape) == 3 else (1, *shape)
    return count, height, width


def _tensors(pixels: npt.NDArray[Any], kind: Any, number: Any) -> Any:
    whole = pixels if pixels.flags.c_contiguous else np.ascontiguousarray(pixels)
    if whole.dtype.kind == "b":  # a byte for each in numpy, a bit in Arrow
        flat: Any = pa.array(whole.reshape(-1))
    else:
        flat = pa.Array.from_buffers(number, whole.size, [None, pa.py_buffer(whole)])
    storage = pa.FixedSizeListArray.from_arrays(flat, math.prod(whole.shape[-2:]))
    return pa.ExtensionArray.from_storage(kind, storage)


def pixels_of(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    """The pixels of a batch, of shape (n, height, width): a read-only view of its memory, but of booleans a copy."""
    column = column_of(batch, "pixels")
    if pa.types.is_boolean(column.type.value_type):
        return column.storage.flatten().to_numpy(zero_copy_only=False).reshape(-1, *column.type.shape)
    return column.to_numpy_ndarray()


def has_pixels(batch: pa.RecordBatch) -> bool:
    """Whether a batch says of itself that its rows are pictures."""
    return schema_name(batch.schema) in _OF_PIXELS


def bytes_of(batch: pa.RecordBatch) -> int:
    """The bytes of memory that a batch keeps; of pictures those of their pixels, which are nearly all.

    Of a small batch it is all of its buffers, also where it is a slice of them: `nbytes`, which knows what part of
    each is meant, takes ten times as long.
    """
    if has_pixels(batch):
        schema = batch.schema
        i = schema.get_field_index("pixels")
        kind = schema.field(i).type if i >= 0 else None
        if isinstance(kind, pa.FixedShapeTensorType):
            return batch.num_rows * kind.storage_type.list_size * kind.value_type.bit_width // 8
    whole = batch.get_total_buffer_size()
    return whole if whole <= _SMALL_BYTES else batch.nbytes


def frame_batch(
    pixels: npt.NDArray[Any],
    *,
    instrument: str,
    channel: str,
    t_ns: int | Sequence[int],
    sequence: int | Sequence[int],
    frame_number: int | Sequence[int],
    pixel_format: str = "",
    roi: tuple[int, int, int, int] | None = None,
    binning: tuple[int, int] = (1, 1),
    exposure_s: float | None = None,
    unit: str = "counts",
    origin: str = "v4",
) -> pa.RecordBatch:
    """Camera frames as one batch that shares the memory of `pixels`.

    Args:
        pixels: Shape (n, height, width), or (height, width) for one frame; not written to any more.
        instrument: The camera.
        channel: Its channel; the stream is ``<instrument>.<channel>``.
        t_ns: UTC nanoseconds, of each frame.
        sequence: The stream's sequence number, of each frame.
        frame_number: The camera's own number, of each frame.
        pixel_format: As the camera calls it; the dtype's name if empty.
        roi: x, y, width, height in sensor pixels; the whole picture if not given.
        binning: Sensor pixels per pixel, in x and y.
        exposure_s: Exposure time in seconds.
        unit: What a pixel's value counts.
        origin: The runtime that produced the frames.
    """
    form = _form(
        pixels.shape,
        pixels.dtype,
        (instrument, channel, unit, origin),
        (pixel_format, roi and (*roi,), (*binning,), exposure_s),
    )
    columns = [
        *_heads(form.frames, t_ns, sequence, frame_number),
        *form.settings,
        _tensors(pixels, form.pixels, form.number),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=form.schema)


class _Form(NamedTuple):
    """What stays the same from frame to frame."""

    frames: int
    schema: pa.Schema
    settings: tuple[Any, ...]
    pixels: Any
    number: Any


@lru_cache(maxsize=64)
def _form(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    stream: tuple[str, str, str, str],
    settings: tuple[str, tuple[int, ...] | None, tuple[int, ...], float | None],
) -> _Form:
    """Remembered, because making it takes ten times as long as the rest of a batch."""
    count, height, width = _size_of(shape)
    instrument, channel, unit, origin = stream
    pixel_format, roi, (across, down), exposure_s = settings
    x, y, roi_width, roi_height = roi or (0, 0, width, height)
    schema = _with_unit(camera_frame((height, width), dtype), unit)
    columns = (
        constant_column(pixel_format or dtype.name, count),
        structs(schema.field("roi").type, **_times(count, x=x, y=y, width=roi_width, height=roi_height)),
        structs(schema.field("binning").type, **_times(count, x=across, y=down)),
        floats([exposure_s] * count),
    )
    described = with_origin(schema, origin, instrument, stream_id(instrument, channel))
    return _Form(count, described, columns, schema.field("pixels").type, pa.from_numpy_dtype(dtype))


def _heads(
    count: int, t_ns: int | Sequence[int], sequence: int | Sequence[int], frame_number: int | Sequence[int]
) -> tuple[Any, Any, Any]:
    if count == 1 and type(t_ns) is type(sequence) is type(frame_number) is int:
        with contextlib.suppress(struct.error):  # out of range: numpy says it better
            three = pa.py_buffer(_HEAD.pack(t_ns, sequence, frame_number))
            return _head(_TIME, three, 0), _head(_NUMBER, three, 1), _head(_NUMBER, three, 2)
    return (
        time_column(_each(t_ns, count)),
        sequence_column(_each(sequence, count)),
        sequence_column(_each(frame_number, count)),
    )


def _head(kind: Any, three: Any, place: int) -> Any:
    return pa.Array.from_buffers(kind, 1, [None, three], offset=place)


def frames_of(batch: pa.RecordBatch) -> list[Image]:
    """Camera frames as images whose pixels share the batch's memory, read-only; the rest of each row is metadata."""
    pixels = pixels_of(batch)
    instrument, channel, origin = instrument_of(batch), channel_of(batch), origin_of(batch)
    unit = (batch.schema.metadata or {}).get(_UNIT_KEY, b"counts").decode()
    facts = zip(
        column_of(batch, "frame_number").to_pylist(),
        names_of(batch, "pixel_format"),
        column_of(batch, "roi").to_pylist(),
        column_of(batch, "binning").to_pylist(),
        column_of(batch, "exposure_s").to_pylist(),
        strict=True,
    )
    heads = zip(times_of(batch), column_of(batch, "sequence").to_pylist(), facts, strict=True)
    return [
        Image(instrument, channel, unit, t_ns, number, pixels[i], origin, dict(zip(_FACTS, frame, strict=True)))
        for i, (t_ns, number, frame) in enumerate(heads)
    ]


_FACTS = ("frame_number", "pixel_format", "roi", "binning", "exposure_s")


def _with_unit(schema: pa.Schema, unit: str) -> pa.Schema:
    return schema.with_metadata({**(schema.metadata or {}), _UNIT_KEY: unit.encode()})


def _times(count: int, **values: int) -> dict[str, npt.NDArray[np.int64]]:
    return {name: np.full(count, value, np.int64) for name, value in values.items()}


def _each(value: int | Sequence[int], count: int) -> Sequence[int]:
    values = [value] * count if isinstance(value, int | np.integer) else value
    if len(values) != count:
        raise SchemaMismatchError(f"{count} frames need {count} numbers, not {len(values)}")
    return values
