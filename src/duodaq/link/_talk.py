"""The client's end of a talk with a lab: sentences both ways over the control socket, without an event loop.

The rules that whoever edits this file must keep:

1.  There is no thread here. Whoever waits for something reads the socket, for all who wait; `_reading` says that
    somebody does. The others sleep on their own news, and are woken when the reader has had enough.
2.  Nobody holds the lock of his news while he reads or wakes others: what is heard may belong to any of them.
3.  Whatever ends the talk ends it for all, at once and for ever: they are told by `lost`, and woken.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duodaq.clock import Deadline
from duodaq.errors import DataError, DeliveryError, LifecycleError
from duodaq.link._error import error_from_wire
from duodaq.link._frame import FrameDecoder, encode
from duodaq.link._news import News

_HELLO_S = 5.0
_SEND_S = 10.0
_CHUNK = 256 * 1024
_LONGEST_S = 86400.0  # a poll counts milliseconds in 32 bits; whoever waits for longer looks again


class BlockingTalk:
    """A talk about `topic` with the program that serves `path`.

    Args:
        path: Its control socket.
        version: Of the protocol; a server that speaks another refuses.
        topic: About what.
        heard: Called with each sentence, in the thread of whoever waits.
        lost: Called once when it is over, not by `close`: with why.

    Raises:
        LifecycleError: Nobody serves there, it does not answer, or it refuses this program.
    """

    def __init__(
        self, path: Path, version: int, topic: str, heard: Callable[[bytes], None], lost: Callable[[str], None]
    ) -> None:
        self._heard = heard
        self._lost = lost
        self._process = os.getpid()
        self._decoder = FrameDecoder()
        self._sending = threading.Lock()
        self._turn = threading.Lock()
        self._reading = False
        self._waiting: list[News] = []
        self._closed = False
        self._welcome = False
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._end.connect(str(path))
            self._end.setblocking(False)
            self._write(encode(("hello", version)) + encode(("talk", topic)))
            self._await_welcome(path)
        except OSError as error:
            self._end.close()
            raise LifecycleError(f"nobody serves on {path}: {error.strerror or error}") from error
        except BaseException:
            self._end.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it goes on, in this process."""
        return not self._closed and os.getpid() == self._process

    def send(self, sentence: bytes) -> None:
        """Send one sentence, from any thread.

        Raises:
            DeliveryError: The talk is over; or the other end takes nothing for so long that it is over now.
        """
        if os.getpid() != self._process:
            raise DeliveryError(f"this connection belongs to process {self._process}", fate="not done")
        if self._closed:
            raise DeliveryError("the talk is over", fate="not done")
        try:
            with self._sending:
                self._write(encode(("say", sentence)))
        except OSError as error:
            self._finish(error.strerror or str(error))
            raise DeliveryError(f"the talk is over: {error}", fate="not done") from error

    def _write(self, frame: bytes) -> None:
        deadline, rest = Deadline(_SEND_S), memoryview(frame)
        while rest:
            try:
                rest = rest[self._end.send(rest) :]
            except (BlockingIOError, InterruptedError):
                if deadline.passed:
                    raise TimeoutError(f"nothing was taken for {_SEND_S:g} s") from None
                _wait(self._end, select.POLLOUT, deadline.left_s)

    def await_news(self, news: News, timeout_s: float | None) -> None:
        """Within `news`: wait until it may have been notified, or `timeout_s` has passed; reads for all who wait."""
        with self._turn:
            mine = not self._reading and not self._closed
            if mine:
                self._reading = True
            elif not self._closed:
                self._waiting.append(news)
        if not mine:
            news.wait(timeout_s if not self._closed else 0)
            return
        news.release()
        try:
            self._read(timeout_s)
        finally:
            self._pass_on()
            news.acquire()

    def _pass_on(self) -> None:
        """The reader has had enough: whoever still waits reads on."""
        with self._turn:
            self._reading = False
        self._release()
        self._wake()

    def _wake(self) -> None:
        with self._turn:
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            with one:
                one.notify_all()

    def _read(self, timeout_s: float | None) -> None:
        """Hear what comes within `timeout_s`: one chunk."""
        try:
            if not _wait(self._end, select.POLLIN, timeout_s):
                return
            data = self._end.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            self._finish(str(error))
            return
        if not data:
            self._finish("the lab hung up")
            return
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except (DataError, TypeError, ValueError, LookupError) as error:
            self._finish(f"what came makes no sense: {error}")

    def _take(self, message: Any) -> None:
        kind, *rest = message
        if kind == "said":
            self._heard(rest[0])
        elif kind == "talking":
            self._welcome = True
        elif kind == "refused":
            raise error_from_wire(rest[0])

    def _await_welcome(self, path: Path) -> None:
        deadline = Deadline(_HELLO_S)
        while not self._welcome:
            if self._closed:
                raise LifecycleError(f"the server on {path} hung up")
            if deadline.passed:
                raise LifecycleError(f"no answer on {path} within {_HELLO_S:g} s")
            self._read(deadline.left_s)

    def _finish(self, why: str) -> None:
        if self._shut():
            self._lost(why)
            self._wake()

    def _shut(self) -> bool:
        with self._turn:
            if self._closed:
                return False
            self._closed = True
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)  # wakes the reader, who closes
        self._release()
        return True

    def _release(self) -> None:
        with self._turn:
            if self._closed and not self._reading:
                self._end.close()

    def close(self) -> None:
        """Leave; whoever still waits is woken. Idempotent."""
        if self._shut():
            self._wake()


def _wait(end: socket.socket, what: int, timeout_s: float | None) -> bool:
    """Whether `end` is ready for `what` within `timeout_s`."""
    poll = select.poll()
    poll.register(end, what)
    return bool(poll.poll(None if timeout_s is None else min(timeout_s, _LONGEST_S) * 1000))
