"""The measuring half of a multimeter: function, range, integration, and the reading they make of the input."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._profile import DmmProfile, Function
from duodaq.sim.table import Table

__all__ = ["OVERLOAD", "Bench", "FunctionSettings", "Meter"]

OVERLOAD = 9.9e37
_OVERRANGE = 1.2
_REFERENCE_V = 10.0


@dataclass(slots=True)
class Bench:
    """What hangs on the terminals besides the photodiode: values for the functions that the table says nothing of."""

    values: dict[str, float] = field(
        default_factory=lambda: {
            "VOLT:AC": 2.0e-4,
            "CURR": 0.0,
            "CURR:AC": 0.0,
            "RES": OVERLOAD,
            "FRES": OVERLOAD,
            "FREQ": 0.0,
            "PER": 0.0,
            "CONT": OVERLOAD,
            "DIOD": OVERLOAD,
            "CAP": 1.2e-11,
            "TEMP": 21.5,
        }
    )


@dataclass(slots=True)
class FunctionSettings:
    """What one function remembers while another is in use."""

    range_value: float
    autorange: bool = True
    nplc: float = 10.0
    aperture_s: float = 0.1
    aperture_enabled: bool = False
    autozero: bool = True


class Meter:
    """Function, ranges and integration times of one multimeter, and readings from its input."""

    def __init__(self, profile: DmmProfile, table: Table, seed: int, bench: Bench | None = None) -> None:
        self.profile = profile
        self.bench = bench or Bench()
        self._table = table
        self._noise = np.random.default_rng([seed, 34])
        self._functions = {function.name: function for function in profile.functions}
        self.overloaded: int | None = None
        self.reset()

    def reset(self) -> None:
        """Settings as after ``*RST``."""
        self.function = self._functions["VOLT"]
        self.bandwidth_hz = 20
        self.high_impedance = False
        self.settings = {name: self._initial(function) for name, function in self._functions.items()}

    @property
    def setting(self) -> FunctionSettings:
        """The settings of the present function; DC ratio shares those of DC volts."""
        return self.settings["VOLT" if self.function.name == "VOLT:RAT" else self.function.name]

    def select(self, name: str) -> None:
        """Measure this function from now on."""
        self.function = self._functions[name]

    def set_range(self, function: Function, wanted: float) -> None:
        """The smallest range that holds `wanted`; autoranging ends."""
        setting = self.settings[function.name]
        setting.range_value = next(value for value in function.ranges if value >= wanted * (1 - 1e-9))
        setting.autorange = False

    def set_nplc(self, function: Function, wanted: float) -> None:
        """The shortest integration time not below `wanted`, in power-line cycles."""
        self.settings[function.name].nplc = self._at_least(wanted)

    def set_resolution(self, function: Function, wanted: float) -> None:
        """The shortest integration time that resolves `wanted`, in the unit of the function.

        Raises:
            ScpiFault: -221 while autoranging (the resolution of what range?).
        """
        setting = self.settings[function.name]
        if setting.autorange and len(function.ranges) > 1:
            raise ScpiFault(-221)
        fraction = wanted / setting.range_value * (1 + 1e-9)
        fits = [nplc for nplc, resolution in self.profile.nplc.items() if resolution <= fraction]
        setting.nplc = min(fits) if fits else max(self.profile.nplc)

    def resolution(self, function: Function) -> float:
        """What the present range and integration time resolve."""
        setting = self.settings[function.name]
        return setting.range_value * self.profile.nplc[setting.nplc]

    def sigma(self) -> float:
        """The rms noise that the meter itself adds in the present function, range and integration time."""
        setting = self.setting
        return setting.range_value * self.profile.noise[setting.nplc]

    def integration_s(self) -> float:
        """How long one reading takes by itself, without trigger delay."""
        function, setting = self.function, self.setting
        if function.aperture or (function.integrates and setting.aperture_enabled):
            return setting.aperture_s + self.profile.overhead_s
        if function.integrates or function.name == "VOLT:RAT":
            return setting.nplc / self.profile.line_hz + self.profile.overhead_s
        return 0.2 / self.profile.line_hz + self.profile.overhead_s

    def settling_s(self) -> float:
        """The automatic trigger delay: AC functions wait for their filter."""
        return self.profile.settling_s[self.bandwidth_hz] if self.function.name.endswith(":AC") else 0.0

    def read(self) -> float:
        """One reading now; ±9.9E37 on overload."""
        value = self._input()
        setting = self.setting
        if setting.autorange:
            setting.range_value = self._fitting_range(abs(value))
        if abs(value) > self._ceiling(setting.range_value):
            self.overloaded = self.function.overload_bit
            return OVERLOAD if value > 0 else -OVERLOAD
        self.overloaded = None
        if self.function.ranges and self.function.name not in ("FREQ", "PER"):
            value += self.sigma() * float(self._noise.standard_normal())
        return value / _REFERENCE_V if self.function.name == "VOLT:RAT" else value

    def _input(self) -> float:
        if self.function.name in ("VOLT", "VOLT:RAT"):
            return self._table.photodiode_v(samples=max(1, round(self.setting.nplc)))
        return self.bench.values[self.function.name]

    def _fitting_range(self, magnitude: float) -> float:
        ranges = self.function.ranges
        return next((value for value in ranges if magnitude <= self._ceiling(value)), ranges[-1])

    def _ceiling(self, range_value: float) -> float:
        ranges = self.function.ranges
        top = len(ranges) > 1 and range_value == ranges[-1] and self.function.unit in ("V", "A")
        return range_value if top else range_value * _OVERRANGE

    def _at_least(self, wanted: float) -> float:
        return next(nplc for nplc in self.profile.nplc if nplc >= wanted * (1 - 1e-9))

    def _initial(self, function: Function) -> FunctionSettings:
        return FunctionSettings(range_value=function.usual_range, autorange=len(function.ranges) > 1)
