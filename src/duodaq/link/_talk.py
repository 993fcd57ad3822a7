"""The client's end of a talk with a lab: sentences both ways over the control socket, without an event loop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duodaq.clock import Deadline
from duodaq.errors import LifecycleError
from duodaq.link._blocking_pipe import BlockingPipe
from duodaq.link._error import error_from_wire
from duodaq.link._frame import decode_body, encode, encode_body
from duodaq.link._news import News

_HELLO_S = 5.0


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
        self._told_lost = lost
        self._news = News()
        self._welcome = False
        self._refusal: Exception | None = None
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            end.connect(str(path))
            end.sendall(encode(("hello", version)) + encode(("talk", topic)))
        except OSError as error:
            end.close()
            raise LifecycleError(f"nobody serves on {path}: {error.strerror or error}") from error
        self._pipe = BlockingPipe(end, encode_body, decode_body, self._take, self._lost)
        try:
            self._await_welcome(path)
        except BaseException:
            self._pipe.close()
            raise
        finally:
            self._news.close()

    @property
    def alive(self) -> bool:
        """Whether it goes on, in this process."""
        return self._pipe.alive

    def send(self, sentence: bytes) -> None:
        """Send one sentence, from any thread.

        Raises:
            DeliveryError: The talk is over; or the other end takes nothing for so long that it is over now.
        """
        self._pipe.send(("say", sentence))

    def await_news(self, news: News, timeout_s: float | None) -> None:
        """Within `news`: wait until it may have been notified, or `timeout_s` has passed; see BlockingPipe."""
        self._pipe.await_news(news, timeout_s)

    def _take(self, message: Any) -> None:
        kind, *rest = message
        if kind == "said":
            self._heard(rest[0])
        elif kind in ("talking", "refused"):
            with self._news:
                self._welcome = kind == "talking"
                self._refusal = None if self._welcome else error_from_wire(rest[0])
                self._news.notify_all()

    def _await_welcome(self, path: Path) -> None:
        deadline = Deadline(_HELLO_S)
        with self._news:
            while not self._welcome:
                if self._refusal is not None:
                    raise self._refusal
                if not self._pipe.alive:
                    raise LifecycleError(f"the server on {path} hung up")
                if deadline.passed:
                    raise LifecycleError(f"no answer on {path} within {_HELLO_S:g} s")
                self._pipe.await_news(self._news, deadline.left_s)

    def _lost(self, why: str) -> None:
        if self._welcome:
            self._told_lost(why or "the lab hung up")

    def close(self) -> None:
        """Leave; whoever still waits is woken. Idempotent."""
        self._pipe.close()
