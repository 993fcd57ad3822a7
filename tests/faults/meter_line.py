"""The line to a power meter, in memory, that answers as it is told to."""

from __future__ import annotations

from collections.abc import Callable

from duodaq.ports import MemoryTransport, Receiver


class MeterLine(MemoryTransport):
    """A power meter that answers, as its nature is at the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Callable[[bytes], bytes] = lambda _: b"+1.0E-03\n"

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        self.peer = self.peer or MemoryTransport("meter")
        await super().open(receiver, timeout_s)

    def write_nowait(self, data: bytes) -> int:
        super().write_nowait(b"")
        if data.endswith(b"?\n") and (said := self.answer(data)):
            self.take(said)
        return len(data)
