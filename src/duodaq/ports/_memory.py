from __future__ import annotations

import asyncio
from collections.abc import Callable

from duodaq.errors import PortLostError, PortOpenError
from duodaq.ports._transport import Receiver


class MemoryTransport:
    """One end of a line within the process; what one end writes the other hears, in order, on its own loop.

    `room` bytes may wait for an end that is not open yet; more than that is not taken until it opens.
    """

    def __init__(self, name: str = "memory", room: int = 65536) -> None:
        self.name = name
        self.room = room
        self.peer: MemoryTransport | None = None
        self._receiver: Receiver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = bytearray()
        self._writable: Callable[[], None] | None = None
        self._unplugged = False

    @classmethod
    def pair(cls, name: str = "memory") -> tuple[MemoryTransport, MemoryTransport]:
        """Two ends of one line."""
        near, far = cls(name), cls(f"{name} (far end)")
        near.peer, far.peer = far, near
        return near, far

    @property
    def address(self) -> str:
        return self.name

    @property
    def is_open(self) -> bool:
        return self._receiver is not None

    @property
    def descriptor(self) -> None:
        return None

    def identity(self) -> str:
        return f"memory:{self.name}"

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        if self.peer is None or self._unplugged:
            raise PortOpenError("nothing is plugged in at the far end", port=self.name)
        self._loop = asyncio.get_running_loop()
        self._receiver = receiver
        if self._waiting:
            data = bytes(self._waiting)
            self._waiting.clear()
            self._loop.call_soon(self._hear, data)
        self.peer.call_writable()

    def write_nowait(self, data: bytes) -> int:
        if self._receiver is None or self.peer is None:
            raise PortLostError("closed", port=self.name)
        return self.peer.take(data)

    def take(self, data: bytes) -> int:
        """Take what the far end wrote: hand it on, or keep it until this end opens, as far as there is room."""
        if self._loop is None or self._receiver is None:
            taken = data[: max(0, self.room - len(self._waiting))]
            self._waiting += taken
            return len(taken)
        self._loop.call_soon_threadsafe(self._hear, bytes(data))
        return len(data)

    def _hear(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.data_received(data)

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        self._writable = callback

    def call_writable(self) -> None:
        """The far end has room again."""
        callback, self._writable = self._writable, None
        if callback is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(callback)

    def discard_output(self) -> int:
        """Nothing: what was written has been heard already."""
        return 0

    def unplug(self) -> None:
        """Break the line: both ends are lost, and neither opens again before `replug`."""
        for end in (self, self.peer):
            if end is not None:
                end._unplugged = True
                end._lose()

    def replug(self) -> None:
        """Mend the line that `unplug` broke; both ends can be opened again."""
        for end in (self, self.peer):
            if end is not None:
                end._unplugged = False

    def _lose(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(receiver.transport_lost, None)

    async def aclose(self, timeout_s: float = 1.0) -> None:
        if self._receiver is None:
            return
        self._receiver = None
        if self.peer is not None:
            self.peer._lose()
