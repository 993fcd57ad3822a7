"""What one other process has under way at the broker, on the broker's side: a worker, or a program outside.

Everything asked here is asked of the port's owner as if by somebody in this process; how it ends is sent back. When the
other process dies, `close` gives back every lease and lock and cuts every exchange that it had: the owner then
resynchronises the line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from duodaq.errors import ConfigError, DataError, DuodaqError, LifecycleError
from duodaq.link import Message, error_to_wire
from duodaq.ports._broker import Broker
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing
from duodaq.ports._lock import LockAction, LockOutcome, LockRequest
from duodaq.ports._owner import PortOwner
from duodaq.ports._queue import Lane, Ticket
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
    OfUser,
    Reading,
    SeatEnd,
    SeatFacts,
    Stopped,
    StopPort,
    Suspect,
    TicketAsk,
    TicketEnd,
    Written,
)

MOST = 1024
"""So many tickets, seats or exchanges of one process may be open at once: one that has more is faulty."""

_LANES = {lane.value: lane for lane in Lane}
FramingOf = Callable[[Any], Framing | None]
Told = Callable[[Message], None]


class PortDesk:
    """Carries out another process's requests at the broker. On the broker's loop, which is the manager's.

    Args:
        broker: The lab's.
        send: Sends a sentence to the other process.
        own: Owns the coroutine of a stop. None: that process may not stop anything, nor pass a latched stop.
        framing_of: The framing that a sentence holds; none but the codec's by default.
    """

    def __init__(
        self,
        broker: Broker,
        send: Told,
        own: Callable[[Coroutine[Any, Any, None]], Any] | None = None,
        framing_of: FramingOf | None = None,
    ) -> None:
        self._broker = broker
        self._send = send
        self._own = own
        self._framing_of = framing_of or _only_the_codecs
        self._tickets: dict[int, tuple[PortOwner, Ticket]] = {}
        self._seats: dict[int, tuple[PortOwner, Seat]] = {}
        self._exchanges: dict[int, tuple[PortOwner, Exchange]] = {}
        self._locks: dict[int, tuple[PortOwner, LockRequest]] = {}
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether that process has nothing at any port."""
        return not (self._tickets or self._seats or self._exchanges or self._locks)

    def heard(self, request: OfUser) -> None:
        """Carry out one request.

        Raises:
            DataError: It makes no sense: no such port, or far too much at once.
        """
        if len(self._tickets) + len(self._seats) + len(self._exchanges) + len(self._locks) > MOST:
            raise DataError(f"more than {MOST} leases and exchanges at once")
        if isinstance(request, Exchanged | TicketAsk | LockAsk | Suspect) and self._is_of_the_past(request):
            return
        match request:
            case Exchanged():
                self._exchange(request)
            case TicketAsk():
                self._ask(request)
            case TicketEnd():
                owner, ticket = self._tickets.pop(request.ticket, (None, None))
                if owner is not None and ticket is not None:
                    owner.end(ticket)
            case SeatEnd():
                self._end_seat(request)
            case Reading():
                if (seated := self._seats.get(request.seat)) is not None:
                    seated[0].mark_reading(seated[1], request.reading)
            case Abandoned():
                if (found := self._exchanges.pop(request.exchange, None)) is not None:
                    found[0].abandon(found[1])
            case Suspect():
                owner = self._owner(request.port)
                if request.late:
                    owner.note_late()
                else:
                    owner.suspect()
            case StopPort():
                if self._own is None:
                    raise DataError("a stop from a program that may not stop anything")
                self._own(self._stop(request))
            case LockAsk():
                self._lock(request)
            case LockWithdrawn():
                if (wanted := self._locks.pop(request.number, None)) is not None:
                    wanted[0].withdraw_lock(wanted[1])

    def close(self) -> None:
        """That process is gone: give back and cut all that it had."""
        self._closed = True
        for owner, wanted in list(self._locks.values()):
            owner.withdraw_lock(wanted)
        for owner, exchange in list(self._exchanges.values()):
            owner.abandon(exchange)
        for owner, seat in list(self._seats.values()):
            owner.vacate(seat)
        for owner, ticket in list(self._tickets.values()):
            owner.end(ticket)
        self._locks.clear()
        self._exchanges.clear()
        self._seats.clear()
        self._tickets.clear()

    def _is_of_the_past(self, request: Exchanged | TicketAsk | LockAsk | Suspect) -> bool:
        """Whether it means a port that was removed, or replaced by another of its name: who asks is told, no more."""
        facts = getattr(request, "seat", None)
        seated = None if facts is None else self._seats.get(facts.number)
        replaced = seated is not None and self._is_replaced(seated[0], request.port)
        if not (replaced or self._broker.has_removed(request.port)):
            return False
        what = "this port was changed in the running lab" if replaced else "this port was removed from the running lab"
        error = error_to_wire(LifecycleError(what, port=request.port, left="nothing was sent"))
        match request:
            case Exchanged():
                self._tell(Ended(request.exchange, b"", error))
            case TicketAsk():
                self._tell(Granted(request.ticket, error))
            case LockAsk():
                self._tell(LockTold(request.number, None, error))
            case Suspect():
                pass
        return True

    def _is_replaced(self, owner: PortOwner, port: str) -> bool:
        return owner.name == port and not self._broker.has_removed(port) and self._owner(port) is not owner

    def _owner(self, port: str) -> PortOwner:
        try:
            return self._broker.owner(port)
        except ConfigError as error:
            raise DataError(str(error)) from error

    def _ask(self, request: TicketAsk) -> None:
        owner, number = self._owner(request.port), request.ticket
        if number in self._tickets:
            raise DataError(f"ticket {number} is used twice")

        def settle(refusal: Exception | None) -> None:
            if refusal is not None:
                self._tickets.pop(number, None)
            self._tell(Granted(number, None if refusal is None else error_to_wire(refusal)))

        ticket = Ticket(request.holder, self._lane(request.lane), settle, self._alive)
        self._tickets[number] = (owner, ticket)
        owner.ask(ticket, request.timeout_s, request.epoch)

    def _exchange(self, request: Exchanged) -> None:
        owner, number = self._owner(request.port), request.exchange
        if number in self._exchanges:
            raise DataError(f"exchange {number} is used twice")

        def done(reply: bytes, error: BaseException | None) -> None:
            self._exchanges.pop(number, None)
            self._tell(Ended(number, bytes(reply), None if error is None else error_to_wire(error)))

        framing = self._framing(owner, request)
        lane = self._lane(request.lane)
        if lane is Lane.NORMAL and owner.codec is not None and owner.codec.is_break_in(request.request):
            lane = Lane.STOP
        ticket = Ticket(request.holder, lane, _unasked, self._alive)
        exchange = Exchange(ticket, request.request, framing, request.timeout_s, done, request.trace_id)
        exchange.moving, exchange.epoch = request.moving, request.epoch
        if request.tells_written:
            exchange.on_written = lambda t_ns: self._tell(Written(number, t_ns, framing is not None))
        self._exchanges[number] = (owner, exchange)
        if request.ticket:
            self._begin(owner, exchange, request.ticket)
        elif request.seat is not None:
            owner.seated(exchange, self._seat(owner, request.seat), request.wait_s, request.wait_epoch)
        else:
            owner.submit(exchange, request.wait_s, request.wait_epoch)

    def _begin(self, owner: PortOwner, exchange: Exchange, number: int) -> None:
        known = self._tickets.get(number)
        if known is None or known[0] is not owner:
            raise DataError(f"an exchange under ticket {number}, which is none of {owner.name}")
        exchange.ticket = known[1]
        owner.begin(exchange)

    def _lane(self, lane: int) -> Lane:
        known = _LANES[lane]
        return known if self._own is not None else max(known, Lane.STOP)

    def _framing(self, owner: PortOwner, request: Exchanged) -> Framing | None:
        if request.framing is True:
            return owner.codec.expects_reply(request.request) if owner.codec is not None else None
        framing = self._framing_of(request.framing)
        if framing is not None and not hasattr(framing, "feed"):
            raise DataError("an exchange whose framing is none")
        return framing

    def _seat(self, owner: PortOwner, facts: SeatFacts) -> Seat:
        known = self._seats.get(facts.number)
        if known is None:
            number = facts.number

            def hear(data: bytes) -> None:
                self._tell(Heard(number, data))

            sink = hear if facts.hears else None
            made = Seat(
                hold_max_s=facts.hold_max_s,
                sink=sink,
                renews=facts.renews,
                alone=facts.alone,
                impatient=facts.impatient,
            )
            known = self._seats[number] = (owner, made)
        if known[0] is not owner:
            raise DataError(f"seat {facts.number} is none at {owner.name}")
        known[1].idle_s, known[1].first_s = facts.idle_s, facts.first_s
        return known[1]

    def _end_seat(self, request: SeatEnd) -> None:
        known = self._seats.get(request.seat)
        if known is None:
            return
        owner, seat = known
        if request.now or not (seat.renews or seat.alone):
            del self._seats[request.seat]
        if request.now:
            owner.vacate(seat)
        else:
            owner.leave(seat)

    def _lock(self, ask: LockAsk) -> None:
        owner, number = self._owner(ask.port), ask.number
        if number in self._locks:
            raise DataError(f"request {number} for a lock is used twice")

        def told(outcome: LockOutcome | None, error: BaseException | None) -> None:
            self._locks.pop(number, None)
            self._tell(LockTold(number, outcome, None if error is None else error_to_wire(error)))

        seat = self._seat(owner, ask.seat)
        wanted = LockRequest(seat, ask.holder, LockAction(ask.what), ask.key, told)
        self._locks[number] = (owner, wanted)
        owner.lock(wanted, ask.timeout_s)

    async def _stop(self, request: StopPort) -> None:
        try:
            t_ns = await self._broker.stop(request.port, request.data, request.holder, ends_moving=request.ends_moving)
        except DuodaqError as error:
            self._tell(Stopped(request.number, 0, error_to_wire(error)))
        else:
            self._tell(Stopped(request.number, t_ns))

    def _alive(self) -> bool:
        return not self._closed

    def _tell(self, message: Message) -> None:
        if not self._closed:
            with contextlib.suppress(DuodaqError):  # it has just died; that is noticed elsewhere
                self._send(message)


def _only_the_codecs(framing: Any) -> Framing | None:
    if framing is not None:
        raise DataError("only what the port's codec says is answered")
    return None


def _unasked(refusal: Exception | None) -> None:
    """Nobody waits for the lease of a lone exchange: its owner begins the exchange itself."""
