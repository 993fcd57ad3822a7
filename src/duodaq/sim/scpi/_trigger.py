"""The trigger system: idle, waiting for a trigger, measuring; and the memory that readings go to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from duodaq.sim.scpi._fault import ScpiFault

__all__ = ["Phase", "TriggerSystem"]

_BURST = 2000
"""Readings taken in one call at most, so that an endless unpaced acquisition does not hold the server."""
_UNPACED_S = 1e-6
_WATCH_S = 1e-3
"""How often an unpaced instrument looks whether its input has passed the level."""


class Phase(Enum):
    """Where the trigger system stands."""

    IDLE = auto()
    WAITING = auto()
    MEASURING = auto()


class TriggerSystem:
    """Arms, waits, takes the samples of each trigger at their times, stores them or hands them on.

    Waiting for the input to pass `level` it samples too, and keeps the last `pretrigger` of these as the first of that
    trigger.
    """

    def __init__(self, memory: int, *, overwrites: bool) -> None:
        self.memory: deque[float] = deque(maxlen=memory)
        self._capacity = memory
        self._overwrites = overwrites
        self.phase = Phase.IDLE
        self.lost = 0
        self.reset()

    def reset(self) -> None:
        """Settings as after ``*RST``; stored readings go."""
        self.preset()
        self.phase = Phase.IDLE
        self.memory.clear()
        self.last: float | None = None
        self._sink: Callable[[float], None] | None = None

    def preset(self) -> None:
        """Settings as ``CONFigure`` and ``MEASure`` leave them: one sample, at once."""
        self.source = "IMM"
        self.trigger_count: float = 1
        self.sample_count = 1
        self.delay_s = 0.0
        self.delay_auto = True
        self.sample_source = "IMM"
        self.timer_s = 1.0
        self.level = 0.0
        self.rising = False
        self.pretrigger = 0
        self._before: deque[float] = deque()

    def start(self, now_s: float, period_s: float, delay_s: float, sink: Callable[[float], None] | None = None) -> None:
        """Leave idle. Readings go to `sink`, or to memory, which is emptied first; a memory that overwrites gets both.

        Raises:
            ScpiFault: -213 if not idle, +531 if memory cannot hold what was asked for.
        """
        if self.phase is not Phase.IDLE:
            raise ScpiFault(-213)
        if sink is None and not self._overwrites and self.trigger_count * self.sample_count > self._capacity:
            raise ScpiFault(531)
        self.memory.clear()
        self._sink = sink
        self._period_s = max(period_s + delay_s, _UNPACED_S)
        if self.sample_source == "TIM":
            self._period_s = max(self._period_s, self.timer_s)
        self._first_s = max(period_s + delay_s, _UNPACED_S)
        self._triggers_left = self.trigger_count
        self._arm(now_s)

    def trigger(self, now_s: float, source: str) -> None:
        """A trigger from `source` came.

        Raises:
            ScpiFault: -211 if nobody waits for one from there.
        """
        if self.phase is not Phase.WAITING or self.source != source:
            raise ScpiFault(-211)
        self._fire(now_s)

    def abort(self) -> None:
        """Back to idle; what was stored stays."""
        self.phase = Phase.IDLE
        self._sink = None

    def advance(self, now_s: float, take: Callable[[], float]) -> None:
        """Take every sample that is due by `now_s`, at most a burst of them."""
        for _ in range(_BURST):
            if not self._samples or self._next_s > now_s:
                return
            value = take()
            if self.phase is Phase.WAITING and not self._passed(value):
                self._next_s += max(self._period_s, _WATCH_S)
                continue
            self._keep(value)
            self._samples_left -= 1
            if self._samples_left:
                self._next_s += self._period_s
            else:
                self._end_trigger(self._next_s)

    def next_event_s(self) -> float | None:
        """When the next sample is complete."""
        return self._next_s if self._samples else None

    @property
    def _samples(self) -> bool:
        return self.phase is Phase.MEASURING or (self.phase is Phase.WAITING and self.source == "INT")

    def _passed(self, value: float) -> bool:
        """Whether the input passes the level with this sample: then those before it are the first of the trigger."""
        last = self._before[-1] if self._before else value
        passed = last < self.level <= value if self.rising else last > self.level >= value
        if not passed:
            self._before.append(value)
            return False
        self.phase = Phase.MEASURING
        kept = min(self.pretrigger, self.sample_count - 1, len(self._before))
        self._samples_left = self.sample_count - kept
        for earlier in list(self._before)[len(self._before) - kept :]:
            self._keep(earlier)
        return True

    def _arm(self, now_s: float) -> None:
        self.phase = Phase.WAITING
        if self.source == "IMM":
            self._fire(now_s)
        elif self.source == "INT":
            self._before = deque(maxlen=max(1, min(self.pretrigger, self.sample_count - 1)))
            self._next_s = now_s + self._first_s

    def _fire(self, now_s: float) -> None:
        self.phase = Phase.MEASURING
        self._samples_left = self.sample_count
        self._next_s = now_s + self._first_s

    def _end_trigger(self, now_s: float) -> None:
        self._triggers_left -= 1
        if self._triggers_left > 0:
            self._arm(now_s)
        else:
            self.phase = Phase.IDLE

    def _keep(self, value: float) -> None:
        self.last = value
        if self._sink is not None:
            self._sink(value)
            if not self._overwrites:
                return
        self.lost += len(self.memory) == self._capacity
        self.memory.append(value)
