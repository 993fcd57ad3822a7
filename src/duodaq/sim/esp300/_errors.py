"""The ESP300's error FIFO and its words."""

from __future__ import annotations

from collections import deque

CAPACITY = 10
TICK_S = 400e-6
"""Servo ticks: the unit of TB's time stamps."""

COMMAND_DOES_NOT_EXIST = 6
PARAMETER_OUT_OF_RANGE = 7
AXIS_OUT_OF_RANGE = 9
COMMAND_NOT_ALLOWED = 27
AXIS_MISSING = 37
PARAMETER_MISSING = 38

AXIS_PARAMETER = 1
POSITIVE_HARD_LIMIT = 4
NEGATIVE_HARD_LIMIT = 5
POSITIVE_SOFT_LIMIT = 6
NEGATIVE_SOFT_LIMIT = 7
MAX_VELOCITY = 10
MAX_ACCELERATION = 11
MOTOR_NOT_ENABLED = 13
MAX_JERK = 15
HOMING_ABORTED = 20
CHANGE_NOT_ALLOWED = 26
NOT_DURING_HOMING = 30

_GENERAL = {
    0: "NO ERROR DETECTED",
    COMMAND_DOES_NOT_EXIST: "COMMAND DOES NOT EXIST",
    PARAMETER_OUT_OF_RANGE: "PARAMETER OUT OF RANGE",
    AXIS_OUT_OF_RANGE: "AXIS NUMBER OUT OF RANGE",
    COMMAND_NOT_ALLOWED: "COMMAND NOT ALLOWED",
    AXIS_MISSING: "AXIS NUMBER MISSING",
    PARAMETER_MISSING: "COMMAND PARAMETER MISSING",
}
_AXIS = {
    AXIS_PARAMETER: "PARAMETER OUT OF RANGE",
    POSITIVE_HARD_LIMIT: "POSITIVE HARDWARE LIMIT DETECTED",
    NEGATIVE_HARD_LIMIT: "NEGATIVE HARDWARE LIMIT DETECTED",
    POSITIVE_SOFT_LIMIT: "POSITIVE SOFTWARE LIMIT DETECTED",
    NEGATIVE_SOFT_LIMIT: "NEGATIVE SOFTWARE LIMIT DETECTED",
    MAX_VELOCITY: "MAXIMUM VELOCITY EXCEEDED",
    MAX_ACCELERATION: "MAXIMUM ACCELERATION EXCEEDED",
    MOTOR_NOT_ENABLED: "MOTOR NOT ENABLED",
    MAX_JERK: "MAXIMUM JERK EXCEEDED",
    HOMING_ABORTED: "HOMING ABORTED",
    CHANGE_NOT_ALLOWED: "PARAMETER CHANGE NOT ALLOWED",
    NOT_DURING_HOMING: "COMMAND NOT ALLOWED DURING HOMING",
}


def words(code: int) -> str:
    """The text that belongs to a code, as TB? gives it."""
    axis, number = divmod(code, 100)
    if not axis:
        return _GENERAL[code]
    return f"AXIS-{axis} {_AXIS[number]}"


class ErrorFifo:
    """The last unread errors, oldest first. When it is full, later ones are lost."""

    def __init__(self, born_s: float) -> None:
        self._born_s = born_s
        self._entries: deque[tuple[int, int]] = deque()
        self.lost = 0

    def add(self, code: int, now_s: float) -> None:
        """Remember an error with its time."""
        if len(self._entries) < CAPACITY:
            self._entries.append((code, self._ticks(now_s)))
        else:
            self.lost += 1

    def take(self, now_s: float) -> tuple[int, int]:
        """The oldest error and its time in ticks, which is gone then; 0 if there is none."""
        return self._entries.popleft() if self._entries else (0, self._ticks(now_s))

    def __len__(self) -> int:
        return len(self._entries)

    def _ticks(self, now_s: float) -> int:
        return int((now_s - self._born_s) / TICK_S)
