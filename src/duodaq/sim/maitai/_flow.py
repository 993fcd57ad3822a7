"""XON/XOFF as the laser keeps it: it holds a full line back, and is silent while it is held back itself."""

from __future__ import annotations

from collections import deque

from duodaq.sim._lines import CommandLine

XON, XOFF = b"\x11", b"\x13"
_SIZE = 256
_HIGH, _LOW = 192, 64


class InputBuffer:
    """Lines that wait to be carried out, at most 256 bytes of them; `lost` counts lines that found no room."""

    def __init__(self) -> None:
        self.lost = 0
        self.muted = False
        self._lines: deque[CommandLine] = deque()
        self._bytes = 0
        self._holding = False

    def __bool__(self) -> bool:
        return bool(self._lines)

    def strip(self, data: bytes) -> bytes:
        """Take the flow control out of what came in, and obey it."""
        for byte in data:
            if bytes((byte,)) in (XON, XOFF):
                self.muted = byte == XOFF[0]
        return data.replace(XON, b"").replace(XOFF, b"")

    def put(self, line: CommandLine) -> None:
        """Take a line, if there is room for it."""
        if self._bytes + len(line.text) > _SIZE:
            self.lost += 1
            return
        self._lines.append(line)
        self._bytes += len(line.text) + 1

    def take(self) -> CommandLine:
        """The line that has waited longest."""
        line = self._lines.popleft()
        self._bytes -= len(line.text) + 1
        return line

    def signal(self) -> bytes:
        """What the sender has to be told now: XOFF when it fills, XON when there is room again."""
        if not self._holding and self._bytes > _HIGH:
            self._holding = True
            return XOFF
        if self._holding and self._bytes < _LOW:
            self._holding = False
            return XON
        return b""
