"""One axis of the ESP300 with its stage: parameters, units, limits, and motion that follows from them.

Inside, lengths are millimetres (degrees on a rotary axis) in the frame of the stage; `origin` is where the user's zero
lies in it. The stage itself stands on the optical table, which knows its motion profile and keeps it when the
controller's power goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import inf, pi

from duodaq.sim.esp300 import _errors as err
from duodaq.sim.table import Profile, Table, crossing_s, jog, move_to, rest, stop

_LINEAR = {2: 1.0, 3: 1e3, 4: 1 / 25.4, 5: 1e3 / 25.4, 6: 1e6 / 25.4}
_ROTARY = {7: 1.0, 8: 10 / 9, 9: pi / 180, 10: pi / 0.18, 11: pi / 180e-6}


class Kind(Enum):
    """What an axis is doing."""

    IDLE = "idle"
    MOVE = "move"
    JOG = "jog"
    SEEK_LIMIT = "seek limit"
    HOME = "home"
    STOP = "stop"


@dataclass(frozen=True)
class Stage:
    """What is bolted to an axis: its name plate, its travel and where its home switch sits."""

    model: str
    serial: str
    rotary: bool
    hard_limits: tuple[float, float]
    soft_limits: tuple[float, float]
    resolution: float
    home: float = 0.0


STAGES = {
    1: Stage("TS50DC.5", "SN1263", False, (-26.0, 26.0), (-25.0, 25.0), 1e-4),
    2: Stage("TS50DC.5", "SN1264", False, (-26.0, 26.0), (-25.0, 25.0), 1e-4),
    3: Stage("URM80CC", "SN0417", True, (-175.0, 175.0), (-170.0, 170.0), 1e-3),
}


@dataclass
class Settings:
    """The settings of an axis that have a dimension of length; in the frame's unit, per second where it applies."""

    VA: float = 10.0
    AC: float = 40.0
    AG: float = 40.0
    AE: float = 160.0
    JK: float = 200.0
    VU: float = 40.0
    AU: float = 160.0
    VB: float = 0.0
    OH: float = 5.0
    OL: float = 1.0
    JH: float = 5.0
    JW: float = 1.0
    FE: float = 1.0
    SH: float = 0.0
    FR: float = 0.01
    SL: float = -inf
    SR: float = inf


_CEILINGS = {
    "VA": ("VU", err.MAX_VELOCITY),
    "OH": ("VU", err.MAX_VELOCITY),
    "JH": ("VU", err.MAX_VELOCITY),
    "JW": ("VU", err.MAX_VELOCITY),
    "AC": ("AU", err.MAX_ACCELERATION),
    "AG": ("AU", err.MAX_ACCELERATION),
}
_MAX_JERK = 1000.0


@dataclass
class _Leg:
    """One part of a longer journey: where to, how fast."""

    target: float
    speed: float


@dataclass
class Axis:
    """The state of one axis. Times are CLOCK_MONOTONIC seconds; `report` takes an error number xNN of this axis."""

    number: int
    stage: Stage
    table: Table
    report: Callable[[int, float], None]
    settings: Settings = field(default_factory=Settings)
    units: int = 2
    motor_on: bool = False
    kind: Kind = Kind.IDLE
    origin: float = 0.0
    profile: Profile = field(default_factory=lambda: rest(0.0))
    _legs: list[_Leg] = field(default_factory=lambda: list[_Leg]())
    _hits_at_s: float | None = None
    _hits_error: int = 0

    @classmethod
    def power_up(cls, number: int, table: Table, report: Callable[[int, float], None], now_s: float) -> Axis:
        """The axis as it is after power-up: motor off, at rest, zero where it happens to stand."""
        stage = STAGES[number]
        axis = cls(number, stage, table, report, units=7 if stage.rotary else 2)
        axis.origin = table.motion(number).at(now_s)[0]
        axis.settings.SL, axis.settings.SR = stage.soft_limits
        axis._follow(rest(axis.origin, now_s), Kind.IDLE)
        return axis

    @property
    def factor(self) -> float:
        """User units per millimetre (or degree)."""
        if self.units in (0, 1):
            return (1.0 if self.units == 0 else 0.1) / self.stage.resolution
        return (_ROTARY if self.stage.rotary else _LINEAR)[self.units]

    def set_units(self, code: int, now_s: float) -> None:
        """Choose the unit of everything from now on; what is set keeps its length."""
        if code in (0, 1) or code in (_ROTARY if self.stage.rotary else _LINEAR):
            self.units = code
        else:
            self.report(err.AXIS_PARAMETER, now_s)

    def moving(self, now_s: float) -> bool:
        """Whether it is under way; a home search is until its last leg has ended."""
        return self.kind is Kind.HOME or self.profile.moving(now_s)

    def position(self, now_s: float) -> float:
        """Encoder reading in user units."""
        steps = round((self.profile.at(now_s)[0] - self.origin) / self.stage.resolution)
        return steps * self.stage.resolution * self.factor

    def desired(self, now_s: float) -> float:
        """Where the trajectory wants it to be now, in user units."""
        return (self.profile.at(now_s)[0] - self.origin) * self.factor

    def velocity(self, now_s: float) -> float:
        """In user units per second."""
        return self.profile.at(now_s)[1] * self.factor

    def target(self) -> float:
        """Where the motion in hand ends, in user units."""
        last = self._legs[-1].target if self._legs else self.profile.target
        return (last - self.origin) * self.factor

    def set_length(self, word: str, value: float, now_s: float) -> None:
        """Change one of `Settings`, given in user units; refused with the axis' own error if out of range."""
        length = value / self.factor
        if word == "SU":
            self.report(err.CHANGE_NOT_ALLOWED, now_s)
        elif word == "JK" and length > _MAX_JERK:
            self.report(err.MAX_JERK, now_s)
        elif word not in ("SL", "SR", "SH") and length < 0:
            self.report(err.AXIS_PARAMETER, now_s)
        elif word in _CEILINGS and length > getattr(self.settings, _CEILINGS[word][0]) * (1 + 1e-9):
            self.report(_CEILINGS[word][1], now_s)
        elif word in ("VA", "AC", "AG", "AE") and length == 0:
            self.report(err.AXIS_PARAMETER, now_s)
        else:
            setattr(self.settings, word, length)

    def get_length(self, word: str) -> float:
        """One of `Settings` in user units."""
        return (self.stage.resolution if word == "SU" else getattr(self.settings, word)) * self.factor

    def go_to(self, value: float, now_s: float) -> bool:
        """Move to `value` in user units; whether it is under way (if not, the error is queued)."""
        target = value / self.factor
        if not self._may_move(now_s):
            return False
        if target > self.settings.SR + 1e-9:
            self.report(err.POSITIVE_SOFT_LIMIT, now_s)
            return False
        if target < self.settings.SL - 1e-9:
            self.report(err.NEGATIVE_SOFT_LIMIT, now_s)
            return False
        self._head_for(target + self.origin, self.settings.VA, now_s, Kind.MOVE)
        return True

    def go_by(self, value: float, now_s: float) -> bool:
        """Move by `value` from where the trajectory is heading."""
        return self.go_to(self.target() + value, now_s)

    def go_on(self, sign: int, now_s: float) -> bool:
        """Move until stopped; it comes to rest at the soft limit by itself, with that limit's error."""
        if not self._may_move(now_s):
            return False
        x, v = self.profile.at(now_s)
        settings = self.settings
        limit = self.origin + (settings.SR if sign > 0 else settings.SL)
        if (limit - x) * sign <= 0:
            self.report(err.POSITIVE_SOFT_LIMIT if sign > 0 else err.NEGATIVE_SOFT_LIMIT, now_s)
            return False
        profile = (
            jog(sign * settings.VA, x, v, now_s, settings.AC, settings.AG)
            if limit in (inf, -inf)
            else move_to(limit, x, v, now_s, settings.VA, settings.AC, settings.AG)
        )
        self._follow(profile, Kind.JOG)
        self._watch_hard_limits()
        if self._hits_at_s is None and profile.end_s < inf:
            self._hits_at_s = profile.end_s
            self._hits_error = err.POSITIVE_SOFT_LIMIT if sign > 0 else err.NEGATIVE_SOFT_LIMIT
        return True

    def go_to_hard_limit(self, sign: int, now_s: float) -> bool:
        """Move to the travel limit and rest there."""
        if not self._may_move(now_s):
            return False
        self._head_for(self.stage.hard_limits[sign > 0], self.settings.VA, now_s, Kind.SEEK_LIMIT)
        return True

    def home(self, mode: int, now_s: float) -> bool:
        """Search home; the position is the value of SH then."""
        if not self.motor_on:
            self.report(err.HOMING_ABORTED, now_s)
            return False
        if not self._may_move(now_s):
            return False
        fast, slow = self.settings.OH or 1.0, self.settings.OL or 0.5
        switch = self._home_of(mode)
        if mode == 0:
            self._legs = [_Leg(self.origin, fast)]
        else:
            away = switch + (0.5 if switch <= self.stage.home else -0.5)
            self._legs = [_Leg(switch, fast), _Leg(away, fast), _Leg(switch, slow)]
        self._next_leg(now_s)
        return True

    def stop(self, now_s: float, *, emergency: bool = False) -> None:
        """Come to rest with AG, or with AE in an emergency."""
        self.settle(now_s)
        if self.kind is Kind.HOME:
            self.report(err.HOMING_ABORTED, now_s)
        self._legs.clear()
        if self.moving(now_s):
            x, v = self.profile.at(now_s)
            self._follow(stop(x, v, now_s, self.settings.AE if emergency else self.settings.AG), Kind.STOP)
            self._watch_hard_limits()

    def switch_motor(self, on: bool, now_s: float) -> None:
        """Motor power; without it a moving axis comes to rest at once."""
        if not on and self.moving(now_s):
            self.stop(now_s, emergency=True)
        self.motor_on = on

    def define_position(self, value: float, now_s: float) -> None:
        """Call the present place `value`."""
        if self.moving(now_s):
            self.report(err.CHANGE_NOT_ALLOWED, now_s)
            return
        self.origin = self.profile.at(now_s)[0] - value / self.factor

    def settle(self, now_s: float) -> None:
        """Let everything happen that is due by `now_s`: legs of a home search, limits, the end of a motion."""
        while (due_s := self.due_at_s()) is not None and due_s <= now_s:
            if self._hits_at_s is not None and due_s == self._hits_at_s:
                self._hit(due_s)
            elif self._legs:
                self._next_leg(due_s)
            else:
                self._arrive(due_s)

    def due_at_s(self) -> float | None:
        """When `settle` has something to do next."""
        if self.kind is Kind.IDLE:
            return None
        end_s = self.profile.end_s
        due_s = end_s if self._hits_at_s is None else min(self._hits_at_s, end_s)
        return None if due_s == inf else due_s

    def at_limit(self, now_s: float) -> int:
        """+1 or -1 if a travel limit switch is pressed, else 0."""
        x = self.profile.at(now_s)[0]
        low, high = self.stage.hard_limits
        return 1 if x >= high - 1e-9 else -1 if x <= low + 1e-9 else 0

    def _may_move(self, now_s: float) -> bool:
        if not self.motor_on:
            self.report(err.MOTOR_NOT_ENABLED, now_s)
        elif self.kind is Kind.HOME:
            self.report(err.NOT_DURING_HOMING, now_s)
        else:
            return True
        return False

    def _home_of(self, mode: int) -> float:
        low, high = self.stage.hard_limits
        return {3: high, 5: high, 4: low, 6: low}.get(mode, self.stage.home)

    def _head_for(self, target: float, speed: float, now_s: float, kind: Kind) -> None:
        x, v = self.profile.at(now_s)
        self._follow(move_to(target, x, v, now_s, speed, self.settings.AC, self.settings.AG), kind)
        if kind is not Kind.HOME and kind is not Kind.SEEK_LIMIT:
            self._watch_hard_limits()

    def _next_leg(self, now_s: float) -> None:
        leg = self._legs.pop(0)
        self._head_for(leg.target, leg.speed, now_s, Kind.HOME)

    def _arrive(self, now_s: float) -> None:
        if self.kind is Kind.HOME:
            self.origin = self.profile.target - self.settings.SH
        self.kind = Kind.IDLE

    def _hit(self, now_s: float) -> None:
        self._hits_at_s = None
        self.report(self._hits_error, now_s)
        if self._hits_error in (err.POSITIVE_HARD_LIMIT, err.NEGATIVE_HARD_LIMIT):
            self._legs.clear()
            self._follow(rest(self.profile.at(now_s)[0], now_s), Kind.IDLE)
            self.motor_on = False

    def _watch_hard_limits(self) -> None:
        low, high = self.stage.hard_limits
        crossings = [
            (at_s, code)
            for limit, code in ((high, err.POSITIVE_HARD_LIMIT), (low, err.NEGATIVE_HARD_LIMIT))
            if (at_s := crossing_s(self.profile, limit)) is not None and not self._leaves(limit, at_s)
        ]
        if crossings:
            self._hits_at_s, self._hits_error = min(crossings)

    def _leaves(self, limit: float, at_s: float) -> bool:
        """Whether the profile only starts at this limit and moves away from it."""
        outward = 1 if limit > 0 else -1
        return self.profile.at(at_s + 1e-4)[0] * outward <= limit * outward + 1e-12

    def _follow(self, profile: Profile, kind: Kind) -> None:
        self._hits_at_s = None
        self.profile, self.kind = profile, kind
        self.table.set_motion(self.number, profile)
