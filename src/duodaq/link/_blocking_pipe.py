"""One end of a connected stream between two processes for threads without a loop: whole messages, both ways.

The rules that whoever edits this file must keep:

1.  There is no thread here. Whoever waits for something reads the socket, for all who wait: it is his *turn*. The
    others sleep on their own news.
2.  Whoever has heard what he waited for, or waits no longer, passes the turn on, to one who sleeps; who gets it in the
    moment in which he leaves passes it on again. So nobody sleeps while nobody reads, and nobody is woken for nothing.
3.  Nobody holds the lock of his news while he reads or wakes others: what is heard may belong to any of them. The one
    who reads is woken by his news as the others are, for a session may be ended from anywhere.
4.  Whatever ends the pipe ends it for all, at once and for ever: they are told by `lost`, and woken.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from duodaq.clock import Deadline
from duodaq.errors import DataError, DeliveryError
from duodaq.link._frame import MAX_FRAME, FrameDecoder, framed
from duodaq.link._news import News
from duodaq.link._pipe import NO_MEMORY, reason_of

_SEND_S = 10.0
_OVER_S = 0.05
"""Who waits here when it is over, and is not told of it, asks so often."""
_READ_BYTES = 64 * 1024
"""At most at once. Above 128 KiB the C library maps and unmaps the buffer for each read: 12 µs in a young process."""


class _Turn:
    """One that waits, and whether it is his turn to read."""

    __slots__ = ("mine", "news")

    def __init__(self, news: News) -> None:
        self.news = news
        self.mine = False


class BlockingPipe:
    """Messages over `end`, a connected stream socket, which this owns from now on. From any thread.

    Args:
        end: The socket; made non-blocking. At its other end is a `Pipe`, or what speaks alike.
        encode: One message as bytes.
        decode: The message that some bytes are.
        heard: Called with each message, in the thread of whoever waits. What `decode` or it raises ends the pipe.
        lost: Called once when it is over, not by `close`: with why, or "" when the other end closed it.
    """

    def __init__(
        self,
        end: socket.socket,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        heard: Callable[[Any], None],
        lost: Callable[[str], None],
    ) -> None:
        end.setblocking(False)
        self._end = end
        self._fd = end.fileno()
        self._encode = encode
        self._decoder = FrameDecoder(MAX_FRAME, decode)
        self._heard = heard
        self._lost = lost
        self._process = os.getpid()
        self._sending = threading.Lock()
        self._turns = threading.Lock()
        self._reading = False
        self._waiting: deque[_Turn] = deque()
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether it goes on, in this process."""
        return not self._closed and os.getpid() == self._process

    def send(self, message: Any) -> None:
        """Send one message, from any thread.

        Raises:
            DeliveryError: The pipe is over; or the other end takes nothing for so long that it is over now.
            DataError: It is too long, or holds something that does not travel. Nothing was sent.
        """
        if os.getpid() != self._process:
            raise DeliveryError(f"this connection belongs to process {self._process}", fate="not done")
        if self._closed:
            raise DeliveryError("the connection is over", fate="not done")
        body = self._encode(message)
        if len(body) > MAX_FRAME:
            raise DataError(f"a message of {len(body)} bytes; at most {MAX_FRAME} travel")
        frame = framed(body)
        try:
            with self._sending:
                sent = self._write_some(frame)
                if sent < len(frame):
                    self._write_rest(memoryview(frame)[sent:])
        except OSError as error:
            self._finish(error.strerror or str(error))
            raise DeliveryError(f"the connection is over: {error}", fate="not done") from error

    def _write_rest(self, rest: memoryview) -> None:
        deadline = Deadline(_SEND_S)
        while rest:
            _await_room(self._end, deadline)
            rest = rest[self._write_some(rest) :]

    def _write_some(self, data: bytes | memoryview) -> int:
        try:
            return self._end.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    # --- waiting and hearing

    def await_news(self, news: News, timeout_s: float | None) -> None:
        """Within `news`: wait until it may have been notified, or `timeout_s` has passed; reads for all who wait."""
        limit, told = Deadline(timeout_s), news.told
        with self._turns:
            mine = not (self._reading or self._closed)
            if mine:
                self._reading = True
        if not mine and not self._await_turn(news, limit):
            return
        try:
            while news.wait_beside(self._fd, timeout_s):
                self._hear()
                if news.told != told or self._closed or limit.passed:
                    break
                timeout_s = limit.left_s
                news.acquire()
                if news.told != told:
                    news.release()
                    break
        finally:
            self._pass_on()
            news.acquire()

    def _await_turn(self, news: News, limit: Deadline) -> bool:
        """Sleep until it is the caller's turn to read: True; or until his news are told, or the time is over."""
        turn = _Turn(news)
        with self._turns:
            over = self._closed
            mine = not (self._reading or over)
            if mine:  # since a moment ago
                self._reading = True
            elif not over:
                self._waiting.append(turn)
        if over:
            news.wait(min(limit.left_s, _OVER_S))  # `lost` tells him, who needs the lock for that
        if over or mine:
            return mine
        ends = True
        try:
            ends = news.wait(None if limit.left_s == float("inf") else limit.left_s) or limit.passed
        finally:
            with self._turns:
                if not turn.mine:
                    self._waiting.remove(turn)
            if turn.mine and ends:
                news.release()
                self._pass_on()
                news.acquire()
        return turn.mine and not ends

    def _pass_on(self) -> None:
        """Whoever has had the turn has it no more: one who waits reads on."""
        with self._turns:
            heir = self._waiting.popleft() if self._waiting else None
            self._reading = heir is not None
            if heir is not None:
                heir.mine = True
            elif self._closed:
                self._end.close()
        if heir is not None:
            with heir.news:
                heir.news.nudge()

    def look(self) -> None:
        """Hear what has come, if nobody waits here and there is memory for it; waits for nothing."""
        with self._turns:
            if self._closed or self._reading:
                return
            self._reading = True
        try:
            with contextlib.suppress(MemoryError):  # where there is none for long, whoever needs some says so
                self._hear()
        finally:
            self._pass_on()

    def _hear(self) -> None:
        """Hear one chunk, if there is one. Raises MemoryError if there is none to read it; it is still there then."""
        try:
            data = self._end.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(reason_of(error, "it cannot be read"))
            return
        if not data:
            self._finish("")
            return
        try:
            for message in self._decoder.feed(data):
                self._heard(message)
        except MemoryError:
            self._finish(f"{NO_MEMORY} for what came")
        except Exception as error:  # noqa: BLE001 - whatever it is, this stream is read no further
            self._finish(f"what came makes no sense: {type(error).__name__}: {error}")
        except BaseException:
            self._finish("it was interrupted in the middle of a message")  # of which the rest would make no sense
            raise

    # --- the end

    def _finish(self, why: str) -> None:
        if self._shut():
            self._lost(why)
            self._wake_all()

    def _shut(self) -> bool:
        with self._turns:
            if self._closed:
                return False
            self._closed = True
            if os.getpid() == self._process:
                with contextlib.suppress(OSError):
                    self._end.shutdown(socket.SHUT_RDWR)  # wakes the reader, who closes
            if not self._reading:
                self._end.close()
        return True

    def _wake_all(self) -> None:
        with self._turns:
            waiting = tuple(self._waiting)
        for turn in waiting:
            with turn.news:
                turn.news.notify_all()

    def close(self) -> None:
        """Leave; whoever still waits is woken. Idempotent."""
        if self._shut():
            self._wake_all()


def _await_room(end: socket.socket, deadline: Deadline) -> None:
    if deadline.passed:
        raise TimeoutError(f"nothing was taken for {_SEND_S:g} s")
    poll = select.poll()
    poll.register(end, select.POLLOUT)
    poll.poll(deadline.left_s * 1000)
