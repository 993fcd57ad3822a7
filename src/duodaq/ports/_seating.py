from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from duodaq.link import News
from duodaq.ports._exchange import Exchange
from duodaq.ports._lock import LockAction, LockRequest, PortLocks
from duodaq.ports._queue import LeaseQueue, Ticket
from duodaq.ports._seat import Seat


class Seating(ABC):
    """What a port's owner does for those who make several exchanges from one seat: leases that last, and locks."""

    queue: LeaseQueue
    epoch: int

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.loop = loop
        self.locks = PortLocks(name, loop, lambda ticket: self.ask(ticket, None), self.end, self.leave)

    @abstractmethod
    def ask(self, ticket: Ticket, timeout_s: float | None, epoch: int | None = None) -> None: ...

    @abstractmethod
    def absence(self) -> Exception | None: ...

    @abstractmethod
    def end(self, ticket: Ticket) -> None: ...

    @abstractmethod
    def begin(self, exchange: Exchange) -> None: ...

    @abstractmethod
    def submit(self, exchange: Exchange, timeout_s: float | None, epoch: int | None = None) -> None: ...

    @abstractmethod
    def let_go(self, ticket: Ticket) -> None: ...

    @abstractmethod
    def lead(self, exchange: Exchange, timeout_s: float | None, epoch: int | None) -> None:
        """Ask for the lease of an exchange's ticket, and begin the exchange when it is granted."""
        ...

    def seated(self, exchange: Exchange, seat: Seat, timeout_s: float | None, epoch: int | None = None) -> None:
        """Make an exchange from `seat`: under its lock or the lease it holds; else alone, or under a new lease."""
        if seat.lock is not None:
            self._locked(exchange, seat, seat.lock.refusal(seat, self.name))
            return
        refusal = self.locks.refusal(seat)
        if refusal is not None:
            exchange.done(b"", refusal)
            return
        held = seat.ticket
        if held is not None and self.queue.held is held:
            exchange.ticket = held
            self.begin(exchange)
        elif seat.alone or (held is not None and not seat.renews):
            self.submit(exchange, timeout_s, epoch)
        else:
            seat.take(exchange)
            self.lead(exchange, timeout_s, epoch)

    def _locked(self, exchange: Exchange, seat: Seat, refusal: BaseException | None) -> None:
        if refusal is not None or seat.lock is None:
            exchange.done(b"", refusal)
            return
        if exchange.epoch is None:
            exchange.epoch = self.epoch  # a lock may outlive a stop and its reset; each exchange counts for itself
        exchange.ticket = seat.lock.ticket
        exchange.ticket.sink = seat.sink
        self.begin(exchange)

    def leave(self, seat: Seat) -> None:
        """Give the lease of `seat` back as soon as the exchange it has in hand has ended; its locks stay."""
        if seat.ticket is not None:
            self.let_go(seat.ticket)

    def vacate(self, seat: Seat) -> None:
        """Give the lease and the locks of `seat` back now, and cut what it has in hand."""
        self.locks.leave(seat)
        if seat.ticket is not None:
            self.end(seat.ticket)

    def mark_reading(self, seat: Seat, reading: bool) -> None:
        """Whether the user of `seat` waits for bytes. From any thread."""
        if seat.ticket is not None:
            seat.ticket.reading = reading

    def await_news(self, news: News, timeout_s: float | None) -> None:
        """Wait, within `news`, until it is notified. From any thread but the broker's own."""
        news.wait(timeout_s)

    def lock(self, request: LockRequest, timeout_s: float | None) -> None:
        """Lock, unlock, look, or ask for the line; see PortLocks."""
        absence = self.absence() if request.action is LockAction.LINE else None
        if absence is None:
            self.locks.request(request, timeout_s)
        else:
            request.told(None, absence)

    def withdraw_lock(self, request: LockRequest) -> None:
        """Nobody waits for that lock any more."""
        self.locks.withdraw(request)
