"""Long operations: awaitable, cancellable, with progress, beside the mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextvars import ContextVar
from typing import Any

import msgspec

from duodaq.clock import Deadlines
from duodaq.errors import DeliveryError
from duodaq.model import Fate
from duodaq.v4._message import Envelope

CURRENT: ContextVar[Operation | None] = ContextVar("duodaq.v4.operation", default=None)


class Progress(msgspec.Struct, frozen=True):
    """How far an operation is: `fraction` from 0 to 1, and a word for people."""

    fraction: float
    text: str = ""


class Operation:
    """A long operation in the hands of whoever asked for it.

    Await it for its result, any number of times. Cancelling an awaiter ends that wait alone; `cancel` ends the
    operation itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reply: asyncio.Future[Any] = loop.create_future()
        self.reply.add_done_callback(self._seal)
        self._loop = loop
        self._envelope: Envelope | None = None
        self._progress = Progress(0.0)
        self._changed: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    @property
    def done(self) -> bool:
        """Whether its fate is decided."""
        return self.reply.done()

    @property
    def fate(self) -> Fate | None:
        """How it ended, or None while it has not."""
        return fate_of(self.reply) if self.reply.done() else None

    @property
    def progress(self) -> Progress:
        """The latest progress it reported."""
        return self._progress

    def cancel(self) -> None:
        """End it: *not done* if it still waits, else its handler is cancelled, and unless that ends done or failed
        its fate is *unknown*. Idempotent; does not wait (await the operation for that)."""
        if self._envelope is not None and not self.done:
            self._envelope.cell.cancel_operation(self._envelope)

    async def ended_within(self, limit_s: float | None, deadlines: Deadlines) -> bool:
        """Wait until it has ended, or for `limit_s`; whether it has. Only one may wait so.

        Cancellation: it goes on.
        """
        if self.done:
            return True
        self._waiter = self._loop.create_future()
        if limit_s is not None:
            deadlines.add(self, self._loop.time() + limit_s)
        try:
            await self._waiter
        finally:
            self._waiter = None
            deadlines.discard(self)
        return self.done

    def expire(self) -> None:
        """Who waits in `ended_within` has waited long enough."""
        self.rouse()

    def rouse(self) -> None:
        """Its reply has been set: who waits in `ended_within` goes on (the kernel calls it, a round of the loop before
        the reply's own callbacks).
        """
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def updates(self) -> AsyncIterator[Progress]:
        """Each progress report from now on, the latest if several came at once; ends with the operation."""
        seen: Progress | None = None
        while True:
            if self._progress is not seen:
                seen = self._progress
                yield seen
            elif self.done:
                return
            else:
                if self._changed is None or self._changed.done():
                    self._changed = self._loop.create_future()
                await asyncio.wait((self._changed,))

    def bind(self, envelope: Envelope) -> None:
        """Tie it to the message that carries it (the kernel does)."""
        self._envelope = envelope

    def report(self, progress: Progress) -> None:
        """Take a progress report (`Actor.progress` does)."""
        self._progress = progress
        self._wake()

    async def _result(self) -> Any:
        await asyncio.wait((self.reply,))
        return self.reply.result()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _seal(self, reply: asyncio.Future[Any]) -> None:
        if not reply.cancelled():
            reply.exception()  # an operation nobody awaits may fail: its fate says so
        self._envelope = None  # whose context knows this operation
        self.rouse()
        self._wake()


def fate_of(reply: asyncio.Future[Any]) -> Fate:
    """The fate that a settled reply tells."""
    if reply.cancelled():
        return Fate.UNKNOWN
    error = reply.exception()
    if error is None:
        return Fate.DONE
    return Fate(error.fate) if isinstance(error, DeliveryError) else Fate.FAILED
