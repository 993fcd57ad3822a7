"""What an SCPI instrument calls an error: its code, its words, and the queue that holds it until somebody asks."""

from __future__ import annotations

from collections import deque

__all__ = ["TEXTS", "ErrorQueue", "ScpiFault", "event_bit"]

TEXTS: dict[int, str] = {
    0: "No error",
    -100: "Command error",
    -101: "Invalid character",
    -102: "Syntax error",
    -103: "Invalid separator",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -111: "Header separator error",
    -112: "Program mnemonic too long",
    -113: "Undefined header",
    -114: "Header suffix out of range",
    -121: "Invalid character in number",
    -131: "Invalid suffix",
    -138: "Suffix not allowed",
    -141: "Invalid character data",
    -151: "Invalid string data",
    -161: "Invalid block data",
    -171: "Invalid expression",
    -200: "Execution error",
    -203: "Command protected",
    -211: "Trigger ignored",
    -213: "Init ignored",
    -214: "Trigger deadlock",
    -221: "Settings conflict",
    -222: "Data out of range",
    -223: "Too much data",
    -224: "Illegal parameter value",
    -230: "Data corrupt or stale",
    -231: "Data questionable",
    -300: "Device-specific error",
    -310: "System error",
    -330: "Self-test failed",
    -350: "Queue overflow",
    -360: "Communication error",
    -363: "Input buffer overrun",
    -400: "Query error",
    -410: "Query INTERRUPTED",
    -420: "Query UNTERMINATED",
    -430: "Query DEADLOCKED",
    -440: "Query UNTERMINATED after indefinite response",
    531: "Insufficient memory",
    550: "Command not allowed in local",
}

_EVENT_BITS = {1: 5, 2: 4, 3: 3, 4: 2}


class ScpiFault(Exception):  # noqa: N818  (what the instrument queues, not an error of duodaq)
    """A unit that could not be parsed or carried out; it becomes an entry of the error queue."""

    def __init__(self, code: int, info: str = "") -> None:
        super().__init__(code, info)
        self.code = code
        self.info = info

    @property
    def ends_message(self) -> bool:
        """Command errors make the rest of the message unreadable; execution errors do not."""
        return -200 < self.code <= -100


def event_bit(code: int) -> int:
    """The bit of the standard event register that an error of this code sets (device-dependent for positive codes)."""
    return _EVENT_BITS.get(-code // 100, 3) if code < 0 else 3


class ErrorQueue:
    """FIFO of `size` errors; when it is full its last entry turns into -350."""

    def __init__(self, size: int = 20) -> None:
        self._entries: deque[tuple[int, str]] = deque()
        self._size = size

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, code: int, info: str = "") -> None:
        """Add an error, or mark the overflow."""
        if len(self._entries) >= self._size:
            self._entries[-1] = (-350, TEXTS[-350])
            return
        text = TEXTS.get(code, "Device-specific error")
        self._entries.append((code, f"{text};{info}" if info else text))

    def pop(self) -> str:
        """The oldest error as the instrument words it; ``+0,"No error"`` when there is none."""
        code, text = self._entries.popleft() if self._entries else (0, TEXTS[0])
        quoted = text.replace('"', '""')
        return f'{code:+d},"{quoted}"'

    def pop_all(self) -> str:
        """Every error, joined by commas, oldest first; the queue is empty afterwards."""
        entries = [self.pop() for _ in range(len(self._entries))]
        return ",".join(entries) if entries else self.pop()

    def clear(self) -> None:
        """Forget all errors."""
        self._entries.clear()
