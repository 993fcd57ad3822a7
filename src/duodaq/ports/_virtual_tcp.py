from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from duodaq.errors import PortBusyError, PortOpenError
from duodaq.ports._guest import Guest
from duodaq.ports._guest_line import GuestLine
from duodaq.telemetry import get_logger

if TYPE_CHECKING:
    from duodaq.ports._owner import PortOwner

_log = get_logger("ports.virtual")
_QUEUE = 16


class TcpListener:
    """A virtual port as a TCP port: each connection is a session of its own, several at once.

    Args:
        owner: The port.
        address: ``"host:port"``; port 0 takes any free one.
        clients: How many programs at once; one more is hung up on.
        stall_s: After which time a program in the middle of something is cut off.
    """

    def __init__(self, owner: PortOwner, address: str, clients: int, stall_s: float) -> None:
        self.address = address
        self._owner = owner
        self._clients = clients
        self._stall_s = stall_s
        self._listener: socket.socket | None = None
        self._guests: list[Guest] = []

    @property
    def guests(self) -> tuple[Guest, ...]:
        return tuple(self._guests)

    def open(self) -> None:
        """Listen.

        Raises:
            PortBusyError: Another program listens there.
            PortOpenError: This address cannot be listened at.
        """
        host, _, number = self.address.rpartition(":")
        host = host.strip("[]")
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host, int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise PortOpenError(f"its virtual port {self.address}: {error}", port=self._owner.name) from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(_QUEUE)
        except OSError as error:
            listener.close()
            raise self._refusal(error) from error
        listener.setblocking(False)
        self._listener = listener
        self.address = f"{host}:{listener.getsockname()[1]}"
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    def _refusal(self, error: OSError) -> PortOpenError | PortBusyError:
        import errno

        if error.errno == errno.EADDRINUSE:
            what = f"its virtual port {self.address}: another program listens there"
            return PortBusyError(what, port=self._owner.name, left="choose another number, or end that program")
        return PortOpenError(f"its virtual port {self.address}: {error}", port=self._owner.name)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, peer = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        name = f"virtual:{self._owner.name} tcp {peer[0]}:{peer[1]}"
        if sum(guest.is_here for guest in self._guests) >= self._clients:
            _log.warning("too many programs at a virtual port; one was hung up on", client=name, limit=self._clients)
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        guest = Guest(self._owner, name, self._stall_s, self._guests.remove)
        self._guests.append(guest)
        guest.rename(name)
        guest.attend(GuestLine(sock.fileno(), guest, sock.close, hangs_up=False))

    def close(self) -> None:
        """Hang up on everybody and listen no more."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for guest in self.guests:
            guest.close()
