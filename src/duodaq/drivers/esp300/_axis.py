"""What is known of one axis without asking: its definition, its unit, its limits, and what ails it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from duodaq.drivers._limited_axis import LimitedAxis
from duodaq.drivers.esp300._codec import EspError, unit_factor
from duodaq.errors import RefusedError
from duodaq.model import AxisState

__all__ = ["Axis"]

_LIMIT_KINDS = frozenset({4, 5, 6, 7})
_FAULT_KINDS = frozenset({0, 2, 3, 8, 9})


@dataclass
class Axis(LimitedAxis):
    """One axis of the controller, by name.

    `factor` turns the axis's unit into the controller's; `fault` is the last error
    the controller reported about it, until it is enabled, homed or moved with success.
    `began` is the number of stops there had been when the motion in hand began; `free` is set when there is none.
    """

    factor: float = 1.0
    fault: EspError | None = None
    began: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)

    def learn_unit(self, code: int) -> None:
        """Take the controller's unit, as SN reports it.

        Raises:
            ConfigError: The axis's unit is of another kind.
        """
        self.factor = unit_factor(code, self.unit)

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
