"""What is known of one axis without asking: its definition, its unit, its limits, and what ails it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from duodaq.drivers.esp300._codec import EspError, unit_factor
from duodaq.errors import OutOfRangeError, RefusedError
from duodaq.model import AxisDefinition

__all__ = ["Axis", "AxisReading", "AxisState"]

_LIMIT_KINDS = frozenset({4, 5, 6, 7})
_FAULT_KINDS = frozenset({0, 2, 3, 8, 9})


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


@dataclass
class Axis:
    """One axis of the controller, by name.

    `factor` turns the axis's unit into the controller's; `doing` names the motion in hand; `fault` is the last error
    the controller reported about it, until it is enabled, homed or moved with success.
    """

    definition: AxisDefinition
    factor: float = 1.0
    doing: str = ""
    fault: EspError | None = None
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self.limits = self.definition.limits

    @property
    def number(self) -> int:
        """Its number at the controller, 1 to 3."""
        return self.definition.number

    @property
    def unit(self) -> str:
        """The unit people use for it."""
        return self.definition.unit

    def learn_unit(self, code: int) -> None:
        """Take the controller's unit, as SN reports it.

        Raises:
            ConfigError: The axis's unit is of another kind.
        """
        self.factor = unit_factor(code, self.unit)

    def check(self, target: float) -> None:
        """Refuse a target outside the limits, or one that is no number.

        Raises:
            OutOfRangeError: Nothing was sent.
        """
        low, high = self.limits or (-math.inf, math.inf)
        if not (math.isfinite(target) and low <= target <= high):
            raise OutOfRangeError(
                f"axis {self.definition.name}: {target:g} {self.unit} is outside {low:g} to {high:g} {self.unit}",
                left="nothing was sent",
            )

    def narrow(self, limits: tuple[float, float]) -> None:
        """Set limits within those of the lab file, which nobody but the lab file widens.

        Raises:
            OutOfRangeError: They reach beyond, or are the wrong way round; the old ones stay.
        """
        low, high = self.definition.limits or (-math.inf, math.inf)
        if not low <= limits[0] < limits[1] <= high:
            raise OutOfRangeError(f"limits {limits} are not within {low:g} to {high:g} {self.unit} of the lab file")
        self.limits = limits

    def state(self, moving: bool) -> AxisState:
        """The state that follows from MD and from what was reported before."""
        if moving:
            return AxisState.HOMING if self.doing == "home" else AxisState.MOVING
        if self.fault is None:
            return AxisState.IDLE
        return AxisState.LIMIT_SWITCH if self.fault.kind in _LIMIT_KINDS else AxisState.FAULTED

    def blame(self, error: EspError) -> RefusedError:
        """Keep what ails the axis and say it."""
        if error.kind in _LIMIT_KINDS | _FAULT_KINDS and error.axis == self.number:
            self.fault = error
        return RefusedError(
            f"axis {self.definition.name}: the controller refused with error {error.code}: {error.text}",
            code=error.code,
            text=error.text,
        )
