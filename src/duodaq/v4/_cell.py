"""The life of one actor, from spawn to burial.

Rules whoever edits this must keep:

1. An incarnation begins with the factory and `on_start`, and ends with `cut` and `on_stop`: once each, in this order,
   under `turn`, so that a stop, a kill and a recovery never work on the same actor at once.
2. Both hooks run in tasks of their own, with a limit. What does not end even when cancelled is *leaked*: it is named
   in the report and kept by the system, never waited for again.
3. `doomed` is for ever: once a stop or a kill has begun nothing starts this actor again, whoever holds the turn.
4. Links are told as soon as the mail of the incarnation has been decided, before `on_stop`: a hook that hangs never
   keeps the news from those who must act on it.
5. A stop keeps its budget: six tenths for what is accepted to complete, the rest for `on_stop` and the forcing.
6. Every task made here is owned: by the incarnation, which awaits it when it is cut, or by the system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from duodaq.errors import LifecycleError, RestartingError, StoppedError
from duodaq.model import ComponentReport, Fate, Outcome
from duodaq.telemetry import get_logger, named, words
from duodaq.v4._actor import Actor
from duodaq.v4._message import ActorState, Envelope, HandlerSpec, LinkNotice, StopReason
from duodaq.v4._policy import GiveUp, Restart, RestartPolicy
from duodaq.v4._ref import ActorRef
from duodaq.v4._work import Work, tamed

if TYPE_CHECKING:
    from duodaq.v4._supervisor import Supervisor
    from duodaq.v4._system import ActorSystem

_log = get_logger("v4.cell")

GRACE_S = 0.25
DRAIN_SHARE = 0.6
_OVER = (ActorState.STOPPED, ActorState.FAILED)


async def _tell_link(actor: Actor, notice: LinkNotice) -> None:
    await actor.on_link(notice)


_NOTICE = HandlerSpec(_tell_link, urgent=True)


class Cell(Work):
    """One actor across its incarnations: where its mail goes, and who decides when it ends."""

    __slots__ = (
        "doomed",
        "dooming",
        "error",
        "factory",
        "hook",
        "incarnation",
        "keeper",
        "leaked",
        "leaving",
        "links",
        "policy",
        "ref",
        "restarts_s",
        "start_timeout_s",
        "starting",
        "stop_timeout_s",
        "supervisor",
        "total_restarts",
        "turn",
        "undone",
        "wakeup",
    )

    def __init__(
        self,
        system: ActorSystem,
        name: str,
        capacity: int,
        factory: Callable[[], Actor],
        policy: RestartPolicy,
        supervisor: Supervisor,
        start_timeout_s: float,
        stop_timeout_s: float,
    ) -> None:
        super().__init__(system, name, capacity)
        self.ref = ActorRef(self)
        self.factory = factory
        self.policy = policy
        self.requeue = policy.requeue
        self.supervisor = supervisor
        self.start_timeout_s = start_timeout_s
        self.stop_timeout_s = stop_timeout_s
        self.incarnation = self.total_restarts = 0
        self.doomed = self.starting = False
        self.dooming: StopReason | None = None
        self.error: BaseException | None = None
        self.links: set[Cell] | None = None
        self.leaving: Actor | None = None
        self.hook: asyncio.Task[None] | None = None
        self.keeper: asyncio.Task[ComponentReport] | None = None
        self.turn: asyncio.Lock | None = None
        self.wakeup: asyncio.Future[None] | None = None
        self.restarts_s: list[float] | None = None
        self.undone: set[asyncio.Task[Any]] | None = None
        self.leaked: list[str] | None = None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self.total_restarts

    # -- beginning and ending an incarnation -----------------------------------------------------------------------

    async def resume(self) -> BaseException | None:
        """Begin an incarnation; the error if that failed, in which case it has been ended again."""
        async with self._turn():
            if self.doomed or self.actor is not None:
                return None
            return await self._begin()

    async def suspend(self, reason: StopReason, error: BaseException | None) -> None:
        """End the present incarnation, if there is one, and keep the mail that may survive that."""
        if self.doomed:
            return
        self._interrupt(reason, error)
        async with self._turn():
            await self._end(reason, self.loop.time() + 2 * self.stop_timeout_s)

    async def _begin(self) -> BaseException | None:
        try:
            actor = self.factory()
            actor._cell = self  # pyright: ignore[reportPrivateUsage] # set behind __init__, which a subclass owns
        except Exception as error:  # noqa: BLE001 - whatever a constructor raises is reported to who asked for it
            return error
        self.leaving = actor
        self.incarnation += 1
        self.error = None
        self.table, self.fallback = actor.handlers, actor.fallback
        self.starting = True
        try:
            error = await self._run_hook(actor.on_start, Actor.on_start, self.start_timeout_s, "on_start")
        finally:
            self.starting = False
        error = self.error or error
        if error is None and not self.doomed:
            self._serve(actor)
            return None
        if self.doomed:
            error = StoppedError(f"it was {self.dooming} while it started", instrument=self.name)
        await self._end(self.dooming or StopReason.START_FAILED, self.loop.time() + 2 * self.stop_timeout_s)
        return error

    def _serve(self, actor: Actor) -> None:
        self.actor, self.leaving = actor, None
        self.state = ActorState.RUNNING
        self.open_for(actor.ordinary)
        self.wake()
        self.wake_urgent()

    async def _end(self, reason: StopReason, until_s: float) -> str:
        """Cut, wait, `on_stop`: why that was not clean, or nothing."""
        actor = self.actor or self.leaving
        tasks = self.cut(f"its actor was {reason}") | (self.undone or set())
        self.leaving = self.undone = None
        why = await self._wait_for(tasks, 0.4 * (until_s - self.loop.time()))
        if actor is not None:
            limit_s = max(GRACE_S / 5, min(self.stop_timeout_s, 0.6 * (until_s - self.loop.time())))
            error = await self._run_hook(lambda: actor.on_stop(reason), Actor.on_stop, limit_s, "on_stop", actor)
            if error is not None:
                _log.error("on_stop failed", actor=self.name, error=named(error))
                why = why or words(error)
        return why

    async def _wait_for(self, tasks: set[asyncio.Task[Any]], limit_s: float) -> str:
        if not tasks:
            return ""
        _, pending = await asyncio.wait(tasks, timeout=max(limit_s, GRACE_S / 5))
        for task in pending:
            self._leak(task)
        return "a task would not end when cancelled" if pending else ""

    async def _run_hook(
        self,
        hook: Callable[[], Coroutine[Any, Any, None]],
        default: Callable[..., Any],
        limit_s: float,
        what: str,
        actor: Actor | None = None,
    ) -> BaseException | None:
        if getattr(type(actor or self.leaving), what) is default:
            return None
        task = self.hook = self.loop.create_task(tamed(hook), name=f"{self.name}.{what}")
        try:
            await asyncio.wait((task,), timeout=limit_s)
            if task.done():
                return _error_of(task)
            task.cancel()
            await asyncio.wait((task,), timeout=min(GRACE_S, limit_s / 4))
            if not task.done():
                self._leak(task)
            return LifecycleError(f"{what} did not end within {limit_s:g} s", instrument=self.name)
        except asyncio.CancelledError:
            task.cancel()
            self.undone = {*(self.undone or ()), task}
            raise
        finally:
            self.hook = None

    def _leak(self, task: asyncio.Task[Any]) -> None:
        self.leaked = [*(self.leaked or ()), task.get_name()]
        self.system.keep_leaked(task)
        _log.error("task leaked: it does not end when cancelled", actor=self.name, task=task.get_name())

    # -- failing ---------------------------------------------------------------------------------------------------

    def crash(self, error: BaseException, *, failed: bool = True) -> None:
        """The incarnation ends because of `error`; its supervisor decides what follows."""
        if self.starting and self.hook is not None:
            self.error = error
            self.hook.cancel()
        elif self.state is ActorState.RUNNING:
            if failed:
                _log.warning("actor crashed", actor=self.name, error=named(error))
            self._interrupt(StopReason.CRASHED if failed else StopReason.STOPPED, error if failed else None)
            self.system.own(self.supervisor.recover(self, error, failed=failed), f"{self.name}.recovery")
        elif self.state is ActorState.STOPPING:
            _log.warning("actor crashed while it stopped", actor=self.name, error=named(error))
            self.undone = self.cut(f"its actor crashed: {named(error)}") | (self.undone or set())
            self.doom()

    def retire_cancelled(self) -> asyncio.Task[ComponentReport]:
        """The worker was cancelled from outside: end as cancelled."""
        return self.retire(StopReason.CANCELLED, 2 * self.stop_timeout_s)

    def decide(self, failed: bool) -> Restart | GiveUp:
        """What the policy says now; a restart is counted."""
        now_s = self.loop.time()
        verdict = self.policy.decide(self.restarts_s or (), now_s, failed=failed)
        if isinstance(verdict, Restart):
            recent = [at_s for at_s in self.restarts_s or () if now_s - at_s < self.policy.window_s]
            self.restarts_s = [*recent, now_s]
            self.total_restarts += 1
        return verdict

    async def rest(self, delay_s: float) -> None:
        """Wait before a restart; ends early if the actor is doomed."""
        if delay_s > 0 and not self.doomed:
            self.wakeup = self.loop.create_future()
            await asyncio.wait((self.wakeup,), timeout=delay_s)
            self.wakeup = None

    def _interrupt(self, reason: StopReason, error: BaseException | None) -> None:
        """Stop serving at once: what is in hand is unknown, what waits and moves is not done."""
        if self.actor is None:
            return
        self.state = ActorState.RESTARTING
        self.close()
        self.leaving = self.actor
        why = f"its actor {reason}" + (f": {named(error)}" if error else "")
        self.undone = self.cut(why) | (self.undone or set())
        if not self.requeue:
            self.end_mail(
                lambda envelope: envelope.spec.may_move(envelope.message),
                lambda envelope: RestartingError(why, fate=Fate.NOT_DONE, **self.facts(envelope)),
            )

    # -- stopping --------------------------------------------------------------------------------------------------

    def doom(self) -> None:
        """Nothing starts this actor again."""
        self.doomed = True
        if self.wakeup is not None and not self.wakeup.done():
            self.wakeup.set_result(None)
        if self.quiet is not None and not self.quiet.done():
            self.quiet.set_result(None)
        if self.starting and self.hook is not None:
            self.hook.cancel()

    def retire(self, reason: StopReason, limit_s: float) -> asyncio.Task[ComponentReport]:
        """Begin to end this actor within `limit_s`, or hurry the end that has begun; the task that does it."""
        if self.keeper is None:
            self.dooming = reason
            self.keeper = self.system.own(self._retire(reason, limit_s), f"{self.name}.end")
        elif reason is not StopReason.STOPPED:
            self.doom()
        return self.keeper

    async def _retire(self, reason: StopReason, limit_s: float) -> ComponentReport:
        begun_s = self.loop.time()
        if self.state in _OVER:
            return ComponentReport(self.component, Outcome.CLEAN, f"it was {self.state} already")
        why = ""
        if reason is StopReason.STOPPED:
            why = await self._drain(DRAIN_SHARE * limit_s)
        elif self.state is ActorState.RUNNING:
            why = f"it was {reason}"
        self.close()
        if self.state is ActorState.RUNNING:
            self.state = ActorState.STOPPING
        self.doom()
        if self.actor is not None:
            self.leaving = self.actor
            self.undone = self.cut(f"its actor was {reason}") | (self.undone or set())
        self.announce(reason, None, final=True)
        why = (await self._end_in_turn(reason, begun_s + limit_s)) or why
        self.bury(ActorState.STOPPED, None)
        outcome = Outcome.LEAKED if self.leaked else Outcome.FORCED if why else Outcome.CLEAN
        return ComponentReport(self.component, outcome, why, self.loop.time() - begun_s)

    async def _end_in_turn(self, reason: StopReason, until_s: float) -> str:
        turn = self._turn()
        try:
            async with asyncio.timeout_at(until_s - (until_s - self.loop.time()) * DRAIN_SHARE / 4):
                await turn.acquire()
        except TimeoutError:
            if self.hook is not None:
                self.hook.cancel()
            return "its on_start or on_stop was still under way when its time was up"
        try:
            return await self._end(reason, until_s)
        finally:
            turn.release()

    async def _drain(self, limit_s: float) -> str:
        """Refuse new messages, and let the accepted ones end; why they did not all, or nothing."""
        if self.state is not ActorState.RUNNING:
            return ""
        self.state = ActorState.STOPPING
        self.close()
        if self.at_rest:
            return ""
        self.quiet = self.loop.create_future()
        await asyncio.wait((self.quiet,), timeout=limit_s)
        self.quiet = None
        if self.at_rest:
            return ""
        busy = [*(self.operations or ()), *(e for e in (self.in_hand, self.urgent_in_hand) if e)]
        names = ", ".join(sorted({type(envelope.message).__name__ for envelope in busy}))
        return f"still busy with {names or 'its mailbox'} when its time was up"

    def bury(self, state: ActorState, error: BaseException | None) -> None:
        """The last word: refuse everything, end the mail, leave the registry. Idempotent."""
        if self.state in _OVER:
            return
        self.doomed, self.state = True, state
        self.close()
        why = f"it is {state}" + (f": {named(error)}" if error else "")

        def gone(envelope: Envelope) -> StoppedError:
            return StoppedError(why, fate=Fate.NOT_DONE, **self.facts(envelope))

        self.end_mail(lambda envelope: envelope.spec is not _NOTICE, gone, urgent=True)
        self.mailbox.end(lambda _: True, urgent=True)
        self.mailbox.fold()
        self.links = None
        self.supervisor.forget(self)
        self.system.forget(self)

    # -- links -----------------------------------------------------------------------------------------------------

    def link(self, other: Cell) -> None:
        """Each is told when the other ends; at once if it has ended."""
        if other is self:
            raise ValueError(f"{self.name} cannot be linked to itself")
        for one, two in ((self, other), (other, self)):
            if two.state in _OVER:
                reason = StopReason.STOPPED if two.state is ActorState.STOPPED else StopReason.CRASHED
                one.notify(LinkNotice(two.ref, two.dooming or reason, two.error, final=True))
            elif one.state not in _OVER:
                one.links = {*(one.links or ()), two}

    def unlink(self, other: Cell) -> None:
        """Undo `link`."""
        for one, two in ((self, other), (other, self)):
            if one.links:
                one.links.discard(two)

    def announce(self, reason: StopReason, error: BaseException | None, *, final: bool) -> None:
        """Tell all links that this incarnation, or the actor for good, has ended."""
        self.error = error
        for other in tuple(self.links or ()):
            other.notify(LinkNotice(self.ref, reason, error, final))
            if final:
                self.unlink(other)

    def notify(self, notice: LinkNotice) -> None:
        """Put a notice into the urgent lane, unless nobody is there any more."""
        if self.state not in _OVER:
            self.mailbox.offer_urgent(Envelope(notice, _NOTICE, copy_context(), None, self), force=True)
            self.wake_urgent()

    def _turn(self) -> asyncio.Lock:
        if self.turn is None:
            self.turn = asyncio.Lock()
        return self.turn

    @property
    def component(self) -> str:
        """How reports call it."""
        return f"{self.system.name}.{self.name}"


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return LifecycleError(f"{task.get_name()} was cancelled") if task.cancelled() else task.exception()
