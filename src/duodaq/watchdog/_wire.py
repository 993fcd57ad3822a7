from __future__ import annotations

import array
import json
import socket
from typing import Any

LIMIT = 60_000
"""Bytes of one message, which both ends of a packet socket take whole or not at all."""

Message = dict[str, Any]


def text(data: bytes) -> str:
    """Bytes of a wire, each as the character of that number, so that they can stand in JSON."""
    return data.decode("latin-1")


def data(text: str) -> bytes:
    """What `text` was made from."""
    return text.encode("latin-1")


def packed(message: Message) -> bytes:
    """One message, as it is sent.

    Raises:
        ValueError: It is longer than `LIMIT`.
    """
    packet = json.dumps(message).encode()
    if len(packet) > LIMIT:
        raise ValueError(f"{len(packet)} bytes are too many for one message to the watchdog, which takes {LIMIT}")
    return packet


def send(line: socket.socket, packet: bytes, descriptor: int | None = None) -> None:
    """Send one message, with a duplicate of `descriptor` if there is one, or raise BlockingIOError at once."""
    rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    line.sendmsg([packet], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def receive(line: socket.socket) -> tuple[bytes, int | None]:
    """One message and the descriptor that came with it, now the caller's; no bytes when the other end is gone.

    Raises:
        BlockingIOError: There is none now.
    """
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    packet, rights, _, _ = line.recvmsg(LIMIT, room, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    for level, kind, value in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return packet, array.array("i", value[:4])[0]
    return packet, None
