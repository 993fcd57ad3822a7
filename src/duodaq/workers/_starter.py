"""What makes worker processes: a fork server, or fresh interpreters where the system has no pidfd."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from duodaq.clock import Deadline
from duodaq.workers._child import Child
from duodaq.workers._fork_server import shared_fork_server
from duodaq.workers._fresh import FreshStarter

CAN_FORK = sys.platform == "linux" and hasattr(os, "pidfd_open")
"""Whether there can be a fork server here. Elsewhere workers are fresh interpreters."""


class Starter(Protocol):
    """Makes worker processes."""

    @property
    def alive(self) -> bool:
        """Whether it can make one without being started first."""
        ...

    @property
    def died(self) -> int:
        """How often it died, and was started again for whoever asked next."""
        ...

    async def start(self, timeout_s: float) -> None:
        """Be ready, so that the first worker comes at once."""
        ...

    async def spawn(self, *, entry: str, preload: Sequence[str] = (), paced: bool = False, timeout_s: float) -> Child:
        """A new worker process; see `ForkServer.spawn`."""
        ...

    async def aclose(self) -> None:
        """End, and end the workers that are left."""
        ...


@functools.cache
def shared_starter() -> Starter:
    """The one maker of worker processes of this program: a fork server, or fresh interpreters where there is none."""
    if not CAN_FORK:
        return FreshStarter()
    return shared_fork_server()


async def spawn_child(entry: str, timeout_s: float, starter: Starter | None = None) -> Child:
    """A process whose entry point is called with its ends of a link; the caller owns it.

    Raises:
        LifecycleError: There is none in time.
    """
    deadline = Deadline(timeout_s)
    makes = starter or shared_starter()
    await makes.start(deadline.left_s)
    return await makes.spawn(entry=entry, timeout_s=deadline.left_s)
