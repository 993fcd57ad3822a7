from __future__ import annotations

from collections import deque
from enum import StrEnum


class ReadEnd(StrEnum):
    """Why a read of a message ended: the message did, its terminating character came, or so much was asked for."""

    MESSAGE = "message"
    TERMINATOR = "terminator"
    COUNT = "count"


class ReplyBuffer:
    """What has come and was not read yet, and where in it messages end. `came` counts all bytes that ever came."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.came = 0
        self._taken = 0
        self._ends: deque[int] = deque()

    def __len__(self) -> int:
        return len(self.held)

    def take_in(self, data: bytes) -> None:
        """Add what came."""
        self.held += data
        self.came += len(data)

    def end_message(self) -> None:
        """A message ends behind what has come."""
        self._ends.append(self.came)

    def take_out(self, count: int) -> bytes:
        """The first `count` bytes, which are gone then."""
        data = bytes(self.held[:count])
        del self.held[:count]
        self._taken += len(data)
        while self._ends and self._ends[0] <= self._taken:
            self._ends.popleft()
        return data

    def clear(self) -> None:
        """Throw away all there is."""
        self.take_out(len(self.held))

    def message_end(self, size: int, terminator: bytes, ends: bool) -> tuple[int, ReadEnd]:
        """How many bytes a read of the next message takes, 0 if it must wait, and why no more.

        Args:
            size: So many at most.
            terminator: One character; empty for none.
            ends: Whether a message ends where it ends.
        """
        end = self._ends[0] - self._taken if ends and self._ends else size + 1
        found = self.held.find(terminator, 0, min(size, end)) if terminator else -1
        if found >= 0:
            return found + 1, ReadEnd.TERMINATOR
        if end <= size:
            return end, ReadEnd.MESSAGE
        return (size if len(self.held) >= size else 0), ReadEnd.COUNT
