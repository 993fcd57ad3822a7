from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from duodaq.errors import ConfigError, PortLostError, PortOpenError
from duodaq.ports._descriptor import DescriptorLine
from duodaq.ports._transport import Receiver


class TcpTransport:
    """A raw TCP connection to ``host:port``, as LXI instruments offer on 5025. Small writes leave at once."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._line: DescriptorLine | None = None

    @classmethod
    def from_address(cls, address: str) -> TcpTransport:
        """From ``"host:port"``; an IPv6 host stands in brackets."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"'{address}' is no host:port", remedy='Write e.g. "192.168.0.7:5025".')
        return cls(host.strip("[]"), int(port))

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_open(self) -> bool:
        return self._line is not None and self._line.is_open

    @property
    def descriptor(self) -> int | None:
        return self._line.descriptor if self._line is not None else None

    def identity(self) -> str:
        return f"tcp:{self.address}"

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        try:
            connection = await asyncio.wait_for(self._connect(), timeout_s)
        except TimeoutError:
            raise PortOpenError(f"no connection within {timeout_s:g} s", port=self.address) from None
        except OSError as error:
            raise PortOpenError(f"no connection: {error.strerror or error}", port=self.address) from error
        self._line = DescriptorLine(connection.fileno(), receiver, lambda: _hang_up(connection), self.address)

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        refusal: OSError = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, place in await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                await loop.sock_connect(connection, place)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            except OSError as error:
                connection.close()
                refusal = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise refusal

    def write_nowait(self, data: bytes) -> int:
        if self._line is None:
            raise PortLostError("not open", port=self.address)
        return self._line.write_nowait(data)

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        if self._line is not None:
            self._line.when_writable(callback)

    def discard_output(self) -> int:
        """Nothing: what was handed to a connection cannot be taken back."""
        return 0

    async def aclose(self, timeout_s: float = 1.0) -> None:
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(OSError):
                line.close()


def _hang_up(connection: socket.socket) -> None:
    """Close `connection`, and end it at once: also where a duplicate of its descriptor is still open elsewhere."""
    with contextlib.suppress(OSError):  # it had ended already
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
