"""Messages of HiSLIP (IVI-6.1), as pure bytes: a header of 16 bytes, big-endian, and a payload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("!2sBBIQ")
LONGEST = 1 << 20
"""The longest message that this server takes, header included."""

ANY_ID = 0xFFFFFFFF
"""The id of a reply to no message in particular."""

RMT_DELIVERED = 1
"""Control bit of a client that has had the end of the reply before."""


class Kind(IntEnum):
    """Message types that a server without encryption knows."""

    INITIALIZE = 0
    INITIALIZE_RESPONSE = 1
    FATAL_ERROR = 2
    ERROR = 3
    ASYNC_LOCK = 4
    ASYNC_LOCK_RESPONSE = 5
    DATA = 6
    DATA_END = 7
    DEVICE_CLEAR_COMPLETE = 8
    DEVICE_CLEAR_ACKNOWLEDGE = 9
    ASYNC_REMOTE_LOCAL = 10
    ASYNC_REMOTE_LOCAL_RESPONSE = 11
    TRIGGER = 12
    INTERRUPTED = 13
    ASYNC_INTERRUPTED = 14
    ASYNC_MAX_MESSAGE_SIZE = 15
    ASYNC_MAX_MESSAGE_SIZE_RESPONSE = 16
    ASYNC_INITIALIZE = 17
    ASYNC_INITIALIZE_RESPONSE = 18
    ASYNC_DEVICE_CLEAR = 19
    ASYNC_SERVICE_REQUEST = 20
    ASYNC_STATUS_QUERY = 21
    ASYNC_STATUS_RESPONSE = 22
    ASYNC_DEVICE_CLEAR_ACKNOWLEDGE = 23
    ASYNC_LOCK_INFO = 24
    ASYNC_LOCK_INFO_RESPONSE = 25


class Fatal(IntEnum):
    """Codes of FatalError."""

    UNIDENTIFIED = 0
    BAD_HEADER = 1
    NOT_BOTH_CHANNELS = 2
    BAD_INITIALIZATION = 3
    TOO_MANY_CLIENTS = 4


class Fault(IntEnum):
    """Codes of Error."""

    UNIDENTIFIED = 0
    UNKNOWN_TYPE = 1
    UNKNOWN_CONTROL = 2
    TOO_LARGE = 4


class HislipMessage(NamedTuple):
    """One message."""

    kind: int
    control: int = 0
    parameter: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        """Its bytes on the wire."""
        return HEADER.pack(b"HS", self.kind, self.control, self.parameter, len(self.payload)) + self.payload


class BadHeaderError(Exception):
    """The stream is of no use any more."""


class MessageReader:
    """Cuts a stream into messages; of one that is too large, the payload is passed over and `TOO_LARGE` is its kind."""

    TOO_LARGE = -1

    def __init__(self) -> None:
        self._held = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[HislipMessage]:
        """Take `data`; yield each message that is whole now.

        Raises:
            BadHeaderError: What comes is no HiSLIP.
        """
        self._held += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> HislipMessage | None:
        if self._skip:
            passed = min(self._skip, len(self._held))
            del self._held[:passed]
            self._skip -= passed
        if self._skip or len(self._held) < HEADER.size:
            return None
        prologue, kind, control, parameter, length = HEADER.unpack_from(self._held)
        if prologue != b"HS":
            raise BadHeaderError(bytes(self._held[: HEADER.size]).hex(" "))
        if length > LONGEST:
            del self._held[: HEADER.size]
            self._skip = length
            return HislipMessage(self.TOO_LARGE, control, parameter)
        if len(self._held) < HEADER.size + length:
            return None
        payload = bytes(self._held[HEADER.size : HEADER.size + length])
        del self._held[: HEADER.size + length]
        return HislipMessage(kind, control, parameter, payload)
