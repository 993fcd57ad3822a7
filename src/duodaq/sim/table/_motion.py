"""Motion as pieces of constant acceleration: anybody who has the profile knows the position at any time."""

from __future__ import annotations

from bisect import bisect_right
from math import copysign, inf, sqrt
from typing import NamedTuple


class Piece(NamedTuple):
    """From `t_s` on: position `x`, velocity `v`, constant acceleration `a` (SI time, the axis' own length unit)."""

    t_s: float
    x: float
    v: float
    a: float

    def at(self, t_s: float) -> tuple[float, float]:
        """Position and velocity at a time within this piece."""
        dt = t_s - self.t_s
        return self.x + self.v * dt + 0.5 * self.a * dt * dt, self.v + self.a * dt


class Profile(NamedTuple):
    """Pieces in order of time; the last one lasts for ever. Times are CLOCK_MONOTONIC seconds."""

    pieces: tuple[Piece, ...]

    def at(self, t_s: float) -> tuple[float, float]:
        """Position and velocity at `t_s`; before the first piece the axis stands at its start."""
        index = bisect_right(self.pieces, t_s, key=lambda piece: piece.t_s) - 1
        if index < 0:
            return self.pieces[0].x, 0.0
        return self.pieces[index].at(t_s)

    @property
    def end_s(self) -> float:
        """When the axis comes to rest; infinite for a jog."""
        last = self.pieces[-1]
        return inf if last.v else last.t_s

    @property
    def target(self) -> float:
        """Where the axis comes to rest (for a jog: where it is at its last change of speed)."""
        return self.pieces[-1].x

    def moving(self, t_s: float) -> bool:
        """Whether the axis is still under way at `t_s`."""
        return t_s < self.end_s


def rest(x: float, t_s: float = 0.0) -> Profile:
    """Standing still at `x`."""
    return Profile((Piece(t_s, x, 0.0, 0.0),))


def move_to(target: float, x: float, v: float, t_s: float, speed: float, accel: float, decel: float) -> Profile:
    """A trapezoid from position `x` at velocity `v` to rest at `target`; it first turns round if it must."""
    pieces: list[Piece] = []
    stopping = copysign(v * v / (2 * decel), v)
    if v and (target - x - stopping) * v < 0:  # cannot stop before the target, or flies away from it
        t_s, x = _ramp(pieces, t_s, x, v, 0.0, decel)
        v = 0.0
    sign = copysign(1.0, target - x)
    distance, v = abs(target - x), abs(v)
    if distance < 1e-12 and not v:
        pieces.append(Piece(t_s, target, 0.0, 0.0))
        return Profile(tuple(pieces))
    v_allowed = sqrt((2 * accel * decel * distance + decel * v * v) / (accel + decel))
    peak = min(max(speed, 0.0), v_allowed)
    slowing = v > peak
    t_s, x = _ramp(pieces, t_s, x, sign * v, sign * peak, decel if slowing else accel)
    cruise = max(0.0, abs(target - x) - peak * peak / (2 * decel))
    if cruise > 0:
        pieces.append(Piece(t_s, x, sign * peak, 0.0))
        t_s, x = t_s + cruise / peak, x + sign * cruise
    t_s, x = _ramp(pieces, t_s, x, sign * peak, 0.0, decel)
    pieces.append(Piece(t_s, target, 0.0, 0.0))
    return Profile(tuple(pieces))


def jog(velocity: float, x: float, v: float, t_s: float, accel: float, decel: float) -> Profile:
    """Reach `velocity` and keep it for ever."""
    pieces: list[Piece] = []
    if v * velocity < 0:
        t_s, x = _ramp(pieces, t_s, x, v, 0.0, decel)
        v = 0.0
    t_s, x = _ramp(pieces, t_s, x, v, velocity, accel if abs(velocity) >= abs(v) else decel)
    pieces.append(Piece(t_s, x, velocity, 0.0))
    return Profile(tuple(pieces))


def stop(x: float, v: float, t_s: float, decel: float) -> Profile:
    """Come to rest as fast as `decel` allows."""
    pieces: list[Piece] = []
    t_s, x = _ramp(pieces, t_s, x, v, 0.0, decel)
    pieces.append(Piece(t_s, x, 0.0, 0.0))
    return Profile(tuple(pieces))


def crossing_s(profile: Profile, x: float) -> float | None:
    """The first time at which `profile` reaches `x`; None if it never does."""
    for index, piece in enumerate(profile.pieces):
        until = profile.pieces[index + 1].t_s if index + 1 < len(profile.pieces) else inf
        for dt in _roots(0.5 * piece.a, piece.v, piece.x - x):
            if dt >= -1e-12 and piece.t_s + dt <= until + 1e-12:
                return piece.t_s + max(dt, 0.0)
    return None


def _ramp(pieces: list[Piece], t_s: float, x: float, v: float, to: float, rate: float) -> tuple[float, float]:
    if v == to:
        return t_s, x
    a = copysign(rate, to - v)
    pieces.append(Piece(t_s, x, v, a))
    return t_s + (to - v) / a, x + (to * to - v * v) / (2 * a)


def _roots(a: float, b: float, c: float) -> tuple[float, ...]:
    if abs(c) < 1e-12:
        return (0.0,)
    if a == 0:
        return () if b == 0 else (-c / b,)
    square = b * b - 4 * a * c
    if square < 0:
        return ()
    half = sqrt(square)
    return tuple(sorted(((-b - half) / (2 * a), (-b + half) / (2 * a))))
