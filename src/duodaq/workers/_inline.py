from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from duodaq.errors import LifecycleError, ReplyTimeoutError
from duodaq.model import ComponentReport, Outcome

T = TypeVar("T")


class InlineWorker:
    """The manager's own event loop: no thread, no copy, no protection from a call that blocks."""

    kind = "inline"
    blocked_s = 0.0

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = False
        self.pid = os.getpid()

    async def start(self, timeout_s: float) -> None:
        """Take calls from now on."""
        self.alive = True

    async def call(self, work: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Await `work()` here; see Worker.call."""
        if not self.alive:
            raise LifecycleError(f"worker {self.name} is not running")
        if timeout_s is None:
            return await work()
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await work()
        except TimeoutError:
            if limit.expired():
                raise ReplyTimeoutError(f"no answer from worker {self.name} within {timeout_s:g} s") from None
            raise

    def probe(self) -> None:
        """Nothing to ask: this code runs on the loop in question."""

    async def end(self, timeout_s: float) -> None:
        """End it the hard way."""
        await self.stop(timeout_s)

    async def stop(self, timeout_s: float) -> ComponentReport:
        """Take no more calls."""
        self.alive = False
        return ComponentReport(f"worker.{self.name}", Outcome.CLEAN)
