"""What kinds of instrument can do, whatever their make. Drivers and actors are written against these."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

import msgspec

from duodaq.model._measurement import Image


class PowerReading(msgspec.Struct, frozen=True):
    """A power at a detector: `value` in `unit`, at `t_ns` (UTC, when the reply's terminator arrived)."""

    value: float
    unit: str
    t_ns: int
    wavelength_nm: float | None = None


class PowerMeter(Protocol):
    async def read_power(self) -> PowerReading: ...

    async def read_wavelength_nm(self) -> float: ...

    async def set_wavelength_nm(self, wavelength_nm: float) -> float: ...


class LaserReading(msgspec.Struct, frozen=True):
    """What a laser emits, at `t_ns` (UTC): the `wavelength_nm` where it is, not where it was sent."""

    wavelength_nm: float
    power_w: float
    shutter_open: bool
    t_ns: int


class TunableLaser(Protocol):
    async def read_laser(self) -> LaserReading: ...

    async def read_wavelength_nm(self) -> float: ...

    async def set_wavelength_nm(self, wavelength_nm: float) -> float: ...

    async def read_power_w(self) -> float: ...

    async def read_shutter(self) -> bool: ...

    async def close_shutter(self) -> None: ...


class AxisState(StrEnum):
    """What an axis is doing."""

    IDLE = "idle"
    MOVING = "moving"
    HOMING = "homing"
    LIMIT_SWITCH = "limit switch"
    FAULTED = "faulted"


class AxisReading(msgspec.Struct, frozen=True):
    """Position in `unit`, velocity in `unit`/s and state of an axis, at `t_ns` (UTC, when the last reply was whole)."""

    axis: str
    position: float
    velocity: float
    state: AxisState
    unit: str
    t_ns: int


class MotionController(Protocol):
    async def move_absolute(self, axis: str, position: float) -> None: ...

    async def move_relative(self, axis: str, distance: float) -> None: ...

    async def home(self, axis: str) -> None: ...

    async def stop(self, axis: str | None = None) -> None: ...

    async def read_position(self, axis: str) -> float: ...


class CameraSensor(Protocol):
    async def start_stream(self, **options: Any) -> None: ...

    async def stop_stream(self) -> None: ...

    async def snap_frame(self, **options: Any) -> Image: ...

    async def read_capabilities(self) -> dict[str, Any]: ...


class ScpiEndpoint(Protocol):
    async def query(self, command: str, timeout_s: float | None = None) -> str: ...

    async def write(self, command: str) -> None: ...

    async def identify(self) -> str: ...
