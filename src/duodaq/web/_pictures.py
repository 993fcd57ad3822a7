"""A camera's frame as a browser shows it: 8 bit, at most so large, with its histogram, a line through it and its range.

The value 255 means saturated; everything else lies between 0 and 254. All of it is numpy on one frame, without waiting.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

LARGEST = 1024
"""A picture of more pixels across is thinned out: every second, every third …"""
_BINS = 256
_LINE_POINTS = 256
_SAMPLED = 65536
_LOWEST_PART, _HIGHEST_PART = 0.005, 0.9995


class View(NamedTuple):
    """What a browser wants of a stream of frames: range of counts (None: by the frame itself), part, and a line.

    `region` is x, y, width, height and `line` x0, y0, x1, y1, both in pixels of the frame.
    """

    low: float | None = None
    high: float | None = None
    region: tuple[int, int, int, int] | None = None
    line: tuple[float, float, float, float] | None = None


class Frame(NamedTuple):
    """A frame of shape (height, width) and what is known of it. `full` is the count of a saturated pixel."""

    stream: str
    pixels: npt.NDArray[Any]
    t_ns: int
    sequence: int
    number: int
    full: float
    facts: str = ""


def encoded(frame: Frame, view: View) -> bytes:
    """The frame as one Arrow IPC stream of one row."""
    x, y, part = _part(frame.pixels, view.region)
    step = max(1, -(-max(part.shape) // LARGEST))
    shown = part[::step, ::step]
    counts, darkest, brightest = _histogram(part)
    low, high = _range(part, view, frame.full)
    scaled = _scaled(shown, low, high, frame.full)
    saturated = int(np.count_nonzero(part >= frame.full))
    line = _along(frame.pixels, view.line)
    height, width = frame.pixels.shape
    columns: dict[str, Any] = {
        "t_ms": [frame.t_ns / 1e6],
        "sequence": [frame.sequence],
        "number": [frame.number],
        "frame_width": [width],
        "frame_height": [height],
        "x": [x],
        "y": [y],
        "step": [step],
        "width": [scaled.shape[1]],
        "height": [scaled.shape[0]],
        "low": [low],
        "high": [high],
        "full": [frame.full],
        "saturated": [saturated],
        "darkest": [darkest],
        "brightest": [brightest],
    }
    arrays = [pa.array(values, pa.float64()) for values in columns.values()]
    arrays += [
        pa.array([counts], pa.list_(pa.uint32())),
        pa.array([line], pa.list_(pa.float32())),
        _one(scaled),
    ]
    schema = pa.schema(
        [*(pa.field(name, pa.float64()) for name in columns), *_LISTS],
        metadata={b"kind": b"image", b"stream": frame.stream.encode(), b"facts": frame.facts.encode()},
    )
    return ipc_bytes(pa.RecordBatch.from_arrays(arrays, schema=schema))


def ipc_bytes(batch: pa.RecordBatch) -> bytes:
    """One batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _one(pixels: npt.NDArray[np.uint8]) -> Any:
    """All pixels as one binary value, without a copy."""
    whole = np.ascontiguousarray(pixels)
    ends = np.array([0, whole.size], np.int32)
    return pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(ends), pa.py_buffer(whole)])


_LISTS = [
    pa.field("histogram", pa.list_(pa.uint32())),
    pa.field("line", pa.list_(pa.float32())),
    pa.field("pixels", pa.binary()),
]


def _part(pixels: npt.NDArray[Any], region: tuple[int, int, int, int] | None) -> tuple[int, int, npt.NDArray[Any]]:
    height, width = pixels.shape
    if region is None:
        return 0, 0, pixels
    x, y = min(max(region[0], 0), width - 1), min(max(region[1], 0), height - 1)
    across, down = max(1, region[2]), max(1, region[3])
    return x, y, pixels[y : y + down, x : x + across]


def _histogram(part: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint32], float, float]:
    """How many pixels of a sample have which brightness, in equal steps from the darkest to the brightest."""
    stride = max(1, int((part.size / _SAMPLED) ** 0.5))
    sample = part[::stride, ::stride].reshape(-1)
    if part.dtype.kind == "u":
        darkest, brightest = int(sample.min()), int(sample.max())
        scaled = (sample.astype(np.int32) - darkest) * _BINS // (brightest - darkest + 1)
        return np.bincount(scaled, minlength=_BINS).astype(np.uint32), float(darkest), float(brightest)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return np.zeros(_BINS, np.uint32), 0.0, 1.0
    counts, edges = np.histogram(finite, bins=_BINS)
    return counts.astype(np.uint32), float(edges[0]), float(edges[-1])


def _range(part: npt.NDArray[Any], view: View, full: float) -> tuple[float, float]:
    low, high = view.low, view.high
    if low is None or high is None:
        stride = max(1, int((part.size / 16384) ** 0.5))
        sample = np.sort(part[::stride, ::stride], axis=None)
        found_low = float(sample[int(_LOWEST_PART * (sample.size - 1))])
        found_high = float(sample[int(_HIGHEST_PART * (sample.size - 1))])
        low = found_low if low is None else low
        high = found_high if high is None else high
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = 0.0, full or 1.0
    return low, high if high > low else low + 1.0


def _scaled(pixels: npt.NDArray[Any], low: float, high: float, full: float) -> npt.NDArray[np.uint8]:
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return _table(pixels.dtype.itemsize, low, high, full).take(pixels)
    scaled = np.clip((np.nan_to_num(pixels) - low) * (254.0 / (high - low)), 0, 254).astype(np.uint8)
    scaled[pixels >= full] = 255
    return scaled


@lru_cache(maxsize=16)
def _table(itemsize: int, low: float, high: float, full: float) -> npt.NDArray[np.uint8]:
    values = np.arange(1 << (8 * itemsize), dtype=np.float32)
    table = np.clip((values - low) * np.float32(254.0 / (high - low)), 0, 254).astype(np.uint8)
    table[int(full) :] = 255
    return table


def _along(pixels: npt.NDArray[Any], line: tuple[float, float, float, float] | None) -> npt.NDArray[np.float32]:
    """The counts at equal steps from one point to the other: the pixels there, as they are."""
    if line is None:
        return np.empty(0, np.float32)
    height, width = pixels.shape
    steps = np.linspace(0.0, 1.0, _LINE_POINTS)
    across = np.clip(line[0] + (line[2] - line[0]) * steps, 0, width - 1).astype(np.int64)
    down = np.clip(line[1] + (line[3] - line[1]) * steps, 0, height - 1).astype(np.int64)
    return pixels[down, across].astype(np.float32)
