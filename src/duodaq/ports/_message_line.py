from __future__ import annotations

import asyncio
from abc import abstractmethod

from duodaq.model import PortDefinition
from duodaq.ports._books import PortBooks
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import at_end
from duodaq.ports._mend import Mender
from duodaq.ports._queue import Ticket
from duodaq.ports._seat import Seat
from duodaq.ports._seating import Seating
from duodaq.ports._status import PortState
from duodaq.ports._transport import FetchingTransport, Transport

_CLEAR_S = 5.0


class MessageLine(Seating):
    """What a port's owner does on a line that carries messages: it fetches what is to be heard, and END ends a reply.

    Where an exchange did not end with its whole reply such a line is cleared, which no late reply survives.
    """

    books: PortBooks

    def __init__(self, definition: PortDefinition, transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(definition.name, loop)
        self.definition = definition
        self.transport = transport
        self.state = PortState.CLOSED
        self._fetching = transport if isinstance(transport, FetchingTransport) else None
        self._hand: Exchange | None = None
        self._mender: Mender | None = None

    @abstractmethod
    def data_received(self, data: bytes) -> None: ...

    @abstractmethod
    def _finish(
        self, exchange: Exchange, reply: bytes = b"", error: BaseException | None = None, broken: bool = False
    ) -> None: ...

    def worker(self) -> str:
        """What carries the line, and in which process; empty if it is this one."""
        return self._fetching.worker() if self._fetching is not None else ""

    def message_received(self, data: bytes, ends: bool) -> None:
        """See MessageReceiver: END ends a reply, whatever its framing waits for; without, more of it is fetched."""
        if self._mender is not None:
            self.books.heard_between(data, "")
            self._mender.feed(data, ends)
            return
        exchange = self._hand
        self.data_received(data)
        if exchange is None or exchange is not self._hand or exchange.framing is None or self._fetching is None:
            return
        reply = at_end(exchange.framing) if ends else None
        if reply is None:
            self._fetching.fetch_nowait(self._left_s(exchange))
        else:
            self._finish(exchange, reply)

    def message_missed(self) -> None:
        """See MessageReceiver: whoever waits for it gives up by his own clock; a reader without one goes on."""
        held = self.queue.held
        if held is not None and held.reading:
            self._fetch_for(held)

    def mark_reading(self, seat: Seat, reading: bool) -> None:
        """Whether the user of `seat` waits for bytes; where they have to be fetched, they are. From any thread."""
        super().mark_reading(seat, reading)
        if reading and self._fetching is not None and seat.ticket is not None:
            self.loop.call_soon_threadsafe(self._fetch_for, seat.ticket)

    def _fetch_for(self, ticket: Ticket) -> None:
        idle = self._hand is None and self._mender is None and self.state is PortState.OPEN
        if idle and self._fetching is not None and self.queue.held is ticket and ticket.reading:
            self._fetching.fetch_nowait(self.definition.timeout_s)

    def _write_message(self, data: bytes, exchange: Exchange) -> int:
        assert self._fetching is not None
        if exchange.framing is None:
            return self.transport.write_nowait(data)
        return self._fetching.ask_nowait(data, self._left_s(exchange))

    def _left_s(self, exchange: Exchange) -> float:
        return max(0.0, exchange.started_s + exchange.timeout_s - self.loop.time())

    def _send_mending(self, data: bytes) -> None:
        if not data:
            return
        if self._fetching is None:
            taken = self.transport.write_nowait(data)
        else:
            taken = self._fetching.ask_nowait(data, self.definition.timeout_s)
        if taken:
            self.books.written_by_broker(data)

    async def _clear(self) -> bool:
        assert self._fetching is not None
        await self._fetching.clear(_CLEAR_S)
        return True
