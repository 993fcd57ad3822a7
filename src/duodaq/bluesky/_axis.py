from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from duodaq.bluesky._promise import Axis, Instrument, Measured
from duodaq.bluesky._repeat import REPEATS, OnRepeat, is_lost_read, nobody
from duodaq.bluesky._status import FutureStatus, MoveStatus, after, chained, stop_under_way
from duodaq.clock import utc_ns
from duodaq.errors import DeliveryError, OutOfRangeError
from duodaq.units import number_in

_NOISE = 1e-3
"""Of an axis's travel."""


class _Movable(ABC):
    """What all that a plan moves has in common: no configuration of its own, and an end with the plan."""

    parent = None

    @abstractmethod
    def stop(self, *, success: bool = True) -> None:
        """Stop what is under way."""
        ...

    def read_configuration(self) -> dict[str, Any]:
        """Nothing: what it is configured with belongs to its instrument."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def stage(self) -> list[Any]:
        """Nothing has to be prepared."""
        return [self]

    def unstage(self) -> list[Any]:
        """Stop, if a plan left something under way."""
        self.stop()
        return [self]


class AxisDevice(_Movable):
    """An axis as Bluesky moves it; the field `name` is where it really is, `name_setpoint` where it was sent.

    Movable with progress, Readable, Locatable, Checkable, Stoppable and Stageable of `bluesky.protocols`.
    """

    def __init__(self, axis: Axis, on_repeat: OnRepeat = nobody) -> None:
        self.axis = axis
        self._on_repeat = on_repeat
        self.name = axis.name
        self._setpoint = float("nan")
        self._moving: MoveStatus | None = None
        self.hints = {"fields": [self.name]}

    @property
    def limits(self) -> tuple[float, float] | None:
        """Lowest and highest position, in its unit; None if it has none."""
        return self.axis.limits

    @property
    def position(self) -> float:
        """Where it is now, read from the device."""
        return float(self._read_position().value)

    def set(self, value: float) -> MoveStatus:
        """Begin to move there.

        Raises:
            OutOfRangeError: That is beyond its limits. Nothing moved.
            TypeError: It is no number, or in a unit of another kind. Nothing moved.
        """
        self.check_value(value)
        self._setpoint = target = number_in(self.axis.unit, value)
        move = after(self._moving, lambda: self.axis.move_soon(target))
        look = self.axis.read_position_soon
        self._moving = MoveStatus(move, name=self.name, unit=self.axis.unit, target=self._setpoint, look=look)
        return self._moving

    def check_value(self, value: float) -> None:
        """Whether it may be sent there.

        Raises:
            OutOfRangeError: That is beyond its limits.
            TypeError: It is no number, or in a unit of another kind.
        """
        value = number_in(self.axis.unit, value)
        if self.axis.limits is None:
            return
        low, high = self.axis.limits
        if not low <= value <= high:
            unit = self.axis.unit
            raise OutOfRangeError(
                f"{value:g} {unit} is outside the limits {low:g} … {high:g} {unit}",
                instrument=self.name,
                left="nothing moved",
            )

    def locate(self) -> dict[str, Any]:
        """Where it is, and where it is on its way to; an axis that stands was sent where it is.

        Relative plans begin at that setpoint: one that was stopped, or that somebody else has moved, is not where this
        device sent it last.
        """
        under_way = self._moving is not None and not self._moving.done
        here = self.position
        return {"setpoint": self._setpoint if under_way else self._within(here), "readback": here}

    def _within(self, here: float) -> float:
        """A position that is beyond a limit by no more than an encoder's noise is at the limit."""
        low, high = self.axis.limits or (here, here)
        nearest = min(max(here, low), high)
        return nearest if abs(here - nearest) <= _NOISE * (high - low) else here

    def stop(self, *, success: bool = True) -> None:
        """Stop, if it is on its way; the move counts as done then, and as failed unless it is a `success`."""
        stop_under_way(self._moving, self.axis.stop, success=success)

    def read(self) -> dict[str, dict[str, Any]]:
        """Where it is, read from the device, and where it was sent."""
        here = self._read_position()
        return {
            self.name: {"value": float(here.value), "timestamp": here.t_ns / 1e9},
            f"{self.name}_setpoint": {"value": self._setpoint, "timestamp": here.t_ns / 1e9},
        }

    def _read_position(self) -> Measured:
        for _ in range(REPEATS):
            try:
                return self.axis.read_position()
            except DeliveryError as error:
                if not is_lost_read(error):
                    raise
                self._on_repeat(self.name)
        return self.axis.read_position()

    def describe(self) -> dict[str, dict[str, Any]]:
        """Both fields: numbers in the axis's unit."""
        key: dict[str, Any] = {"source": f"duodaq:{self.name}", "dtype": "number", "shape": [], "units": self.axis.unit}
        return {self.name: key, f"{self.name}_setpoint": dict(key)}

    def __repr__(self) -> str:
        return f"<device {self.name}, {self.axis.unit}>"


class ParameterDevice(_Movable):
    """A parameter of an instrument as Bluesky sets and reads it: the voltage of a supply, a position of a driver.

    Args:
        instrument: Whose.
        parameter: Which; of a part of a driver with dots, such as ``y.position``.
        unit: Its unit, for the documents.
        then: Called after each setting; the parameter counts as set when it returns: ``y.wait_for_stop``.
    """

    def __init__(self, instrument: Instrument, parameter: str, *, unit: str = "", then: str | None = None) -> None:
        self.instrument = instrument
        self.parameter = parameter
        self.unit = unit
        self._then = then
        self.name = f"{instrument.id}_{parameter}".replace(".", "_")
        self._setting: FutureStatus | None = None
        self.hints = {"fields": [self.name]}

    @property
    def position(self) -> Any:
        """Its value, read from the device."""
        return self.instrument.get(self.parameter)

    def set(self, value: Any) -> FutureStatus:
        """Begin to set it."""
        setting, then = after(self._setting, lambda: self.instrument.set_soon(self.parameter, value)), self._then
        whole = setting if then is None else chained(setting, lambda: self.instrument.call_soon(then))
        self._setting = FutureStatus([whole])
        return self._setting

    def stop(self, *, success: bool = True) -> None:
        """Stop its instrument, if a setting is under way; it counts as done then, and as failed unless a `success`."""
        stop_under_way(self._setting, self.instrument.stop, success=success)

    def read(self) -> dict[str, dict[str, Any]]:
        """Its value, read from the device."""
        return {self.name: {"value": self.position, "timestamp": utc_ns() / 1e9}}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Its one field, as its value is now."""
        return {self.name: field_of(self.position, f"duodaq:{self.instrument.id}.{self.parameter}", self.unit)}

    def __repr__(self) -> str:
        return f"<device {self.name}>"


def field_of(value: Any, source: str, unit: str) -> dict[str, Any]:
    """What Bluesky calls the data key of a value."""
    shape = list(np.shape(value))
    if shape:
        kind = "array"
    elif isinstance(value, bool):
        kind = "boolean"
    elif isinstance(value, str):
        kind = "string"
    else:
        kind = "integer" if isinstance(value, int) else "number"
    return {"source": source, "dtype": kind, "shape": shape, "units": unit}
