"""What a VXI-11 server knows of its clients: connections, the links made on them, and the call that waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag

from duodaq.sim.lan._rpc import Call, RecordReader, success
from duodaq.sim.lan._sockets import Peer

LONGEST = 1 << 20
"""The most data that a write may bring at once."""


class Fault(IntEnum):
    """Error codes of VXI-11."""

    NONE = 0
    NOT_ACCESSIBLE = 3
    INVALID_LINK = 4
    PARAMETER = 5
    NOT_SUPPORTED = 8
    OUT_OF_RESOURCES = 9
    LOCKED = 11
    NO_LOCK = 12
    TIMEOUT = 15
    ABORTED = 23


class Flag(IntFlag):
    """Flags of an operation."""

    WAIT_LOCK = 1
    END = 8
    TERMCHAR = 128


class Reason(IntFlag):
    """Why a read ended."""

    COUNT = 1
    CHARACTER = 2
    END = 4


class Link:
    """One client's way to the instrument."""

    def __init__(self, number: int, line: Line) -> None:
        self.number = number
        self.line = line
        self.message = bytearray()
        self.reply = bytearray()
        self.ends: deque[int] = deque()  # where in `reply` messages end
        self.interrupted = 0

    def take(self, size: int, termchar: int | None) -> tuple[bytes, Reason] | None:
        """What a read of `size` bytes gets now; None if it has to wait."""
        end = self.ends[0] if self.ends else None
        length = min(size, len(self.reply) if end is None else end)
        reason = Reason(0)
        if termchar is not None and (at := self.reply.find(termchar, 0, length)) >= 0:
            length, reason = at + 1, Reason.CHARACTER
        if end is not None and length == end:
            reason |= Reason.END
        if length == size:
            reason |= Reason.COUNT
        if not reason:
            return None
        data = bytes(self.reply[:length])
        del self.reply[:length]
        self.ends = deque(at - length for at in self.ends if at > length)
        return data, reason

    def forget_reply(self) -> None:
        self.reply.clear()
        self.ends.clear()


class Pending:
    """A call that has to wait; `look` is called when something has changed, and returns its result or None."""

    def __init__(self, link: Link, look: Callable[[], bytes | None], failed: Callable[[Fault], bytes]) -> None:
        self.link = link
        self.look = look
        self.failed = failed
        self.timer: asyncio.TimerHandle | None = None


class Line:
    """One connection to the core channel: calls in order, at most one of them waiting."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.reader = RecordReader()
        self.calls: deque[Call] = deque()
        self.pending: Pending | None = None
        self.number = 0

    def answer(self, result: bytes) -> None:
        """Answer the call in hand."""
        pending, self.pending = self.pending, None
        if pending is not None and pending.timer is not None:
            pending.timer.cancel()
        self.peer.write(success(self.number, result))
