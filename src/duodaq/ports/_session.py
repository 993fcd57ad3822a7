"""A port for blocking code: the driver's own thread calls, the broker's loop does the exchange.

The rules that whoever edits this file must keep:

1.  The driver's thread never touches the owner: it hands over one callback per exchange (`call_soon_threadsafe`) and
    waits on one condition, `_news`. What is shared is changed under that condition, never while waiting for another.
2.  A query is read whole into the buffer by the broker as soon as it comes, whether or not the driver reads it; `read`
    only waits for the buffer. So a driver that reads late, or never, blocks nobody.
3.  A write without a reply, or one that moves, returns when it is written or raises what refused it; a pure query
    returns at once, and what went wrong with it is raised by the next read.
4.  A reply that comes after its reader gave up is thrown away: it must not answer the next question.
5.  After `revoke` every call raises, also those that are blocked now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from duodaq.clock import Deadline
from duodaq.errors import LifecycleError, PortTimeoutError, StoppedError, UnsafeStateError
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing
from duodaq.ports._port import LEASE_WAIT_S, on_owner_loop, running_loop
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._seat import LineOwner, Seat
from duodaq.telemetry import current_trace_id

_GRACE_S = 5.0
_UNTERMINATED_LIMIT = 65536


class _Job:
    """One exchange of a session: `over` when its end is known."""

    __slots__ = ("discard", "error", "exchange", "over")

    def __init__(self) -> None:
        self.over = False
        self.discard = False
        self.error: BaseException | None = None
        self.exchange: Exchange | None = None


class _Call:
    """One driver call: its seat, if it has one, the stop epoch in which it began, and whether it has sent anything."""

    __slots__ = ("deadline", "epoch", "moving", "seat", "sent", "used")

    def __init__(self, epoch: int, seat: Seat | None, deadline: Deadline | None, moving: bool) -> None:
        self.epoch = epoch
        self.seat = seat
        self.deadline = deadline
        self.moving = moving
        self.sent = self.used = False


class BlockingSession:
    """Blocking reads and writes on a shared port. Thread-safe; meant for one driver at a time.

    Args:
        owner: The port.
        holder: In whose name.
        hold_max_s: How long a driver call keeps its lease; the port's own by default. 0: exchange by exchange.
    """

    def __init__(self, owner: LineOwner, holder: str, hold_max_s: float | None = None) -> None:
        self.holder = holder
        self.hold_max_s = owner.definition.hold_max_s if hold_max_s is None else hold_max_s
        self.timeout_s = owner.definition.timeout_s
        self.wait_s = LEASE_WAIT_S
        self._owner = owner
        self._news = threading.Condition()
        self._buffer = bytearray()
        self._unterminated = b""
        self._pending: _Job | None = None
        self._call: _Call | None = None
        self._raw_seat = Seat(sink=self._hear, renews=True) if owner.codec is None else None
        self._ended: Exception | None = None

    @property
    def name(self) -> str:
        """The port's name."""
        return self._owner.name

    @property
    def codec_name(self) -> str | None:
        return self._owner.codec.name if self._owner.codec is not None else None

    # --- driver calls

    @contextmanager
    def call(
        self, hold_max_s: float | None = None, deadline: Deadline | None = None, *, moving: bool = False
    ) -> Generator[None]:
        """Mark one driver call: its exchanges share one lease for up to `hold_max_s`, then go one by one.

        A stop that comes after the call began refuses every later moving byte of it; on a port without codec, where
        nobody knows which bytes those are, every later byte of a call that is `moving`. A call within a call is one.

        Raises:
            StoppedError: It let a stop's refusal through, but had sent something before: unknown.
        """
        if self._call is not None:
            yield
            return
        self._check()
        hold_s = self.hold_max_s if hold_max_s is None else hold_max_s
        seat = self._raw_seat or (Seat(hold_max_s=hold_s) if hold_s > 0 else None)
        call = self._call = _Call(self._owner.epoch, seat, deadline, moving)
        try:
            yield
        except (StoppedError, UnsafeStateError) as error:
            if not call.sent:
                raise
            why = f"ended by a stop after part of it had been sent: {error.what}"
            raise StoppedError(why, fate="unknown", port=self.name) from error
        finally:
            self._call = None
            if seat is not None and call.used:
                on_owner_loop(self._owner, self._owner.leave, seat)

    # --- writing

    def write(self, data: bytes) -> int:
        """Write `data`; the number of bytes, which is always all of them.

        A command is sent when its terminator is there; until then its beginning is kept.

        Raises:
            PortBusyError, PortTimeoutError, PortLostError: See `Lease.exchange`.
            UnsafeStateError, StoppedError: A stop refuses it. Nothing was sent.
            LifecycleError: The session was revoked or closed.
        """
        self._check_thread()
        self._check()
        owner = self._owner
        whole = self._unterminated + bytes(data)
        if owner.codec is not None and not _is_whole(whole, owner.codec.write_terminator):
            if len(whole) > _UNTERMINATED_LIMIT:
                raise PortTimeoutError("a command without an end", port=self.name, left="it was not sent")
            self._unterminated = whole
            return len(data)
        self._unterminated = b""
        self._settle_pending()
        self._send(whole)
        return len(data)

    def _send(self, whole: bytes) -> None:
        owner = self._owner
        framing = owner.codec.expects_reply(whole) if owner.codec is not None else None
        job = self._submit(whole, framing)
        if framing is not None and owner.codec is not None and not owner.codec.moves(whole):
            self._pending = job
            return
        self._wait_over(job)
        if job.error is not None:
            raise job.error

    def _submit(self, request: bytes, framing: Framing | None) -> _Job:
        owner, job = self._owner, _Job()
        codec = owner.codec
        lane = Lane.STOP if codec is not None and codec.is_break_in(request) else Lane.NORMAL
        ticket = Ticket(self.holder, lane, lambda _: None, threading.current_thread().is_alive)
        limit_s = max(owner.definition.timeout_s, self.timeout_s)
        exchange = Exchange(ticket, request, framing, limit_s, self._ender(job), current_trace_id())
        job.exchange = exchange
        exchange.from_codec = codec is not None
        call, seat, epoch = self._call, self._raw_seat, None
        if call is not None:
            self._follow(exchange, call)
            seat, epoch, call.used = call.seat, call.epoch, True
        if self._raw_seat is not None:
            self._raw_seat.idle_s = self._raw_idle_s(call)
        wait_s = self._wait_limit(call)
        try:
            if seat is None:
                owner.hand_over(owner.submit, exchange, wait_s, epoch)
            else:
                owner.hand_over(owner.seated, exchange, seat, wait_s, epoch)
        except RuntimeError:
            raise LifecycleError("the broker's loop is closed", port=self.name) from None
        return job

    def _follow(self, exchange: Exchange, call: _Call) -> None:
        if self._owner.codec is None and call.moving:
            exchange.moving, exchange.epoch = True, call.epoch

        def written(_: int) -> None:
            call.sent = True

        if exchange.framing is None:
            exchange.on_written = written

    def _ender(self, job: _Job) -> Callable[[bytes, BaseException | None], None]:
        def done(reply: bytes, error: BaseException | None) -> None:
            with self._news:
                job.over, job.error = True, error
                if job.discard:
                    self._owner.note_late()
                else:
                    self._buffer += reply
                self._news.notify_all()

        return done

    # --- limits, and what is heard

    def _raw_idle_s(self, call: _Call | None) -> float | None:
        idle_ms = self._owner.definition.idle_ms
        if idle_ms is not None:
            return idle_ms / 1000
        return None if call is not None else self._owner.definition.hold_max_s

    def _wait_limit(self, call: _Call | None) -> float:
        left_s = call.deadline.left_s if call is not None and call.deadline is not None else self.wait_s
        return left_s if left_s != float("inf") else self.wait_s

    def _hear(self, data: bytes) -> None:
        with self._news:
            self._buffer += data
            self._news.notify_all()

    # --- reading

    @property
    def in_waiting(self) -> int:
        """How many bytes can be read without waiting."""
        return len(self._buffer)

    def read(self, size: int = 1, timeout_s: float | None = None) -> bytes:
        """`size` bytes; fewer if the reply is shorter, or if `timeout_s` passed in the middle of it.

        Raises:
            PortTimeoutError: Nothing came in `timeout_s`. If the reply still comes, it is thrown away.
        """
        if size <= 0:
            return b""
        return self._read(lambda held: size if len(held) >= size else 0, timeout_s, size)

    def read_until(self, terminator: bytes = b"\n", timeout_s: float | None = None) -> bytes:
        """Everything up to and including `terminator`; without it what there is when the reply or the time is over."""
        return self._read(lambda held: held.find(terminator) + len(terminator) if terminator in held else 0, timeout_s)

    def read_some(self, timeout_s: float | None = None) -> bytes:
        """Whatever has come, at least one byte."""
        return self._read(len, timeout_s)

    def _read(self, enough: Callable[[bytearray], int], timeout_s: float | None, most: int | None = None) -> bytes:
        self._check_thread()
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        if self._unterminated:
            self._unterminated, whole = b"", self._unterminated
            self._send(whole)
        self._mark_reading(True)
        try:
            with self._news:
                self._await_bytes(enough, deadline)
                taken = enough(self._buffer) or min(len(self._buffer), most or len(self._buffer))
                data = bytes(self._buffer[:taken])
                del self._buffer[:taken]
        finally:
            self._mark_reading(False)
        if data:
            return data
        self._give_up()
        raise PortTimeoutError("nothing to read in time", port=self.name)

    def _await_bytes(self, enough: Callable[[bytearray], int], deadline: Deadline) -> None:
        """Wait, under the condition, until there is enough, or no more can come, or the time is over."""
        while not enough(self._buffer):
            self._check()
            job = self._pending
            if job is not None and job.over:
                self._pending = None
                if job.error is not None:
                    raise job.error
                continue
            if job is None and self._owner.codec is not None and self._buffer:
                return
            if deadline.passed:
                return
            self._news.wait(deadline.left_s if deadline.left_s != float("inf") else None)

    def _mark_reading(self, reading: bool) -> None:
        if self._raw_seat is not None:
            self._owner.mark_reading(self._raw_seat, reading)

    def _give_up(self) -> None:
        job = self._pending
        if job is not None:
            job.discard = True
        if self._owner.codec is None:
            on_owner_loop(self._owner, self._owner.suspect)

    def reset_input_buffer(self) -> None:
        """Throw away what was not read, and the reply under way if there is one."""
        with self._news:
            self._buffer.clear()
            if self._pending is not None:
                self._pending.discard = True

    def _settle_pending(self) -> None:
        """Before the next command: the reply of the last one is here, or thrown away."""
        job, self._pending = self._pending, None
        if job is not None:
            self._wait_over(job)

    def _wait_over(self, job: _Job) -> None:
        exchange = job.exchange
        longest_s = self._owner.codec.longest_reply_s if self._owner.codec is not None else 0.0
        takes_s = (exchange.timeout_s if exchange is not None else 0.0) + 4 * longest_s  # a resynchronising included
        limit = Deadline(self._wait_limit(self._call) + takes_s + _GRACE_S)
        with self._news:
            while not job.over:
                self._check()
                if limit.passed:
                    raise LifecycleError("the broker does not answer", port=self.name)
                self._news.wait(limit.left_s)

    # --- the end

    def revoke(self, reason: str) -> None:
        """End the session from outside: every call raises from now on, those that are blocked now too.

        An exchange in hand is cut and the port resynchronised; leases go back.
        """
        self._end(LifecycleError(reason, port=self.name, left="this handle is revoked"))

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self._end(LifecycleError("the session is closed", port=self.name))

    def _end(self, error: Exception) -> None:
        with self._news:
            if self._ended is not None:
                return
            self._ended = error
            self._news.notify_all()
        call, job = self._call, self._pending
        for seat in {self._raw_seat, call.seat if call is not None else None}:
            if seat is not None:
                on_owner_loop(self._owner, self._owner.vacate, seat)
        if job is not None and job.exchange is not None and not job.over:
            on_owner_loop(self._owner, self._owner.abandon, job.exchange)

    def _check_thread(self) -> None:
        if running_loop() is self._owner.loop:
            raise LifecycleError("a session would block the broker's own loop here", port=self.name)

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended


def _is_whole(command: bytes, terminator: bytes) -> bool:
    """Whether a command's end has been written. CR, LF and both are taken for each other, as instruments do."""
    return not terminator or command.endswith((terminator, b"\r", b"\n"))
