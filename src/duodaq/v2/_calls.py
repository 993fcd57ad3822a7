from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from duodaq.telemetry import get_logger
from duodaq.v2._figures import Figures
from duodaq.v2._thread import DriverThread, Returned

_LOG = get_logger("v2.calls")


class CallResult:
    """How a call of the driver ended; `late` after its deadline, `hung` after the instrument had been given up."""

    __slots__ = ("error", "hung", "late", "t_ns", "value")

    def __init__(self, returned: Returned, *, late: bool, hung: bool) -> None:
        self.value, self.error, self.t_ns = returned.value, returned.error, returned.t_ns
        self.late, self.hung = late, hung


class DriverCalls:
    """Runs the calls of one driver in its thread, each under its deadline.

    A call ends in one of three ways: in time; late, which is recorded, after its caller has been told; or, when it has
    not returned `kill_after_s` after its deadline, as a hang: `on_hang` is told once, and the wait goes on until the
    thread returns, because nothing else can be done in that thread before.
    """

    def __init__(self, instrument: str, kill_after_s: float, figures: Figures, on_hang: Callable[[str], None]) -> None:
        self.thread = DriverThread(f"v2-{instrument}")
        self.in_hand = ""
        self._begun_s = 0.0
        self._instrument = instrument
        self._kill_after_s = kill_after_s
        self._figures = figures
        self._on_hang = on_hang

    @property
    def busy_with(self) -> str:
        """What the driver is in and for how long, as half a sentence; empty if it is in nothing."""
        if not self.in_hand:
            return ""
        return f"the driver has been in {self.in_hand} for {asyncio.get_running_loop().time() - self._begun_s:.1f} s"

    async def run(
        self,
        name: str,
        call: Callable[[], Any],
        deadline_at: float | None,
        on_overdue: Callable[[], None] | None = None,
        context: Context | None = None,
    ) -> CallResult:
        """Run `call()` in the thread and wait until it returns, however long that takes.

        Args:
            name: How errors call it.
            call: What to run.
            deadline_at: On the loop's clock; None for never.
            on_overdue: Told once when the deadline has passed.
            context: The context variables of whoever asked.
        """
        loop = asyncio.get_running_loop()
        begun_s = self._begun_s = loop.time()
        self.in_hand = name
        future = self.thread.submit(call, context)
        try:
            late = deadline_at is not None and not await _within(future, deadline_at - begun_s)
            hung = late and await self._overdue(name, future, on_overdue)
            returned = await future
        finally:
            self.in_hand = ""
        took_s = loop.time() - begun_s
        self._figures.note_call(took_s)
        if late:
            self._figures.late += 1
            _LOG.warning("late reply", instrument=self._instrument, command=name, took_s=round(took_s, 3), hung=hung,
                         error=repr(returned.error) if returned.error else None)  # fmt: skip
        return CallResult(returned, late=late, hung=hung)

    async def _overdue(
        self, name: str, future: asyncio.Future[Returned], on_overdue: Callable[[], None] | None
    ) -> bool:
        self._figures.overdue += 1
        _LOG.warning("overdue", instrument=self._instrument, command=name)
        if on_overdue is not None:
            on_overdue()
        if await _within(future, self._kill_after_s):
            return False
        self._figures.hangs += 1
        self._on_hang(name)
        return True


async def _within(future: asyncio.Future[Returned], timeout_s: float) -> bool:
    done, _ = await asyncio.wait({future}, timeout=max(0.0, timeout_s))
    return bool(done)
