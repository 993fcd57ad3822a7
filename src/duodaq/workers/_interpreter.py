"""Starts Python interpreters that are to become workers, or the server that forks them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from duodaq.workers._fork_order import FORCED_ENVIRONMENT

Process = subprocess.Popen[bytes]


def launch_interpreter(module: str, control: socket.socket, environ: Mapping[bytes, bytes], **place: Any) -> Process:
    """Run ``python -m module FD`` with a control socket. `place` says in which session or group, as Popen does.

    Not with the working directory first on the import path, as ``-m`` has it: a lab's folder may hold a ``serial.py``.
    """
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags")()  # noqa: B009 - private, and the standard library's own way to pass -O, -W and -X on
    return Process(
        [sys.executable, *flags, "-P", "-m", module, str(control.fileno())],
        pass_fds=[control.fileno()],
        stdin=subprocess.DEVNULL,
        env=environ,
        **place,
    )


def interpreter_environment() -> dict[bytes, bytes]:
    """This program's environment, with what a worker's interpreter needs: no threads, and the import path of here."""
    path = os.pathsep.encode().join(os.fsencode(place) for place in sys.path if place)
    return {**os.environb, **FORCED_ENVIRONMENT, b"PYTHONPATH": path}
