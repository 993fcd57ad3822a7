from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from duodaq.app._loop_thread import LoopThread
from duodaq.link import LAB_PROTOCOL, LabLock, LinkServer
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Framing, Gate, PortCodec, TerminatedOrBlock, Transport, announce_ports, withdraw_ports
from duodaq.testing._linked_broker import LinkedBroker
from duodaq.testing._scripted_port import ScriptedCodec
from duodaq.workers import spawn_port_worker

T = TypeVar("T")
Place = Literal["manager", "worker", "outside"]
_numbers = itertools.count(1)


class BlockCodec(ScriptedCodec):
    """The scripted line protocol, with replies that may be blocks, and a status byte."""

    name = "block"

    def expects_reply(self, written: bytes, /) -> Framing | None:
        return TerminatedOrBlock(b"\n") if b"?" in written else None

    def status_query(self) -> bytes:
        return b"*STB?\n"


class VisaLab:
    """A broker in a thread of its own, whose ports are found by PyVISA as they are in one of three places.

    ``manager``: in the broker's own process; ``worker``: at the end of a worker's link; ``outside``: over a control
    socket, where any program of this user may connect.
    """

    def __init__(self, place: Place = "outside") -> None:
        self.place = place
        self.name = f"visa{os.getpid()}n{next(_numbers)}"
        self.thread = LoopThread(self.name)
        self.broker = Broker(lab=self.name if place == "manager" else "", spawn_worker=spawn_port_worker)
        self._linked: LinkedBroker | None = None
        self._server: LinkServer | None = None
        self._lock: LabLock | None = None

    @property
    def address(self) -> str:
        """What a PyVISA program gives to its ResourceManager."""
        return f"{self.name}@duodaq"

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 20.0) -> T:
        """The result of `work` on the broker's loop."""
        return self.thread.run(work, timeout_s)

    def call(self, work: Callable[[], T]) -> T:
        """The result of `work()` on the broker's loop."""

        async def run() -> T:
            return work()

        return self.run(run())

    def add(self, definition: PortDefinition, codec: PortCodec | None, transport: Transport | None = None) -> None:
        """Add a port and open it; all of them before `serve`."""
        self.run(self.broker.add(definition, codec, transport))
        self.run(self.broker.open(definition.name))

    def serve(self) -> None:
        """Let PyVISA find the ports."""
        self.run(self._serve())

    async def _serve(self) -> None:
        if self.place == "worker":
            self._linked = LinkedBroker(self.broker)
            await self._linked.open()
            announce_ports(self.name, self._linked.remote)
        elif self.place == "outside":
            self._lock = LabLock(self.name)
            await self.start_server()

    async def start_server(self) -> None:
        """Serve the control socket."""
        assert self._lock is not None
        talks = {"ports": Gate(self.broker).talk}
        self._server = LinkServer(self._lock.socket, _nothing_else, version=LAB_PROTOCOL, talks=talks)
        await self._server.start()

    async def end_server(self) -> None:
        """Hang up on everybody, as a lab does that ends."""
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()

    def exchange(self, request: bytes, *, port: str = "p", holder: str = "v4.here", wait_s: float = 5.0) -> bytes:
        """An exchange of somebody who knows nothing of VISA."""
        return self.run(self.broker.port(port).exchange(request, holder=holder, wait_s=wait_s))

    def begin(self, request: bytes, *, port: str = "p", holder: str = "v4.here", wait_s: float = 5.0) -> Any:
        """The same, as a future."""
        return self.thread.submit(self.broker.port(port).exchange(request, holder=holder, wait_s=wait_s))

    def close(self) -> None:
        """End it all."""
        try:
            self.run(self._close())
        finally:
            self.thread.close()

    async def _close(self) -> None:
        if self._linked is not None:
            withdraw_ports(self.name, self._linked.remote)
            await self._linked.aclose()
        await self.end_server()
        if self._lock is not None:
            self._lock.release()
        await self.broker.aclose()


async def _nothing_else(op: str, params: dict[str, Any]) -> Any:
    raise ValueError(f"this lab has ports and nothing else, no {op}")
