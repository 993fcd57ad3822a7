from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

RuntimeName = Literal["v2", "v4"]


class InstrumentState(StrEnum):
    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    READY = "ready"
    ACQUIRING = "acquiring"
    ERROR = "error"
    HUNG = "hung"
    SHUTTING_DOWN = "shutting down"


_S = InstrumentState
INSTRUMENT_TRANSITIONS: dict[InstrumentState, frozenset[InstrumentState]] = {
    _S.DISCONNECTED: frozenset({_S.CONNECTING, _S.SHUTTING_DOWN}),
    _S.CONNECTING: frozenset({_S.READY, _S.ERROR, _S.HUNG, _S.DISCONNECTED, _S.SHUTTING_DOWN}),
    _S.READY: frozenset({_S.ACQUIRING, _S.ERROR, _S.HUNG, _S.DISCONNECTED, _S.SHUTTING_DOWN, _S.CONNECTING}),
    _S.ACQUIRING: frozenset({_S.READY, _S.ERROR, _S.HUNG, _S.DISCONNECTED, _S.SHUTTING_DOWN, _S.CONNECTING}),
    _S.ERROR: frozenset({_S.CONNECTING, _S.HUNG, _S.DISCONNECTED, _S.SHUTTING_DOWN, _S.READY, _S.ACQUIRING}),
    _S.HUNG: frozenset({_S.CONNECTING, _S.ERROR, _S.READY, _S.DISCONNECTED, _S.SHUTTING_DOWN}),
    _S.SHUTTING_DOWN: frozenset({_S.DISCONNECTED, _S.HUNG}),
}


def may_change(old: InstrumentState, new: InstrumentState) -> bool:
    """Whether an instrument may go from `old` to `new` in one step."""
    return new in INSTRUMENT_TRANSITIONS[old]


class InstrumentStatus(msgspec.Struct, frozen=True):
    """What is known of one instrument now. `since_ns` is UTC; `message` is the cause of the present state.

    `mode` is how its worker runs ("inline", "thread" or "process"); `pid` is the process that it is in, None while
    there is none.
    """

    id: str
    runtime: RuntimeName
    state: InstrumentState
    worker: str = "inline"
    message: str = ""
    recoverable: bool = True
    since_ns: int = 0
    port: str | None = None
    restarts: int = 0
    mode: str = "inline"
    pid: int | None = None


class ManagerState(StrEnum):
    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class RuntimeStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"


class Cause(StrEnum):
    """Why an instrument goes to its safe state."""

    SHUTDOWN = "shutdown"
    CRASH = "crash"
    STOP_ALL = "stop_all"


class Outcome(StrEnum):
    """How a component ended: clean, forced (its work was cut off), or leaked (something of it is still there)."""

    CLEAN = "clean"
    FORCED = "forced"
    LEAKED = "leaked"


class ComponentReport(msgspec.Struct, frozen=True):
    """How one component ended. `component` is e.g. ``v2.dmm``, ``v4.stage``, ``bridge``, ``port.stage``, ``v2``."""

    component: str
    outcome: Outcome
    why: str = ""
    took_s: float = 0.0


class ShutdownReport(msgspec.Struct, frozen=True):
    """What a shutdown did, in the order in which it did it."""

    components: tuple[ComponentReport, ...]
    took_s: float
    budget_s: float

    @property
    def clean(self) -> bool:
        """Whether every component ended clean."""
        return all(c.outcome is Outcome.CLEAN for c in self.components)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {"clean": self.clean, **msgspec.to_builtins(self)}

    def __repr__(self) -> str:
        unclean = [f"{c.component} {c.outcome}" for c in self.components if c.outcome is not Outcome.CLEAN]
        return f"<shutdown in {self.took_s:.2f} s: {', '.join(unclean) or 'clean'}>"
