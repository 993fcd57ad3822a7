from __future__ import annotations

import contextlib
import os
import socket
import struct

from duodaq.watchdog._wire import Message, packed, receive, send

_CLIENTS = 8


class Road:
    """The socket on which a stop-all arrives that the manager did not answer: for this user alone.

    Clients are bounded: the ninth one ends the one that has been there longest, so that none can keep others out.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._clients: dict[int, socket.socket] = {}
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of a watchdog before this one; the manager's lock says that no other is there
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(before)
        self._listener.setblocking(False)
        self._listener.listen(64)

    def descriptors(self) -> list[int]:
        """What must be watched for reading."""
        return [self._listener.fileno(), *self._clients]

    def hear(self, descriptor: int) -> bytes | None:
        """Take in a client, or what one said.

        Returns:
            What it said, to be answered through `answer`; None if there is nothing to answer.

        Raises:
            PermissionError: Another user knocked, and was turned away.
        """
        if descriptor == self._listener.fileno():
            self._accept()
            return None
        client = self._clients.get(descriptor)
        if client is None:
            return None
        try:
            said, passed = receive(client)
        except BlockingIOError:
            return None
        except OSError:
            said, passed = b"", None
        if passed is not None:
            os.close(passed)
        if not said:
            self._drop(descriptor)
            return None
        return said

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        uid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if uid != os.geteuid():
            client.close()
            raise PermissionError(f"user {uid} was turned away")
        if len(self._clients) >= _CLIENTS:
            self._drop(next(iter(self._clients)))
        client.setblocking(False)
        self._clients[client.fileno()] = client

    def answer(self, descriptor: int, message: Message) -> None:
        """Answer a client, if it is still there, and end it."""
        client = self._clients.get(descriptor)
        if client is not None:
            with contextlib.suppress(OSError):
                send(client, packed(message))
        self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        client = self._clients.pop(descriptor, None)
        if client is not None:
            client.close()

    def close(self) -> None:
        """Take the socket away."""
        for descriptor in list(self._clients):
            self._drop(descriptor)
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
