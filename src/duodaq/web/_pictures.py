"""A camera's frame as a browser shows it: 8 bit, at most so large, with its histogram, a line through it and its range.

The value 255 means saturated; everything else lies between 0 and 254. All of it is numpy on one frame, without waiting.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.web._form import Form

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


def encoded(frame: Frame, view: View) -> bytes:
    """The frame as one Arrow IPC stream of one row."""
    x, y, part = _part(frame.pixels, view.region)
    step = max(1, -(-max(part.shape) // LARGEST))
    shown = part[::step, ::step]
    light = _light(part)
    low, high = _range(light, view, frame.full)
    scaled = _scaled(shown, low, high, frame.full)
    saturated = _saturated(part, frame.full)
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
        "darkest": [light.darkest],
        "brightest": [light.brightest],
    }
    arrays = [pa.array(values, pa.float64()) for values in columns.values()]
    arrays += [
        pa.array([light.histogram], pa.list_(pa.uint32())),
        pa.array([line], pa.list_(pa.float32())),
        _one(scaled),
    ]
    return _form(frame.stream, tuple(columns)).filled(arrays)


@lru_cache(maxsize=64)
def _form(stream: str, numbers: tuple[str, ...]) -> Form:
    return Form.of([*(pa.field(name, pa.float64()) for name in numbers), *_LISTS], kind="image", stream=stream)


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


class _Light(NamedTuple):
    """What a sample of a part's pixels says of its brightness; `lowest` to `highest` holds nearly all of it."""

    histogram: npt.NDArray[np.uint32]
    darkest: float
    brightest: float
    lowest: float
    highest: float


def _light(part: npt.NDArray[Any]) -> _Light:
    """How many pixels have which brightness, in equal steps from the darkest to the brightest."""
    stride = max(1, int((part.size / _SAMPLED) ** 0.5))
    sample = part[::stride, ::stride].reshape(-1)
    if part.dtype.kind == "u" and part.dtype.itemsize <= 2:
        return _counted(np.bincount(sample))
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return _Light(np.zeros(_BINS, np.uint32), 0.0, 1.0, 0.0, 1.0)
    counts, edges = np.histogram(finite, bins=_BINS)
    lowest, highest = (int(part * (finite.size - 1)) for part in (_LOWEST_PART, _HIGHEST_PART))
    found = np.partition(finite, (lowest, highest))
    return _Light(
        counts.astype(np.uint32), float(edges[0]), float(edges[-1]), float(found[lowest]), float(found[highest])
    )


def _counted(counts: npt.NDArray[np.intp]) -> _Light:
    """The same of pixels that are whole numbers, from how many there are of each: a few thousand instead of all."""
    there = np.flatnonzero(counts)
    darkest, brightest = int(there[0]), int(there[-1])
    bins = (there - darkest) * _BINS // (brightest - darkest + 1)
    histogram = np.bincount(bins, counts[there], _BINS).astype(np.uint32)
    so_far = np.cumsum(counts[there])
    places = np.searchsorted(so_far, [int(part * (so_far[-1] - 1)) + 1 for part in (_LOWEST_PART, _HIGHEST_PART)])
    lowest, highest = there[places]
    return _Light(histogram, float(darkest), float(brightest), float(lowest), float(highest))


def _range(light: _Light, view: View, full: float) -> tuple[float, float]:
    low = light.lowest if view.low is None else view.low
    high = light.highest if view.high is None else view.high
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = 0.0, full or 1.0
    return low, high if high > low else low + 1.0


def _saturated(part: npt.NDArray[Any], full: float) -> int:
    if part.dtype.kind != "u":
        return int(np.count_nonzero(part >= full))
    return int(np.count_nonzero(part >= part.dtype.type(full))) if full <= np.iinfo(part.dtype).max else 0


def _scaled(pixels: npt.NDArray[Any], low: float, high: float, full: float) -> npt.NDArray[np.uint8]:
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return _table(pixels.dtype.itemsize, low, high, full).take(pixels)
    with np.errstate(over="ignore"):  # one pixel may be infinite among others: it is as bright as can be
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
