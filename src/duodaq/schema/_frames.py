"""Frames as fixed-shape tensors: from numpy and back without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.errors import SchemaMismatchError
from duodaq.model import Image
from duodaq.schema._arrays import floats, numbers, structs
from duodaq.schema._columns import column_of, constant_column, names_of, sequence_column, time_column, times_of
from duodaq.schema._schemas import camera_frame, tensor
from duodaq.schema._stream import channel_of, described_schema, instrument_of, origin_of

_UNIT_KEY = b"duodaq.unit"


def tensor_column(pixels: npt.NDArray[Any]) -> Any:
    """Images of shape (n, height, width), or one of (height, width), as a tensor column.

    The column shares the array's memory if that is C-contiguous (else it is copied once): whoever hands it over does
    not write to it any more.
    """
    stack = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    if stack.ndim != 3:
        raise SchemaMismatchError(f"pixels have shape {pixels.shape}; (n, height, width) is needed")
    height, width = (int(n) for n in stack.shape[1:])
    flat = numbers(np.ascontiguousarray(stack).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(flat, height * width)
    return pa.ExtensionArray.from_storage(tensor((height, width), stack.dtype), storage)


def pixels_of(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    """The pixels of a batch, of shape (n, height, width): a read-only view of its memory."""
    return column_of(batch, "pixels").to_numpy_ndarray()


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
    column = tensor_column(pixels)
    count = len(column)
    height, width = (int(n) for n in pixels.shape[-2:])
    x, y, roi_width, roi_height = roi or (0, 0, width, height)
    schema = _with_unit(camera_frame((height, width), pixels.dtype), unit)
    columns = [
        time_column(_each(t_ns, count)),
        sequence_column(_each(sequence, count)),
        sequence_column(_each(frame_number, count)),
        constant_column(pixel_format or pixels.dtype.name, count),
        structs(schema.field("roi").type, **_times(count, x=x, y=y, width=roi_width, height=roi_height)),
        structs(schema.field("binning").type, **_times(count, x=binning[0], y=binning[1])),
        floats([exposure_s] * count),
        column,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=described_schema(schema, origin, instrument, channel))


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
