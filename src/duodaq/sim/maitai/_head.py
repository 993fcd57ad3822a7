"""What happens inside the laser head: it warms up, ramps, tunes, and its shutter moves, all as functions of time."""

from __future__ import annotations

from math import copysign, exp
from typing import NamedTuple

_TUNING_NM_PER_S = 50.0
_FULL_W = 3.0
_BEST_NM = 800.0
_WIDTH_NM = 130.0


class Pace(NamedTuple):
    """How long things take, in seconds."""

    warm_up_s: float
    ramp_s: float
    shutter_s: float
    """For how long SHUT? still tells how the shutter stood before."""


REAL = Pace(warm_up_s=120.0, ramp_s=8.0, shutter_s=1.0)
"""Warm-up and shutter: user's manual, chapter 6; the ramp is of the right size, not measured."""
QUICK = Pace(warm_up_s=0.8, ramp_s=0.3, shutter_s=0.15)


class Head:
    """The optics and the pump. `limits_nm` is how far it tunes. Cold, off and closed until told otherwise."""

    def __init__(self, pace: Pace, limits_nm: tuple[float, float], now_s: float, *, warm: bool) -> None:
        self.limits_nm = limits_nm
        self.pump = 1.0
        self.on = False
        self.shutter_open = False
        self._pace = pace
        self._warm_from_s = now_s - pace.warm_up_s if warm else None
        self._on_from_s = now_s
        self._shutter_at_s = now_s - 60.0
        self._tuned_at_s = now_s
        self._start_nm = self.target_nm = min(max(_BEST_NM, limits_nm[0]), limits_nm[1])

    def percent_warm(self, now_s: float) -> int:
        """How warm it is, 0 to 100; 0 until a warm-up has begun."""
        if self._warm_from_s is None:
            return 0
        return min(100, max(1, int(100 * (now_s - self._warm_from_s) / max(self._pace.warm_up_s, 1e-9))))

    def switch_on(self, now_s: float) -> bool:
        """Begin to warm up, or, when warm, to emit; False while it warms up."""
        percent = self.percent_warm(now_s)
        if percent == 0:
            self._warm_from_s = now_s
        elif percent < 100:
            return False
        elif not self.on:
            self.on, self._on_from_s = True, now_s
        return True

    def switch_off(self) -> None:
        """Stop pumping; it stays warm, and the shutter as it is."""
        self.on = False

    def set_shutter(self, is_open: bool, now_s: float) -> None:
        """Move the shutter: at once; only what it reports is late."""
        if is_open != self.shutter_open:
            self.shutter_open, self._shutter_at_s = is_open, now_s

    def reported_shutter(self, now_s: float) -> bool:
        """What SHUT? says: how it stood before, for a while after a change."""
        settled = now_s >= self._shutter_at_s + self._pace.shutter_s
        return self.shutter_open if settled else not self.shutter_open

    def tune(self, target_nm: float, now_s: float) -> None:
        """Go to another wavelength, at a finite speed."""
        self._start_nm, self._tuned_at_s, self.target_nm = self.wavelength_nm(now_s), now_s, target_nm

    def wavelength_nm(self, now_s: float) -> float:
        """Where it is on its way."""
        way_nm = self.target_nm - self._start_nm
        done_nm = max(0.0, now_s - self._tuned_at_s) * _TUNING_NM_PER_S
        return self.target_nm if done_nm >= abs(way_nm) else self._start_nm + copysign(done_nm, way_nm)

    def fraction(self, now_s: float) -> float:
        """The light it makes, as a fraction of the most it can."""
        if not self.on:
            return 0.0
        ramp = min(1.0, (now_s - self._on_from_s) / max(self._pace.ramp_s, 1e-9))
        gain = exp(-(((self.wavelength_nm(now_s) - _BEST_NM) / _WIDTH_NM) ** 2))
        return max(0.0, ramp) * self.pump * gain

    def power_w(self, now_s: float) -> float:
        """The light it makes, in W."""
        return _FULL_W * self.fraction(now_s)

    def locked(self, now_s: float) -> bool:
        """Whether it is mode-locked: on, ramped up and not tuning."""
        return self.on and self.fraction(now_s) > 0.1 and self.wavelength_nm(now_s) == self.target_nm

    def changing(self, now_s: float) -> bool:
        """Whether what it emits changes by itself."""
        ramping = self.on and now_s < self._on_from_s + self._pace.ramp_s
        return ramping or self.wavelength_nm(now_s) != self.target_nm
