"""One program outside that uses a port through a virtual one, and knows nothing of duodaq.

The rules that whoever edits this file must keep:

1.  Everything here runs on the broker's loop. A guest has at most one exchange under way, so it waits its turn in the
    queue like everybody else, however much it writes at once.
2.  With a codec a command is sent when it is whole, and its whole reply is read by the broker before the guest gets any
    of it: a guest that dies, or never reads, leaves a port on which questions and answers match. Without a codec its
    bytes go through as they come, under a lease that ends with `idle_ms` of silence.
3.  A reply belongs to the guest that asked. When that is gone its reply is read all the same, and thrown away.
4.  What a guest had written whole before it closed is carried out, as on a real line (`echo 1PA5 > device`); a question
    that nobody waits for any more is not asked, and half a command is never sent.
5.  Whether something may move is judged by when it was written, so a stop first takes in what is already there
    (`sweep`), in the epoch before it.
6.  A guest that stands in the middle of something and does not go on is cut off after `stall_s`: half a command, or
    replies that it does not take. It holds no lease meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from duodaq import clock
from duodaq.ports._commands import CommandStream
from duodaq.ports._exchange import Exchange
from duodaq.ports._guest_line import GuestLine
from duodaq.ports._port import LEASE_WAIT_S
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._seat import Seat
from duodaq.telemetry import get_logger, new_trace_id

if TYPE_CHECKING:
    from duodaq.ports._owner import PortOwner

_log = get_logger("ports.virtual")
_GATHER_S = 0.01
_COMMANDS = 64
_COMMAND_BYTES = 65536
_UNSENT_BYTES = 65536


class GuestStatus(msgspec.Struct, frozen=True):
    """One program outside: its name, since when it is here (UTC ns), its exchanges, and commands that wait."""

    name: str
    since_ns: int
    exchanges: int
    waiting: int


class Guest:
    """A session of a program outside at the broker. Give it a line with `attend`.

    Args:
        owner: The port.
        holder: In whose name, until `name` finds out more.
        stall_s: See rule 6.
        on_end: Called once, when it is over and its line is closed.
    """

    def __init__(self, owner: PortOwner, holder: str, stall_s: float, on_end: Callable[[Guest], None]) -> None:
        self.holder = holder
        self.exchanges = 0
        self.since_ns = clock.utc_ns()
        self._owner = owner
        self._stall_s = stall_s
        self._on_end = on_end
        self._line: GuestLine | None = None
        self._stream = CommandStream(owner.codec) if owner.codec is not None else None
        self._seat = self._make_seat()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._exchange: Exchange | None = None
        self._answered = False
        self._leaving = self._gone = self._ended = self._pumping = False
        self._gather: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._swept_epoch: int | None = None
        self._half_epoch = 0
        self._refusal = ""

    @property
    def is_here(self) -> bool:
        """Whether the program is still at the other end, as far as is known."""
        return not self._gone

    def _make_seat(self) -> Seat | None:
        idle_ms = self._owner.definition.idle_ms
        if self._owner.codec is not None or idle_ms is None:
            return None
        return Seat(idle_s=idle_ms / 1000, sink=self._heard_raw, renews=True)

    def attend(self, line: GuestLine) -> None:
        """Take what comes over `line` from now on."""
        self._line = line
        line.listen(True)

    def status(self) -> GuestStatus:
        return GuestStatus(self.holder, self.since_ns, self.exchanges, len(self._waiting))

    def rename(self, holder: str) -> None:
        """It has been found out who it is."""
        self._owner.copies.forget(self.holder)
        self.holder = holder
        _log.info("a program uses a virtual port", port=self._owner.name, client=holder)

    # --- what the program writes

    def heard(self, data: bytes) -> None:
        epoch = self._owner.epoch if self._swept_epoch is None else self._swept_epoch
        stream = self._stream
        if stream is None:
            self._waiting.append((data, epoch))
        else:
            self._cut_up(stream, data, epoch)
            self._watch_half(stream)
        self._heed_bounds()
        self._pump()

    def sweep(self, epoch: int) -> None:
        """Take in what the program has written until now, as written before the stop that ends `epoch`."""
        if self._line is not None and not self._leaving:
            self._swept_epoch, pumping, self._pumping = epoch, self._pumping, True
            try:
                self._line.sweep()
            finally:
                self._swept_epoch, self._pumping = None, pumping
            self._owner.loop.call_soon(self._pump)  # the stop itself goes first

    def _cut_up(self, stream: CommandStream, data: bytes, epoch: int) -> None:
        """Queue the commands that are whole now; one that began in an earlier epoch belongs to that."""
        began = self._half_epoch if stream.held else epoch
        for command in stream.feed(data):
            self._waiting.append((command, began))
            began = epoch
        self._half_epoch = began

    def _watch_half(self, stream: CommandStream) -> None:
        if self._gather is not None:
            self._gather.cancel()
            self._gather = None
        if not stream.held:
            return
        if len(stream.held) > _COMMAND_BYTES:
            self.cut_off(f"a command of more than {_COMMAND_BYTES} bytes without an end")
        elif stream.may_be_whole:
            self._gather = self._owner.loop.call_later(_GATHER_S, self._gathered)
        else:
            self._watch_stall()

    def _gathered(self) -> None:
        self._gather = None
        if self._stream is not None:
            self._waiting.append((self._stream.take(), self._half_epoch))
            self._pump()

    def _heed_bounds(self) -> None:
        """Leave in the line what is too much to hold here."""
        if self._line is not None and not self._leaving:
            held = sum(len(command) for command, _ in self._waiting)
            self._line.listen(len(self._waiting) < _COMMANDS and held < _COMMAND_BYTES)

    # --- its exchanges

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._waiting and self._exchange is None and not self._ended and self._may_go_on():
                command, epoch = self._waiting.popleft()
                self._heed_bounds()
                self._begin(command, epoch)
        finally:
            self._pumping = False
        if self._leaving and not self._waiting and self._exchange is None:
            self._leave_when_sent()

    def _may_go_on(self) -> bool:
        if self._line is not None and self._line.unsent > _UNSENT_BYTES and not self._gone:
            return False  # `delivered` pumps again
        return self._seat is None or not self._must_let_others(self._seat)

    def _must_let_others(self, seat: Seat) -> bool:
        """Without a codec: whether the lease has lasted its time and the last command is answered; then it ends first.

        Only between an answer and the next command: nobody's bytes may come into the middle of a command.
        """
        ticket, owner = seat.ticket, self._owner
        if ticket is None or owner.queue.held is not ticket or ticket.granted_s is None:
            return False
        over = owner.loop.time() - ticket.granted_s > owner.definition.hold_max_s
        if not (over and self._answered and len(owner.queue)):
            return False
        if self._later is None:
            self._later = owner.loop.call_later((seat.idle_s or 0.0) / 2, self._try_again)
        return True

    def _try_again(self) -> None:
        self._later = None
        self._pump()

    def _begin(self, command: bytes, epoch: int) -> None:
        owner, codec = self._owner, self._owner.codec
        framing = codec.expects_reply(command) if codec is not None else None
        if self._gone and self._is_question(command):
            return
        lane = Lane.STOP if codec is not None and codec.is_break_in(command) else Lane.NORMAL
        ticket = Ticket(self.holder, lane, lambda _: None)
        exchange = Exchange(ticket, command, framing, owner.definition.timeout_s, self._over, new_trace_id())
        exchange.from_codec = codec is not None
        self._exchange = exchange
        self.exchanges += 1
        if self._seat is None:
            owner.submit(exchange, LEASE_WAIT_S, epoch)
        else:
            exchange.moving, exchange.epoch, self._answered = True, epoch, False
            owner.seated(exchange, self._seat, LEASE_WAIT_S, epoch)

    def _is_question(self, command: bytes) -> bool:
        """Whether `command` does nothing but ask."""
        codec = self._owner.codec
        return codec is not None and codec.expects_reply(command) is not None and not codec.moves(command)

    def _over(self, reply: bytes, error: BaseException | None) -> None:
        self._exchange = None
        if self._gone:
            if reply:
                self._owner.note_late()
        elif error is None:
            self._refusal = ""
            self._send(reply)
        else:
            self._tell_refusal(error)
        self._pump()

    def _tell_refusal(self, error: BaseException) -> None:
        """The program gets no answer, as from a device that is silent; the log says why, once for each reason."""
        if str(error) != self._refusal:
            self._refusal = str(error)
            _log.warning("a command from outside ended without an answer", client=self.holder, why=self._refusal)

    def _heard_raw(self, data: bytes) -> None:
        self._answered = True
        if not self._gone:
            self._send(data)

    def _send(self, data: bytes) -> None:
        if data and self._line is not None:
            self._line.send(data)
            if self._line.unsent:
                self._watch_stall()

    def delivered(self) -> None:
        self._pump()

    # --- its limits, and its end

    def _watch_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._stall = self._owner.loop.call_later(self._stall_s, self._stalled)

    def _stalled(self) -> None:
        self._stall = None
        line, stream = self._line, self._stream
        if line is None or self._ended:
            return
        if line.unsent:
            left_s = self._stall_s - line.stuck_s
            if left_s > 0.001:
                self._stall = self._owner.loop.call_later(left_s, self._stalled)
            else:
                self.cut_off(f"it has not read for {self._stall_s:g} s what it asked for: {line.unsent} bytes")
        elif stream is not None and stream.held and not stream.may_be_whole:
            self.cut_off(f"half a command for {self._stall_s:g} s: {stream.held[:40]!r}")

    def finished(self) -> None:
        """The program writes no more, but may read: what it asked is still answered."""
        self._leave(gone=False)

    def gone(self) -> None:
        """The program has closed the line, or died."""
        self._leave(gone=True)

    def _leave(self, *, gone: bool) -> None:
        self._gone = self._gone or gone
        if self._leaving and not gone:
            return
        self._leaving = True
        exchange, line = self._exchange, self._line
        if line is not None:
            line.listen(False)
        if self._stream is not None and self._stream.held:
            self._leave_half(self._stream)
        if gone and exchange is not None:
            self._let_alone(exchange)
        if gone and line is not None:
            line.close()
        self._pump()

    def _leave_half(self, stream: CommandStream) -> None:
        if stream.may_be_whole:
            self._waiting.append((stream.take(), self._half_epoch))
        else:
            _log.warning("a program left half a command; it was not sent", client=self.holder, half=stream.take()[:40])

    def _let_alone(self, exchange: Exchange) -> None:
        """Nobody waits for the answer of `exchange`: withdraw a question that is not asked yet, read one that is."""
        begun = exchange.started_s > 0
        if begun and exchange.framing is not None:
            _log.warning("a program left in the middle of an exchange; nobody gets its reply", client=self.holder)
        elif not begun and self._is_question(exchange.request):
            self._exchange = None
            self._owner.abandon(exchange)

    def cut_off(self, why: str) -> None:
        """Hang up on the program; what it had not sent whole is dropped, with all that waits."""
        if self._ended:
            return
        _log.warning("a program was cut off from a virtual port", port=self._owner.name, client=self.holder, why=why)
        self._waiting.clear()
        if self._stream is not None:
            self._stream.take()
        self._leave(gone=True)

    def _leave_when_sent(self) -> None:
        """End, once the program has what it asked for."""
        if self._line is not None and self._line.unsent and not self._gone:
            return  # `delivered` comes back here, or the stall ends it
        self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        for timer in (self._gather, self._stall, self._later):
            if timer is not None:
                timer.cancel()
        if self._line is not None:
            self._line.close()
        self._owner.copies.forget(self.holder)
        self._on_end(self)

    def close(self) -> None:
        """End at once: nothing that waits is sent."""
        self._waiting.clear()
        self._leave(gone=True)
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not exchange.started_s:
            self._owner.abandon(exchange)
        self._end()
