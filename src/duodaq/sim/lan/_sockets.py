"""TCP without a coroutine: connections of the running loop that hand on what comes and send what they are given."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

_READ_BYTES = 1 << 18
_LONGEST_BACKLOG = 1 << 27


class Peer:
    """One connection. Whoever accepts it sets its callbacks; `on_end` is called once, unless it is closed here."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.on_data: Callable[[bytes], None] = lambda _: None
        self.on_end: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._connection: socket.socket | None = connection
        self._backlog = bytearray()
        self._silent = False
        self._loop.add_reader(connection, self._readable)

    @property
    def backlog(self) -> int:
        """How many bytes the kernel has not taken yet."""
        return len(self._backlog)

    def write(self, data: bytes) -> None:
        """Send `data` behind all that was given before; never waits."""
        if self._connection is None or self._silent:
            return
        if not self._backlog:
            data = data[self._send(data) :]
            if not data:
                return
            self._loop.add_writer(self._connection, self._writable)
        self._backlog += data
        if len(self._backlog) > _LONGEST_BACKLOG:
            self._end()

    def close(self) -> None:
        """Hang up. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._loop.remove_reader(connection)
            self._loop.remove_writer(connection)
            self._backlog.clear()
            connection.close()

    def fall_silent(self) -> None:
        """Hear nothing and send nothing any more, without an end: the power is gone. `close` still hangs up."""
        if self._connection is not None:
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._silent = True

    def _send(self, data: bytes | bytearray) -> int:
        assert self._connection is not None
        try:
            return self._connection.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # the reader sees the end of this connection by itself

    def _writable(self) -> None:
        if self._connection is None:
            return
        del self._backlog[: self._send(self._backlog)]
        if not self._backlog:
            self._loop.remove_writer(self._connection)

    def _readable(self) -> None:
        if self._connection is None:
            return
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.on_data(data)
        else:
            self._end()

    def _end(self) -> None:
        if self._connection is not None:
            self.close()
            self.on_end()


class Listener:
    """A TCP port of this machine, the same one again after it was closed; each connection is given to `accept`."""

    def __init__(self, port: int, accept: Callable[[Peer], None], host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = port
        self._accept = accept
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            listening.listen(16)
        except OSError:
            listening.close()
            raise
        listening.setblocking(False)
        self._socket = listening
        self.port = listening.getsockname()[1]
        asyncio.get_running_loop().add_reader(listening, self._readable)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        listening, self._socket = self._socket, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()

    def _readable(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._socket.accept()
            self._accept(Peer(connection))
