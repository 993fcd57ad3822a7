"""What is plugged into the oscilloscope, and how its converter sees that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duodaq.sim.table import Table

__all__ = ["CODES", "Channel", "Signals", "digitise"]

CODES = 256
"""Of the converter: 8 divisions. 0 means that nothing was taken there, so clipping ends at 1 and 255."""
_DIVISIONS = 8
_FREQUENCY_HZ = 1000.0
_NOISE_V = 2e-3


@dataclass
class Channel:
    """One input: volts per division, the voltage at mid-screen, and whether it is shown."""

    scale_v: float = 1.0
    offset_v: float = 0.0
    coupling: str = "DC"
    shown: bool = False
    probe: float = 1.0

    @property
    def volts_per_code(self) -> float:
        """One step of the converter."""
        return self.scale_v * _DIVISIONS / CODES

    @property
    def range_v(self) -> float:
        """The whole screen."""
        return self.scale_v * _DIVISIONS


class Signals:
    """Channel 1: a sine of 1 kHz and 1 V. 2: the table's photodiode. 3: the probe adjustment's square wave. 4: open."""

    def __init__(self, table: Table, seed: int) -> None:
        self._table = table
        self._noise = np.random.default_rng([seed, 8])

    def span(self, channel: int) -> tuple[float, float]:
        """Between which voltages it moves: what a trigger level can meet."""
        if channel == 2:
            volts = self._table.photodiode_v(64)
            return volts, volts
        return {1: (-0.5, 0.5), 3: (0.0, 2.5)}.get(channel, (0.0, 0.0))

    def period_s(self, channel: int) -> float:
        """After how long it looks the same; 0 if it does not move."""
        return 1 / _FREQUENCY_HZ if channel in (1, 3) else 0.0

    def volts(self, channel: int, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """What it does at these times, with noise."""
        phase = 2 * np.pi * _FREQUENCY_HZ * at_s
        if channel == 1:
            clean = 0.5 * np.sin(phase)
        elif channel == 2:
            clean = np.full(at_s.shape, self._table.photodiode_v(16))
        elif channel == 3:
            clean = np.where(np.sin(phase) >= 0, 2.5, 0.0)
        else:
            clean = np.zeros(at_s.shape)
        return clean + _NOISE_V * self._noise.standard_normal(at_s.shape)

    def crossing_s(self, channel: int, level_v: float, *, rising: bool) -> float:
        """When, within its first period, it crosses the level that way."""
        if channel == 3:
            return 0.0 if rising else 0.5 / _FREQUENCY_HZ
        angle = float(np.arcsin(np.clip(level_v / 0.5, -1.0, 1.0)))
        return (angle if rising else np.pi - angle) / (2 * np.pi * _FREQUENCY_HZ)


def digitise(volts: NDArray[np.float64], channel: Channel, *, wide: bool) -> NDArray[np.uint16]:
    """The codes of the converter; `wide`: of 16 bits, as averaging or the format WORD gives them."""
    middle, step = (CODES // 2, channel.volts_per_code) if not wide else (32768, channel.volts_per_code / 256)
    lowest, highest = (1, CODES - 1) if not wide else (256, 65280)
    if channel.coupling == "AC":
        volts = volts - volts.mean()
    codes = np.rint((volts - channel.offset_v) / step) + middle
    return np.clip(codes, lowest, highest).astype(np.uint16)
