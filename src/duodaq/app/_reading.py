from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from duodaq.model import Image, Measurement, Scalar, Spectrum, Vector
from duodaq.units import format_quantity


class Reading(msgspec.Struct, frozen=True):
    """One measurement as a person gets it: `value` in `unit` at `t_ns` (UTC nanoseconds).

    `value` is a float, or a NumPy array of shape (n,) or (height, width).
    """

    instrument: str
    channel: str
    value: Any
    unit: str
    t_ns: int
    sequence: int

    @property
    def time(self) -> datetime:
        """The moment of the measurement, in UTC, to the microsecond."""
        return datetime.fromtimestamp(self.t_ns / 1e9, UTC)

    def __float__(self) -> float:
        return float(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.value, dtype=dtype)

    def __repr__(self) -> str:
        moment = self.time.astimezone().isoformat(timespec="milliseconds")
        return f"<{self.instrument}.{self.channel} {self} at {moment}>"

    def __str__(self) -> str:
        if isinstance(self.value, float | int):
            return format_quantity(float(self.value), self.unit, 6)
        return f"array of shape {np.shape(self.value)} {self.unit}".rstrip()


def reading_of(measurement: Measurement) -> Reading:
    """`measurement` as a Reading; pixels are not copied."""
    m = measurement
    return Reading(m.instrument, m.channel, _value(m), m.unit, m.t_ns, m.sequence)


def _value(measurement: Measurement) -> Any:
    match measurement:
        case Scalar():
            return measurement.value
        case Vector() | Spectrum():
            return measurement.values
        case Image():
            return measurement.pixels
