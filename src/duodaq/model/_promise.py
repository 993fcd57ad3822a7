"""What the parts of a lab promise each other. One promise, one contract suite, many keepers."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from duodaq.model._command import Command
from duodaq.model._definition import InstrumentDefinition
from duodaq.model._life import ComponentReport, InstrumentStatus, RuntimeName, RuntimeStatus
from duodaq.model._measurement import ChannelInfo, Measurement


class MeasurementSink(Protocol):
    """Where a producer puts its measurements. Never waits; what cannot be delivered is counted by the sink."""

    def publish(self, measurement: Measurement, /) -> None: ...


class ParameterEntry(msgspec.Struct, frozen=True):
    """One line of the parameter table. `version` rises by one with each change; `stale` says the owner is gone."""

    instrument: str
    name: str
    value: Any
    unit: str
    t_ns: int
    version: int
    owner: RuntimeName
    stale: bool = False


class Parameters(Protocol):
    """The parameter table as the runtimes see it: read by both, written by each entry's owner. Safe from any thread."""

    def put(self, owner: RuntimeName, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry: ...

    def get(self, instrument: str, name: str) -> ParameterEntry | None: ...

    def mark_stale(self, owner: RuntimeName, instrument: str) -> None: ...


class Runtime(Protocol):
    """One instrument runtime, as its manager sees it.

    All coroutines run on the loop of the worker that hosts the runtime; `status`, `changes`, `instruments`, `channels`
    and `metrics` may be read from any thread.
    """

    @property
    def name(self) -> RuntimeName: ...

    @property
    def status(self) -> RuntimeStatus: ...

    @property
    def changes(self) -> int:
        """Rises whenever `status`, `instruments` or `channels` have something else to say; sometimes without that."""
        ...

    async def start(self, timeout_s: float) -> None:
        """Start every instrument that was added. One that fails degrades the runtime; a `required` one fails it."""
        ...

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Stop everything within `timeout_s`. Idempotent; never raises for an instrument that refuses."""
        ...

    async def add(self, definition: InstrumentDefinition, *, keep: bool = False) -> None:
        """Add an instrument; start it too if the runtime is running and the definition says so.

        With `keep`, one that does not start is there all the same, as after the start of a runtime.
        """
        ...

    async def remove(self, instrument: str) -> ComponentReport:
        """Stop an instrument and forget it."""
        ...

    async def restart(self, instrument: str) -> None:
        """Close and start one instrument again; the others notice nothing."""
        ...

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command and return its result, or raise its typed error. Exactly one fate."""
        ...

    def moves(self, instrument: str, command: Command) -> bool:
        """Whether this command may move or emit, and so is refused while a stop is latched. Any thread."""
        ...

    def end_moving(self, reason: str) -> int:
        """End every moving or emitting command that waits, as not done; the number ended. From the runtime's loop."""
        ...

    def flush(self) -> None:
        """Publish whatever was measured and waits for more to be published with. From the runtime's loop."""
        ...

    def instruments(self) -> tuple[InstrumentStatus, ...]: ...

    def channels(self) -> tuple[ChannelInfo, ...]: ...

    def metrics(self) -> dict[str, Any]: ...
