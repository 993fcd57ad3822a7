"""What travels to an actor, and how its class says who handles it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import Context
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from duodaq.model import Fate

if TYPE_CHECKING:
    import asyncio

    from duodaq.v4._cell import Cell
    from duodaq.v4._operation import Operation
    from duodaq.v4._ref import ActorRef

_F = TypeVar("_F", bound=Callable[..., Any])
_MARK = "__duodaq_handler__"


class ActorState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class StopReason(StrEnum):
    """Why an incarnation of an actor ends."""

    STOPPED = "stopped"
    KILLED = "killed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    RESTARTED = "restarted with its group"
    START_FAILED = "start failed"


class Finish(Exception):  # noqa: N818 - it is no error: raising it is how a handler says that the work is over
    """Raised in a handler, it ends the actor as finished: `reply` goes to the asker, `on_stop` runs.

    An actor whose policy is permanent is started again; any other is stopped, and nothing escalates.
    """

    def __init__(self, reply: Any = None) -> None:
        super().__init__("finished")
        self.reply = reply


class LinkNotice(msgspec.Struct, frozen=True):
    """An actor that one is linked to has ended. Unless `final`, its supervisor starts it again and the link stays."""

    ref: ActorRef
    reason: StopReason
    error: BaseException | None
    final: bool


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that nobody will answer for: where it went, its fate, and why. `t_ns` is UTC."""

    actor: str
    message: Any
    fate: Fate
    why: str
    t_ns: int


class MailboxMetrics(msgspec.Struct, frozen=True):
    """The figures of one mailbox since its actor was spawned; `depth`, `waiting` and `urgent_depth` are those of now.

    `refused` counts messages not taken because there was no room; `expired` asks whose deadline passed; `late`
    outcomes that came after the verdict; `ended` messages that ended not done (stop, restart, end_moving).
    """

    capacity: int
    depth: int
    waiting: int
    urgent_depth: int
    high_water: int
    taken: int
    handled: int
    failed: int
    refused: int
    expired: int
    ended: int
    late: int
    dead_letters: int
    restarts: int


class HandlerSpec:
    """One handler of an actor class: the function and what it promises."""

    __slots__ = ("direct", "function", "idempotent", "is_async", "moves", "name", "operation", "urgent")

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        urgent: bool = False,
        idempotent: bool | Callable[[Any], bool] = False,
        moves: bool | Callable[[Any], bool] = False,
        operation: bool = False,
    ) -> None:
        self.function = function
        self.name = getattr(function, "__name__", "handler")
        self.is_async = inspect.iscoroutinefunction(function)
        self.urgent = urgent
        self.idempotent = idempotent
        self.moves = moves
        self.operation = operation
        self.direct = not operation and moves is False
        if operation and (urgent or not self.is_async):
            raise TypeError(f"{self.name}: an operation is an async handler, and never urgent")

    def overridden(self, function: Callable[..., Any]) -> HandlerSpec:
        """The same promises, kept by a subclass's `function`."""
        return HandlerSpec(
            function, urgent=self.urgent, idempotent=self.idempotent, moves=self.moves, operation=self.operation
        )

    def only_reads(self, message: Any) -> bool:
        """Whether this message reads, and changes nothing."""
        return self.idempotent if isinstance(self.idempotent, bool) else self.idempotent(message)

    def may_move(self, message: Any) -> bool:
        """Whether this message moves or emits something."""
        return self.moves if isinstance(self.moves, bool) else self.moves(message)


class Envelope(msgspec.Struct, eq=False):
    """A message on its way: compared by identity, and settled at most once through `reply` (None for a tell)."""

    message: Any
    spec: HandlerSpec
    context: Context
    reply: asyncio.Future[Any] | None
    cell: Cell
    operation: Operation | None = None

    def expire(self) -> None:
        """The deadline of the ask has passed."""
        self.cell.expire(self)


def handler(
    *message_types: type,
    urgent: bool = False,
    idempotent: bool | Callable[[Any], bool] = False,
    moves: bool | Callable[[Any], bool] = False,
    operation: bool = False,
) -> Callable[[_F], _F]:
    """Mark a method (async or plain) as the handler of messages of these types and their subclasses.

    Args:
        message_types: The classes it handles; the nearest class in a message's MRO wins.
        urgent: Served at once, beside the message in hand.
        idempotent: A read: doing it twice is as good as once (or a function of the message that says so).
        moves: It moves or emits something (or a function of the message that says so): while it waits, a restart or a
            stop ends it *not done*.
        operation: A long operation: runs as a task beside the mailbox, with progress; see `ActorRef.operate`.
    """

    def mark(function: _F) -> _F:
        spec = HandlerSpec(function, urgent=urgent, idempotent=idempotent, moves=moves, operation=operation)
        setattr(function, _MARK, (message_types, spec))
        return function

    return mark


def handlers_of(cls: type) -> dict[type, HandlerSpec]:
    """The handlers a class has, its bases' included; an override replaces the function but keeps its own marks."""
    table: dict[type, HandlerSpec] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            marked: tuple[tuple[type, ...], HandlerSpec] | None = getattr(member, _MARK, None)
            if marked is not None:
                table.update(dict.fromkeys(*marked))
            elif callable(member):
                table.update({key: old.overridden(member) for key, old in table.items() if old.name == name})
    return table
