"""One port and the only hand that touches it.

The rules that whoever edits this file must keep:

1.  Everything here runs on the broker's loop and nothing here awaits, except the two tasks that the owner itself owns:
    the mender and the reconnector. Callers on other loops or threads come in through `call_soon_threadsafe`.
2.  At most one exchange is in hand. An exchange ends once, through `_finish`, whatever ends it.
3.  What is heard belongs to the exchange in hand, else to one set aside (`Deferred`), else to the mender, else to the
    sink of a holder without codec, else to nobody: then it is logged, counted, thrown away, and the line is dirty.
4.  An exchange that did not end with its whole reply leaves the line broken. No lease is granted and no exchange begun
    until the mender has made questions and answers match again; so a late reply never answers somebody else's question.
5.  Bytes that stop go first. A break-in is written at once: the exchange in hand ends unknown, and the line is broken.
    Other stop bytes are written when the exchange in hand has ended, before anything else, even to a broken line: a
    device that should stop must not wait for good manners. Where mending is a device clear, which would wipe them, they
    are written behind it; where neighbours share the line they go before these, and are kept however long it takes.
6.  Whether bytes may move something, and whether their sender still owns its instrument, is decided when they are about
    to be written, never when they were queued.
7.  A ticket is given back by its holder, or taken when its holder is dead, or ended by the port; all three are the same
    call (`end`), which may come twice and cuts an exchange that is still in hand.
8.  A lost line fails everybody who holds or waits. What was in hand is unknown; what waited was never sent. Only the
    stop of a stop-all that may not have arrived is owed: it is sent first when the line is back, unless the latch was
    lifted meanwhile.
9.  `_pump` is the only place that begins anything. It is a loop, not a recursion: callbacks may call back in here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from duodaq import clock
from duodaq.errors import (
    DeliveryError,
    LifecycleError,
    PortBusyError,
    PortError,
    PortLostError,
    PortTimeoutError,
    ReplyFormatError,
)
from duodaq.model import PortDefinition
from duodaq.ports._alarm import Alarm
from duodaq.ports._books import PortBooks
from duodaq.ports._codec import PortCodec
from duodaq.ports._copies import DestructiveCopies
from duodaq.ports._deferred import Deferred
from duodaq.ports._desk import LeaseDesk
from duodaq.ports._exchange import Exchange
from duodaq.ports._fence import Fences
from duodaq.ports._framing import Idle, end_message
from duodaq.ports._mend import Mender
from duodaq.ports._message_line import MessageLine
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._reconnect import Reconnector
from duodaq.ports._status import PortState, PortStatus, status_of
from duodaq.ports._stop import Latch, moving_refusal
from duodaq.ports._transport import Transport
from duodaq.ports._wirelog import WireLog
from duodaq.telemetry import get_logger

_log = get_logger("ports")
_QUIET_S = 0.05
_NEXT_LIMIT = 64
_USABLE = (PortState.OPEN, PortState.RESYNC)


class PortOwner(MessageLine):
    """Owns one transport: its queue, the exchange in hand, its mending, its reconnecting and its log."""

    def __init__(
        self,
        definition: PortDefinition,
        codec: PortCodec | None,
        transport: Transport,
        latch: Latch,
        log: WireLog,
        on_stop: Callable[[str, int], None] | None = None,
    ) -> None:
        self.line_changed: Callable[[str, int | None], None] = lambda _name, _descriptor: None
        super().__init__(definition, transport, asyncio.get_running_loop())
        self.codec = codec
        self.epoch = 0
        self.identity_reply: bytes | None = None
        self.quiet_s = float(definition.options.get("quiet_s", (definition.idle_ms or 0) / 1000 or _QUIET_S))
        self._latch = latch
        self.fences = Fences()
        self._on_stop = on_stop
        self.desk = LeaseDesk(self.name, self.loop, self.end, self.let_go)
        self.queue = self.desk.queue
        self.books = PortBooks(self.name, log)
        self.copies = DestructiveCopies()
        self._deferred = Deferred(self.name, codec, self.books, self.loop)
        self._alarm = Alarm(self.loop, self._out_of_time)
        self._owed_stop: Exchange | None = None
        self._stray_at_s: float | None = None
        self._silent = False
        self._mending: asyncio.Task[None] | None = None
        self._reconnector = Reconnector(self)
        self._pumping = False
        self._epoch_guard = threading.Lock()
        self._identity_query = (codec.identity() or (None,))[0] if codec is not None else None

    # --- life

    async def open(self, timeout_s: float) -> None:
        if self.state is PortState.OPEN:
            return
        if self.state is not PortState.CLOSED:
            raise LifecycleError(f"cannot be opened while it is {self.state}", port=self.name)
        self.state = PortState.OPENING
        try:
            await self.transport.open(self, timeout_s)
        except PortError as error:
            self.books.last_error = str(error.about(port=self.name))
            raise
        finally:
            if not self.transport.is_open:
                self.state = PortState.CLOSED
        if self.state is not PortState.OPENING:
            await self.transport.aclose(0.1)
            raise LifecycleError("closed while it was being opened", port=self.name)
        self.opened()

    def opened(self) -> None:
        """The transport is open and its far end is the right one."""
        self.state = PortState.OPEN
        self._broken, self._stray_at_s, self._silent = None, None, False
        self.books.opened()
        self.line_changed(self.name, self.transport.descriptor)
        owed, self._owed_stop = self._owed_stop, None
        if owed is not None and self._latch.closed:
            _log.warning("the stop that a lost line could not take is sent now", port=self.name)
            self._urgent.append(owed)
        self._pump()

    async def aclose(self, timeout_s: float) -> None:
        """End everybody's leases and close the line. Idempotent."""
        self.state = PortState.CLOSED
        await self._reconnector.aclose()
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
        self._fail_everybody(LifecycleError("the port was closed", port=self.name))
        self._alarm.close()
        self.desk.close()
        try:
            await self.transport.aclose(timeout_s)
        finally:
            self.line_changed(self.name, None)

    # --- leases

    def ask(self, ticket: Ticket, timeout_s: float | None, epoch: int | None = None) -> None:
        """Queue `ticket`; its `settle` is called when the port is granted, or will not be."""
        if (absence := self.absence()) is not None:
            ticket.settle(absence)
            return
        ticket.epoch = self.epoch if epoch is None else epoch
        try:
            self.desk.ask(ticket)
        except PortBusyError as error:
            ticket.settle(error.about(port=self.name))
            return
        self._pump()
        if self.queue.held is not ticket and timeout_s is not None and ticket.granted_s is None:
            self.desk.expire_after(ticket, timeout_s)

    def end(self, ticket: Ticket) -> None:
        """Give back or withdraw `ticket`; what it has in hand is cut. May be called again."""
        self.desk.stop_clocks(ticket)
        if self.queue.withdraw(ticket):
            return
        if self.queue.held is not ticket:
            return
        for exchange in [x for x in self._next if x.ticket is ticket] if self._next else ():
            self._next.remove(exchange)
            exchange.done(b"", DeliveryError("its lease ended before it was sent", fate="not done", port=self.name))
        hand = self._hand
        if hand is not None and hand.ticket is ticket:
            ticket.once = False
            self._finish(hand, error=self._cut("the lease ended in the middle of it"), broken=True)
        self.queue.give_back(ticket)
        self._pump()

    # --- exchanges

    def submit(self, exchange: Exchange, timeout_s: float | None, epoch: int | None = None) -> None:
        """Queue for the port, make this one exchange, and give the port back."""
        exchange.ticket.once = True
        self.lead(exchange, timeout_s, epoch)

    def lead(self, exchange: Exchange, timeout_s: float | None, epoch: int | None) -> None:
        """Ask for the lease of an exchange's ticket, and begin the exchange when it is granted."""

        def settle(refusal: Exception | None) -> None:
            exchange.ticket.settle = _settled  # else the two would keep each other until the garbage is collected
            if refusal is None:
                self.begin(exchange)
            else:
                exchange.done(b"", refusal)

        exchange.ticket.settle = settle
        self.ask(exchange.ticket, timeout_s, epoch)

    def begin(self, exchange: Exchange) -> None:
        """Make an exchange under the lease of its ticket, as soon as the line is fit for it."""
        if self.queue.held is not exchange.ticket:
            exchange.done(b"", exchange.ticket.void or LifecycleError("this lease is over", port=self.name))
            return
        if len(self._next) >= _NEXT_LIMIT:
            exchange.done(b"", PortBusyError("too many exchanges at once under one lease", port=self.name))
            return
        self._next.append(exchange)
        self._pump()

    def hand_over(self, action: Callable[..., Any], *args: Any) -> None:
        """Run `action` on the broker's loop, soon; from any thread."""
        self.loop.call_soon_threadsafe(action, *args)

    def note_late(self) -> None:
        """A reply came after its reader had given up."""
        self.books.late += 1

    def abandon(self, exchange: Exchange) -> None:
        """Nobody waits for `exchange` any more: never begin it, or cut it if it is in hand."""
        if exchange is self._hand:
            self._finish(exchange, error=self._cut("cancelled in the middle of it"), broken=True)
        elif exchange in self._next:
            self._next.remove(exchange)
        elif self._deferred.drop(exchange):
            return
        if exchange.ticket.once:
            self.end(exchange.ticket)

    def let_go(self, ticket: Ticket) -> None:
        """Give `ticket` back as soon as the exchange it has in hand, or waits to begin, has ended."""
        ticket.once = True
        in_hand = self._hand is not None and self._hand.ticket is ticket
        if not (in_hand or self.queue.is_waiting(ticket)):
            self._end_if_idle(ticket)

    def _start(self, exchange: Exchange) -> None:
        refusal = self._refusal(exchange)
        if refusal is not None:
            self._end_unsent(exchange, refusal)
            return
        if self._copied(exchange):
            return
        exchange.number = self.books.begun()
        self._expect_answer(exchange)
        if exchange.framing is not None:
            exchange.framing.reset()
        self._hand = exchange
        exchange.started_s = now_s = self.loop.time()
        if not self._is_patient(exchange):
            self._alarm.set(now_s + exchange.timeout_s)
        self._write_on(exchange)

    def _end_unsent(self, exchange: Exchange, refusal: Exception | None, reply: bytes = b"") -> None:
        exchange.done(reply, refusal)
        if exchange.ticket.once:
            self._end_if_idle(exchange.ticket)

    def _refusal(self, exchange: Exchange) -> Exception | None:
        if self.fences and (fenced := self.fences.refusal(exchange.ticket.holder)) is not None:
            return fenced.about(port=self.name)
        if not (exchange.moving if self.codec is None else self.codec.moves(exchange.request)):
            return None
        ticket = exchange.ticket
        safety = ticket.lane is Lane.SAFETY
        begun = ticket.epoch if exchange.epoch is None else exchange.epoch
        return moving_refusal(self._latch, safety, begun, self.epoch, self.name, ticket.holder)

    def _write_on(self, exchange: Exchange) -> None:
        rest = exchange.request[exchange.sent :] if exchange.sent else exchange.request
        try:
            messages = self._fetching is not None
            taken = self._write_message(rest, exchange) if messages else self.transport.write_nowait(rest)
        except PortLostError as error:
            self._finish(exchange, error=error.about(port=self.name), broken=True)
            return
        if taken:
            self.books.written(rest[:taken], exchange)
            exchange.sent += taken
        if exchange.sent < len(exchange.request):
            self.transport.when_writable(lambda: self._write_on(exchange) if self._hand is exchange else None)
            if exchange.stops:
                self._make_way()
            return
        if self._is_patient(exchange):
            self._alarm.set(self.loop.time() + exchange.timeout_s)
        if exchange.framing is None and self._fetching is not None:
            return  # `message_written` says when the device has taken it
        if exchange.on_written is not None:
            exchange.on_written(clock.utc_ns())
        if exchange.framing is None:
            self._finish(exchange)
        elif self._deferred.is_for(exchange):
            self._set_aside(exchange)

    def _set_aside(self, exchange: Exchange) -> None:
        """Free the port; the reply comes later, between other people's."""
        self._hand = None
        self._alarm.stop()
        self._deferred.keep(exchange)
        if exchange.ticket.once:
            self._end_if_idle(exchange.ticket)
        self._pump()

    def _out_of_time(self) -> None:
        exchange = self._hand
        if exchange is None:
            return
        if isinstance(exchange.framing, Idle) and (reply := exchange.framing.take()):
            self._finish(exchange, reply)
            return
        self._take_back(exchange)
        answered = exchange.sent == len(exchange.request) and exchange.framing is not None
        what = "no whole reply" if answered else "the line took not all of the command"
        error = PortTimeoutError(f"{what} within {exchange.timeout_s:g} s", port=self.name)
        self._finish(exchange, error=error, broken=True)

    def _copied(self, exchange: Exchange) -> bool:
        """Answer a destructive query with what another holder has read already; whether there was such a reply."""
        exchange.destructive = self.codec is not None and self.codec.destructive(exchange.request)
        reply = self.copies.take(exchange.request, exchange.ticket.holder) if exchange.destructive else None
        if reply is None:
            return False
        self.books.copies += 1
        self._end_unsent(exchange, None, reply)
        return True

    def _take_back(self, exchange: Exchange) -> None:
        """Keep what a blocked line has not sent from being sent, and carried out, at some later time."""
        dropped = self.transport.discard_output()
        if dropped:
            exchange.sent = max(1, exchange.sent - dropped)

    def _finish(
        self, exchange: Exchange, reply: bytes = b"", error: BaseException | None = None, broken: bool = False
    ) -> None:
        if exchange is not self._hand:
            return
        self._hand = None
        self._alarm.stop()
        if exchange.sent < len(exchange.request):
            self.transport.when_writable(None)
        if error is not None:
            self.books.failed(error, exchange)
        elif reply and exchange.request == self._identity_query and self.identity_reply is None:
            self.identity_reply = reply  # the first: whoever asks another device later makes it no known one
        elif reply and exchange.destructive:  # nobody can read it again
            self.copies.keep(exchange.request, exchange.ticket.holder, reply)
        if broken:
            self._broken = exchange
        exchange.done(reply, error)
        if exchange.ticket.once:
            self._end_if_idle(exchange.ticket)
        elif exchange.ticket.sink is not None:
            self.desk.count_silence(exchange.ticket, heard=False)
        self._pump()

    def _end_if_idle(self, ticket: Ticket) -> None:
        if not (self._next and any(exchange.ticket is ticket for exchange in self._next)):
            self.end(ticket)

    def _cut(self, why: str) -> DeliveryError:
        return DeliveryError(why, fate="unknown", port=self.name, left="the port is being resynchronised")

    # --- what the line says

    def data_received(self, data: bytes, ends: bool = False) -> None:
        exchange = self._hand
        self._silent = False
        data = self._deferred.sift(data, exchange)
        if not data:
            return
        if self._mender is not None:
            self.books.heard_between(data, "")
            self._mender.feed(data)
        elif exchange is None or exchange.framing is None or exchange.sent < len(exchange.request):
            self._heard_between(data)
        else:
            self.books.heard(data, exchange)
            self._heard_reply(exchange, data, ends)

    def _heard_reply(self, exchange: Exchange, data: bytes, ends: bool) -> None:
        framing = exchange.framing
        assert framing is not None
        try:
            reply = end_message(framing, data) if ends else framing.feed(data)
        except ReplyFormatError as error:
            exchange.framing = None  # what is still to come has no shape that could be recognised
            self._finish(exchange, error=error.about(port=self.name), broken=True)
            return
        if reply is not None:
            if framing.rest:
                self._stray(framing.rest)
            self._finish(exchange, reply)
        elif isinstance(framing, Idle):
            self._alarm.set(self.loop.time() + framing.idle_ms / 1000)

    def _heard_between(self, data: bytes) -> None:
        held = self.queue.held
        if held is not None and held.sink is not None and self._hand is None:
            self.books.heard_between(data, held.holder)
            held.sink(data)
            self.desk.count_silence(held, heard=True)
        else:
            self.books.heard_between(data, "")
            self._stray(data)

    def _stray(self, data: bytes) -> None:
        if self.codec is None and not self.books.stray_bytes:
            hint = "if it is an answer, it began when its asker had let go of the line: raise idle_ms, or hold_max"
            _log.warning("nobody waited for what came; told once", port=self.name, data=repr(data[:64]), hint=hint)
        self.books.stray_bytes += len(data)
        self._stray_at_s = self.loop.time()

    def transport_lost(self, cause: Exception | None) -> None:
        if self.state in (PortState.CLOSED, PortState.LOST):
            return
        self.state = PortState.LOST
        self.end_moving()  # who comes back may be another state of the device: nothing begun before may move it
        self.line_changed(self.name, None)
        self.books.lost(cause)
        _log.warning("port lost", port=self.name, cause=str(cause or "closed at the far end"))
        self._mender = None
        if self._mending is not None:
            self._mending.cancel()
        left = "the broker reconnects by itself"
        if self._latch.closed:
            self._owed_stop = self._unsure_stop()
        self._fail_everybody(PortLostError(self.books.last_error, port=self.name, left=left))
        self._reconnector.start()

    def _fail_everybody(self, error: Exception) -> None:
        hand, self._hand = self._hand, None
        in_line = [*self._urgent, *self._next]
        self._urgent.clear()
        self._next.clear()
        tickets = self.queue.clear()
        self.locks.lost(error)
        self._alarm.stop()
        if hand is not None:
            self.books.failed(error, hand)
            hand.done(b"", error)
        for exchange in in_line:
            exchange.done(b"", error)
        self._deferred.fail(error)
        self.desk.fail(tickets, error)

    def absence(self) -> Exception | None:
        """Why the line takes nothing now; None if it does."""
        if self.state in _USABLE:
            return None
        if self.state is PortState.LOST:
            left = "nothing was sent; the broker reconnects by itself"
            return PortLostError(self.books.last_error, port=self.name, left=left)
        return LifecycleError(f"the port is {self.state}", port=self.name)

    # --- stop

    def end_moving(self) -> None:
        """Refuse moving bytes from everybody who began before now. From any thread."""
        with self._epoch_guard:
            self.epoch += 1
            if self._on_stop is not None:
                self._on_stop(self.name, self.epoch)

    def stop(self, exchange: Exchange, ends_moving: bool) -> None:
        """Write stop bytes before everything else: at once if they break in, else after the exchange in hand."""
        exchange.stops = True
        if ends_moving:
            self.end_moving()
        if (absence := self.absence()) is not None:
            if self.state is PortState.LOST and self._latch.closed:
                self._owed_stop = exchange.once_more()
            exchange.done(b"", absence)
            return
        self._urgent.append(exchange)
        self._make_way()
        hand = self._hand
        if hand is None or self.codec is None or not self.codec.is_break_in(exchange.request):
            self._pump()
            return
        if hand.sent < len(hand.request):
            self._take_back(hand)
            exchange.request = self.codec.abort_bytes + exchange.request
        self._finish(hand, error=self._cut("cut by a stop"), broken=True)

    # --- what happens next

    def _pump(self) -> None:
        if self._pumping or self._hand is not None:
            return
        if not (self._next or self.queue.waits or self._urgent or self._broken is not None):
            return
        self._pumping = True
        try:
            while self.state in _USABLE and self._hand is None and self._step():
                pass
        finally:
            self._pumping = False

    def _step(self) -> bool:
        """Begin the next thing that is due; whether there was any."""
        if self._urgent and not self._clears_first():
            exchange = self._urgent.popleft()
            if self._mender is not None or self._broken is not None:
                exchange.framing = None  # what it answers is heard by the mender
            self._start(exchange)
            return True
        if self._mender is not None:
            return False
        if (self._broken is not None or self._stray_at_s is not None) and self._unfit():
            self._mend()
            return False
        if self._next:
            self._start(self._next.popleft())
            return True
        ticket = self.desk.grant() if self.queue.waits else None
        if ticket is None:
            return False
        ticket.settle(None)
        return True

    def _unfit(self) -> bool:
        """Whether the line must be mended before the next exchange: at once if broken, on demand after stray bytes."""
        if self._broken is not None:
            return True
        if self._stray_at_s is None:
            return False
        if self.loop.time() - self._stray_at_s >= self.quiet_s:
            self._stray_at_s = None
            return False
        return bool(self._next) or (self.queue.held is None and self.queue.waits > 0)

    def _mend(self) -> None:
        broken, self._broken, self._stray_at_s = self._broken, None, None
        self.state = PortState.RESYNC
        self.books.mending()
        longest_s = self.definition.timeout_s  # where there is no codec to know better
        self._mender = Mender(self._send_mending, self.codec, broken, self.quiet_s, longest_s)
        self._mending = self.loop.create_task(self._run_mender(self._mender), name=f"resync {self.name}")

    async def _run_mender(self, mender: Mender) -> None:
        mended = False
        try:
            if self._fetching is None:
                mended = await mender.run(probing=not self._silent)
            else:
                mended = await self._clear()
        except PortLostError as error:
            self.books.last_error = str(error)
        finally:
            if self._mender is mender:
                self._mender = None
            self._mending = None
            self.books.mended(mender.late)
        if self.state is not PortState.RESYNC:
            return
        if mended:
            self.state = PortState.OPEN
            self._silent = self._silent or mender.silent
            self._pump()
        else:
            await self._reconnect_talkative()

    async def _reconnect_talkative(self) -> None:
        """The line cannot be brought to match questions and answers: only a new connection clears it."""
        await self.transport.aclose(0.1)
        self.transport_lost(PortLostError("it does not fall silent", port=self.name))

    @contextmanager
    def listening(self) -> Generator[Mender]:
        """While inside, all that is heard goes to a listener of the broker's own, which may ask."""
        self._mender = listener = Mender(self._send_mending, self.codec, None, self.quiet_s)
        try:
            yield listener
        finally:
            self._mender = None

    def suspect(self) -> None:
        """Something may still come that nobody waits for: want silence before the next lease."""
        self._stray_at_s = self.loop.time()

    # --- what is known

    def status(self) -> PortStatus:
        """What is known of this port now. From any thread."""
        return status_of(self.name, self.state, self.transport.address, self.desk, self.books, self.worker())


def _settled(_: Exception | None) -> None:
    """A ticket is settled once."""
