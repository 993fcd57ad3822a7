"""The frames between the table and its clients: u32 little-endian length, then msgpack."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

MAX_FRAME = 64 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_ENCODER = msgspec.msgpack.Encoder()


class Request(msgspec.Struct, array_like=True):
    """One call: which operation, with what."""

    op: str
    params: tuple[Any, ...] = ()


class Answer(msgspec.Struct, array_like=True):
    """The value, or what was wrong."""

    value: Any = None
    error: str | None = None


def pack(message: Request | Answer) -> bytes:
    """The frame of one message."""
    body = _ENCODER.encode(message)
    return _LENGTH.pack(len(body)) + body


def unpack_length(header: bytes) -> int:
    """The length of the body that follows `header` (4 bytes).

    Raises:
        ConnectionError: Larger than anybody here sends: this is not a table's stream.
    """
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise ConnectionError(f"a frame of {length} bytes on the table's socket")
    return length


def read_frame(sock: socket.socket) -> bytes:
    """The body of the next frame from a blocking socket, within the socket's own time-out per read."""
    return _read_exactly(sock, unpack_length(_read_exactly(sock, 4)))


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionError("closed by the table")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
