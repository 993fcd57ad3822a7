"""What a person writes to make an actor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from duodaq.errors import DuodaqError
from duodaq.v4._message import HandlerSpec, LinkNotice, StopReason, handlers_of
from duodaq.v4._operation import CURRENT, Progress

if TYPE_CHECKING:
    from duodaq.v4._cell import Cell
    from duodaq.v4._ref import ActorRef
    from duodaq.v4._system import ActorSystem


class Actor:
    """A thing with a mailbox: its handlers run one at a time, so its own state needs no lock.

    Subclass it, and mark methods with `handler`; or override `receive` and get every message there. One instance is
    one incarnation: after a crash the factory makes a new one, behind the same `ActorRef`.
    """

    handlers: ClassVar[dict[type, HandlerSpec]] = {}
    ordinary: ClassVar[dict[type, HandlerSpec]] = {}
    fallback: ClassVar[HandlerSpec | None] = None
    _cell: Cell

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.handlers = handlers_of(cls)
        cls.ordinary = {kind: spec for kind, spec in cls.handlers.items() if not spec.urgent}
        cls.fallback = None if cls.receive is Actor.receive else HandlerSpec(cls.receive)

    @property
    def ref(self) -> ActorRef:
        """The address of this actor, valid across restarts. Not yet there in ``__init__``."""
        return self._cell.ref

    @property
    def system(self) -> ActorSystem:
        """The system it lives in."""
        return self._cell.system

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self._cell.name

    async def on_start(self) -> None:
        """Prepare: awaited before the first message, within the start limit; raising fails the start."""

    async def on_stop(self, reason: StopReason) -> None:
        """Close what this incarnation opened: awaited once however it ends, a failed or cut `on_start` included."""

    async def on_link(self, notice: LinkNotice) -> None:
        """Learn that a linked actor ended. Served in the urgent lane."""

    async def receive(self, message: Any) -> Any:
        """Handle a message no `handler` is marked for, if overridden."""
        raise NotImplementedError

    def refusal(self, message: Any) -> DuodaqError | None:
        """Why a message that may move or emit must not be handled now, if so; asked when it comes to its turn."""
        return None

    def progress(self, fraction: float, text: str = "") -> None:
        """Report how far the operation is that this is called in; elsewhere it does nothing."""
        operation = CURRENT.get()
        if operation is not None:
            operation.report(Progress(fraction, text))

    def run_beside(self, work: Coroutine[Any, Any, Any], name: str = "beside") -> asyncio.Task[Any]:
        """Run `work` (a poll loop, a reader) as a task that this incarnation owns.

        It is cancelled, and awaited, when the incarnation ends, before `on_stop`. If it raises, the actor crashes.
        """
        return self._cell.run_beside(work, name)
