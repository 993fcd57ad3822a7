"""One rotator: what it answers, and where it stands on the optical table, in degrees."""

from __future__ import annotations

import time
from math import inf
from typing import NamedTuple

from duodaq.sim.table import Profile, Table, jog, move_to, rest, stop

TABLE_AXIS = 10
"""The rotator with address 0 is this axis of the optical table; the others follow."""
_DEG_PER_S = 430.0
_ACCEL = 4000.0
_SEARCH_S = 1.0
OK, COMM_TIMEOUT, MECH_TIMEOUT, UNKNOWN, OUT_OF_RANGE, ISOLATED, BUSY = 0, 1, 2, 3, 4, 5, 9


class Kind(NamedTuple):
    """What ``in`` tells of a model."""

    number: int
    pulses: int


ELL14, ELL8 = Kind(14, 143360), Kind(8, 262144)


class Rotator:
    """A rotator of one address. A reply of None comes later, when its motion ends."""

    def __init__(self, table: Table, kind: Kind, address: str) -> None:
        self.address = address
        self.kind = kind
        self.jammed = False
        self._table = table
        self._axis = TABLE_AXIS + int(address, 16)
        self._saved = address
        self.power_cycle(time.monotonic())

    def power_cycle(self, now_s: float) -> None:
        """It stops; where it stands is its zero until it has been homed; the saved address counts."""
        self._halt(now_s)
        self.address = self._saved
        self.status = OK
        self._zero_deg = self._angle(now_s)
        self._step = self._pulses(45.0)
        self._offset = 0
        self._velocity = 100
        self._ends_s: float | None = None
        self._silent_end = self._homing = self._pressed = False
        self._isolated_until_s = 0.0
        self.group: str | None = None

    @property
    def ends_s(self) -> float | None:
        """When the motion or search in hand ends; None if there is none; infinite for one without end."""
        return self._ends_s

    def answer(self, letters: str, data: str, now_s: float) -> str | None:
        """Carry out a command; the reply without its end, or None if it comes later."""
        if letters == "gs":
            return self._say_status(now_s)
        if letters == "is":
            self._isolated_until_s = now_s + 60.0 * int(data, 16)
            return self._gs(OK)
        if now_s < self._isolated_until_s:
            return self._gs(ISOLATED)
        if letters in ("st", "ms"):
            return self._stop(now_s)
        if letters == "gp":
            return self._po(now_s)
        if letters == "in":
            serial = 11400500 + self._axis
            return f"{self.address}IN{self.kind.number:02X}{serial:08d}202317010168{self.kind.pulses:08X}"
        if self._ends_s is not None:
            return self._gs(BUSY)
        return self._set_or_get(letters, data, now_s) if letters[0] in "sgcui" else self._move(letters, data, now_s)

    def end(self, now_s: float) -> str:
        """The motion in hand has ended: what is said then."""
        search, pressed = self._silent_end, self._pressed
        self._ends_s, self._silent_end, self._pressed = None, False, False
        if self._homing:
            self._homing = False
            self._zero_deg = self._angle(now_s) - self._offset * 360.0 / self.kind.pulses
        if self.jammed and not search:
            self.status = MECH_TIMEOUT
            return f"{self.address}{'BS' if pressed else 'GS'}{MECH_TIMEOUT:02X}"
        if search:
            return self._gs(OK)
        return self._po(now_s, "BO" if pressed else "PO")

    def press(self, now_s: float) -> None:
        """Somebody presses the button on its board: it jogs, and tells that unasked."""
        if self._ends_s is None:
            self._pressed = True
            self._travel(self._angle(now_s) + self._degrees(self._step), now_s)

    def _say_status(self, now_s: float) -> str:
        if now_s < self._isolated_until_s:
            return self._gs(ISOLATED)
        if self._ends_s is not None:
            return self._gs(BUSY)
        status, self.status = self.status, OK
        return self._gs(status)

    def _set_or_get(self, letters: str, data: str, now_s: float) -> str | None:
        match letters:
            case "gj":
                return f"{self.address}GJ{self._step & 0xFFFFFFFF:08X}"
            case "go":
                return f"{self.address}HO{self._offset & 0xFFFFFFFF:08X}"
            case "gv":
                return f"{self.address}GV{self._velocity:02X}"
            case "sj":
                self._step = _signed(data)
            case "so":
                self._offset = _signed(data)
            case "sv":
                if not 25 <= int(data, 16) <= 100:
                    return self._gs(OUT_OF_RANGE)
                self._velocity = int(data, 16)
            case "ca":
                self.address = data.upper()
            case "us":
                self._saved = self.address
            case "i1" | "i2":
                return f"{self.address}{letters.upper()}10{0x04C0:04X}FFFFFFFF{0x00B6:04X}{0x008C:04X}"
            case "s1" | "s2" | "c1" | "c2":
                self._silent_end, self._ends_s = True, now_s + _SEARCH_S
                return None
            case _:
                return self._gs(UNKNOWN)
        return self._gs(OK)

    def _move(self, letters: str, data: str, now_s: float) -> str | None:
        here_deg = self._angle(now_s)
        match letters:
            case "ma":
                self._travel(self._zero_deg + self._degrees(_signed(data)), now_s)
            case "mr":
                self._travel(here_deg + self._degrees(_signed(data)), now_s)
            case "ho":
                back = here_deg % 360.0
                self._homing = True
                self._travel(here_deg - back if data in ("", "0") else here_deg + (360.0 - back) % 360.0, now_s)
            case "fw" | "bw":
                sign = 1 if letters == "fw" else -1
                if self._step:
                    self._travel(here_deg + sign * self._degrees(self._step), now_s)
                else:
                    speed = sign * self._speed
                    self._follow(jog(speed, here_deg, 0.0, now_s, _ACCEL, _ACCEL), inf)
            case "f1" | "b1" | "f2" | "b2":
                return self._gs(OK)
            case _:
                return self._gs(UNKNOWN)
        return None

    def _travel(self, target_deg: float, now_s: float) -> None:
        if self.jammed:
            self._ends_s = now_s + _SEARCH_S
            return
        profile = move_to(target_deg, self._angle(now_s), 0.0, now_s, self._speed, _ACCEL, _ACCEL)
        self._follow(profile, profile.end_s)

    def _follow(self, profile: Profile, ends_s: float) -> None:
        self._table.set_motion(self._axis, profile)
        self._ends_s = ends_s

    def _stop(self, now_s: float) -> str:
        if self._ends_s is None:
            return self._gs(OK)
        self._homing = False
        self._halt(now_s)
        return self._gs(OK)

    def _halt(self, now_s: float) -> None:
        angle_deg, velocity = self._table.motion(self._axis).at(now_s)
        profile = stop(angle_deg, velocity, now_s, _ACCEL) if velocity else rest(angle_deg, now_s)
        self._table.set_motion(self._axis, profile)
        self._ends_s = profile.end_s

    @property
    def _speed(self) -> float:
        return _DEG_PER_S * self._velocity / 100

    def _angle(self, now_s: float) -> float:
        return self._table.motion(self._axis).at(now_s)[0]

    def _degrees(self, pulses: int) -> float:
        return pulses * 360.0 / self.kind.pulses

    def _pulses(self, degrees: float) -> int:
        return round(degrees * self.kind.pulses / 360.0)

    def _po(self, now_s: float, letters: str = "PO") -> str:
        return f"{self.address}{letters}{self._pulses(self._angle(now_s) - self._zero_deg) & 0xFFFFFFFF:08X}"

    def _gs(self, status: int) -> str:
        return f"{self.address}GS{status:02X}"


def _signed(data: str) -> int:
    value = int(data, 16)
    return value - (1 << 32) if value >= 1 << 31 else value
