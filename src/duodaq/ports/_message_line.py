from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque

from duodaq import clock
from duodaq.errors import PortTimeoutError, ReplyFormatError
from duodaq.model import Outcome, PortDefinition
from duodaq.ports._alarm import Alarm
from duodaq.ports._books import PortBooks
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Idle, Terminated
from duodaq.ports._mend import Mender
from duodaq.ports._queue import Ticket
from duodaq.ports._seat import Seat
from duodaq.ports._seating import Seating
from duodaq.ports._status import PortState
from duodaq.ports._transport import FetchingTransport, Transport

_CLEAR_S, _CLEAR_FOR_STOP_S = 5.0, 2.0
"""How long a device clear may take, and how long while a stop waits behind it."""
_MORE_S = 0.05
"""How long a reader without codec must still wait, on a line without END, for more than its answer to be fetched."""


class MessageLine(Seating):
    """What a port's owner does on a line that carries messages: it fetches what is to be heard, and END ends a reply.

    Where an exchange did not end with its whole reply such a line is cleared, which no late reply survives. Neither
    does a command: what must not be lost, as a stop, is written behind the clear.
    """

    books: PortBooks
    codec: PortCodec | None
    _alarm: Alarm

    def __init__(self, definition: PortDefinition, transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(definition.name, loop)
        self.definition = definition
        self.transport = transport
        self.state = PortState.CLOSED
        self._fetching = transport if isinstance(transport, FetchingTransport) else None
        self._hand: Exchange | None = None
        self._next: deque[Exchange] = deque()
        self._urgent: deque[Exchange] = deque()
        self._broken: Exchange | None = None
        self._mender: Mender | None = None

    @abstractmethod
    def data_received(self, data: bytes, ends: bool = False) -> None: ...

    @abstractmethod
    def _finish(
        self, exchange: Exchange, reply: bytes = b"", error: BaseException | None = None, broken: bool = False
    ) -> None: ...

    def worker(self) -> str:
        """What carries the line, and in which process; empty if it is this one."""
        return self._fetching.worker() if self._fetching is not None else ""

    def unclosed(self) -> tuple[Outcome, str] | None:
        """What the last close left behind or cut off; None if nothing."""
        return self._fetching.unclosed if self._fetching is not None else None

    def message_received(self, data: bytes, ends: bool) -> None:
        """See MessageReceiver: END ends a reply, whatever its framing waits for; without, more of it is fetched."""
        if self._mender is not None:
            self.books.heard_between(data, "")
            self._mender.feed(data, ends)
            return
        exchange = self._answered()
        if exchange is not None and self.codec is None:
            exchange.ticket.answered = ends
        if data:
            self.data_received(data, ends)
        if exchange is not None and exchange is self._answered() and self._fetching is not None:
            self._fetching.fetch_nowait(self._left_s(exchange))

    def message_written(self) -> None:
        """See MessageReceiver: what nothing answers ends with that."""
        exchange = self._hand
        if exchange is None or exchange.sent < len(exchange.request) or exchange.framing is not None:
            return
        if exchange.on_written is not None:
            exchange.on_written(clock.utc_ns())
        self._finish(exchange)

    def message_untaken(self, why: str) -> None:
        """See MessageReceiver: the exchange in hand fails, and the line is cleared of what may have arrived of it."""
        exchange = self._hand
        if exchange is not None and exchange.sent:
            error = PortTimeoutError(f"the device did not take it: {why}", port=self.name)
            self._finish(exchange, error=error, broken=True)

    def message_missed(self, front: bytes) -> None:
        """See MessageReceiver: whoever waits for it gives up by his own clock; a reader without one goes on."""
        exchange = self._answered()
        if front and exchange is not None:
            self._take_front(exchange, front)
        elif front:
            self.data_received(front)
        held = self.queue.held
        if held is not None and held.reading:
            self._fetch_for(held)

    def _answered(self) -> Exchange | None:
        """The exchange in hand whose reply is what is heard: one that is written, and to which there is a reply."""
        exchange = self._hand
        is_asked = exchange is not None and exchange.sent == len(exchange.request) and exchange.framing is not None
        return exchange if is_asked else None

    def _take_front(self, exchange: Exchange, front: bytes) -> None:
        """Take what came of a message for a reply only if its framing ends just there: some libraries lose an END."""
        framing = exchange.framing
        if framing is None or isinstance(framing, Idle):
            return
        self.books.heard(front, exchange)
        try:
            reply = framing.feed(front)
        except ReplyFormatError:
            return  # the rest is still to come: its clock ends the exchange, and the line is cleared
        if reply is not None and not framing.rest:
            self._finish(exchange, reply)

    def mark_reading(self, seat: Seat, reading: bool) -> None:
        """Whether the user of `seat` waits for bytes; where they have to be fetched, they are. From any thread."""
        super().mark_reading(seat, reading)
        ticket = seat.ticket
        if not reading or self._fetching is None or ticket is None or ticket.answered:
            return
        if ticket.answered is None:
            self.loop.call_soon_threadsafe(self._fetch_for, ticket)
        else:
            self.loop.call_soon_threadsafe(self.loop.call_later, _MORE_S, self._fetch_for, ticket)

    def _fetch_for(self, ticket: Ticket) -> None:
        idle = self._hand is None and self._mender is None and self.state is PortState.OPEN and not ticket.answered
        if idle and self._fetching is not None and self.queue.held is ticket and ticket.reading:
            self._fetching.fetch_nowait(self.definition.timeout_s)

    def _expect_answer(self, exchange: Exchange) -> None:
        """Fetch at once what a driver without codec asks, with its "?": else the answer came to whoever reads next."""
        if self._fetching is None or self.codec is not None or exchange.ticket.sink is None:
            return
        exchange.ticket.answered = None
        if exchange.framing is None and b"?" in exchange.request:
            exchange.framing = Terminated(b"\n")

    def _is_patient(self, exchange: Exchange) -> bool:
        """Whether the clock of `exchange` begins when it is written: a stop that waits for neighbours is kept."""
        return exchange.stops and self._fetching is not None

    def _clears_first(self) -> bool:
        """Whether a stop has to wait until the line is cleared."""
        return self._fetching is not None and (self._mender is not None or self._broken is not None)

    def _make_way(self) -> None:
        """Let no neighbour be served before a stop, nor what this port itself has in hand and has not written."""
        if self._fetching is None:
            return
        hand = self._hand
        if hand is not None and not hand.sent and not hand.stops:
            self.transport.when_writable(None)
            self._hand = None
            self._alarm.stop()
            self._next.appendleft(hand)
        self._fetching.hurry()

    def _unsure_stop(self) -> Exchange | None:
        """A stop that may not have arrived when the line was lost, to be sent again."""
        unsure = next((one for one in (self._hand, *self._urgent) if one is not None and one.stops), None)
        return unsure.once_more() if unsure is not None else None

    def _write_message(self, data: bytes, exchange: Exchange) -> int:
        assert self._fetching is not None
        if exchange.stops:
            exchange.started_s = self.loop.time()
        if exchange.framing is None:
            return self.transport.write_nowait(data)
        return self._fetching.ask_nowait(data, self._left_s(exchange))

    def _left_s(self, exchange: Exchange) -> float:
        return max(0.0, exchange.started_s + exchange.timeout_s - self.loop.time())

    async def _send_mending(self, data: bytes) -> None:
        if not data:
            return
        if self._fetching is None:
            taken = self.transport.write_nowait(data)
        else:
            await self._fetching.ask(data, self.definition.timeout_s)
            taken = len(data)
        if taken:
            self.books.written_by_broker(data)

    async def _clear(self) -> bool:
        assert self._fetching is not None
        await self._fetching.clear(_CLEAR_FOR_STOP_S if self._urgent else _CLEAR_S)
        return True
