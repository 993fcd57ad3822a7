"""Who decides about a failed actor, and carries it out.

Rules whoever edits this must keep:

1. Decisions are `RestartPolicy.decide` and `affected_by`, both pure. This file only carries them out.
2. The policy that counts is that of the actor that failed; the restarts are counted on it alone.
3. One recovery at a time in a group: a second failure waits for the first recovery, and is void if that recovery has
   already given its actor a new incarnation.
4. A group goes down in reverse start order and comes up in start order. Nobody comes up who was stopped meanwhile.
5. An `on_start` that fails during a restart is a failure like any other: it is decided anew, and counted.
6. Giving up ends the actor that failed, and with it those of its group that would have been restarted with it; then
   `on_escalate` is told, last, when all of them are down: the safe state is taken of something that stands still.
7. Nothing here raises into a mailbox: recovery runs in a task of the failed actor, which the system awaits at its end.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from duodaq.telemetry import get_logger, named
from duodaq.v4._message import ActorState, StopReason
from duodaq.v4._policy import GiveUp, Restart, Strategy, affected_by

if TYPE_CHECKING:
    from duodaq.v4._cell import Cell
    from duodaq.v4._ref import ActorRef

_log = get_logger("v4.supervisor")


class Escalation(msgspec.Struct, frozen=True):
    """A failure beyond what restarts may mend. `ended` names all who went down with `ref`, itself included."""

    ref: ActorRef
    error: BaseException
    why: str
    ended: tuple[str, ...]


OnEscalate = Callable[[Escalation], Awaitable[None] | None]


class Supervisor:
    """Restarts the actors spawned under it by one strategy, and says when that does not help.

    Args:
        strategy: Who is restarted with a failed actor: itself, all, or itself and those spawned after it.
        on_escalate: Called (and awaited, if it is async) after a failure beyond the policy's limit.
        parent: Told next, if there is one.
    """

    def __init__(
        self,
        strategy: Strategy = "one-for-one",
        on_escalate: OnEscalate | None = None,
        parent: Supervisor | None = None,
    ) -> None:
        self.strategy: Strategy = strategy
        self.on_escalate = on_escalate
        self.parent = parent
        self._members: list[Cell] = []
        self._turn = asyncio.Lock()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the actors under it, in start order."""
        return tuple(cell.name for cell in self._members)

    def adopt(self, cell: Cell) -> None:
        """Take charge of an actor (spawn does)."""
        self._members.append(cell)

    def forget(self, cell: Cell) -> None:
        """An actor has ended for good (the kernel says so)."""
        if cell in self._members:
            self._members.remove(cell)

    async def recover(self, cell: Cell, error: BaseException, *, failed: bool = True) -> None:
        """Restart what must be restarted after `cell` ended, or give up."""
        if self.strategy == "one-for-one":
            await self._recover(cell, error, failed)
            return
        incarnation = cell.incarnation
        async with self._turn:
            if cell.incarnation == incarnation and not cell.doomed:
                await self._recover(cell, error, failed)

    async def _recover(self, cell: Cell, error: BaseException, failed: bool) -> None:
        group = self._group(cell)
        verdict = cell.decide(failed)
        reason = StopReason.CRASHED if failed else StopReason.STOPPED
        cell.announce(reason, error if failed else None, final=isinstance(verdict, GiveUp))
        while True:
            for member in reversed(group if failed or isinstance(verdict, Restart) else [cell]):
                await member.suspend(reason if member is cell else StopReason.RESTARTED, error)
            if isinstance(verdict, GiveUp):
                if failed:
                    await self._give_up(cell, group, error, verdict.why)
                else:
                    cell.bury(ActorState.STOPPED, None)
                return
            await cell.rest(verdict.delay_s)
            broken = await self._resume(group)
            if broken is None:
                return
            cell, error = broken
            reason, failed = StopReason.START_FAILED, True
            verdict = cell.decide(True)
            if isinstance(verdict, GiveUp):
                cell.announce(reason, error, final=True)

    def _group(self, cell: Cell) -> list[Cell]:
        if cell not in self._members:
            return [cell]
        chosen = affected_by(self.strategy, self._members.index(cell), len(self._members))
        return [self._members[index] for index in chosen]

    async def _resume(self, group: list[Cell]) -> tuple[Cell, BaseException] | None:
        for member in group:
            if member.doomed:
                continue
            error = await member.resume()
            if error is not None:
                return member, error
        return None

    async def _give_up(self, cell: Cell, group: list[Cell], error: BaseException, why: str) -> None:
        ended = [member for member in reversed(group) if not member.doomed]
        for member in ended:
            if member is not cell:
                member.announce(StopReason.CRASHED, error, final=True)
            member.bury(ActorState.FAILED, error)
        _log.error("actor gave up", actor=cell.name, why=why, error=named(error), ended=[m.name for m in ended])
        await self.escalate(Escalation(cell.ref, error, why, tuple(member.name for member in ended)))

    async def escalate(self, escalation: Escalation) -> None:
        """Tell those who asked to be told; their own failure is logged and stops nothing."""
        if self.on_escalate is not None:
            try:
                answer = self.on_escalate(escalation)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:  # noqa: BLE001 - whatever their callback raises, the parent must still be told
                _log.exception("on_escalate failed", actor=escalation.ref.name)
        if self.parent is not None:
            await self.parent.escalate(escalation)
