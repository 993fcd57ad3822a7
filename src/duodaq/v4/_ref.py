"""The address of an actor: all that others ever hold of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from duodaq.errors import LifecycleError
from duodaq.model import ComponentReport
from duodaq.v4._message import ActorState, Envelope, MailboxMetrics, StopReason
from duodaq.v4._operation import Operation

if TYPE_CHECKING:
    from duodaq.v4._cell import Cell

FOREVER = float("inf")


class ActorRef:
    """Sends messages to an actor, across its restarts. Use it on the loop of its system."""

    __slots__ = ("__weakref__", "_cell")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def __repr__(self) -> str:
        return f"<ActorRef {self.name} ({self.state})>"

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self._cell.name

    @property
    def state(self) -> ActorState:
        """What it is doing with its life."""
        return self._cell.state

    @property
    def metrics(self) -> MailboxMetrics:
        """The figures of its mailbox now."""
        return self._cell.metrics

    @property
    def restarts(self) -> int:
        """How often it has been started again; of all its figures the one that is asked for all the time."""
        return self._cell.restarts

    async def ask(self, message: Any, timeout_s: float | None = None) -> Any:
        """Send `message` and wait for the reply.

        Args:
            message: Any object the actor has a handler for.
            timeout_s: Deadline in seconds, waiting for room included; the system's default without one.

        Returns:
            What the handler returned.

        Raises:
            ReplyTimeoutError: The deadline passed. ``fate`` is not done (it still waited, and was withdrawn) or
                unknown (it was in hand; the handler goes on, and its outcome is logged as late).
            DeliveryError: Stopped, restarting or cut off; ``fate`` says which side of the handler that was on.
            Exception: Whatever the handler raised: failed. The actor goes on.

        Cancellation: a message that still waits is withdrawn; one in hand goes on, and its outcome is logged as late.
        """
        cell = self._cell
        if cell.in_hand is not None:
            self._refuse_self(message)
        reply = cell.loop.create_future()
        envelope = cell.send(message, reply) or cell.send_or_wait(message, reply)
        slot = cell.system.wheel.add(envelope, cell.system.ask_timeout_s if timeout_s is None else timeout_s)
        try:
            return await reply
        except asyncio.CancelledError:
            cell.forsake(envelope)
            raise
        finally:
            slot.discard(envelope)

    async def tell(self, message: object, timeout_s: float | None = None) -> None:
        """Send `message`; return when the mailbox has taken it. An exception of its handler crashes the actor.

        Raises:
            MailboxFullError: No room within `timeout_s` (the system's default without one). Not done.
            DeliveryError: Stopped or restarting. Not done; it is among the dead letters.
        """
        cell = self._cell
        spec = cell.fast.get(type(message))
        mailbox = cell.mailbox
        lane = mailbox.lane
        depth = len(lane)
        if spec is not None and depth < mailbox.limit:  # `send`, spelled out: calling it is a tenth of a tell
            lane.append(Envelope(message, spec, copy_context(), None, cell))
            if depth == 0:
                cell.rouse()
        elif cell.send(message, None) is None:
            if cell.in_hand is not None:
                self._refuse_self(message)
            await cell.wait_for_room(message, cell.system.ask_timeout_s if timeout_s is None else timeout_s)

    def tell_nowait(self, message: Any) -> None:
        """Send `message` if there is room now.

        Raises:
            MailboxFullError: There is none (``WouldBlock`` is its other name). Not done.
            DeliveryError: As `tell`.
        """
        cell = self._cell
        if cell.send(message, None) is None:
            raise cell.refuse(message)

    def operate(self, message: Any, timeout_s: float | None = None) -> Operation:
        """Begin a long operation and return it: await it, cancel it, watch its progress.

        Args:
            message: One whose handler is marked ``operation=True`` (with any other it is an ask one need not await).
            timeout_s: Deadline for the result; none without one, for it can be cancelled.
        """
        cell = self._cell
        operation = Operation(cell.loop)
        envelope = cell.enclose(message, operation.reply)
        envelope.operation = operation
        operation.bind(envelope)
        if not cell.begin_at_once(envelope):
            cell.post_or_wait(envelope)
        if timeout_s is not None and timeout_s != FOREVER:
            slot = cell.system.wheel.add(envelope, timeout_s)
            operation.reply.add_done_callback(lambda _: slot.discard(envelope))
        return operation

    def link(self, other: ActorRef) -> None:
        """Let each learn through `on_link` when the other ends; at once if it has ended already."""
        self._cell.link(other._cell)

    def unlink(self, other: ActorRef) -> None:
        """Undo `link`."""
        self._cell.unlink(other._cell)

    def end_moving(self, reason: str, chosen: Callable[[Any], bool] | None = None) -> int:
        """End every waiting message that moves or emits, as not done (StoppedError); how many there were.

        Args:
            reason: What the askers are told.
            chosen: Which of them; all without it.
        """
        return self._cell.end_moving(reason, chosen)

    async def stop(self, timeout_s: float | None = None) -> ComponentReport:
        """Stop it: new messages are refused, accepted ones may complete, then `on_stop` runs.

        Args:
            timeout_s: Seconds for all of it; by default its stop limit and as long again for what is accepted.

        Returns:
            Clean, forced (why), or leaked: a task of it would not end. Asked again, the same report.

        Raises:
            LifecycleError: Called in its own handler, which would wait for itself. Nothing happened.

        Cancellation: the stop goes on without its caller.
        """
        cell = self._cell
        self._refuse_suicide()
        limit_s = 2 * cell.stop_timeout_s if timeout_s is None else timeout_s
        task = cell.retire(StopReason.STOPPED, limit_s)
        await asyncio.wait((task,))
        return task.result()

    async def kill(self) -> ComponentReport:
        """End it now: what is in hand is cut off (unknown), what waits is not done; then `on_stop` runs."""
        cell = self._cell
        self._refuse_suicide()
        task = cell.retire(StopReason.KILLED, cell.stop_timeout_s)
        await asyncio.wait((task,))
        return task.result()

    def _refuse_suicide(self) -> None:
        if asyncio.current_task() is self._cell.worker:
            raise LifecycleError("a handler ends its own actor by raising Finish", instrument=self.name)

    def _refuse_self(self, message: Any) -> None:
        cell = self._cell
        if asyncio.current_task() is cell.worker and not cell.enclose(message, None).spec.urgent:
            raise LifecycleError("an actor that waits for its own mailbox waits for ever", instrument=self.name)
