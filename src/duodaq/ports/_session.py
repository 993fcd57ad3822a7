"""A port for blocking code: the driver's own thread calls, the broker's loop does the exchange.

The rules that whoever edits this file must keep:

1.  The driver's thread never touches an owner of this process: it hands over one callback per exchange
    (`call_soon_threadsafe`) and sleeps on `_news`. What is shared is changed under its lock, never while waiting for
    another, and nothing is sent to an owner elsewhere under it.
2.  A query is read whole into the buffer by the broker as soon as it comes, whether or not the driver reads it; `read`
    only waits for the buffer. So a driver that reads late, or never, blocks nobody.
3.  A write without a reply, or one that moves, returns when it is written or raises what refused it; a pure query
    returns at once, and what went wrong with it is raised by the next read.
4.  A reply that comes after its reader gave up is thrown away: it must not answer the next question. A reader of whole
    messages may come back for it until the next question is written.
5.  Where only the broker's side knows whether something is answered (`AsTold`), and in an impatient session, a write
    waits until it is written, and raises what refused it.
6.  After `revoke` every call raises, also those that are blocked now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from duodaq.clock import Deadline
from duodaq.errors import DeliveryError, LifecycleError, PortTimeoutError, StoppedError, UnsafeStateError
from duodaq.link import News
from duodaq.model import Fate, PortDefinition
from duodaq.ports._codec import PortCodec
from duodaq.ports._errands import DriverCall, Errand, Errands
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing
from duodaq.ports._lock import LockAction
from duodaq.ports._port import LEASE_WAIT_S, on_owner_loop, running_loop
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._reply_buffer import ReadEnd, ReplyBuffer
from duodaq.ports._seat import LineOwner, Seat
from duodaq.ports._session_lock import SessionLock
from duodaq.ports._told_codec import AsTold
from duodaq.telemetry import current_trace_id

_GRACE_S = 5.0
_BEFORE_S = 0.1
_UNTERMINATED_LIMIT = 65536


class _Job:
    """One exchange of a session: `over` when its end is known; `written` may be known before that.

    The reply of one that is `aside` is kept here; of another it goes where the session reads.
    """

    __slots__ = ("aside", "discard", "errand", "error", "exchange", "over", "reply", "written")

    def __init__(self, aside: bool) -> None:
        self.aside = aside
        self.reply = b""
        self.over = False
        self.written = False
        self.discard = False
        self.error: BaseException | None = None
        self.exchange: Exchange | None = None
        self.errand: Errand | None = None


class BlockingSession:
    """Blocking reads and writes on a shared port. Thread-safe; meant for one driver at a time.

    Args:
        owner: The port.
        holder: In whose name.
        hold_max_s: How long a driver call keeps its lease; the port's own by default. 0: exchange by exchange.
        impatient: Refused with PortLockedError while somebody else has locked the port, instead of waiting; and every
            write waits until it is on the wire.
    """

    def __init__(
        self, owner: LineOwner, holder: str, hold_max_s: float | None = None, *, impatient: bool = False
    ) -> None:
        self.holder = holder
        self.hold_max_s = owner.definition.hold_max_s if hold_max_s is None else hold_max_s
        self.timeout_s = owner.definition.timeout_s
        self.wait_s = LEASE_WAIT_S
        self._owner = owner
        self._news = News()
        self._buffer = ReplyBuffer()
        self._unterminated = b""
        self._pending: _Job | None = None
        self._call: DriverCall | None = None
        self._errands = Errands()
        raw = owner.codec is None
        self._raw_seat = Seat(sink=self._hear, renews=True, impatient=impatient) if raw else None
        self._impatient = impatient
        seat = self._raw_seat or Seat(alone=True, impatient=impatient)
        self.lock = SessionLock(owner, holder, seat, self._news, self._check)
        self._behind = False
        self._ended: Exception | None = None

    @property
    def name(self) -> str:
        """The port's name."""
        return self._owner.name

    @property
    def definition(self) -> PortDefinition:
        """The port's definition."""
        return self._owner.definition

    @property
    def codec(self) -> PortCodec | None:
        """The port's codec."""
        return self._owner.codec

    @property
    def codec_name(self) -> str | None:
        return self._owner.codec.name if self._owner.codec is not None else None

    def expect_line(self) -> None:
        """Nothing, if the line is there. Nothing is sent.

        Raises:
            PortLostError: It is lost; the broker opens it again by itself.
            LifecycleError: It was never opened, or the session was revoked or closed.
        """
        self.lock.request(LockAction.LINE)

    # --- driver calls

    @contextmanager
    def call(
        self, hold_max_s: float | None = None, deadline: Deadline | None = None, *, moving: bool = False
    ) -> Generator[None]:
        """Mark one driver call: its exchanges share one lease for up to `hold_max_s`, then go one by one.

        A stop that comes after the call began refuses every later moving byte of it; on a port without codec, where
        nobody knows which bytes those are, every later byte of a call that is `moving`. It also refuses what other
        threads, which wrote for the call, still send when it has ended: see `Errands`. A call within a call is one.

        Raises:
            StoppedError: It let a stop's refusal through, but had sent something before: unknown.
        """
        if self._call is not None:
            yield
            return
        self._check()
        hold_s = self.hold_max_s if hold_max_s is None else hold_max_s
        seat = self._raw_seat or (Seat(hold_max_s=hold_s) if hold_s > 0 else None)
        call = self._call = DriverCall(self._owner.epoch, seat, deadline, moving)
        self._errands.began(call)
        unknown = False
        try:
            yield
        except (StoppedError, UnsafeStateError) as error:
            unknown = call.sent
            if not call.sent:
                raise
            why = f"ended by a stop after part of it had been sent: {error.what}"
            raise StoppedError(why, fate="unknown", port=self.name) from error
        except DeliveryError as error:
            unknown = error.fate == Fate.UNKNOWN
            raise
        finally:
            self._call = None
            self._errands.ended(call, unknown=unknown)
            if seat is not None and call.used:
                on_owner_loop(self._owner, self._owner.leave, seat)

    # --- writing

    def write(self, data: bytes, *, whole: bool = False) -> int:
        """Write `data`; the number of bytes, which is always all of them.

        A command is sent when its terminator is there, or when it is said to be `whole`; until then its beginning is
        kept.

        Raises:
            PortBusyError, PortTimeoutError, PortLostError: See `Lease.exchange`.
            UnsafeStateError, StoppedError: A stop refuses it. Nothing was sent.
            LifecycleError: The session was revoked or closed.
        """
        self._check_thread()
        self._check()
        owner = self._owner
        command = self._unterminated + bytes(data)
        if owner.codec is not None and not whole and not _is_whole(command, owner.codec.write_terminator):
            if len(command) > _UNTERMINATED_LIMIT:
                raise PortTimeoutError("a command without an end", port=self.name, left="it was not sent")
            self._unterminated = command
            return len(data)
        self._unterminated = b""
        if self._behind:
            self._behind = False
            self.reset_input_buffer()
        self._take_the_word()
        self._settle_pending()
        self._send(command)
        return len(data)

    def _take_the_word(self) -> None:
        """Before a command: what a thread has asked that an earlier call left behind answers nobody else."""
        mine = self._errands.mine(self._call)
        if self._errands.asked_last(mine):
            return
        with self._news:
            job = self._pending
            comes = job is not None and not (job.over or job.discard)
            unread = self._owner.codec is not None and (comes or bool(self._buffer))
            if self._errands.asks(mine, self.name, unread=unread):
                self._buffer.clear()
                if job is not None:
                    job.discard = True
                self._news.notify_all()

    def _send(self, whole: bytes) -> None:
        owner = self._owner
        framing = owner.codec.expects_reply(whole) if owner.codec is not None else None
        job = self._submit(whole, framing)
        if self._waits_for_writing(framing):
            self._wait_over(job, or_written=True)
            comes_later = not job.over and job.exchange is not None and job.exchange.framing is not None
        else:
            comes_later = framing is not None and owner.codec is not None and not owner.codec.moves(whole)
        if comes_later:
            self._pending = job
            return
        self._wait_over(job)
        if job.error is not None:
            raise job.error

    def _submit(self, request: bytes, framing: Framing | None, *, aside: bool = False) -> _Job:
        owner, job = self._owner, _Job(aside)
        codec = owner.codec
        lane = Lane.STOP if codec is not None and codec.is_break_in(request) else Lane.NORMAL
        call, seat, epoch = self._call, self._own_seat(), None
        alive = threading.current_thread().is_alive if call is None else call.alive
        ticket = Ticket(self.holder, lane, lambda _: None, alive)
        limit_s = max(owner.definition.timeout_s, self.timeout_s)
        exchange = Exchange(ticket, request, framing, limit_s, self._ender(job), current_trace_id())
        job.exchange = exchange
        exchange.from_codec = codec is not None
        if self._waits_for_writing(framing):
            exchange.on_written = self._written(job)
        if call is not None:
            self._follow(exchange, call)
            epoch, call.used = call.epoch, True
            if self.lock.times:
                exchange.epoch = epoch
            else:
                seat = call.seat
        job.errand = errand = self._errands.mine(call)
        if errand is not None:
            epoch = self._speak_for(errand, exchange, call)
        if self._raw_seat is not None:
            self._raw_seat.idle_s = self._raw_idle_s(call)
            self._raw_seat.first_s = (self.hold_max_s or None) if call is not None else None
        wait_s = self._wait_limit(call)
        try:
            if seat is None:
                owner.hand_over(owner.submit, exchange, wait_s, epoch)
            else:
                owner.hand_over(owner.seated, exchange, seat, wait_s, epoch)
        except RuntimeError:
            raise LifecycleError("the broker's loop is closed", port=self.name) from None
        return job

    def _follow(self, exchange: Exchange, call: DriverCall) -> None:
        if self._owner.codec is None and call.moving:
            exchange.moving, exchange.epoch = True, call.epoch

        def written(_: int) -> None:
            call.sent = True

        if exchange.framing is None:
            exchange.on_written = written

    def _speak_for(self, errand: Errand, exchange: Exchange, call: DriverCall | None) -> int:
        """Mark what a thread sends that makes no call itself; the stop epoch that it counts from."""
        raw = self._owner.codec is None
        epoch, moving = errand.standing(call)
        if raw:
            exchange.moving = moving
        if call is None or epoch != call.epoch or (raw and moving):
            exchange.epoch = epoch
        return epoch

    def _own_seat(self) -> Seat | None:
        """The place from which is spoken outside of a driver call, and, with a lock, within one; None: from none."""
        return self.lock.seat if self._raw_seat is not None or self._impatient or self.lock.times else None

    def _waits_for_writing(self, framing: Framing | None) -> bool:
        return isinstance(framing, AsTold) or (self._impatient and framing is not None)

    def _written(self, job: _Job) -> Callable[[int], None]:
        def written(_: int) -> None:
            with self._news:
                job.written = True
                self._news.notify_all()

        return written

    def _ender(self, job: _Job) -> Callable[[bytes, BaseException | None], None]:
        def done(reply: bytes, error: BaseException | None) -> None:
            with self._news:
                job.over, job.error = True, error
                job.exchange = None  # which knows this function: else the two would keep each other alive
                if job.errand is not None and isinstance(error, StoppedError):
                    job.errand.refused(self._call)
                late = job.discard
                if job.aside:
                    job.reply = reply
                elif reply and not late:
                    self._buffer.take_in(reply)
                    self._buffer.end_message()
                self._news.notify_all()
            if late:
                self._owner.note_late()

        return done

    # --- limits, and what is heard

    def _raw_idle_s(self, call: DriverCall | None) -> float | None:
        idle_ms = self._owner.definition.idle_ms
        if idle_ms is not None:
            return idle_ms / 1000
        return None if call is not None else self._owner.definition.hold_max_s

    def _wait_limit(self, call: DriverCall | None) -> float:
        """For the port; so much less than its call has left that the driver hears of it before its caller gives up."""
        left_s = call.deadline.left_s if call is not None and call.deadline is not None else self.wait_s
        return min(self.wait_s, left_s - min(_BEFORE_S, left_s / 10)) if left_s != float("inf") else self.wait_s

    def _hear(self, data: bytes) -> None:
        with self._news:
            self._buffer.take_in(data)
            self._news.notify_all()

    # --- reading

    @property
    def in_waiting(self) -> int:
        """How many bytes can be read without waiting."""
        with self._news:
            self._owner.await_news(self._news, 0.0)  # what has come to this process may not have been looked at yet
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
        self._send_unterminated()
        self._mark_reading(True)
        try:
            with self._news:
                self._await_bytes(enough, deadline)
                self._errands.check_reader(self.name)
                taken = enough(self._buffer.held) or min(len(self._buffer), most or len(self._buffer))
                data = self._buffer.take_out(taken)
        finally:
            self._mark_reading(False)
        if data:
            return data
        self._give_up()
        raise PortTimeoutError("nothing to read in time", port=self.name)

    def read_message(
        self, size: int, terminator: bytes = b"", timeout_s: float | None = None, *, ends: bool = True
    ) -> tuple[bytes, ReadEnd]:
        """The next message, and why it is no longer: up to its end, its terminating character, or `size` bytes.

        Args:
            size: So many bytes at most.
            terminator: One character; empty for none.
            timeout_s: How long is waited; the session's own by default.
            ends: Whether a message ends with its reply (with silence of the port's `idle_ms`, without a codec).

        Raises:
            PortTimeoutError: None of that came in time. What came can still be read, and so can the rest, until
                something is written; then it is thrown away.
        """
        self._check_thread()
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        self._send_unterminated()
        self._mark_reading(True)
        try:
            with self._news:
                taken, why = self._await_message(
                    lambda: self._buffer.message_end(size, terminator, ends), deadline, ends
                )
                self._errands.check_reader(self.name)
                if taken:
                    return self._buffer.take_out(taken), why
        finally:
            self._mark_reading(False)
        self._behind = self._owner.codec is not None
        if self._owner.codec is None:
            on_owner_loop(self._owner, self._owner.suspect)
        raise PortTimeoutError("no whole message in time", port=self.name)

    def _await_message(
        self, end: Callable[[], tuple[int, ReadEnd]], deadline: Deadline, ends: bool
    ) -> tuple[int, ReadEnd]:
        """Wait, under the condition, until there is a message, or the time is over: what `end` says then."""
        idle_ms = self._owner.definition.idle_ms
        idle_s = idle_ms / 1000 if idle_ms is not None and self._owner.codec is None and ends else None
        came, silence = -1, deadline
        while not (found := end())[0]:
            if self._has_ended():
                continue
            left_s = deadline.left_s
            if not left_s:
                break
            if idle_s is not None and self._buffer:
                if came != self._buffer.came:
                    came, silence = self._buffer.came, Deadline(idle_s)
                elif silence.passed:
                    self._buffer.end_message()
                    continue
                left_s = min(left_s, silence.left_s)
            self._await_news(left_s)
        return found

    def _await_bytes(self, enough: Callable[[bytearray], int], deadline: Deadline) -> None:
        """Wait, under the condition, until there is enough, or no more can come, or the time is over."""
        while not enough(self._buffer.held):
            if self._has_ended():
                continue
            if self._pending is None and self._owner.codec is not None and self._buffer:
                return
            if deadline.passed:
                return
            self._await_news(deadline.left_s)

    def _has_ended(self) -> bool:
        """Whether the exchange under way has ended since this was asked last; raises what it ended with."""
        self._check()
        self._errands.check_reader(self.name)
        job = self._pending
        if job is None or not job.over:
            return False
        self._pending = None
        if job.error is not None:
            raise job.error
        return True

    def _await_news(self, left_s: float) -> None:
        self._owner.await_news(self._news, None if left_s == float("inf") else left_s)

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

    def clear(self) -> None:
        """Throw away all that was neither sent nor read, and end the exchange under way; the broker mends the line."""
        self._check()
        self._unterminated, self._behind = b"", False
        self.reset_input_buffer()
        job, self._pending = self._pending, None
        if job is not None and job.exchange is not None and not job.over:
            on_owner_loop(self._owner, self._owner.abandon, job.exchange)

    def ask(self, query: bytes) -> bytes:
        """The reply to a query beside everything else: what was written before may still be read afterwards.

        Raises:
            PortTimeoutError: Nothing is answered, or not in time.
        """
        self._check_thread()
        self._check()
        codec = self._owner.codec
        framing = codec.expects_reply(query) if codec is not None else None
        job = self._submit(query, framing, aside=True)
        self._wait_over(job)
        if job.error is not None:
            raise job.error
        if not job.reply:
            raise PortTimeoutError("nothing is answered to that", port=self.name)
        return job.reply

    def _send_unterminated(self) -> None:
        if self._unterminated:
            self._unterminated, command = b"", self._unterminated
            self._send(command)

    def _settle_pending(self) -> None:
        """Before the next command: the reply of the last one is here, or thrown away."""
        job, self._pending = self._pending, None
        if job is not None and not job.over:
            self._wait_over(job)

    def _wait_over(self, job: _Job, *, or_written: bool = False) -> None:
        exchange = job.exchange
        longest_s = self._owner.codec.longest_reply_s if self._owner.codec is not None else 0.0
        takes_s = (exchange.timeout_s if exchange is not None else 0.0) + 4 * longest_s  # a resynchronising included
        limit = Deadline(self._wait_limit(self._call) + takes_s + _GRACE_S)
        with self._news:
            while not (job.over or (or_written and job.written)):
                self._check()
                if limit.passed:
                    raise LifecycleError("the broker does not answer", port=self.name)
                self._await_news(limit.left_s)

    # --- the end

    def revoke(self, reason: str) -> None:
        """End the session from outside: every call raises from now on, those that are blocked now too.

        An exchange in hand is cut and the port resynchronised; leases go back.
        """
        self.fail(LifecycleError(reason, port=self.name, left="this handle is revoked"))

    def fail(self, error: Exception) -> None:
        """End the session from outside, as `revoke` does: every call raises `error` from now on."""
        self._end(error)

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self._end(LifecycleError("the session is closed", port=self.name))

    def _end(self, error: Exception) -> None:
        with self._news:
            if self._ended is not None:
                return
            self._ended = error
        self._news.close()
        call, job = self._call, self._pending
        for seat in {self.lock.seat, call.seat if call is not None else None}:
            if seat is not None:
                on_owner_loop(self._owner, self._owner.vacate, seat)
        if job is not None and job.exchange is not None and not job.over:
            on_owner_loop(self._owner, self._owner.abandon, job.exchange)

    def _check_thread(self) -> None:
        loop = self._owner.loop
        if loop is not None and running_loop() is loop:
            raise LifecycleError("a session would block the broker's own loop here", port=self.name)

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended


def _is_whole(command: bytes, terminator: bytes) -> bool:
    """Whether a command's end has been written. CR, LF and both are taken for each other, as instruments do."""
    return not terminator or command.endswith((terminator, b"\r", b"\n"))
