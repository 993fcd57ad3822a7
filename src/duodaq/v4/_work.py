"""The hands of one actor: its worker, its urgent lane, its operations.

Rules whoever edits this must keep:

1. One message in hand at a time, beside it at most one urgent one; operations and `run_beside` tasks besides.
2. The worker is an ordinary task, so `asyncio.timeout`, `current_task` and cancellation mean in a handler what they
   mean anywhere. It exists only while there is something to do and `LINGER_S` longer: an idle actor owns no task.
3. A handler sees its sender's context variables. As long as these equal the worker's own, it is awaited directly;
   otherwise it is stepped inside the sender's context (`_stepped`), which costs about half a microsecond more.
4. `actor` is the incarnation that serves now. A worker, an operation or a task that finds another there has been cut
   off: it ends, touches nothing, and whatever it still brings is late.
5. Cutting settles first and cancels then: the asker's verdict never waits for the handler's obedience.
6. A burst ends after `BURST` messages, so that handlers which never wait cannot keep the loop from everybody else.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any

from duodaq.errors import DeliveryError, DuodaqError, LifecycleError, MailboxFullError, RestartingError, StoppedError
from duodaq.model import IN_HAND, Fate
from duodaq.telemetry import get_logger, named
from duodaq.v4._delivery import Delivery
from duodaq.v4._message import ActorState, Envelope, Finish
from duodaq.v4._operation import CURRENT, Operation

if TYPE_CHECKING:
    from duodaq.v4._actor import Actor
    from duodaq.v4._system import ActorSystem

_log = get_logger("v4.work")

BURST = 256
_CUT_BY = {ActorState.RUNNING: DeliveryError, ActorState.RESTARTING: RestartingError}


class Work(Delivery):
    """Handles the mail of one incarnation."""

    __slots__ = ("actor", "beside", "in_hand", "operations", "quiet", "urgent_in_hand", "urgent_worker")

    def __init__(self, system: ActorSystem, name: str, capacity: int) -> None:
        super().__init__(system, name, capacity)
        self.actor: Actor | None = None
        self.in_hand: Envelope | None = None
        self.urgent_in_hand: Envelope | None = None
        self.urgent_worker: asyncio.Task[None] | None = None
        self.operations: dict[Envelope, asyncio.Task[None]] | None = None
        self.beside: set[asyncio.Task[Any]] | None = None
        self.quiet: asyncio.Future[None] | None = None

    def crash(self, error: BaseException, *, failed: bool = True) -> None:
        """The incarnation is broken; the life cycle overrides this."""
        raise NotImplementedError

    @property
    def at_rest(self) -> bool:
        """Whether nothing is in hand or waits."""
        return not (
            self.in_hand or self.urgent_in_hand or self.operations or len(self.mailbox) or self.mailbox.urgent_depth
        )

    def wake(self) -> None:
        """Start a worker for what is in the mailbox."""
        if self.actor is None:
            return
        first = next(iter(self.mailbox), None)
        if first is not None:
            context = first.context.copy()  # its own: an operation leaves its traces in the original
            self.worker = self.loop.create_task(self._work(self.actor, context), name=self.name, context=context)
            self.worker.add_done_callback(self._worker_ended)
            self.system.note_busy(self)

    def wake_urgent(self) -> None:
        """Start the urgent worker unless it is at work."""
        if self.actor is not None and self.urgent_worker is None and self.mailbox.urgent_depth:
            self.urgent_worker = self.loop.create_task(self._work_urgent(self.actor), name=f"{self.name}!")

    async def _work(self, actor: Actor, context: Context) -> None:
        mailbox = self.mailbox
        take, new_future = mailbox.take, self.loop.create_future
        while True:
            for _ in range(BURST):
                envelope = take()
                if envelope is None:
                    self.in_hand = None
                    waiter = self.waiter = new_future()
                    if self.quiet is not None:
                        self.note_quiet()
                    try:
                        idle = await waiter
                    except asyncio.CancelledError:
                        await self._mourn(actor)
                        raise
                    if idle and not len(mailbox):
                        self.worker = None
                        mailbox.fold()
                        return
                    continue
                self.in_hand = envelope
                spec = envelope.spec
                if (tell := envelope.context.get(IN_HAND)) is not None:
                    tell()
                try:
                    if spec.direct and envelope.context == context:
                        value = spec.function(actor, envelope.message)
                        if spec.is_async:
                            value = await value
                        reply = envelope.reply
                        if reply is not None:
                            if reply.done():
                                self.note_late(envelope, Fate.DONE)
                            else:
                                reply.set_result(value)
                    else:
                        await self._handle(actor, envelope)
                except BaseException as error:  # noqa: BLE001 - each error finds its addressee there, or goes on
                    if not await self._excuse(actor, envelope, error):
                        return
                if self.actor is not actor:
                    return
                self.handled += 1
            self.in_hand = None
            try:
                await _breathe()
            except asyncio.CancelledError:
                await self._mourn(actor)
                raise

    async def _mourn(self, actor: Actor) -> None:
        if self.actor is actor:
            await self.cancelled()

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        if self.worker is task:  # neither idle nor cut: cancelled before its first step, or a SystemExit
            self.worker = None
            self.retire_cancelled()

    async def _work_urgent(self, actor: Actor) -> None:
        while self.actor is actor and (envelope := self.mailbox.take_urgent()) is not None:
            self.urgent_in_hand = envelope
            if (tell := envelope.context.get(IN_HAND)) is not None:
                tell()
            try:
                await self._handle(actor, envelope)
            except BaseException as error:  # noqa: BLE001 - each error finds its addressee there, or goes on
                if not await self._excuse(actor, envelope, error):
                    return
            if self.actor is actor:
                self.urgent_in_hand = None
                self.handled += 1
        if self.actor is actor:
            self.urgent_worker = None
            self.note_quiet()

    async def _handle(self, actor: Actor, envelope: Envelope) -> None:
        spec = envelope.spec
        if spec.moves and (refusal := envelope.context.run(actor.refusal, envelope.message)) is not None:
            self._refuse(envelope, refusal)
        elif spec.operation:
            self._begin_operation(actor, envelope)
        elif spec.is_async:
            self.settle(envelope, await _stepped(spec.function(actor, envelope.message), envelope.context))
        else:
            self.settle(envelope, envelope.context.run(spec.function, actor, envelope.message))

    def _refuse(self, envelope: Envelope, refusal: DuodaqError) -> None:
        """End a message that was not begun: no failure of the actor, also if nobody waits for an answer."""
        self.ended += 1
        if envelope.reply is None:
            self.bury_letter(envelope, Fate.NOT_DONE, str(refusal))
        else:
            self.fail(envelope, refusal)

    async def _excuse(self, actor: Actor, envelope: Envelope, error: BaseException) -> bool:
        """Give an error to whom it concerns; whether the worker may go on."""
        if self.actor is not actor:
            if not isinstance(error, asyncio.CancelledError):
                self.note_late(envelope, Fate.FAILED)
            return False
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            error = self.cut_off(envelope, "its handler was cancelled")
            if task is not None and task.cancelling():
                await self.cancelled()
                raise asyncio.CancelledError
        elif not isinstance(error, Exception):
            self.failed += 1
            self.fail(envelope, self.cut_off(envelope, f"its handler raised {named(error)}"))
            if isinstance(error, KeyboardInterrupt):
                raise error  # Ctrl-C is the program's, not ours
            self.crash(error)
            return False
        return self._blame(actor, envelope, error)

    def _blame(self, actor: Actor, envelope: Envelope, error: BaseException) -> bool:
        finished = isinstance(error, Finish)
        if finished:
            self.settle(envelope, error.reply)
        else:
            self.failed += 1
            self.fail(envelope, error)
        if envelope.reply is None or finished:
            if self.in_hand is envelope:
                self.in_hand = None
            if self.urgent_in_hand is envelope:
                self.urgent_in_hand = None
            self.crash(error, failed=not finished)
        return self.actor is actor

    async def cancelled(self) -> None:
        """Somebody outside cancelled the worker (a loop that shuts down does): end, and let it wait for the end."""
        self.worker = None
        await asyncio.wait((self.retire_cancelled(),))

    def retire_cancelled(self) -> asyncio.Task[Any]:
        """End as cancelled; the life cycle overrides this."""
        raise NotImplementedError

    def run_beside(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` as a task of this incarnation."""
        task = self.loop.create_task(work, name=f"{self.name}.{name}")
        if self.beside is None:
            self.beside = set()
        self.beside.add(task)
        task.add_done_callback(self._beside_ended)
        return task

    def _beside_ended(self, task: asyncio.Task[Any]) -> None:
        if self.beside is None or task not in self.beside:
            return  # cut off, and taken over by whoever ends the incarnation
        self.beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crash(error)

    def begin_at_once(self, envelope: Envelope) -> bool:
        """Begin an operation that neither moves nor emits, without the worker, if it is its turn; False if it is not.

        What may move goes through the mailbox, where a stop finds it.
        """
        actor, spec = self.actor, envelope.spec
        if actor is None or not self.open or self.in_hand is not None or not spec.operation or spec.moves is not False:
            return False
        if not self.mailbox.pass_by():
            return False
        if (tell := envelope.context.get(IN_HAND)) is not None:
            tell()
        self._begin_operation(actor, envelope)
        self.handled += 1
        return True

    def _begin_operation(self, actor: Actor, envelope: Envelope) -> None:
        if self.operations is None:
            self.operations = {}
        if len(self.operations) >= self.mailbox.capacity:
            full = f"{len(self.operations)} operations are under way, which is the limit"
            self.fail(envelope, MailboxFullError(full, **self.facts(envelope)))
            return
        work = self._operate(actor, envelope)
        task = self.loop.create_task(work, name=f"{self.name}.{envelope.spec.name}", context=envelope.context)
        self.operations[envelope] = task
        task.add_done_callback(lambda task: self._operation_ended(actor, envelope, task))

    async def _operate(self, actor: Actor, envelope: Envelope) -> None:
        CURRENT.set(envelope.operation or Operation(self.loop))
        value = await tamed(lambda: envelope.spec.function(actor, envelope.message))
        if self.actor is not actor:
            self.note_late(envelope, Fate.DONE)
            return
        if self.operations is not None:
            self.operations.pop(envelope, None)
        self.settle(envelope, value)
        self.note_quiet()

    def _operation_ended(self, actor: Actor, envelope: Envelope, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return  # it has said so itself
        if self.actor is not actor:
            if not task.cancelled():
                self.note_late(envelope, Fate.FAILED)
            return
        if self.operations is not None:
            self.operations.pop(envelope, None)
        if error is None:
            self.failed += 1
            self.fail(envelope, self.cut_off(envelope, "it was cancelled while under way"))
        else:
            self._blame(actor, envelope, error)
        self.note_quiet()

    def cancel_operation(self, envelope: Envelope) -> None:
        """End an operation: withdrawn if it waits, else its task is cancelled."""
        if self.mailbox.remove(envelope):
            self.ended += 1
            error = StoppedError("it was cancelled before it began", fate=Fate.NOT_DONE, **self.facts(envelope))
            self.fail(envelope, error)
        elif self.operations and envelope in self.operations:
            self.operations[envelope].cancel()

    def note_quiet(self) -> None:
        """Tell whoever waits for the actor to come to rest, if it has."""
        if self.quiet is not None and not self.quiet.done() and self.at_rest:
            self.quiet.set_result(None)

    def cut(self, why: str) -> set[asyncio.Task[Any]]:
        """Cut the incarnation off: verdict *unknown* for all that is in hand, then cancel; the tasks to wait for."""
        self.actor = None
        self.waiter = None
        operations, self.operations = self.operations or {}, None
        beside, self.beside = self.beside or set(), None
        for envelope in (self.in_hand, self.urgent_in_hand, *operations):
            if envelope is not None:
                self.failed += 1
                self.fail(envelope, self.cut_off(envelope, why))
        self.in_hand = self.urgent_in_hand = None
        tasks: set[asyncio.Task[Any]] = {*operations.values(), *beside}
        tasks.update(task for task in (self.worker, self.urgent_worker) if task is not None)
        self.worker = self.urgent_worker = None
        tasks.discard(_current_task())
        tasks = {task for task in tasks if not task.done()}
        for task in tasks:
            task.cancel()
        return tasks

    def cut_off(self, envelope: Envelope, why: str) -> DeliveryError:
        """The error of a message that was in hand when its actor was cut off."""
        kind = _CUT_BY.get(self.state, StoppedError)
        return kind(why, fate=Fate.UNKNOWN, **self.facts(envelope))


async def tamed(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Await `work()`; a SystemExit in it becomes a LifecycleError, for out of a task it would end the whole program."""
    try:
        return await work()
    except (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise LifecycleError(f"a driver raised {named(error)}") from error


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


@types.coroutine
def _breathe() -> Generator[None, None, None]:
    yield


@types.coroutine
def _stepped(work: Coroutine[Any, Any, Any], context: Context) -> Generator[Any, Any, Any]:
    """Await `work` with each of its steps inside `context`."""
    step: Callable[..., Any] = work.send
    given: Any = None
    while True:
        try:
            awaited = context.run(step, given)
        except StopIteration as stop:
            return stop.value
        try:
            given, step = (yield awaited), work.send
        except GeneratorExit:
            context.run(work.close)
            raise
        except BaseException as error:  # noqa: BLE001 - thrown on into the handler, which decides
            given, step = error, work.throw
