"""Replies that come later than the port can wait: those of a motion on a line that others share.

Such an exchange is written like any other and then set aside: the port is free for everybody, and the exchange ends
when its frame is heard, between other people's, or when its time is over. What is heard is cut into frames here as long
as one is set aside; a frame belongs to the exchange in hand if that takes it (so that a question during a motion gets
its answer), else to the exchange set aside longest ago that takes it, else to nobody here.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, runtime_checkable

from duodaq.errors import PortTimeoutError
from duodaq.ports._books import PortBooks
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing


@runtime_checkable
class DeferringCodec(Protocol):
    """A codec of a line on which some replies come later; their framings are `FrameFraming`."""

    @property
    def latest_reply_s(self) -> float:
        """After how long, at most, such a reply is there; whoever asked for less waits for that."""
        ...

    def defers(self, written: bytes, /) -> bool:
        """Whether the reply to `written` comes later, and the port is free until then."""
        ...

    def frames(self, heard: bytes, /) -> tuple[list[bytes], bytes]:
        """The whole frames in what was heard, and the beginning of another behind them."""
        ...


@runtime_checkable
class FrameFraming(Framing, Protocol):
    """A framing whose reply is one frame that it knows when it sees it."""

    def takes(self, frame: bytes, /) -> bool:
        """Whether `frame` is the reply."""
        ...


class Deferred:
    """The exchanges of one port that are set aside. All of it on the port's loop."""

    def __init__(self, name: str, codec: PortCodec | None, books: PortBooks, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._codec = codec if isinstance(codec, DeferringCodec) else None
        self._books = books
        self._loop = loop
        self._waiting: list[Exchange] = []
        self._held = b""

    def is_for(self, exchange: Exchange) -> bool:
        """Whether the reply to `exchange` comes later."""
        framing = exchange.framing
        return self._codec is not None and isinstance(framing, FrameFraming) and self._codec.defers(exchange.request)

    def keep(self, exchange: Exchange) -> None:
        """Set `exchange` aside; its time runs from now, and is at least what the codec says."""
        exchange.stop_clock()
        limit_s = max(exchange.timeout_s, self._codec.latest_reply_s if self._codec is not None else 0.0)
        exchange.timer = self._loop.call_later(limit_s, self._timed_out, exchange, limit_s)
        self._waiting.append(exchange)

    def drop(self, exchange: Exchange) -> bool:
        """Nobody waits for `exchange` any more; whether it was set aside."""
        if exchange not in self._waiting:
            return False
        exchange.stop_clock()
        self._waiting.remove(exchange)
        return True

    def fail(self, error: BaseException) -> None:
        """End all of them by `error`."""
        self._held = b""
        for exchange in tuple(self._waiting):
            self._end(exchange, b"", error)

    def sift(self, data: bytes, hand: Exchange | None) -> bytes:
        """What of `data` is not for an exchange that is set aside; a frame of which more must come is held back."""
        if self._codec is None or not (self._waiting or self._held):
            return data
        heard, self._held = self._held + data, b""
        if not self._waiting:
            return heard
        frames, self._held = self._codec.frames(heard)
        left: list[bytes] = []
        for frame in frames:
            if hand is not None and hand.sent == len(hand.request) and _takes(hand, frame):
                hand = None  # it takes one
                left.append(frame)
            elif (owner := next((one for one in self._waiting if _takes(one, frame)), None)) is not None:
                self._books.heard(frame, owner)
                self._end(owner, frame, None)
            else:
                left.append(frame)
        return b"".join(left)

    def _timed_out(self, exchange: Exchange, limit_s: float) -> None:
        error = PortTimeoutError(f"no reply within {limit_s:g} s", port=self._name, left="the port was free meanwhile")
        self._end(exchange, b"", error)

    def _end(self, exchange: Exchange, reply: bytes, error: BaseException | None) -> None:
        if self.drop(exchange):
            if error is not None:
                self._books.failed(error, exchange)
            exchange.done(reply, error)


def _takes(exchange: Exchange, frame: bytes) -> bool:
    return isinstance(exchange.framing, FrameFraming) and exchange.framing.takes(frame)
