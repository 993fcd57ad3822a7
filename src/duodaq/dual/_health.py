from __future__ import annotations

from typing import Any

import msgspec

from duodaq.model import InstrumentStatus, ManagerState, RuntimeName, RuntimeStatus


class StateChange(msgspec.Struct, frozen=True):
    """Something changed state. `subject` is ``manager``, ``v2``, ``v4`` or e.g. ``v2.dmm``; `t_ns` is UTC."""

    subject: str
    old: str
    new: str
    cause: str
    t_ns: int


class WorkerStatus(msgspec.Struct, frozen=True):
    """Where instruments of a runtime live. `mode` is "inline", "thread" or "process"; `pid` None while it has none."""

    name: str
    runtime: RuntimeName
    mode: str
    pid: int | None
    status: RuntimeStatus
    instruments: tuple[str, ...]


class Health(msgspec.Struct, frozen=True):
    """The whole lab at one moment; `pid` is the process of its manager."""

    state: ManagerState
    v2: RuntimeStatus
    v4: RuntimeStatus
    latched: bool
    workers: tuple[WorkerStatus, ...]
    instruments: tuple[InstrumentStatus, ...]
    ports: tuple[Any, ...]
    ledgers: dict[str, Any]
    commands_in_hand: int
    uptime_s: float
    pid: int
    cause: str = ""
