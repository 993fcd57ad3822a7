"""The post office of one actor: taking messages in, and ending each of them exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

import msgspec

from duodaq.clock import utc_ns
from duodaq.errors import (
    DeliveryError,
    MailboxFullError,
    ReplyTimeoutError,
    RestartingError,
    StoppedError,
)
from duodaq.model import Fate
from duodaq.telemetry import get_logger, named, words
from duodaq.v4._mailbox import Mailbox
from duodaq.v4._message import ActorState, DeadLetter, Envelope, HandlerSpec, MailboxMetrics

if TYPE_CHECKING:
    from duodaq.v4._cell import Cell
    from duodaq.v4._system import ActorSystem

_log = get_logger("v4.delivery")

_CLOSED: dict[type, HandlerSpec] = {}


class Delivery:
    """Takes messages for one actor, and tells their senders what became of them; knows nothing of who handles them."""

    __slots__ = (
        "dead_letters",
        "ended",
        "expired",
        "failed",
        "fallback",
        "fast",
        "handled",
        "late",
        "loop",
        "mailbox",
        "name",
        "open",
        "requeue",
        "state",
        "system",
        "table",
        "waiter",
        "worker",
    )

    def __init__(self, system: ActorSystem, name: str, capacity: int) -> None:
        self.system = system
        self.loop = system.loop
        self.name = name
        self.mailbox = Mailbox(capacity)
        self.state = ActorState.STARTING
        self.open = False
        self.requeue = False
        self.table: dict[type, HandlerSpec] = {}
        self.fast: dict[type, HandlerSpec] = _CLOSED
        self.fallback: HandlerSpec | None = None
        self.waiter: asyncio.Future[bool] | None = None
        self.worker: asyncio.Task[None] | None = None
        self.handled: int = 0
        self.failed: int = 0
        self.expired: int = 0
        self.ended: int = 0
        self.late: int = 0
        self.dead_letters: int = 0

    def send(self, message: object, reply: asyncio.Future[Any] | None) -> Envelope | None:
        """Enclose and post `message`, or say None if there is no room for it.

        Raises:
            DeliveryError: It cannot be taken at all; see `post`. Not done.
        """
        spec = self.fast.get(type(message))
        mailbox = self.mailbox
        lane = mailbox.lane
        depth = len(lane)
        if spec is not None and depth < mailbox.limit:
            envelope = Envelope(message, spec, copy_context(), reply, cast("Cell", self))
            lane.append(envelope)
            if depth == 0:
                self.rouse()
            return envelope
        envelope = self.enclose(message, reply)
        return envelope if self.post(envelope) else None

    def send_or_wait(self, message: object, reply: asyncio.Future[Any]) -> Envelope:
        """Enclose and post `message`; without room it waits for it, in the order of coming."""
        envelope = self.enclose(message, reply)
        self.post_or_wait(envelope)
        return envelope

    def post_or_wait(self, envelope: Envelope) -> None:
        """Post `envelope`; without room it waits for it, in the order of coming."""
        if not self.post(envelope):
            self.mailbox.wait(envelope, None)

    def enclose(self, message: object, reply: asyncio.Future[Any] | None) -> Envelope:
        """An envelope for `message`, with the sender's context variables."""
        kind = type(message)
        spec = self.table.get(kind) or self._find_spec(message)
        return Envelope(message, spec, copy_context(), reply, cast("Cell", self))

    def post(self, envelope: Envelope) -> bool:
        """Take an envelope, or say False if there is no room.

        Raises:
            DeliveryError: It cannot be taken at all: stopped, restarting, or the urgent lane is full. Not done.
        """
        if not self.open:
            self._check_closed(envelope)
        if envelope.spec.urgent:
            if not self.mailbox.offer_urgent(envelope):
                self.mailbox.refused += 1
                raise MailboxFullError("the urgent lane is full", **self.facts(envelope))
            self.wake_urgent()
            return True
        if not self.mailbox.offer(envelope):
            return False
        self.rouse()
        return True

    def rouse(self) -> None:
        """There is mail: wake the worker, or have one started. Needed only when the lane was empty before."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(False)
        elif self.worker is None:
            self.wake()

    def refuse(self, message: Any) -> MailboxFullError:
        """The error of a message that found no room."""
        self.mailbox.refused += 1
        full = f"its mailbox of {self.mailbox.capacity} is full"
        return MailboxFullError(full, instrument=self.name, command=type(message).__name__)

    async def wait_for_room(self, message: Any, timeout_s: float) -> None:
        """Wait, in the order of coming, until the mailbox has taken `message`.

        Cancellation: the message is withdrawn, unless it was taken in the same moment.
        """
        envelope = self.enclose(message, None)
        admission: asyncio.Future[None] = self.loop.create_future()
        self.mailbox.wait(envelope, admission)
        wait = _WaitForRoom(envelope, admission, self)
        slot = self.system.wheel.add(wait, timeout_s)
        try:
            await admission
        except asyncio.CancelledError:
            self.mailbox.remove(envelope)
            raise
        finally:
            slot.discard(wait)

    def expire(self, envelope: Envelope) -> None:
        """The deadline of an ask has passed: removed if it still waits (not done), else unknown."""
        if envelope.reply is None or envelope.reply.done():
            return
        self.expired += 1
        waited = self.mailbox.remove(envelope)
        where = "it was still waiting and has been withdrawn" if waited else "it was in hand"
        fate = Fate.NOT_DONE if waited else Fate.UNKNOWN
        error = ReplyTimeoutError(f"no reply within its deadline: {where}", fate=fate, **self.facts(envelope))
        envelope.reply.set_exception(error)

    def forsake(self, envelope: Envelope) -> None:
        """The asker was cancelled: a message that still waits is withdrawn; one in hand goes on, and ends late."""
        if self.mailbox.remove(envelope):
            self.ended += 1

    def settle(self, envelope: Envelope, value: Any) -> None:
        """Done: the asker gets `value`."""
        reply = envelope.reply
        if reply is None:
            return
        if reply.done():
            self.note_late(envelope, Fate.DONE)
        else:
            reply.set_result(value)
            if envelope.operation is not None:
                envelope.operation.rouse()

    def fail(self, envelope: Envelope, error: BaseException) -> None:
        """The asker gets `error`; from a tell it goes to the dead letters."""
        fate = Fate(error.fate) if isinstance(error, DeliveryError) else Fate.FAILED
        reply = envelope.reply
        if reply is None:
            self.bury_letter(envelope, fate, words(error) or named(error))
        elif reply.done():
            self.note_late(envelope, fate)
        else:
            reply.set_exception(RuntimeError(named(error)) if isinstance(error, StopIteration) else error)
            if envelope.operation is not None:
                envelope.operation.rouse()

    def note_late(self, envelope: Envelope, fate: Fate) -> None:
        """An outcome came after the verdict, which stands."""
        self.late += 1
        _log.warning("late outcome", actor=self.name, message=type(envelope.message).__name__, outcome=fate.value)

    def bury_letter(self, envelope: Envelope, fate: Fate, why: str) -> None:
        """Put a message that nobody waits for among the dead letters, with its fate."""
        self.dead_letters += 1
        self.system.dead_letters.append(DeadLetter(self.name, envelope.message, fate, why, utc_ns()))

    def end_mail(
        self, unwanted: Callable[[Envelope], bool], error: Callable[[Envelope], DeliveryError], *, urgent: bool = False
    ) -> int:
        """End, not done, every waiting message that is `unwanted`; how many there were."""
        gone = self.mailbox.end(unwanted, urgent=urgent)
        for envelope, admission in gone:
            self.ended += 1
            if admission is None:
                self.fail(envelope, error(envelope))
            elif not admission.done():
                admission.set_exception(error(envelope))
        return len(gone)

    def end_moving(self, reason: str, chosen: Callable[[Any], bool] | None = None) -> int:
        """End, not done, every waiting message that moves or emits and is `chosen`."""
        return self.end_mail(
            lambda envelope: envelope.spec.may_move(envelope.message) and (chosen is None or chosen(envelope.message)),
            lambda envelope: StoppedError(reason, fate=Fate.NOT_DONE, **self.facts(envelope)),
        )

    def facts(self, envelope: Envelope) -> dict[str, Any]:
        """Which instrument and command an error is about."""
        return {"instrument": self.name, "command": type(envelope.message).__name__}

    @property
    def metrics(self) -> MailboxMetrics:
        """The mailbox's figures now."""
        box = self.mailbox
        return MailboxMetrics(
            capacity=box.capacity,
            depth=len(box),
            waiting=box.waiting,
            urgent_depth=box.urgent_depth,
            high_water=box.high_water,
            taken=box.taken,
            handled=self.handled,
            failed=self.failed,
            refused=box.refused,
            expired=self.expired,
            ended=self.ended,
            late=self.late,
            dead_letters=self.dead_letters,
            restarts=self.restarts,
        )

    def open_for(self, ordinary: dict[type, HandlerSpec]) -> None:
        """Open for messages, and let the `ordinary` ones (not urgent) take the short way."""
        self.open, self.fast = True, ordinary

    def close(self) -> None:
        """Take nothing more without looking at the state."""
        self.open, self.fast = False, _CLOSED

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return 0

    def wake(self) -> None:
        """There is a message and no worker."""

    def wake_urgent(self) -> None:
        """There is an urgent message."""

    def _find_spec(self, message: object) -> HandlerSpec:
        for base in type(message).__mro__[1:]:
            spec = self.table.get(base)
            if spec is not None:
                return spec
        if self.fallback is not None:
            return self.fallback
        if self.state in (ActorState.STOPPED, ActorState.FAILED):
            raise StoppedError(f"it is {self.state}", instrument=self.name, command=type(message).__name__)
        what = f"it has no handler for {type(message).__qualname__}"
        raise DeliveryError(what, fate=Fate.NOT_DONE, instrument=self.name)

    def _check_closed(self, envelope: Envelope) -> None:
        if self.state is ActorState.STARTING:
            return
        if self.state is ActorState.RESTARTING:
            if self.requeue or not envelope.spec.may_move(envelope.message):
                return
            error: DeliveryError = RestartingError("it is restarting", **self.facts(envelope))
        elif self.state is ActorState.STOPPING and envelope.spec.urgent:
            return
        else:
            error = StoppedError(f"it is {self.state}", **self.facts(envelope))
        if envelope.reply is None:
            self.bury_letter(envelope, Fate.NOT_DONE, error.what)
        raise error


class _WaitForRoom(msgspec.Struct, eq=False):
    """A tell that waits for room, as the deadline wheel sees it."""

    envelope: Envelope
    admission: asyncio.Future[None]
    delivery: Delivery

    def expire(self) -> None:
        if not self.admission.done() and self.delivery.mailbox.remove(self.envelope):
            self.admission.set_exception(self.delivery.refuse(self.envelope.message))
