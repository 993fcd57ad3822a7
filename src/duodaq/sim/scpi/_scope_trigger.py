"""When an oscilloscope takes a picture: running, single, or digitising, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from duodaq.sim.scpi._scope_signals import Signals

__all__ = ["Acquisition", "Mode", "Picture"]

_AUTO_S = 0.05
"""How long AUTO waits for a trigger before it goes without one."""


class Mode(StrEnum):
    """What it does."""

    RUN = "run"
    SINGLE = "single"
    STOP = "stop"


@dataclass(frozen=True)
class Picture:
    """One acquisition: the time within the signals at which it was triggered, and over how long, around where."""

    number: int
    trigger_s: float
    range_s: float
    position_s: float


class Acquisition:
    """The trigger and what it has caught. `advance` lets time pass."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._last_s = 0.0
        self.reset()

    def reset(self) -> None:
        """``*RST``: running, AUTO, on channel 1 at 0 V, 100 µs a division."""
        self.mode = Mode.RUN
        self.source, self.level_v, self.rising, self.sweep = 1, 0.0, True, "AUTO"
        self.range_s, self.position_s = 1e-3, 0.0
        self.picture: Picture | None = None
        self.triggered = False
        self.forced = False
        self._armed_s = self._last_s
        self._count = 0

    @property
    def busy(self) -> bool:
        """Whether a single acquisition is not complete."""
        return self.mode is Mode.SINGLE

    def begin(self, mode: Mode, now_s: float) -> None:
        """Run, wait for one, or stop."""
        self.mode, self._armed_s, self.forced = mode, now_s, False
        if mode is Mode.SINGLE:
            self.picture = None

    def advance(self, now_s: float, *, paced: bool) -> None:
        """Take the picture that is complete by now."""
        self._last_s = now_s
        done_s = self._done_s(paced=paced)
        if done_s is None or now_s < done_s:
            return
        self._count += 1
        self.triggered = self.triggered or self._meets()
        self.picture = Picture(self._count, self._triggered_at_s(), self.range_s, self.position_s)
        self._armed_s = now_s
        if self.mode is Mode.SINGLE:
            self.mode = Mode.STOP

    def next_s(self, *, paced: bool) -> float | None:
        """When a single acquisition will be complete; a running one is looked at when somebody asks."""
        return self._done_s(paced=paced) if self.mode is Mode.SINGLE else None

    def _done_s(self, *, paced: bool) -> float | None:
        if self.mode is Mode.STOP:
            return None
        takes_s = self.range_s if paced else 0.0
        if self._meets() or self.forced:
            return self._armed_s + takes_s
        if self.sweep == "AUTO":
            return self._armed_s + takes_s + (_AUTO_S if paced else 0.0)
        return None

    def _meets(self) -> bool:
        low, high = self._signals.span(self.source)
        return low < self.level_v < high

    def _triggered_at_s(self) -> float:
        if self._meets() and not self.forced:
            return self._signals.crossing_s(self.source, self.level_v, rising=self.rising)
        return (self._count * 0.137e-3) % 1e-3  # no trigger: the picture begins anywhere
