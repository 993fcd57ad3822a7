from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from duodaq.ports import PortSource


@runtime_checkable
class TellsOfLosses(Protocol):
    """A source of ports that says when the line of one is lost."""

    def subscribe_losses(self, listener: Callable[[str], None]) -> Callable[[], None]: ...


def watch_lines(ports: PortSource, lost: Callable[[str], None]) -> Callable[[], None]:
    """Call `lost` on the running loop with the name of each port whose line is lost, until the result is called."""
    if not isinstance(ports, TellsOfLosses):
        return lambda: None
    loop = asyncio.get_running_loop()
    return ports.subscribe_losses(lambda port: loop.call_soon_threadsafe(lost, port) and None)
