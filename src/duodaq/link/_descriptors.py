from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Sequence

MOST = 16


def send_descriptors(end: socket.socket, descriptors: Sequence[int]) -> bool:
    """Send descriptors over a local socket that keeps messages apart; whether the other end has room for them.

    The sender keeps its own and may close them at once. Never waits.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
    try:
        end.sendmsg([b"d"], ancillary, socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def receive_descriptors(end: socket.socket, timeout_s: float | None = 0.0) -> list[int]:
    """The descriptors of the next message, now owned by the caller; none if nothing came within `timeout_s`."""
    size = array.array("i").itemsize
    end.settimeout(timeout_s)
    try:
        _, ancillary, _, _ = end.recvmsg(1, socket.CMSG_LEN(MOST * size))
    except OSError:
        return []
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % size])
    for descriptor in found:
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    return list(found)
