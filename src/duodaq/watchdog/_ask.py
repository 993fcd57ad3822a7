from __future__ import annotations

import json
import os
import socket
from typing import Any

from duodaq.errors import DeliveryError, LifecycleError, ReplyTimeoutError


def ask_watchdog_to_stop_all(
    socket_path: str | os.PathLike[str], timeout_s: float = 1.0, *, by: str = "stop-all"
) -> dict[str, Any]:
    """Have the watchdog write the stop bytes of every port, past a manager that does not answer. Blocks.

    The manager lives on and may be in the middle of a command, or write one afterwards: bytes may interleave. The
    terminator that goes before the stop bytes is there for that. Nothing is latched as long as the manager sleeps.

    Args:
        socket_path: The watchdog's socket.
        timeout_s: How long the answer is awaited; the watchdog itself takes at most 0.15 s.
        by: In whose name.

    Returns:
        ``{"t_ns": …, "ports": {name: {"written_ns": …} or {"error": …}}}``, times in UTC.

    Raises:
        LifecycleError: No watchdog is there; nothing was written.
        ReplyTimeoutError: It did not answer in time.
        DeliveryError: It ended, or refused, with that reason.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(timeout_s)
        try:
            line.connect(os.fspath(socket_path))
            line.send(json.dumps({"ask": "stop-all", "by": by}).encode())
        except OSError as error:
            raise LifecycleError(f"no watchdog answers at {os.fspath(socket_path)}: {error.strerror}") from error
        try:
            said = line.recv(65536)
        except TimeoutError:
            raise ReplyTimeoutError(f"the watchdog did not answer within {timeout_s:g} s") from None
        except OSError as error:
            raise DeliveryError(f"the watchdog ended before it answered: {error.strerror}") from error
    if not said:
        raise DeliveryError("the watchdog ended the connection before it answered")
    answer: dict[str, Any] = json.loads(said)
    if "error" in answer:
        raise DeliveryError(f"the watchdog refused: {answer['error']}", fate="not done")
    return answer
