from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt


class Scalar(msgspec.Struct, frozen=True, tag="scalar"):
    """One number from one channel.

    `t_ns` is UTC nanoseconds (clock.utc_ns) when the reply was complete; `sequence` counts the channel's measurements
    from 0 without a gap; `origin` is the runtime that produced it ("v2" or "v4"), so that a bridge never echoes it.
    """

    instrument: str
    channel: str
    unit: str
    t_ns: int
    sequence: int
    value: float
    origin: str = ""
    metadata: dict[str, Any] | None = None


class Vector(msgspec.Struct, frozen=True, tag="vector"):
    """A float64 array of shape (n,) from one channel, in `unit`."""

    instrument: str
    channel: str
    unit: str
    t_ns: int
    sequence: int
    values: npt.NDArray[np.float64]
    origin: str = ""
    metadata: dict[str, Any] | None = None


class Spectrum(msgspec.Struct, frozen=True, tag="spectrum"):
    """`values` in `unit` over `axis` in `axis_unit`, both float64 of shape (n,)."""

    instrument: str
    channel: str
    unit: str
    t_ns: int
    sequence: int
    values: npt.NDArray[np.float64]
    axis: npt.NDArray[np.float64]
    axis_unit: str
    origin: str = ""
    metadata: dict[str, Any] | None = None


class Image(msgspec.Struct, frozen=True, tag="image"):
    """Pixels of shape (height, width), uint8, uint16 or float64; never copied on its way between the runtimes."""

    instrument: str
    channel: str
    unit: str
    t_ns: int
    sequence: int
    pixels: npt.NDArray[Any]
    origin: str = ""
    metadata: dict[str, Any] | None = None


Measurement = Scalar | Vector | Spectrum | Image


class ChannelInfo(msgspec.Struct, frozen=True):
    """A channel that can be subscribed to: its kind is scalar, vector, spectrum or image."""

    instrument: str
    channel: str
    unit: str
    kind: str = "scalar"
    runtime: str = ""
