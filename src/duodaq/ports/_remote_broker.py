"""The ports of a lab as a worker process has them: over two lines to the broker.

What its loop asks for (actors, stops) goes over the worker's link. The sessions of its drivers' threads have a line of
their own, which these threads read by themselves: so a reply goes from the kernel to whoever waits for it. Nothing
orders the two lines against each other, and nothing has to. What may move carries the stop epoch in which it was begun,
and is judged at the broker by that, whenever it comes.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Mapping

import msgspec

from duodaq.errors import ConfigError
from duodaq.link import BlockingPipe, Message
from duodaq.model import PortDefinition
from duodaq.ports._bus_codec import codec_on
from duodaq.ports._codec import PortCodec
from duodaq.ports._port import Port
from duodaq.ports._remote import PackFraming, RemoteLines, RemoteOwner, Send
from duodaq.ports._sentences import StopPort, ToUser
from duodaq.ports._session import BlockingSession

_decode = msgspec.msgpack.Decoder(ToUser).decode


class ThreadLines(RemoteLines):
    """What the threads of this process have under way at the broker, on a line of theirs; `loop` looks after them."""

    def __init__(
        self,
        end: socket.socket,
        encode: Callable[[Message], bytes],
        pack: PackFraming,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[[str], None],
    ) -> None:
        self._pipe = BlockingPipe(end, encode, _decode, self.heard, lost)
        super().__init__(self._pipe.send, pack, loop, self._pipe.await_news)

    def close(self) -> None:
        """Hear nothing any more, and watch over nothing."""
        super().close()
        self._pipe.close()

    def look_after_owners(self) -> None:
        """Besides, hear what nobody waits for: else it would be kept for a device that never falls silent."""
        self._pipe.look()
        super().look_after_owners()


class RemoteBroker:
    """The lab's ports as a worker's runtime sees them: keeps the promise of PortSource. Made on the worker's loop.

    Args:
        send: Sends a sentence over the worker's link.
        threads: The line of its threads.
        ports: By name.
        codecs: The codec of a name.
        epochs: How many stops have ended motions at each port.
        latched: Whether a stop-all is.
    """

    def __init__(
        self,
        send: Send,
        threads: ThreadLines,
        ports: Mapping[str, PortDefinition],
        codecs: Callable[[str], PortCodec],
        epochs: Mapping[str, int],
        *,
        latched: bool,
        pack: PackFraming,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.lines = RemoteLines(send, pack, loop)
        self.latched = latched
        self._threads = threads
        self._loop = loop
        self._codecs = codecs
        self._owners: dict[str, RemoteOwner] = {}
        self._of_threads: dict[str, RemoteOwner] = {}
        for name, port in ports.items():
            self._add(port, epochs.get(name, 0))
        self._stops = itertools.count(1)
        self._stopping: dict[int, asyncio.Future[int]] = {}
        self._loss_listeners: tuple[Callable[[str], None], ...] = ()

    def port(self, name: str) -> Port:
        """The port of that name."""
        return Port(self._owner(name))

    def definitions(self) -> dict[str, PortDefinition]:
        """The definition of every port, by name. From any thread."""
        return {name: owner.definition for name, owner in self._owners.items()}

    def session(self, port: str, holder: str, *, impatient: bool = False) -> BlockingSession:
        """A session of `holder` for blocking code, usable from any thread but that of this process's loop."""
        return BlockingSession(self._of_threads[self._owner(port).name], holder, impatient=impatient)

    def close(self) -> None:
        """Watch over nothing any more; for a process that outlives its link."""
        self.lines.close()
        self._threads.close()

    async def stop(
        self, port: str, data: bytes | None = None, holder: str = "stop", *, ends_moving: bool = True
    ) -> int:
        """Put stop bytes on the wire before everything else; see Broker.stop."""
        number = next(self._stops)
        answer = self._stopping[number] = asyncio.get_running_loop().create_future()
        try:
            self.lines.send(StopPort(number, self._owner(port).name, data, holder, ends_moving))
            return await answer
        finally:
            del self._stopping[number]

    def stopped(self, number: int, t_ns: int, error: Exception | None) -> None:
        """A stop is on the wire, or is not."""
        answer = self._stopping.get(number)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(t_ns)
        else:
            answer.set_exception(error)

    def note_stop(self, port: str, epoch: int) -> None:
        """The stop epoch of a port has risen; or, without a port, the latch has changed."""
        if not port:
            self.latched = bool(epoch)
        elif port in self._owners:
            self._owners[port].epoch = self._of_threads[port].epoch = epoch

    def subscribe_losses(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener` with a port's name whenever its line is lost, until the result is called."""
        self._loss_listeners = (*self._loss_listeners, listener)

        def unsubscribe() -> None:
            self._loss_listeners = tuple(one for one in self._loss_listeners if one is not listener)

        return unsubscribe

    def note_loss(self, port: str) -> None:
        """The line of a port is lost."""
        for listener in self._loss_listeners:
            listener(port)

    def note_port(self, name: str, definition: PortDefinition | None) -> None:
        """A port was added, or was removed (None)."""
        if definition is not None:
            self._add(definition, 0)
        else:
            self._owners.pop(name, None)
            self._of_threads.pop(name, None)

    def _add(self, port: PortDefinition, epoch: int) -> None:
        codec = codec_on(port, self._codecs(port.codec) if port.codec else None)
        self._owners[port.name] = RemoteOwner(port, codec, epoch, self.lines, self._loop)
        self._of_threads[port.name] = RemoteOwner(port, codec, epoch, self._threads, self._loop)

    def _owner(self, name: str) -> RemoteOwner:
        owner = self._owners.get(name)
        if owner is None:
            known = ", ".join(sorted(self._owners)) or "none"
            raise ConfigError(f"there is no port named '{name}'", remedy=f"Ports here: {known}.")
        return owner
