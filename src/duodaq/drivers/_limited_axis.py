"""An axis as people know it, whatever turns it: its name, its unit, and the limits that nothing is sent beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass

from duodaq.errors import OutOfRangeError
from duodaq.model import AxisDefinition

__all__ = ["LimitedAxis"]


@dataclass
class LimitedAxis:
    """One axis of a controller, by name; `doing` names the motion in hand."""

    definition: AxisDefinition
    doing: str = ""
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self.limits = self.definition.limits

    @property
    def number(self) -> int:
        """Its number at the controller."""
        return self.definition.number

    @property
    def unit(self) -> str:
        """The unit people use for it."""
        return self.definition.unit

    @property
    def velocity_unit(self) -> str:
        """The unit of its velocity setting."""
        return f"{self.unit}/s"

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
