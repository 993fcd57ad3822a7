from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from duodaq.errors import ConfigError
from duodaq.model import (
    ChannelInfo,
    Command,
    ComponentReport,
    InstrumentDefinition,
    InstrumentStatus,
    RuntimeName,
    RuntimeStatus,
)
from duodaq.v2 import V2Command

T = TypeVar("T")

BLOCKED_LIMIT_S = 5.0
"""A call without a deadline is freed when the worker's loop has not moved for so long."""


class Worker(Protocol):
    """A place where coroutines of a runtime run. Used from the manager's loop only."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def pid(self) -> int | None:
        """The process that it is in."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        ...

    @property
    def blocked_s(self) -> float:
        """For how long the worker's loop has owed the answer to a probe, in seconds; 0 when it owes none."""
        ...

    def probe(self) -> None:
        """Ask the worker's loop for a sign of progress; `blocked_s` tells how long it has owed one."""
        ...

    async def start(self, timeout_s: float) -> None:
        """Make the place ready. Raises LifecycleError if it is not ready in time."""
        ...

    async def call(self, work: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Await `work()` on the worker's loop.

        Raises:
            ReplyTimeoutError: `timeout_s` passed, or, without one, the loop was blocked for `BLOCKED_LIMIT_S`. The work
                is cancelled as soon as the loop allows; its fate is unknown.
            LifecycleError: The worker is not running. Nothing was begun.

        Cancellation: passes on to the work.
        """
        ...

    async def end(self, timeout_s: float) -> None:
        """End it the hard way."""
        ...

    async def stop(self, timeout_s: float) -> ComponentReport:
        """End the place within `timeout_s`; leaked if something in it does not return."""
        ...


class Host(Protocol):
    """A runtime and the worker that it runs in, as the manager's loop sees them; across the worker's deaths, if any."""

    @property
    def name(self) -> RuntimeName: ...

    @property
    def status(self) -> RuntimeStatus: ...

    @property
    def worker(self) -> HostWorker: ...

    async def start(self, timeout_s: float) -> None: ...

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]: ...

    async def add(self, definition: InstrumentDefinition, *, keep: bool = False) -> None: ...

    async def remove(self, instrument: str) -> ComponentReport: ...

    def forget(self, instrument: str) -> None:
        """Never start an instrument again that could not be removed in time."""
        ...

    def expect(self, definition: InstrumentDefinition) -> None:
        """Note an instrument that may be added soon, so that its worker is made fit for it."""
        ...

    async def awake(self, limit_s: float) -> None:
        """Return when its worker is there, fit for what is expected; a DuodaqError says why not, within `limit_s`."""
        ...

    async def restart(self, instrument: str) -> None: ...

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any: ...

    async def submit(self, command: V2Command, timeout_s: float) -> Any: ...

    def moves(self, instrument: str, command: Command) -> bool: ...

    async def end_moving(self, reason: str, timeout_s: float = 1.0) -> int: ...

    async def flush(self, timeout_s: float = 1.0) -> bool:
        """Have all that was measured until now published at the manager; False if the worker did not say so in time."""
        ...

    def instruments(self) -> tuple[InstrumentStatus, ...]: ...

    def channels(self) -> tuple[ChannelInfo, ...]: ...

    def metrics(self) -> dict[str, Any]: ...


class HostWorker(Protocol):
    """The worker of a host: what the watch and a hard stop need of it."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def pid(self) -> int | None:
        """The process that it is in; None while there is none."""
        ...

    @property
    def blocked_s(self) -> float: ...

    def probe(self) -> None: ...

    async def end(self, timeout_s: float) -> None:
        """End it the hard way."""
        ...


def make_worker(kind: str, name: str) -> Worker:
    """A worker of the named kind ("inline" or "thread"), not yet started.

    Raises:
        ConfigError: No such kind here.
    """
    from duodaq.workers._inline import InlineWorker
    from duodaq.workers._thread import ThreadWorker

    if kind == "inline":
        return InlineWorker(name)
    if kind == "thread":
        return ThreadWorker(name)
    raise ConfigError(f"no worker of kind {kind!r}", key="worker", remedy='Write "inline" or "thread".')
