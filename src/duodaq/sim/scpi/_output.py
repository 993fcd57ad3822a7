"""One output of a power supply: what is set, what hangs on it, what comes out, and what switches it off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from duodaq.sim.scpi._supply_profile import OutputProfile

__all__ = ["Mode", "Output"]

_OVP_MARGIN = 1.1


class Mode(StrEnum):
    """What it regulates."""

    OFF = "off"
    VOLTAGE = "CV"
    CURRENT = "CC"


@dataclass
class Output:
    """An output and the resistor on it, `load_ohm`."""

    profile: OutputProfile
    volts: float = 0.0
    amperes: float = 0.0
    on: bool = False
    ovp_volts: float = 0.0
    ovp_on: bool = True
    ocp_on: bool = False
    tripped: str = ""
    load_ohm: float = 0.0

    def __post_init__(self) -> None:
        self.load_ohm = self.profile.load_ohm
        self.reset()

    @property
    def most_volts(self) -> float:
        """The size of the highest voltage."""
        return abs(self.profile.volts)

    @property
    def sign(self) -> int:
        """-1 for a negative output."""
        return -1 if self.profile.volts < 0 else 1

    def reset(self) -> None:
        """``*RST``: off, 0 V, the highest current."""
        self.volts, self.amperes, self.on = 0.0, self.profile.amperes, False
        self.ovp_volts, self.ovp_on, self.ocp_on, self.tripped = self.most_volts * _OVP_MARGIN, True, False, ""

    def mode(self) -> Mode:
        """What it regulates now."""
        if not self.on:
            return Mode.OFF
        return Mode.CURRENT if abs(self.volts) > self.amperes * self.load_ohm else Mode.VOLTAGE

    def actual(self) -> tuple[float, float]:
        """Volts and amperes at its terminals."""
        match self.mode():
            case Mode.OFF:
                return 0.0, 0.0
            case Mode.VOLTAGE:
                return self.volts, self.volts / self.load_ohm
            case Mode.CURRENT:
                return self.sign * self.amperes * self.load_ohm, self.sign * self.amperes

    def protect(self) -> None:
        """Look at what comes out, and switch off if that is too much."""
        if not self.on:
            return
        if self.ovp_on and abs(self.actual()[0]) > self.ovp_volts:
            self.tripped, self.on = "OVP", False
        elif self.ocp_on and self.mode() is Mode.CURRENT:
            self.tripped, self.on = "OCP", False
