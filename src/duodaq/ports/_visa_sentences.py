"""What the manager and a port worker say to each other: one call at a time, and what came of it.

A call has a number; the worker answers it with any number of `Piece` and then one of `Done` and `Failed`. `Lost` comes
unasked. Each is one frame: its length (u32, little-endian) and msgpack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from duodaq.errors import DataError

_LENGTH = struct.Struct("<I")
_LONGEST = 64 * 1024 * 1024


class OpenResource(msgspec.Struct, tag="o", array_like=True, frozen=True):
    """Open a resource, under the number by which the others name it."""

    call: int
    resource: int
    name: str
    library: str
    attributes: dict[str, Any]
    timeout_s: float


class Converse(msgspec.Struct, tag="x", array_like=True, frozen=True):
    """Write `data`, if there is any, and fetch a message within `fetch_s`, if that is given."""

    call: int
    resource: int
    data: bytes
    fetch_s: float | None
    write_s: float


class ClearDevice(msgspec.Struct, tag="c", array_like=True, frozen=True):
    """Device clear; where the library cannot, the resource is closed and opened again."""

    call: int
    resource: int
    timeout_s: float


class PollDevice(msgspec.Struct, tag="p", array_like=True, frozen=True):
    """Read the status byte."""

    call: int
    resource: int
    timeout_s: float


class CloseResource(msgspec.Struct, tag="q", array_like=True, frozen=True):
    """Close a resource."""

    call: int
    resource: int


class Piece(msgspec.Struct, tag="P", array_like=True, frozen=True):
    """The front of a message that is longer."""

    call: int
    data: bytes


class Done(msgspec.Struct, tag="D", array_like=True, frozen=True):
    """That was done; `data` is the rest of the message, or what was asked about, and `ends`: it had an END."""

    call: int
    data: bytes = b""
    ends: bool = False


class Failed(msgspec.Struct, tag="F", array_like=True, frozen=True):
    """That came to nothing: ``timeout``, ``untaken`` (a write was not taken in time), ``refused`` (the line is as it
    was), ``lost``, ``busy`` or ``open``.
    """

    call: int
    kind: str
    why: str


class Lost(msgspec.Struct, tag="L", array_like=True, frozen=True):
    """A resource's far end has gone while nobody used it."""

    resource: int
    why: str


OfManager = OpenResource | Converse | ClearDevice | PollDevice | CloseResource
OfWorker = Piece | Done | Failed | Lost

_encode = msgspec.msgpack.Encoder().encode
decode_of_manager = msgspec.msgpack.Decoder(OfManager).decode
decode_of_worker = msgspec.msgpack.Decoder(OfWorker).decode


def frame(sentence: OfManager | OfWorker) -> bytes:
    """One sentence as it travels."""
    body = _encode(sentence)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream into the bodies of frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take `data`; yield each body that is whole now.

        Raises:
            DataError: A frame is far too long.
        """
        self._held += data
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            if length > _LONGEST:
                raise DataError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._held) < end:
                return
            body = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            yield body
