from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import numpy as np

from duodaq.errors import DataError
from duodaq.link._error import error_from_wire, error_to_wire

MAX_FRAME = 64 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_ARRAY, _ERROR = 1, 2


def _to_wire(value: Any) -> Any:
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, np.ndarray):
        return msgspec.msgpack.Ext(_ARRAY, _array_bytes(cast("np.ndarray[Any, Any]", value)))
    if isinstance(value, Exception):
        return msgspec.msgpack.Ext(_ERROR, _encoder.encode(error_to_wire(value)))
    if hasattr(value, "__fspath__"):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} does not travel over a link")


def _array_bytes(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype.hasobject:
        raise NotImplementedError("an array of Python objects does not travel over a link")
    return _encoder.encode((array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes()))


def _from_wire(code: int, data: memoryview) -> Any:
    if code == _ARRAY:
        dtype, shape, content = _decoder.decode(data)
        return np.frombuffer(bytearray(content), np.dtype(dtype)).reshape(shape)
    if code == _ERROR:
        return error_from_wire(_decoder.decode(data))
    raise DataError(f"a value of unknown kind {code} came over a link")


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_wire)
_decoder = msgspec.msgpack.Decoder(ext_hook=_from_wire)


def encode_body(value: Any) -> bytes:
    """What a frame holds, as msgpack.

    Plain values, bytes, aware datetimes, structs and dataclasses (as maps), tuples and sets (as lists), numpy scalars
    (as numbers) and arrays, and exceptions travel.

    Raises:
        DataError: The value holds something that does not travel.
    """
    try:
        return _encoder.encode(value)
    except (NotImplementedError, TypeError, OverflowError) as error:
        raise DataError(str(error)) from error


def decode_body(body: bytes) -> Any:
    """What a frame holds; raises msgspec's errors."""
    return _decoder.decode(body)


def framed(body: bytes) -> bytes:
    """One frame: length (u32, little-endian) and body."""
    return _LENGTH.pack(len(body)) + body


def encode(value: Any) -> bytes:
    """One frame with `value` in it; see `encode_body`."""
    return framed(encode_body(value))


class FrameDecoder:
    """Cuts a stream into frames and decodes them. Pure; holds at most one unfinished frame of `max_frame` bytes."""

    def __init__(self, max_frame: int = MAX_FRAME, decode: Callable[[bytes], Any] = decode_body) -> None:
        self.max_frame = max_frame
        self._decode = decode
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take `data`; yield each value that is whole now.

        Raises:
            DataError: A frame is longer than `max_frame`, or is no msgpack. The stream is of no use any more.
        """
        if not self._held and self._is_one(data):
            yield self._decoded(data[_LENGTH.size :])
            return
        self._held += data
        while (body := self._next_body()) is not None:
            yield self._decoded(body)

    def _is_one(self, data: bytes) -> bool:
        """Whether `data` is one whole frame: by far the most frequent case."""
        if len(data) < _LENGTH.size:
            return False
        return _LENGTH.unpack_from(data)[0] == len(data) - _LENGTH.size <= self.max_frame

    def _decoded(self, body: bytes) -> Any:
        try:
            return self._decode(body)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise DataError(f"a frame cannot be decoded: {error}") from error

    def _next_body(self) -> bytes | None:
        if len(self._held) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._held)
        if length > self.max_frame:
            raise DataError(f"a frame of {length} bytes; at most {self.max_frame} are allowed")
        end = _LENGTH.size + length
        if len(self._held) < end:
            return None
        body = bytes(self._held[_LENGTH.size : end])
        del self._held[:end]
        return body
