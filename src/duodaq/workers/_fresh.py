"""Worker processes without a fork server: a fresh interpreter for each, where the system cannot fork safely."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Sequence

from duodaq.errors import LifecycleError
from duodaq.workers._child import Child, FreshEnd
from duodaq.workers._fork_order import descriptor_pair, encode, kept, order_for_here, socket_pairs
from duodaq.workers._interpreter import interpreter_environment, launch_interpreter


class FreshStarter:
    """Makes workers as children of this process; their interpreter takes 0.1 s and more to come to its entry point."""

    alive = True
    died = 0

    def __init__(self) -> None:
        self._children: weakref.WeakSet[Child] = weakref.WeakSet()

    async def start(self, timeout_s: float) -> None:
        """Nothing is prepared."""

    async def spawn(self, *, entry: str, preload: Sequence[str] = (), paced: bool = False, timeout_s: float) -> Child:
        """As `ForkServer.spawn`, but returns before the new interpreter runs, and blocks a few ms until it is there.

        Raises:
            LifecycleError: The interpreter could not be started. There is no child.
        """
        environ = interpreter_environment()
        order = encode(order_for_here(entry, preload, paced=paced, known=environ))
        with socket_pairs(socket.socketpair, socket.socketpair, descriptor_pair) as ((control, link, fds), far):
            try:
                process = launch_interpreter("duodaq.workers._fresh_main", far[0], environ, process_group=0)
            except OSError as exc:
                raise LifecycleError(f"no interpreter for a worker: {exc}") from exc
            socket.send_fds(control, [order], [far[1].fileno(), far[2].fileno()])
            control.shutdown(socket.SHUT_WR)
            end, link, fds = FreshEnd(process, kept(control)), kept(link), kept(fds)
        pidfd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1
        child = Child(process.pid, pidfd, link, fds, end)
        self._children.add(child)
        return child

    async def aclose(self) -> None:
        """End the children that are left."""
        for child in list(self._children):
            await child.aclose()
