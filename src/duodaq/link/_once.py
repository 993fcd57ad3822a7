"""One question to a program on a UNIX socket, for whoever is in a hurry: no loop, and little to load."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from duodaq.errors import DeliveryError, LifecycleError, ReplyTimeoutError

_LENGTH = struct.Struct("<I")  # as in `duodaq.link._frame`, which loads numpy for the arrays that come here never
_READ_BYTES = 64 * 1024


def ask_once(
    path: str | Path, op: str, *, before: tuple[tuple[str, dict[str, Any]], ...] = (), version: int, timeout_s: float
) -> Any:
    """Connect, say hello and ask in one breath, and wait for the answer of `op`. Blocks; plain values only.

    Args:
        path: The socket of a `LinkServer`.
        op: What is asked for, without parameters.
        before: Requests that go before it, with their parameters; what becomes of them is not waited for.
        version: The version of what is said there.
        timeout_s: How long the answer is awaited.

    Raises:
        LifecycleError: Nobody serves there, or refuses this program. Nothing was done.
        ReplyTimeoutError: No answer within `timeout_s`. Unknown.
        DeliveryError: The connection was lost. Unknown.
        DuodaqError: What the question ended with, as the same class.
    """
    asked = [*before, (op, dict[str, Any]())]
    requests = [("request", number, name, params, None) for number, (name, params) in enumerate(asked, 1)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout_s)
        try:
            line.connect(str(path))
            line.sendall(b"".join(_framed(sentence) for sentence in (("hello", version), *requests)))
        except OSError as error:
            raise LifecycleError(f"nobody serves on {path}: {error.strerror or error}") from error
        for kind, *rest in _sentences(line, op, timeout_s):
            if kind == "refused":
                raise _error(rest[0])
            if kind in ("reply", "error") and rest[0] == len(asked):
                if kind == "reply":
                    return rest[1]
                raise _error(rest[1])
    raise DeliveryError("the connection to the server was lost", fate="unknown", command=op)


def _framed(sentence: tuple[Any, ...]) -> bytes:
    body = msgspec.msgpack.encode(sentence)
    return _LENGTH.pack(len(body)) + body


def _sentences(line: socket.socket, op: str, timeout_s: float) -> Iterator[Any]:
    """What comes, until the other end hangs up."""
    held, deadline_s = bytearray(), time.monotonic() + timeout_s
    while True:
        while len(held) >= _LENGTH.size and len(held) >= (end := _LENGTH.size + _LENGTH.unpack_from(held)[0]):
            yield msgspec.msgpack.decode(bytes(held[_LENGTH.size : end]))
            del held[:end]
        try:
            line.settimeout(max(1e-3, deadline_s - time.monotonic()))
            data = line.recv(_READ_BYTES)
        except TimeoutError:
            raise ReplyTimeoutError(f"no answer within {timeout_s:g} s", command=op) from None
        except OSError:
            return
        if not data:
            return
        held += data


def _error(wire: dict[str, Any]) -> Exception:
    from duodaq.link._error import error_from_wire  # with all of logging, which nobody needs to stop

    return error_from_wire(wire)
