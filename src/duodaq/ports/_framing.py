"""Where a reply ends: pure bytes, no waiting.

A framing is fed what arrived, in any chunks, and returns the whole reply (terminator included) once it is there. It
never looks inside the payload of a block, and it gives up, with ReplyFormatError, on a reply longer than `max_bytes`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Protocol

from duodaq.errors import ReplyFormatError

MAX_REPLY = 64 * 1024 * 1024


class Framing(Protocol):
    """Collects the bytes of one reply. `rest` is what arrived behind its end."""

    @property
    def rest(self) -> bytes: ...

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return the whole reply when it is complete, else None."""
        ...

    def reset(self) -> None:
        """Forget everything, ready for another reply."""
        ...


class _Collected:
    """A buffer with an upper bound, from whose front one whole reply is cut."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.rest = b""
        self._held = bytearray()

    def reset(self) -> None:
        self.rest = b""
        self._held.clear()

    def feed(self, data: bytes) -> bytes | None:
        self._held += data
        end = self._end()
        if end is None:
            if len(self._held) > self.max_bytes:
                raise ReplyFormatError(f"reply longer than {self.max_bytes} bytes", reply=bytes(self._held[:80]))
            return None
        reply = bytes(self._held[:end])
        self.rest = bytes(self._held[end:])
        self._held.clear()
        return reply

    def take_held(self) -> bytes:
        """What has come of a reply that is not complete; the framing is empty afterwards."""
        held = bytes(self._held)
        self.reset()
        return held

    def _end(self) -> int | None:
        raise NotImplementedError


class Terminated(_Collected):
    """A reply that ends with `terminator`."""

    def __init__(self, terminator: bytes = b"\n", max_bytes: int = MAX_REPLY) -> None:
        super().__init__(max_bytes)
        self.terminator = terminator
        self._searched = 0

    def reset(self) -> None:
        super().reset()
        self._searched = 0

    def feed(self, data: bytes) -> bytes | None:
        if not self._held and data.find(self.terminator) == len(data) - len(self.terminator) >= 0:
            self.rest = b""
            return data  # one whole reply in one piece: by far the most frequent case
        return super().feed(data)

    def _end(self) -> int | None:
        found = self._held.find(self.terminator, self._searched)
        if found < 0:
            self._searched = max(0, len(self._held) - len(self.terminator) + 1)
            return None
        self._searched = 0
        return found + len(self.terminator)


class Lines(_Collected):
    """`count` lines, each ended by `terminator`: the reply to several queries on one line, in one piece."""

    def __init__(self, count: int, terminator: bytes = b"\n", max_bytes: int = MAX_REPLY) -> None:
        super().__init__(max_bytes)
        self.count = count
        self.terminator = terminator

    def _end(self) -> int | None:
        end = 0
        for _ in range(self.count):
            found = self._held.find(self.terminator, end)
            if found < 0:
                return None
            end = found + len(self.terminator)
        return end


class FixedLength(_Collected):
    """A reply of exactly `length` bytes."""

    def __init__(self, length: int) -> None:
        super().__init__(max(length, MAX_REPLY))
        self.length = length

    def _end(self) -> int | None:
        return self.length if len(self._held) >= self.length else None


class TerminatedOrBlock(_Collected):
    """A SCPI response message: units joined by ``;`` or ``,``, any of them perhaps a block, then a terminator.

    ``#H``, ``#Q`` and ``#B`` numbers and ``;`` or ``#`` within a quoted string are text. An indefinite block (``#0``)
    ends with the terminator, as it can only where no END exists: such a payload must not contain it.
    """

    def __init__(self, terminator: bytes = b"\n", max_bytes: int = MAX_REPLY) -> None:
        super().__init__(max_bytes)
        self.terminator = terminator
        self._text, self._quoted = _patterns(terminator)
        self._at: int = 0
        self._unit_start = True
        self._in_quotes = False

    def __getstate__(self) -> dict[str, Any]:
        """What travels: patterns are made again where it arrives."""
        return {name: value for name, value in vars(self).items() if name not in ("_text", "_quoted")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._text, self._quoted = _patterns(self.terminator)

    def reset(self) -> None:
        super().reset()
        self._at, self._unit_start, self._in_quotes = 0, True, False

    def feed(self, data: bytes) -> bytes | None:
        whole = not self._held and data.find(self.terminator) == len(data) - len(self.terminator) >= 0
        if whole and b"#" not in data and b'"' not in data:
            self.rest = b""
            return data  # one whole reply in one piece, with neither block nor string: the most frequent case
        return super().feed(data)

    def _end(self) -> int | None:
        while True:
            if self._unit_start:
                if not self._pass_block():
                    return None
                self._unit_start = False
            found = (self._quoted if self._in_quotes else self._text).search(self._held, self._at)
            if found is None:
                # The end of what is here may be the beginning of a terminator, or a separator before a block.
                self._at = max(self._at, len(self._held) - len(self.terminator))
                return None
            self._at = found.end()
            if found.group() == self.terminator:
                end, self._at, self._unit_start, self._in_quotes = self._at, 0, True, False
                return end
            if found.group() == b'"':
                self._in_quotes = not self._in_quotes
            else:
                self._unit_start = True

    def _pass_block(self) -> bool:
        """Step over a definite block that begins here; False while it is not whole."""
        end = _block_end(self._held, self._at)
        if end is None:
            return False
        self._at = end
        return True


@lru_cache(maxsize=16)
def _patterns(terminator: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """What ends or interrupts the text of a message, and what ends a string in it."""
    end = re.escape(terminator)
    return re.compile(end + rb'|[;,](?=#)|"'), re.compile(end + rb'|"')


class Block488(_Collected):
    """One IEEE-488.2 block, definite or indefinite, then `terminator` (``b""`` for a device that sends none)."""

    def __init__(self, terminator: bytes = b"\n", max_bytes: int = MAX_REPLY) -> None:
        super().__init__(max_bytes)
        self.terminator = terminator

    def _end(self) -> int | None:
        if self._held and self._held[0] != ord("#"):
            raise ReplyFormatError("expected a block, which begins with '#'", reply=bytes(self._held[:80]))
        end = _block_end(self._held, 0)
        if not self._held or end is None:
            return None
        if end == 0:
            return self._indefinite_end()
        tail = bytes(self._held[end : end + len(self.terminator)])
        if not self.terminator.startswith(tail):
            raise ReplyFormatError("no terminator behind the block", reply=bytes(self._held[:80]))
        return end + len(self.terminator) if tail == self.terminator else None

    def _indefinite_end(self) -> int | None:
        if not self._held.startswith(b"#0"):
            raise ReplyFormatError("neither a definite nor an indefinite block", reply=bytes(self._held[:80]))
        found = self._held.find(self.terminator or b"\n", 2)
        return None if found < 0 else found + len(self.terminator or b"\n")


def _block_end(held: bytearray, at: int) -> int | None:
    """The end of the definite block at `at`; `at` itself if something else begins there; None if not known yet."""
    if at >= len(held):
        return None
    if held[at] != ord("#"):
        return at
    if at + 1 >= len(held):
        return None
    digits = held[at + 1] - ord("0")
    if not 1 <= digits <= 9:
        return at
    header = bytes(held[at + 2 : at + 2 + digits])
    if header and not header.isdigit():
        raise ReplyFormatError("block length is not a number", reply=bytes(held[at : at + 80]))
    if len(header) < digits:
        return None
    end = at + 2 + digits + int(header)
    return end if len(held) >= end else None


class Idle:
    """A reply that ends when nothing more comes for `idle_ms`, which only the waiting side can tell."""

    def __init__(self, idle_ms: float, max_bytes: int = MAX_REPLY) -> None:
        self.idle_ms = idle_ms
        self.max_bytes = max_bytes
        self._held = bytearray()

    @property
    def rest(self) -> bytes:
        return b""

    def feed(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self.max_bytes:
            raise ReplyFormatError(f"reply longer than {self.max_bytes} bytes", reply=bytes(self._held[:80]))

    def take(self) -> bytes:
        """What has come until now; the framing is empty afterwards."""
        reply = bytes(self._held)
        self._held.clear()
        return reply

    def reset(self) -> None:
        self._held.clear()


def end_message(framing: Framing, data: bytes) -> bytes | None:
    """Feed a message behind which the line marked an END; the reply, or None if more belongs to it.

    Where END is the end of a reply, what `framing` takes for one is not: such a reply may have newlines in it.
    """
    reply = framing.feed(data)
    if reply is None:
        return at_end(framing)
    if framing.rest and isinstance(framing, Terminated | TerminatedOrBlock | Block488):
        reply += framing.rest
        framing.reset()
    return reply


def at_end(framing: Framing) -> bytes | None:
    """The reply that is whole because the line marked an END behind what has come; None if more belongs to it."""
    if isinstance(framing, Idle):
        return framing.take()
    if isinstance(framing, Terminated | TerminatedOrBlock | Block488):
        return framing.take_held() or None
    return None
