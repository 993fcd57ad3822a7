from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from duodaq.clock import Deadlines
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


class _Call:
    """A call under its deadlines: first its own, then that of whoever waits for its return."""

    __slots__ = ("calls", "future", "hung", "late", "name", "on_overdue")

    def __init__(
        self, calls: DriverCalls, name: str, future: asyncio.Future[Returned], on_overdue: Callable[[], None] | None
    ) -> None:
        self.calls, self.name, self.future, self.on_overdue = calls, name, future, on_overdue
        self.late = self.hung = False

    def expire(self) -> None:
        """One of the two has passed."""
        if self.future.done():
            return
        try:
            self.calls.note_overdue(self)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the call
            self.future.set_exception(error)


class DriverCalls:
    """Runs the calls of one driver in its thread, each under its deadline.

    A call ends in one of three ways: in time; late, which is recorded, after its caller has been told; or, when it has
    not returned `kill_after_s` after its deadline, as a hang: `on_hang` is told once, and the wait goes on until the
    thread returns, because nothing else can be done in that thread before.
    """

    def __init__(
        self,
        instrument: str,
        kill_after_s: float,
        figures: Figures,
        on_hang: Callable[[str], None],
        deadlines: Deadlines,
    ) -> None:
        self.thread = DriverThread(f"v2-{instrument}")
        self.in_hand = ""
        self._begun_s = 0.0
        self._instrument = instrument
        self._kill_after_s = kill_after_s
        self._figures = figures
        self._on_hang = on_hang
        self._deadlines = deadlines
        self._time = asyncio.get_running_loop().time

    @property
    def busy_with(self) -> str:
        """What the driver is in and for how long, as half a sentence; empty if it is in nothing."""
        if not self.in_hand:
            return ""
        return f"the driver has been in {self.in_hand} for {self._time() - self._begun_s:.1f} s"

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
        begun_s = self._begun_s = self._time()
        self.in_hand = name
        future = self.thread.submit(call, context)
        here = _Call(self, name, future, on_overdue)
        if deadline_at is not None:
            self._deadlines.add(here, deadline_at)
        try:
            returned = await future
        finally:
            self._deadlines.discard(here)
            self.in_hand = ""
        took_s = self._time() - begun_s
        self._figures.note_call(took_s)
        if here.late:
            self._figures.late += 1
            _LOG.warning("late reply", instrument=self._instrument, command=name, took_s=round(took_s, 3),
                         hung=here.hung, error=repr(returned.error) if returned.error else None)  # fmt: skip
        return CallResult(returned, late=here.late, hung=here.hung)

    def note_overdue(self, call: _Call) -> None:
        """Its deadline has passed; or, for the second time, it has been waited for long enough."""
        if call.late:
            call.hung = True
            self._figures.hangs += 1
            self._on_hang(call.name)
            return
        call.late = True
        self._figures.overdue += 1
        self._deadlines.add(call, self._time() + self._kill_after_s)
        _LOG.warning("overdue", instrument=self._instrument, command=call.name)
        if call.on_overdue is not None:
            call.on_overdue()
