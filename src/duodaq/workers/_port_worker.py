"""Processes for ports behind a vendor's library: what a broker is given to make them with."""

from __future__ import annotations

import faulthandler
import socket

from duodaq.ports import serve_visa
from duodaq.workers._child import Child
from duodaq.workers._starter import Starter, spawn_child
from duodaq.workers._title import show_as

ENTRY = "duodaq.workers._port_worker:run"
_LONGEST_NAME = 64


async def spawn_port_worker(name: str, timeout_s: float, starter: Starter | None = None) -> Child:
    """A process that runs a VISA library at the other end of its link; the caller owns it.

    Raises:
        LifecycleError: There is none in time.
    """
    child = await spawn_child(ENTRY, timeout_s, starter)
    child.link.sendall(name.encode()[:_LONGEST_NAME] + b"\n")
    return child


def run(link: socket.socket, descriptors: socket.socket) -> None:
    """Be a port worker at the end of `link` until that ends. Its name comes first, as a line."""
    faulthandler.enable()
    descriptors.close()
    link.setblocking(True)
    name = b""
    while not name.endswith(b"\n"):
        byte = link.recv(1)
        if not byte:
            return
        name += byte
    show_as(name.decode(errors="replace").strip())
    serve_visa(link)
