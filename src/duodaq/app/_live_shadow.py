from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from duodaq.clock import utc_ns
from duodaq.config import worker_of
from duodaq.dual import DualRuntimeManager
from duodaq.errors import LifecycleError
from duodaq.migration import Beside, Shadow, ShadowProcess, ShadowReport, follow
from duodaq.model import Measurement

_READERS = 10_000


class LiveShadow:
    """A shadow on a running lab: fed from its port's log, its data and its commands.

    Args:
        manager: The lab's.
        beside: What is compared.
        shadow: The V4 driver in the shadow; in a process of its own by default, so that it harms nobody.
    """

    def __init__(
        self, manager: DualRuntimeManager, beside: Beside, shadow: Shadow | ShadowProcess | None = None
    ) -> None:
        lab = manager.lab
        self.shadow = shadow or ShadowProcess(
            beside,
            lambda: manager.broker.latched,
            memory_bytes=lab.v4.memory_bytes,
            lives_inline=worker_of(beside.v4, lab.v4) == "inline",
        )
        self._manager = manager
        self._instrument = beside.v2.id
        self._port = beside.port.name
        self._ends = AsyncExitStack()
        self._beginning: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._name = f"shadow of {self._instrument} {utc_ns()}"
        self._failed_at_first = self._failed()

    async def start(self) -> None:
        """Begin; whatever fails, or is cancelled, nothing of it is left.

        Raises:
            LifecycleError: It has a shadow already, or was ended before it had begun.
        """
        self._beginning = asyncio.create_task(self._begin(), name=f"beginning of the {self._name}")
        try:
            await asyncio.wait({self._beginning})
        except asyncio.CancelledError:
            await self._break_off()
            await self._ends.aclose()
            raise
        if self._beginning.cancelled():
            raise LifecycleError("its shadow was ended before it had begun", instrument=self._instrument)
        self._beginning.result()

    async def _begin(self) -> None:
        manager, instrument = self._manager, self._instrument
        if instrument in manager.mirrors:
            raise LifecycleError("it has a shadow already", instrument=instrument)
        async with AsyncExitStack() as ends:  # from the last to the first, and each whatever became of the others
            ends.push_async_callback(self.shadow.aclose)
            ends.push_async_callback(self._followed)
            of_v2 = manager.v2_data.subscribe(self._name, capacity=_READERS, accepts=self._is_its_own)
            ends.callback(manager.v2_data.unsubscribe, self._name)
            self._following = asyncio.create_task(follow(self.shadow, of_v2), name=self._name)
            history = manager.broker.log(self._port)
            ends.callback(manager.broker.subscribe_log(self._port, self.shadow.take))
            manager.mirrors[instrument] = self.shadow.mirror
            ends.callback(manager.mirrors.pop, instrument, None)
            await self.shadow.start(history)
            self._ends = ends.pop_all()

    async def refresh(self) -> None:
        """Have `report` say what is so now, as far as that can be learnt soon."""
        if isinstance(self.shadow, ShadowProcess):
            self.shadow.note_poll_failures(self._failed() - self._failed_at_first)
            await self.shadow.refresh()

    def report(self) -> ShadowReport:
        """What was found, as of a moment ago."""
        self.shadow.note_poll_failures(self._failed() - self._failed_at_first)
        return self.shadow.report()

    async def end(self) -> ShadowReport:
        """End it, also before it has begun, whatever becomes of the report, and say what was found."""
        await self._break_off()
        async with self._ends:
            await self.refresh()
            return self.report()

    async def _break_off(self) -> None:
        if self._beginning is not None and not self._beginning.done():
            self._beginning.cancel()
            await asyncio.wait({self._beginning})

    async def _followed(self) -> None:
        if self._following is not None:
            await asyncio.gather(self._following, return_exceptions=True)

    def _is_its_own(self, measurement: Measurement) -> bool:
        return measurement.instrument == self._instrument and measurement.origin != "v4"

    def _failed(self) -> int:
        """How many readings of V2's have failed, as far as its worker has told."""
        for figures in self._manager.metrics()["v2"].values():
            found: Any = figures.get("instruments", {}).get(self._instrument)
            if found is not None and "polls" in found:
                return sum(poll["failed"] for poll in found["polls"].values())
        return 0
