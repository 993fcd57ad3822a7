from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from duodaq.errors import ConfigError, DeliveryError, LifecycleError, MailboxFullError
from duodaq.link._connection import Connection
from duodaq.link._error import error_to_wire
from duodaq.telemetry import get_logger, tracing

Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]
_log = get_logger("link")
_EVENT_BACKLOG = 4 * 1024 * 1024


class Session(Protocol):
    """The server's end of one client's requests."""

    async def handle(self, op: str, params: dict[str, Any]) -> Any:
        """Carry out one request; its result or exception is what the client gets."""
        ...

    def close(self) -> None:
        """The client is gone; what it had asked for is being cancelled."""
        ...


class Talk(Protocol):
    """The server's end of a talk with one client, which goes on until either of them leaves."""

    def heard(self, sentence: bytes) -> None:
        """Take a sentence of the client's. Raises DataError if it makes no sense: the client is then disconnected."""
        ...

    def close(self) -> None:
        """The client is gone."""
        ...


Said = Callable[[bytes], None]
TalkMaker = Callable[[Said], Talk]
_UNREAD_LIMIT = 64 * 1024 * 1024


class _Client:
    """One connected program: whether it said hello, what it waits for, what it listens to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.welcome = False
        self.requests: dict[int, asyncio.Task[None]] = {}
        self.topics: set[str] = set()
        self.missed: dict[str, int] = {}
        self.talk: Talk | None = None
        self.session: Session | None = None

    def say(self, sentence: bytes) -> None:
        """Say a sentence of the talk; a client that reads none of them is disconnected."""
        if self.connection.unsent > _UNREAD_LIMIT:
            self.connection.close()
        self.connection.send("said", sentence)


class LinkServer:
    """Serves requests of this user's programs on a UNIX socket.

    Each request runs as its own task, so a slow one holds up nobody; a client that leaves or cancels ends its own.

    Args:
        path: The socket; made readable for this user only, and removed at the end.
        handler: Awaited with (op, params); its result or exception is what the client gets.
        version: A client that speaks another version is refused with a sentence.
        outstanding: How many requests of one client may be open at once.
        talks: What a client may talk about, besides: topic → what makes this end of a talk.
        sessions: Makes what answers one client, where it matters who asks; `handler` then answers nobody.
    """

    def __init__(
        self,
        path: str | Path,
        handler: Handler,
        version: int = 1,
        outstanding: int = 64,
        talks: Mapping[str, TalkMaker] | None = None,
        sessions: Callable[[], Session] | None = None,
    ) -> None:
        self._talks = dict(talks or {})
        self._sessions = sessions
        self.path = Path(path)
        self.version = version
        self.outstanding = outstanding
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._clients: dict[Connection, _Client] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def clients(self) -> int:
        """How many programs are connected."""
        return len(self._clients)

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            LifecycleError: Somebody serves on this path already.
            ConfigError: The path is too long for a socket.
        """
        listener = _bound(self.path)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_unix_server(self._accepted, sock=listener)
        except BaseException:
            listener.close()
            raise

    def _accepted(self) -> Connection:
        connection = Connection(self._heard, self._left)
        self._clients[connection] = _Client(connection)
        return connection

    def _left(self, connection: Connection) -> None:
        client = self._clients.pop(connection, None)
        if client is not None:
            for task in client.requests.values():
                task.cancel()
            if client.talk is not None:
                client.talk.close()
            if client.session is not None:
                client.session.close()

    def _heard(self, connection: Connection, message: Any) -> None:
        client = self._clients.get(connection)
        if client is None:
            return
        kind, *rest = message
        if kind == "hello":
            self._greet(client, *rest)
        elif not client.welcome:
            connection.close()
        elif kind == "say" and client.talk is not None:
            client.talk.heard(rest[0])
        elif kind == "request":
            self._begin(client, *rest)
        elif kind == "talk":
            self._talk(client, *rest)
        elif kind == "cancel":
            if (task := client.requests.get(rest[0])) is not None:
                task.cancel()
        elif kind == "subscribe":
            client.topics.add(rest[0])
        elif kind == "unsubscribe":
            client.topics.discard(rest[0])

    def _greet(self, client: _Client, version: int) -> None:
        refusal = None
        if not _same_user(client.connection):
            refusal = LifecycleError("this lab belongs to another user")
        elif version != self.version:
            refusal = LifecycleError(f"the lab speaks version {self.version} of its protocol, this program {version}")
        if refusal is not None:
            client.connection.send("refused", error_to_wire(refusal))
            client.connection.close()
            return
        client.welcome = True
        client.session = None if self._sessions is None else self._sessions()
        client.connection.send("hello", self.version, os.getpid())

    def _talk(self, client: _Client, topic: str) -> None:
        maker = self._talks.get(topic)
        if maker is None or client.talk is not None:
            refusal = LifecycleError(f"there is nothing to be said about {topic!r} here")
            client.connection.send("refused", error_to_wire(refusal))
            client.connection.close()
            return
        client.connection.send("talking", topic)
        client.talk = maker(client.say)

    def _begin(self, client: _Client, number: int, op: str, params: dict[str, Any], trace_id: str | None) -> None:
        if len(client.requests) >= self.outstanding:
            refusal = MailboxFullError(f"{self.outstanding} requests are open already", command=op)
            client.connection.send("error", number, error_to_wire(refusal))
            return
        task = asyncio.get_running_loop().create_task(self._serve(client, number, op, params, trace_id))
        client.requests[number] = task
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _serve(self, client: _Client, number: int, op: str, params: dict[str, Any], trace_id: str | None) -> None:
        connection = client.connection
        try:
            with tracing(trace_id):
                handle = self._handler if client.session is None else client.session.handle
                result = await handle(op, params)
            connection.send("reply", number, result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is the client who has to know
            with contextlib.suppress(DeliveryError):
                connection.send("error", number, error_to_wire(error))
        finally:
            client.requests.pop(number, None)

    def publish(self, topic: str, value: Any) -> None:
        """Send an event to every client that listens to `topic`. Never waits: a client that does not read misses it.

        How many one missed comes with the next event that it gets.
        """
        for client in tuple(self._clients.values()):
            if topic not in client.topics:
                continue
            if client.connection.unsent > _EVENT_BACKLOG:
                client.missed[topic] = client.missed.get(topic, 0) + 1
                continue
            with contextlib.suppress(DeliveryError):
                client.connection.send("event", topic, value, client.missed.pop(topic, 0))

    async def aclose(self) -> None:
        """Serve no more: open requests are cancelled, clients disconnected, the socket removed. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        clients = tuple(self._clients.values())
        for task in tuple(self._ending):
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await asyncio.gather(*(client.connection.aclose() for client in clients), return_exceptions=True)
        await server.wait_closed()
        self.path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    """A listening socket at `path`; one that a dead program left there is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listener.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _answers(path):
                raise
            path.unlink()
            listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if "too long" in str(error):
            raise ConfigError(f"{path} is too long for a socket", remedy="Choose a shorter directory.") from error
        raise LifecycleError(f"cannot serve on {path}: {error.strerror or error}") from error
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(0.5)
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _same_user(connection: Connection) -> bool:
    """Whether the program at the other end runs as this user, where the system tells (SO_PEERCRED)."""
    option = getattr(socket, "SO_PEERCRED", None)
    end: Any = connection.transport.get_extra_info("socket")
    if option is None or end is None:
        return True
    _, uid, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return uid == os.getuid()
