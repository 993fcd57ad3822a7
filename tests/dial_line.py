"""A dial on a line within the process, for tests that need an instrument and not what it measures."""

from __future__ import annotations

from duodaq.ports import MemoryTransport, Receiver


class DialLine(MemoryTransport):
    """A dial that says 4 to whoever asks, while it is plugged in."""

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        self.peer = self.peer or MemoryTransport("dial")
        await super().open(receiver, timeout_s)

    def write_nowait(self, data: bytes) -> int:
        self.take(b"4\n")
        return len(data)
