"""A runtime that is none: flags that say "running" and a queue that takes everything.

It keeps the letter of the Runtime promise: it can be started, asked, told and stopped, and is always well. A test that
it passes does not look at instruments.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from duodaq.clock import pause
from duodaq.dual import Factories, RuntimeParts
from duodaq.model import (
    ChannelInfo,
    Command,
    ComponentReport,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Outcome,
    ReadChannel,
    Runtime,
    RuntimeName,
    RuntimeStatus,
    Scalar,
    SetParameter,
    may_move,
)
from duodaq.testing.coexistence._within import make_v2, make_v4


class FlagAndQueue:
    """Says yes to everything and does nothing."""

    def __init__(self, name: RuntimeName, parts: RuntimeParts) -> None:
        self._name: RuntimeName = name
        self._status = RuntimeStatus.STOPPED
        self._definitions: dict[str, InstrumentDefinition] = {}
        self._queue: deque[tuple[str, Command]] = deque(maxlen=1024)
        self._parts = parts

    @property
    def name(self) -> RuntimeName:
        return self._name

    @property
    def status(self) -> RuntimeStatus:
        return self._status

    @property
    def changes(self) -> int:
        return len(self._queue)

    async def start(self, timeout_s: float) -> None:
        self._status = RuntimeStatus.RUNNING

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        self._status = RuntimeStatus.STOPPED
        return tuple(ComponentReport(f"{self._name}.{i}", Outcome.CLEAN) for i in self._definitions)

    async def add(self, definition: InstrumentDefinition, *, keep: bool = False) -> None:
        self._definitions[definition.id] = definition

    async def remove(self, instrument: str) -> ComponentReport:
        self._definitions.pop(instrument, None)
        return ComponentReport(f"{self._name}.{instrument}", Outcome.CLEAN)

    async def restart(self, instrument: str) -> None:
        self._queue.append((instrument, SetParameter("restart", True)))

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        self._queue.append((instrument, command))
        await pause(0)
        if isinstance(command, ReadChannel):
            return Scalar(instrument, command.channel, "", 0, len(self._queue), 0.0, self._name)
        return command.value if isinstance(command, SetParameter) else 0.0

    def moves(self, instrument: str, command: Command) -> bool:
        return may_move(self._definitions[instrument], command)

    def end_moving(self, reason: str) -> int:
        return 0

    def flush(self) -> None:
        return None

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        return tuple(InstrumentStatus(i, self._name, InstrumentState.READY) for i in self._definitions)

    def channels(self) -> tuple[ChannelInfo, ...]:
        return ()

    def metrics(self) -> dict[str, Any]:
        return {"queued": len(self._queue)}


def imitating(runtime: str | None) -> Factories:
    """Factories in which `runtime` ("v2", "v4" or None) is an imitation and the other is real."""
    return Factories(
        _imitate_v2 if runtime == "v2" else make_v2,
        _imitate_v4 if runtime == "v4" else make_v4,
    )


def _imitate_v2(parts: RuntimeParts) -> Runtime:
    return FlagAndQueue("v2", parts)


def _imitate_v4(parts: RuntimeParts) -> Runtime:
    return FlagAndQueue("v4", parts)
