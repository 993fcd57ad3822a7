from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from duodaq.errors import LifecycleError
from duodaq.model import InstrumentDefinition, InstrumentState, Parameters, holder_of
from duodaq.ports import Port
from duodaq.v4._publisher import DataPublisher

SAFE_ACTION: ContextVar[bool] = ContextVar("duodaq.v4.safe_action", default=False)
"""Set while a message is sent that makes its instrument safe: a latched stop does not hold that back."""

Report = Callable[[InstrumentState, str], None]
BreakIn = Callable[[bytes, bool], Awaitable[Any]]
Keep = Callable[[str, str, Any], None]


def _ignore(state: InstrumentState, message: str) -> None:
    return None


async def _no_break_in(data: bytes, ends_moving: bool) -> None:
    raise LifecycleError("nothing here can break in on a port", left="nothing was sent")


@dataclass
class InstrumentContext:
    """What an instrument actor is given.

    `memory` outlives the incarnations of the actor: sequence numbers and accepted settings are kept there. `report`
    takes the instrument's state whenever it changes. `break_in` puts stop bytes on the port before everything else;
    True as its second argument ends all motions that wait there. `latched` tells whether a stop-all is in force.
    `keep` is told of each accepted setting, so that it outlives the process too.
    """

    definition: InstrumentDefinition
    port: Port | None
    publisher: DataPublisher
    parameters: Parameters
    report: Report = _ignore
    break_in: BreakIn = _no_break_in
    latched: Callable[[], bool] = lambda: False
    memory: dict[str, Any] = field(default_factory=dict[str, Any])
    keep: Keep | None = None

    @property
    def holder(self) -> str:
        """How the instrument is called where it leases its port."""
        return holder_of(self.definition)
