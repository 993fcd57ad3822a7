"""ONC RPC over TCP (RFC 5531) with XDR (RFC 4506), as far as VXI-11 needs it, as pure bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_WORD = struct.Struct(">I")
_LAST = 0x80000000
_LONGEST = 1 << 24
_CALL, _REPLY, _VERSION = 0, 1, 2


class GarbageError(Exception):
    """What came cannot be read: not the arguments of that procedure, or no RPC at all."""


class XdrReader:
    """Reads values of XDR from the front of `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unsigned(self) -> int:
        """A 32-bit number."""
        end = self._at + 4
        if end > len(self._data):
            raise GarbageError("too short")
        (value,) = _WORD.unpack_from(self._data, self._at)
        self._at = end
        return value

    def opaque(self) -> bytes:
        """Bytes with their length in front."""
        length = self.unsigned()
        end = self._at + length
        if end > len(self._data):
            raise GarbageError("too short")
        data = self._data[self._at : end]
        self._at = end + -length % 4
        return data


def words(*values: int) -> bytes:
    """Numbers of 32 bits."""
    return b"".join(_WORD.pack(value & 0xFFFFFFFF) for value in values)


def opaque(data: bytes) -> bytes:
    """Bytes with their length in front, filled up to whole words."""
    return _WORD.pack(len(data)) + data + bytes(-len(data) % 4)


class Call(NamedTuple):
    """One call, with what its arguments are read from."""

    number: int
    rpc_version: int
    program: int
    version: int
    procedure: int
    arguments: XdrReader


def parse_call(record: bytes) -> Call:
    """The call that a record holds.

    Raises:
        GarbageError: It holds none.
    """
    reader = XdrReader(record)
    number = reader.unsigned()
    if reader.unsigned() != _CALL:
        raise GarbageError("no call")
    facts = [reader.unsigned() for _ in range(4)]
    for _ in ("credentials", "verifier"):
        reader.unsigned()
        reader.opaque()
    return Call(number, facts[0], facts[1], facts[2], facts[3], reader)


def _accepted(number: int, status: int, rest: bytes = b"") -> bytes:
    return record(words(number, _REPLY, 0, 0, 0, status) + rest)


def success(number: int, result: bytes) -> bytes:
    """The reply to a call that was carried out."""
    return _accepted(number, 0, result)


def no_such_program(number: int) -> bytes:
    """That program is not here."""
    return _accepted(number, 1)


def other_version(number: int, version: int) -> bytes:
    """That program is here in another version."""
    return _accepted(number, 2, words(version, version))


def no_such_procedure(number: int) -> bytes:
    """The program has no such procedure."""
    return _accepted(number, 3)


def garbage(number: int) -> bytes:
    """The arguments cannot be read."""
    return _accepted(number, 4)


def other_rpc(number: int) -> bytes:
    """The call is of another version of RPC."""
    return record(words(number, _REPLY, 1, 0, _VERSION, _VERSION))


def speaks_rpc_2(call: Call) -> bool:
    """Whether the call is of the version of RPC that is spoken here."""
    return call.rpc_version == _VERSION


def record(data: bytes) -> bytes:
    """`data` as one record of a stream."""
    return _WORD.pack(_LAST | len(data)) + data


class RecordReader:
    """Cuts a stream into records, each of one or several fragments."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._record = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take `data`; yield each record that is whole now.

        Raises:
            GarbageError: A record that is far too long: this is no RPC.
        """
        self._held += data
        while len(self._held) >= 4:
            (mark,) = _WORD.unpack_from(self._held)
            length = mark & ~_LAST
            if length + len(self._record) > _LONGEST:
                raise GarbageError("a record that is too long")
            if len(self._held) < 4 + length:
                return
            self._record += self._held[4 : 4 + length]
            del self._held[: 4 + length]
            if mark & _LAST:
                whole = bytes(self._record)
                self._record.clear()
                yield whole
