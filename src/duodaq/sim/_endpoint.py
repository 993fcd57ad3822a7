"""Where a simulator is plugged in: a pseudo-terminal or a TCP port. Both can be unplugged and plugged in again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from duodaq.sim._pty_link import PtyLink

if sys.platform != "win32":
    import fcntl
    import pty
    import termios
    import tty

_READ_BYTES = 65536
_RETRY_S = 0.005
_BACKLOG_BYTES = 1 << 20


class Endpoint(Protocol):
    """Carries bytes between clients and one simulator; the callbacks are set by the server before `open`."""

    address: str
    on_open: Callable[[int], None]
    on_data: Callable[[int, bytes], None]
    on_close: Callable[[int], None]

    def open(self) -> None:
        """Plug in: `address` is valid from now on."""
        ...

    def close(self) -> None:
        """Unplug: every client sees the line die."""
        ...

    def send(self, client: int, data: bytes, ends: bool = True) -> None:
        """Hand bytes to a client; never waits. `ends`: a message ends with them, where the line can mark that."""
        ...

    def unread(self, client: int) -> int:
        """How many bytes the client has not fetched, as far as this side can see."""
        ...

    def power_off(self) -> None:
        """The instrument has lost its power: no client can come any more."""
        ...

    def power_on(self) -> None:
        """It is back, and knows of no client; at the same address."""
        ...


def _nobody(client: int, data: bytes = b"") -> None:
    """Nobody listens yet."""


class PtyEndpoint:
    """A pseudo-terminal, which one client opens like a serial port.

    The server keeps the slave open too (else reading the master fails with EIO while nobody is attached), and raw
    from the start. `link` is a symlink that names the present slave; it is gone while unplugged, as udev does it, and
    belongs to one that serves it alone.
    """

    def __init__(self, link: str | None = None) -> None:
        self.address = link or ""
        self.on_open: Callable[[int], None] = _nobody
        self.on_data: Callable[[int, bytes], None] = _nobody
        self.on_close: Callable[[int], None] = _nobody
        self._link = PtyLink(Path(link)) if link else None
        self._master = self._slave = -1
        self._backlog = bytearray()
        self.overflowed = 0

    def open(self) -> None:
        """Plug in."""
        if sys.platform == "win32":
            raise OSError("there are no pseudo-terminals on Windows; serve the simulator on TCP")
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        device = os.ttyname(self._slave)
        if self._link is None:
            self.address = device
        else:
            try:
                self._link.point_to(device)
            except OSError:
                self._hang_up()
                raise
        asyncio.get_running_loop().add_reader(self._master, self._read)
        self.on_open(0)

    def close(self) -> None:
        """Unplug: the client's reads end, its writes fail with EIO, the link is gone."""
        if self._master < 0:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        if self._link is not None:
            self._link.remove()
        self._hang_up()
        self._backlog.clear()
        self.on_close(0)

    def send(self, client: int, data: bytes, ends: bool = True) -> None:
        """Write to the line; what the kernel does not take at once is retried."""
        if self._master < 0:
            return
        if self._backlog:
            self._keep(data)
            return
        try:
            written = os.write(self._master, data)
        except BlockingIOError:
            written = 0
        if written < len(data):
            self._keep(data[written:])
            asyncio.get_running_loop().call_later(_RETRY_S, self._retry)

    def unread(self, client: int) -> int:
        """Bytes that wait in the slave's input queue, plus those the kernel has not taken."""
        if self._slave < 0 or sys.platform == "win32":
            return 0
        waiting = fcntl.ioctl(self._slave, termios.FIONREAD, b"\0\0\0\0")
        return struct.unpack("i", waiting)[0] + len(self._backlog)

    def power_off(self) -> None:
        """Nothing: the adapter at the other end of the cable has a power of its own."""

    def power_on(self) -> None:
        """Nothing; see above."""

    def _keep(self, data: bytes) -> None:
        if len(self._backlog) + len(data) > _BACKLOG_BYTES:
            self.overflowed += len(data)
        else:
            self._backlog += data

    def _retry(self) -> None:
        if self._master < 0 or not self._backlog:
            return
        with contextlib.suppress(BlockingIOError):
            del self._backlog[: os.write(self._master, self._backlog)]
        if self._backlog:
            asyncio.get_running_loop().call_later(_RETRY_S, self._retry)

    def _read(self) -> None:
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return
        self.on_data(0, data)

    def _hang_up(self) -> None:
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1


class TcpEndpoint:
    """A TCP port on this machine for up to `max_clients` clients; one more is hung up on at once."""

    def __init__(self, port: int = 0, *, max_clients: int = 1, host: str = "127.0.0.1") -> None:
        self.address = ""
        self.on_open: Callable[[int], None] = _nobody
        self.on_data: Callable[[int, bytes], None] = _nobody
        self.on_close: Callable[[int], None] = _nobody
        self._host, self._port = host, port
        self._max_clients = max_clients
        self._listener: socket.socket | None = None
        self._clients: dict[int, socket.socket] = {}
        self._backlogs: dict[int, bytearray] = {}
        self._next = 0
        self.refused = 0

    def open(self) -> None:
        """Listen; the port stays the same across unplugging."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._port))
        except OSError:
            listener.close()
            raise
        listener.listen(16)
        listener.setblocking(False)
        self._listener = listener
        self._port = listener.getsockname()[1]
        self.address = f"{self._host}:{self._port}"
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Hang up on everybody and listen no more."""
        self.power_off()
        for client in tuple(self._clients):
            self._hang_up(client)

    def power_off(self) -> None:
        """Listen no more; who is connected hears nothing, not even an end."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def power_on(self) -> None:
        """Listen again, and reset the connections from before, as one does that never heard of them."""
        for client, sock in tuple(self._clients.items()):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._hang_up(client)
        if self._listener is None:
            self.open()

    def send(self, client: int, data: bytes, ends: bool = True) -> None:
        """Write to one client; what the kernel does not take at once is retried."""
        sock = self._clients.get(client)
        if sock is None:
            return
        backlog = self._backlogs[client]
        if backlog:
            backlog += data
            if len(backlog) > _BACKLOG_BYTES:
                self._hang_up(client)
            return
        sent = self._send_some(sock, data)
        if sent < len(data):
            backlog += data[sent:]
            asyncio.get_running_loop().call_later(_RETRY_S, self._retry, client)

    def unread(self, client: int) -> int:
        """Bytes the kernel has not taken yet; what lies in the client's own buffers cannot be seen from here."""
        return len(self._backlogs.get(client, b""))

    def _retry(self, client: int) -> None:
        sock = self._clients.get(client)
        backlog = self._backlogs.get(client)
        if sock is None or not backlog:
            return
        del backlog[: self._send_some(sock, bytes(backlog))]
        if backlog:
            asyncio.get_running_loop().call_later(_RETRY_S, self._retry, client)

    @staticmethod
    def _send_some(sock: socket.socket, data: bytes) -> int:
        try:
            return sock.send(data)
        except BlockingIOError:
            return 0
        except ConnectionError:
            return len(data)  # the reader sees the end of this connection by itself

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        self._sweep()
        if len(self._clients) >= self._max_clients:
            self.refused += 1
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._next += 1
        client = self._next
        self._clients[client], self._backlogs[client] = sock, bytearray()
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read, client)
        self.on_open(client)

    def _sweep(self) -> None:
        """Forget clients that have hung up but were not read yet, so that a reconnect is not refused."""
        for client, sock in tuple(self._clients.items()):
            with contextlib.suppress(BlockingIOError):
                try:
                    gone = not sock.recv(1, socket.MSG_PEEK)
                except ConnectionError:
                    gone = True
                if gone:
                    self._hang_up(client)

    def _read(self, client: int) -> None:
        try:
            data = self._clients[client].recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self.on_data(client, data)
        else:
            self._hang_up(client)

    def _hang_up(self, client: int) -> None:
        sock = self._clients.pop(client)
        self._backlogs.pop(client, None)
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()
        self.on_close(client)
