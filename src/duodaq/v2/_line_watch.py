from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from duodaq.ports import PortSource, PortState, PortStatus


@runtime_checkable
class TellsOfLines(Protocol):
    """A source of ports that knows when a line is lost: the broker itself, not what speaks for it elsewhere."""

    def subscribe_lines(self, listener: Callable[[str, int | None], None]) -> Callable[[], None]: ...

    def status(self) -> list[PortStatus]: ...


def watch_lines(ports: PortSource, lost: Callable[[str], None]) -> Callable[[], None]:
    """Call `lost` on the running loop with the name of each port whose line is lost, until the result is called."""
    if not isinstance(ports, TellsOfLines):
        return lambda: None
    teller, loop = ports, asyncio.get_running_loop()

    def changed(port: str, descriptor: int | None) -> None:
        if descriptor is None and any(p.name == port and p.state is PortState.LOST for p in teller.status()):
            loop.call_soon_threadsafe(lost, port)

    return teller.subscribe_lines(changed)
