"""Where several exchanges are made under one lease, and what a port's owner is to those who use it.

A driver call, or a session on a port without codec, makes its exchanges from a *seat*. Whether the seat's lease is
still held is known where the queue is, so it is decided there, in the moment in which the next exchange comes; its user
may live in another thread or in another process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from duodaq.link import News
from duodaq.model import PortDefinition
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._queue import Ticket

if TYPE_CHECKING:
    from duodaq.ports._lock import LockRequest, PortLock
    from duodaq.ports._port import Port
    from duodaq.ports._session import BlockingSession


class Seat:
    """A place from which exchanges are made: under the lease it holds, or one after the other when that is over.

    `hold_max_s`, `idle_s`, `first_s` and `sink` go to each lease that it takes; one that `renews` takes a new lease
    when the old one is over; one that is `alone` holds none beyond an exchange, unless it has a `lock`. One that is
    `impatient` is refused while somebody else has locked the port, instead of waiting. `number` is for an owner that
    knows its seats from afar.
    """

    __slots__ = ("alone", "first_s", "hold_max_s", "idle_s", "impatient", "lock", "number", "renews", "sink", "ticket")

    def __init__(
        self,
        *,
        hold_max_s: float | None = None,
        idle_s: float | None = None,
        sink: Callable[[bytes], None] | None = None,
        renews: bool = False,
        alone: bool = False,
        impatient: bool = False,
    ) -> None:
        self.ticket: Ticket | None = None
        self.lock: PortLock | None = None
        self.hold_max_s = hold_max_s
        self.idle_s = idle_s
        self.first_s: float | None = None
        self.sink = sink
        self.renews = renews
        self.alone = alone
        self.impatient = impatient
        self.number = 0

    def take(self, exchange: Exchange) -> None:
        """Sit down with the ticket of `exchange`, which is to become the lease of this seat."""
        ticket = self.ticket = exchange.ticket
        ticket.hold_max_s, ticket.idle_s, ticket.sink = self.hold_max_s, self.idle_s, self.sink
        ticket.first_s = self.first_s


class LineOwner(Protocol):
    """What a port's owner is to those who use the port. Unless it says otherwise, call it on `loop` only."""

    @property
    def name(self) -> str: ...

    @property
    def definition(self) -> PortDefinition: ...

    @property
    def codec(self) -> PortCodec | None: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that a blocking user must not be on, if there is one."""
        ...

    @property
    def epoch(self) -> int:
        """How many stops have ended motions here, or fewer: whoever knows fewer is refused more. From any thread."""
        ...

    def hand_over(self, action: Callable[..., Any], *args: Any) -> None:
        """Run `action` where this owner lives, soon; from any thread. Raises RuntimeError if that loop is closed."""
        ...

    def ask(self, ticket: Ticket, timeout_s: float | None, epoch: int | None = None) -> None: ...

    def end(self, ticket: Ticket) -> None: ...

    def begin(self, exchange: Exchange) -> None: ...

    def submit(self, exchange: Exchange, timeout_s: float | None, epoch: int | None = None) -> None: ...

    def seated(self, exchange: Exchange, seat: Seat, timeout_s: float | None, epoch: int | None = None) -> None:
        """Make an exchange from `seat`: under its lease; else alone, or under the first or a new lease of it."""
        ...

    def leave(self, seat: Seat) -> None:
        """Give the lease of `seat` back as soon as the exchange in hand has ended."""
        ...

    def vacate(self, seat: Seat) -> None:
        """Give the lease and the locks of `seat` back now; what it has in hand is cut."""
        ...

    def mark_reading(self, seat: Seat, reading: bool) -> None:
        """Whether the user of `seat` waits for bytes: then silence does not end its lease. From any thread."""
        ...

    def lock(self, request: LockRequest, timeout_s: float | None) -> None:
        """Lock the port for a seat, unlock it, look how it is locked, or ask for the line; see `PortLocks`."""
        ...

    def withdraw_lock(self, request: LockRequest) -> None:
        """Nobody waits for that lock any more."""
        ...

    def await_news(self, news: News, timeout_s: float | None, /) -> object:
        """Wait, within `news`, until it is notified or may have been, or `timeout_s` has passed. From any thread."""
        ...

    def abandon(self, exchange: Exchange) -> None: ...

    def suspect(self) -> None: ...

    def note_late(self) -> None:
        """A reply came after its reader had given up."""
        ...


class PortSource(Protocol):
    """The ports of a lab as a runtime sees them: the broker itself, or its counterpart in another process."""

    @property
    def latched(self) -> bool: ...

    def port(self, name: str) -> Port: ...

    def definitions(self) -> dict[str, PortDefinition]: ...

    def session(self, port: str, holder: str, *, impatient: bool = False) -> BlockingSession: ...

    async def stop(
        self, port: str, data: bytes | None = None, holder: str = "stop", *, ends_moving: bool = True
    ) -> int: ...
