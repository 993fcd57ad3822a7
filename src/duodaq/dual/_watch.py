from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from duodaq.clock import pause, utc_ns
from duodaq.dataplane import Hub
from duodaq.dual._health import StateChange
from duodaq.dual._side import Side
from duodaq.model import InstrumentState, InstrumentStatus, Parameters

WATCH_EVERY_S = 0.05
REMOVED = "removed"
"""What the last change of an instrument that is removed from a running lab is called."""
_GONE = frozenset({InstrumentState.DISCONNECTED, InstrumentState.ERROR, InstrumentState.HUNG})


class Watch:
    """Looks at both runtimes twenty times a second and publishes every change of state.

    Progress is asked of the loops that do the work, not of a thread that would beat on while they hang.
    """

    def __init__(
        self,
        sides: Iterable[Side],
        changes: Hub[StateChange],
        parameters: Parameters,
        on_crash: Callable[[Side, InstrumentStatus], Awaitable[None]],
    ) -> None:
        self._sides = tuple(sides)
        self._changes = changes
        self._parameters = parameters
        self._on_crash = on_crash
        self._seen: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="duodaq-watch")

    async def aclose(self) -> None:
        """Look once more, then stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        for side in self._sides:
            self._notice(side)

    async def _run(self) -> None:
        while True:
            for side in self._sides:
                side.probe()
                for crashed in self._notice(side):
                    await self._on_crash(side, crashed)
            await pause(WATCH_EVERY_S)

    def _notice(self, side: Side) -> list[InstrumentStatus]:
        self._change(side.name, str(side.status), "")
        crashed: list[InstrumentStatus] = []
        statuses = side.instruments()
        self._forget_removed(side, {f"{side.name}.{status.id}" for status in statuses})
        for status in statuses:
            subject = f"{side.name}.{status.id}"
            if not self._change(subject, str(status.state), status.message):
                continue
            if status.state in _GONE:
                self._parameters.mark_stale(side.name, status.id)
            if status.state is InstrumentState.HUNG or (
                status.state is InstrumentState.ERROR and not status.recoverable
            ):
                crashed.append(status)
        return crashed

    def _forget_removed(self, side: Side, there: set[str]) -> None:
        gone = [subject for subject in self._seen if subject.startswith(f"{side.name}.") and subject not in there]
        for subject in gone:
            if subject.removeprefix(f"{side.name}.") not in side:
                self._change(subject, REMOVED, "")
                del self._seen[subject]

    def _change(self, subject: str, new: str, cause: str) -> bool:
        old = self._seen.get(subject, "")
        if old == new:
            return False
        self._seen[subject] = new
        self._changes.publish(StateChange(subject, old, new, cause, utc_ns()))
        return True
