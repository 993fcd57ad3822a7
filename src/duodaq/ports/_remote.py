"""The ports of a lab in another process: the same leases, sessions and exchanges, carried out where the broker is.

Rules for whoever edits this:

* Nothing is decided here. Who holds, who waits and what may move is known at the broker alone; what is kept here is
  only whom to tell.
* A driver's thread sends its request by itself, on a line on which the threads hear their replies by themselves too: a
  loop has no part in it. What a loop asks for goes over the link of its process, and is heard there.
* When the link ends the broker gives everything back by itself, and a worker ends, so nothing is tidied up here. Only
  the death of a single thread or loop is seen here alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from duodaq.errors import DeliveryError
from duodaq.link import Message, News, error_from_wire
from duodaq.model import PortDefinition
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._lock import LockRequest
from duodaq.ports._queue import Ticket
from duodaq.ports._seat import Seat
from duodaq.ports._sentences import (
    Abandoned,
    Ended,
    Exchanged,
    Granted,
    Heard,
    LockAsk,
    LockTold,
    LockWithdrawn,
    Reading,
    SeatEnd,
    SeatFacts,
    Suspect,
    TicketAsk,
    TicketEnd,
    ToUser,
    Written,
)

Send = Callable[[Message], None]
PackFraming = Callable[[Any], Any]
AwaitNews = Callable[[News, float | None], object]
_WATCH_S = 0.2


class RemoteOwner:
    """A port whose owner is in another process: keeps the promise of LineOwner. All of it from any thread.

    Args:
        loop: The loop on which this process hears how things end, if it has one for that.
    """

    def __init__(
        self,
        definition: PortDefinition,
        codec: PortCodec | None,
        epoch: int,
        lines: RemoteLines,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.name = definition.name
        self.definition = definition
        self.codec = codec
        self.epoch = epoch
        self.loop = loop
        self.await_news = lines.await_news
        self._lines = lines

    def hand_over(self, action: Callable[..., Any], *args: Any) -> None:
        """Run `action` now: what it does is send."""
        action(*args)

    def ask(self, ticket: Ticket, timeout_s: float | None, epoch: int | None = None) -> None:
        number = self._lines.number_of(ticket)
        self._lines.send(TicketAsk(number, self.name, ticket.holder, int(ticket.lane), timeout_s, epoch))

    def end(self, ticket: Ticket) -> None:
        number = self._lines.forget(ticket)
        if number:
            self._lines.tell(TicketEnd(number))

    def begin(self, exchange: Exchange) -> None:
        self._send(exchange, ticket=self._lines.number_of(exchange.ticket))

    def submit(self, exchange: Exchange, timeout_s: float | None, epoch: int | None = None) -> None:
        lane = int(exchange.ticket.lane)
        self._send(exchange, holder=exchange.ticket.holder, lane=lane, wait_s=timeout_s, wait_epoch=epoch)

    def seated(self, exchange: Exchange, seat: Seat, timeout_s: float | None, epoch: int | None = None) -> None:
        ticket = exchange.ticket
        seat.ticket = ticket
        facts = self._facts(seat)
        lane = int(ticket.lane)
        self._send(exchange, seat=facts, holder=ticket.holder, lane=lane, wait_s=timeout_s, wait_epoch=epoch)

    def _facts(self, seat: Seat) -> SeatFacts:
        number = self._lines.seat_number(seat)
        hears = seat.sink is not None
        return SeatFacts(
            number, seat.hold_max_s, seat.idle_s, hears, seat.renews, seat.alone, seat.impatient, seat.first_s
        )

    def lock(self, request: LockRequest, timeout_s: float | None) -> None:
        number, facts = self._lines.keep_lock(request), self._facts(request.seat)
        self._lines.send(LockAsk(number, self.name, facts, request.holder, request.action, request.key, timeout_s))

    def withdraw_lock(self, request: LockRequest) -> None:
        number = self._lines.forget_lock(request)
        if number:
            self._lines.tell(LockWithdrawn(number))

    def leave(self, seat: Seat) -> None:
        self._end_seat(seat, now=False)

    def vacate(self, seat: Seat) -> None:
        self._end_seat(seat, now=True)

    def mark_reading(self, seat: Seat, reading: bool) -> None:
        if seat.number:
            self._lines.tell(Reading(seat.number, reading))

    def abandon(self, exchange: Exchange) -> None:
        number = self._lines.forget_exchange(exchange)
        if number:
            self._lines.tell(Abandoned(number))

    def suspect(self) -> None:
        self._lines.tell(Suspect(self.name))

    def note_late(self) -> None:
        self._lines.tell(Suspect(self.name, late=True))

    def _end_seat(self, seat: Seat, *, now: bool) -> None:
        if seat.number:
            self._lines.tell(SeatEnd(seat.number, now))
            if now or not (seat.renews or seat.alone):
                self._lines.forget_seat(seat)

    def _send(self, exchange: Exchange, **where: Any) -> None:
        framing = True if exchange.from_codec and exchange.framing is not None else self._lines.pack(exchange.framing)
        self._lines.send(
            Exchanged(
                exchange=self._lines.keep(exchange),
                port=self.name,
                request=exchange.request,
                framing=framing,
                timeout_s=exchange.timeout_s,
                tells_written=exchange.on_written is not None,
                moving=exchange.moving,
                epoch=exchange.epoch,
                trace_id=exchange.trace_id,
                **where,
            )
        )


class RemoteLines:
    """All that this process has under way at the broker, by number, until it hears how each ended.

    Args:
        send: Sends a sentence to the broker's side, from any thread.
        pack: A framing, as it travels.
        loop: Looks after dead threads and loops, if there is one.
        await_news: Waits for what is heard, where no loop hears it.
    """

    def __init__(
        self,
        send: Send,
        pack: PackFraming,
        loop: asyncio.AbstractEventLoop | None = None,
        await_news: AwaitNews = News.wait,
    ) -> None:
        self.send = send
        self.pack = pack
        self.await_news = await_news
        self._loop = loop
        self._numbers = itertools.count(1)
        self._tickets: dict[Ticket, int] = {}
        self._waiting: dict[int, Ticket] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._seats: dict[int, Seat] = {}
        self._locks: dict[int, LockRequest] = {}
        self._watch = None if loop is None else loop.call_later(_WATCH_S, self.look_after_owners)

    def close(self) -> None:
        """Watch over nothing any more."""
        if self._watch is not None:
            self._watch.cancel()

    def tell(self, message: Message) -> None:
        """Send what nobody waits for an answer to; nothing if the link is over, by which all went back."""
        with contextlib.suppress(DeliveryError):
            self.send(message)

    def look_after_owners(self) -> None:
        """Give back what dead threads and loops of this process hold: the broker cannot see that they are dead."""
        for ticket in list(self._tickets):
            if _is_dead(ticket) and (number := self.forget(ticket)):
                self.tell(TicketEnd(number))
        for number, seat in list(self._seats.items()):
            if seat.ticket is not None and _is_dead(seat.ticket):
                self.forget_seat(seat)
                self.tell(SeatEnd(number, True))
        if self._loop is not None:
            self._watch = self._loop.call_later(_WATCH_S, self.look_after_owners)

    def number_of(self, ticket: Ticket) -> int:
        """The number of a ticket, which it gets when it first asks."""
        number = self._tickets.get(ticket)
        if number is None:
            number = self._tickets[ticket] = next(self._numbers)
            self._waiting[number] = ticket
        return number

    def forget(self, ticket: Ticket) -> int:
        """The number that a ticket had; 0 if it is not known any more."""
        number = self._tickets.pop(ticket, 0)
        self._waiting.pop(number, None)
        return number

    def seat_number(self, seat: Seat) -> int:
        """The number of a seat, which it gets with its first exchange."""
        if not seat.number:
            seat.number = next(self._numbers)
            self._seats[seat.number] = seat
        return seat.number

    def forget_seat(self, seat: Seat) -> None:
        """Hear nothing more for a seat."""
        self._seats.pop(seat.number, None)
        seat.number = 0

    def keep(self, exchange: Exchange) -> int:
        """The number under which the end of an exchange will be told."""
        exchange.number = number = next(self._numbers)
        self._exchanges[number] = exchange
        return number

    def forget_exchange(self, exchange: Exchange) -> int:
        """The number that an exchange has while its end is not known; 0 otherwise."""
        return exchange.number if self._exchanges.pop(exchange.number, None) is not None else 0

    def keep_lock(self, request: LockRequest) -> int:
        """The number under which will be told what became of a lock."""
        number = next(self._numbers)
        self._locks[number] = request
        return number

    def forget_lock(self, request: LockRequest) -> int:
        """The number of a lock of which nothing has been told yet; 0 otherwise."""
        number = next((number for number, known in self._locks.items() if known is request), 0)
        self._locks.pop(number, None)
        return number

    def heard(self, message: ToUser) -> None:
        """Tell whoever waits for it."""
        match message:
            case Ended():
                exchange = self._exchanges.pop(message.exchange, None)
                if exchange is not None:
                    exchange.done(message.reply, _error(message.error))
            case Granted():
                self._granted(message)
            case Written():
                exchange = self._exchanges.get(message.exchange)
                if exchange is not None and exchange.on_written is not None:
                    if not message.answered:
                        exchange.framing = None
                    exchange.on_written(message.t_ns)
            case Heard():
                seat = self._seats.get(message.seat)
                if seat is not None and seat.sink is not None:
                    seat.sink(message.data)
            case LockTold():
                request = self._locks.pop(message.number, None)
                if request is not None:
                    request.told(message.outcome, _error(message.error))

    def _granted(self, message: Granted) -> None:
        ticket = self._waiting.pop(message.ticket, None)
        if ticket is None:
            return
        if message.error is None:
            ticket.granted_s = self._loop.time() if self._loop is not None else None
            ticket.settle(None)
        else:
            self._tickets.pop(ticket, None)
            ticket.settle(error_from_wire(message.error))


def _error(error: dict[str, Any] | None) -> Exception | None:
    return None if error is None else error_from_wire(error)


def _is_dead(ticket: Ticket) -> bool:
    return ticket.alive is not None and not ticket.alive()
