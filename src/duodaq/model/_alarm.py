"""What is watched in the lab's data, and what its watching has come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec


class AlarmState(StrEnum):
    """Where an alarm stands."""

    NORMAL = "normal"
    PENDING = "pending"
    """Something is wrong, but not yet for as long as its delay."""
    RAISED = "raised"
    """Something is wrong, and nobody has acknowledged it."""
    ACKNOWLEDGED = "acknowledged"
    """Something is wrong, and somebody knows."""
    RETURNED = "returned"
    """All is well again, but the alarm latches, and nobody has acknowledged it yet."""


@dataclass(frozen=True, slots=True)
class AlarmDefinition:
    """What one channel may not do. `low`, `high` and `hysteresis` are in `unit`, `rate` in that per second.

    Without a `unit` they are in the channel's own. `delay_s` is how long a value has to be wrong, `stale_s` how long
    there may be none. `webhook` is a URL, `email` addresses; who is told is told when it is raised and when that ends.
    """

    name: str
    instrument: str
    channel: str
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    rate: float | None = None
    stale_s: float | None = None
    hysteresis: float = 0.0
    delay_s: float = 0.0
    latch: bool = False
    pause_scan: bool = False
    stop_all: bool = False
    webhook: str | None = None
    email: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class MailDefinition:
    """The server that takes the lab's mail. The password is in the environment, under the name `password_env`."""

    host: str
    port: int
    sender: str
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_env: str | None = None


class AlarmChange(msgspec.Struct, frozen=True):
    """An alarm has changed state. `t_ns` is UTC; `by` is who acknowledged it, if that was it."""

    alarm: str
    old: AlarmState
    new: AlarmState
    why: str
    t_ns: int
    value: float | None = None
    unit: str = ""
    by: str = ""


class AlarmStatus(msgspec.Struct, frozen=True):
    """One alarm now: its state since `since_ns` (UTC), why, the last value and its time, how often it was raised."""

    name: str
    instrument: str
    channel: str
    state: AlarmState
    why: str = ""
    value: float | None = None
    unit: str = ""
    value_ns: int = 0
    since_ns: int = 0
    raised: int = 0
    by: str = ""
    latch: bool = False
    pause_scan: bool = False
    stop_all: bool = False
    note: str = ""
