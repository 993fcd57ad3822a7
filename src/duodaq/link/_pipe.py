"""One end of a connected stream between two processes of one lab: whole messages, in both directions.

The rules that whoever edits this file must keep:

1.  `send` may be called from any thread. It writes at once, in the caller's thread, as long as the other end takes
    all; only then is the rest kept, in order, and written by the loop. So a message costs one system call.
2.  What is kept is bounded: beyond `backlog_limit` the other end is taken for dead, because it reads nothing.
3.  Messages that had arrived before the other end died are heard before `lost` is called: a reply that came counts.
4.  `lost` is called exactly once, on the loop, whatever ended the pipe, with the reason.
5.  Where there is no memory for what comes, reading pauses: a reader that raised would be called again at once, for
    ever. When there is none for so long, or for a part of a message that is under way already, the pipe ends.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from duodaq.errors import DataError, DeliveryError

MAX_MESSAGE = 64 * 1024 * 1024
BACKLOG_LIMIT = 256 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_CHUNK = 256 * 1024
_LAST_CHUNKS = 64
_SMALL = 4096
"""To copy so little costs less than a view of it."""
NO_MEMORY = "no memory"
"""How the reason begins when a pipe ends for want of it."""
_MEMORY_AGAIN_S = 0.02
_MEMORY_TRIES = 25
"""Who asks for too much mostly gives it back when it is refused; who keeps it leaves nothing to go on with."""


class Pipe:
    """Messages over `end`, a connected stream socket, which the pipe owns from now on.

    Args:
        end: The socket; made non-blocking.
        encode: One message as bytes. Called in the sender's thread, one at a time.
        decode: The message that some bytes are.
        heard: Called on the loop with each message. What `decode` or it raises about a message ends the pipe.
        lost: Called once on the loop when there will be no more: with why, or "" when the other end closed it.
        max_message: A longer message ends the pipe.
    """

    def __init__(
        self,
        end: socket.socket,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes | memoryview], Any],
        heard: Callable[[Any], None],
        lost: Callable[[str], None],
        *,
        max_message: int = MAX_MESSAGE,
        backlog_limit: int = BACKLOG_LIMIT,
    ) -> None:
        end.setblocking(False)
        self._end = end
        self._encode = encode
        self._decode = decode
        self._heard = heard
        self._lost = lost
        self._max_message = max_message
        self._backlog_limit = backlog_limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = threading.RLock()
        self._unsent = bytearray()
        self._arming = self._writing = False
        self._held = bytearray()
        self._wanted = 0
        self._refused = 0
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it has ended, from either side."""
        return self._closed

    @property
    def backlog(self) -> int:
        """How many bytes the other end has not taken yet."""
        return len(self._unsent)

    def open(self) -> None:
        """Hear from now on, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._end.fileno(), self._readable)
        with self._turn:
            if self._unsent and not self._arming:
                self._arming = True
                self._arm()

    def send(self, message: Any) -> None:
        """Send one message, from any thread.

        Raises:
            DeliveryError: The pipe has ended: not done. Or the other end has read nothing for so long that the backlog
                is full; the pipe ends then.
            DataError: It is too long, or holds something that does not travel. Nothing was sent.
        """
        with self._turn:
            if self._closed:
                raise DeliveryError("the link has ended", fate="not done")
            body = self._encode(message)
            if len(body) > self._max_message:
                raise DataError(f"a message of {len(body)} bytes; at most {self._max_message} travel")
            frame = _LENGTH.pack(len(body)) + body
            if self._unsent or self._writing:
                self._keep(frame)
                return
            self._writing = True
            try:
                sent = self._write(frame)
                if sent < len(frame):
                    self._keep_first(frame, sent)
            finally:
                self._writing = False

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._end.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._end_soon(reason_of(error, "it cannot be written to"))
            raise DeliveryError("the link has ended", fate="not done") from error

    def _keep_first(self, frame: bytes, sent: int) -> None:
        """Keep the rest of a message that is under way, before what came while it was written."""
        try:
            self._unsent[:0] = frame[sent:]
        except MemoryError:
            if not sent:
                raise
            self._end_soon(f"{NO_MEMORY} for the rest of a message of {len(frame)} bytes")
            raise DeliveryError("the link has ended: there is no memory for the rest of a message") from None
        self._keep(b"")

    def _keep(self, rest: bytes) -> None:
        if len(self._unsent) + len(rest) > self._backlog_limit:
            self._end_soon("the other end reads nothing")
            raise DeliveryError("the other end reads nothing", fate="unknown")
        self._unsent += rest
        if not self._arming and self._loop is not None:
            self._arming = True
            self._loop.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        if not self._closed and self._loop is not None:
            self._loop.add_writer(self._end.fileno(), self._writable)

    def _writable(self) -> None:
        with self._turn:
            if self._closed:
                return
            try:
                sent = self._write(self._first_of_unsent())
            except DeliveryError:
                return
            del self._unsent[:sent]
            if not self._unsent and self._loop is not None:
                self._arming = False
                self._loop.remove_writer(self._end.fileno())

    def _first_of_unsent(self) -> bytearray:
        """A copy, for a view would forbid whoever sends in the middle of it to add to what it is of."""
        try:
            return self._unsent[:_CHUNK]
        except MemoryError:
            return self._unsent[:_SMALL]

    def _end_soon(self, why: str) -> None:
        """From any thread: what can still be heard is heard, then it is lost."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.end, why)

    def end(self, why: str = "") -> None:
        """Whoever spoke at the other end is gone, though others may hold it open: hear what has come, then it is lost.

        On the loop only. Nothing if it has ended already.
        """
        for _ in range(_LAST_CHUNKS):  # no more: the other end may be one that says on and on and hears nothing
            if self._closed or not self._readable():
                break
        self._lose(why)

    def _readable(self) -> int:
        """Take what has come; how many bytes that was."""
        if self._closed:
            return 0
        try:
            data = self._end.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return 0
        except MemoryError:
            self._wait_for_memory()
            return 0
        except OSError as error:
            self._lose(reason_of(error, "it cannot be read"))
            return 0
        if not data:
            self._lose("" if not self._held else "it ended in the middle of a message")
            return 0
        self._refused = 0
        try:
            self._take(data)
        except MemoryError:
            self._lose(f"{NO_MEMORY} for a message of {self._wanted} bytes")
        return len(data)

    def _wait_for_memory(self) -> None:
        """Read on in a moment, if there is memory again by then."""
        self._refused += 1
        if self._refused > _MEMORY_TRIES or self._loop is None:
            self._lose(f"{NO_MEMORY} to read what comes")
            return
        self._loop.remove_reader(self._end.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._pause = self._loop.call_later(_MEMORY_AGAIN_S, self._read_on)

    def _read_on(self) -> None:
        self._pause = None
        if not self._closed and self._loop is not None:
            self._loop.add_reader(self._end.fileno(), self._readable)

    def _take(self, data: bytes) -> None:
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data = bytes(self._held)
            self._held.clear()
        begin = 0
        try:
            while (end := self._message_end(data, begin)) is not None:
                message = self._decode_part(data, begin + _LENGTH.size, end)
                begin = end
                self._heard(message)
                if self._closed:
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, this stream is read no further
            self._lose(f"what came makes no sense: {type(error).__name__}: {error}")
            return
        if begin < len(data):
            self._held += data[begin:]

    def _decode_part(self, data: bytes, begin: int, end: int) -> Any:
        if end - begin < _SMALL:
            return self._decode(data[begin:end])
        with memoryview(data) as whole:
            return self._decode(whole[begin:end])

    def _message_end(self, whole: bytes, begin: int) -> int | None:
        if len(whole) - begin < _LENGTH.size:
            self._wanted = _LENGTH.size
            return None
        (length,) = _LENGTH.unpack_from(whole, begin)
        if length > self._max_message:
            raise DataError(f"a message of {length} bytes was announced; at most {self._max_message} travel")
        end = begin + _LENGTH.size + length
        self._wanted = end - begin
        return end if end <= len(whole) else None

    def _lose(self, why: str) -> None:
        if self._shut():
            self._lost(why)

    def close(self) -> None:
        """End it from this side; `lost` is not called. On the loop only. Idempotent."""
        self._shut()

    def _shut(self) -> bool:
        with self._turn:
            if self._closed:
                return False
            self._closed = True
            if self._pause is not None:
                self._pause.cancel()
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._end.fileno())
                self._loop.remove_writer(self._end.fileno())
            self._unsent.clear()
            self._end.close()
            return True


def reason_of(error: OSError, what: str) -> str:
    """Nothing where the other end has simply gone: also with unread messages in its hands, which is told as a reset."""
    return "" if isinstance(error, BrokenPipeError | ConnectionResetError) else f"{what}: {error.strerror}"
