from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from duodaq import clock
from duodaq.v2._bell import new_bell

SWITCH_INTERVAL_S = 0.0005
"""With the interpreter's own 5 ms, a driver that returns with a lease in its hand waits that long for a busy loop."""


class Returned:
    """How one call of a driver ended: with `value`, or by raising `error`; at `t_ns` (UTC, taken in its thread)."""

    __slots__ = ("error", "t_ns", "value")

    def __init__(self, value: Any, error: BaseException | None, t_ns: int) -> None:
        self.value, self.error, self.t_ns = value, error, t_ns


class DriverThread:
    """The one thread in which all calls of one driver run, one after the other.

    It is a daemon of our own: a call that never returns must not hold up the interpreter's exit, as the join of an
    executor would. A thread cannot be killed; `busy` and `alive` tell what is left of it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        if sys.getswitchinterval() > SWITCH_INTERVAL_S:
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._jobs: deque[Callable[[], None] | None] = deque()
        self._bell = new_bell()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._busy = False
        self._closed = False
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether a call is in it."""
        return self._busy

    def submit(self, call: Callable[[], Any], context: contextvars.Context | None = None) -> asyncio.Future[Returned]:
        """Run `call()` in the thread, in `context`; the future says how it ended, and never raises.

        One at a time: whoever submits waits for the one before. Cancelling the future does not reach the driver.
        """
        if self._closed or self._busy:
            raise RuntimeError("one call at a time, and none after close")
        self._busy = True
        future: asyncio.Future[Returned] = self._loop.create_future()
        run = (context or contextvars.copy_context()).run
        self._give(lambda: self._carry_out(run, call, future))
        return future

    def close(self) -> None:
        """Let the thread end after the call in it; never waits."""
        if not self._closed:
            self._closed = True
            self._give(None)

    async def ended(self, timeout_s: float | None) -> bool:
        """Wait until the thread has ended, `timeout_s` at most (None: as long as that takes); whether it has."""
        await asyncio.wait({self._ended}, timeout=timeout_s)
        if self._ended.done():
            self._thread.join(1.0)  # it is in its last instruction
        return not self._thread.is_alive()

    def _give(self, job: Callable[[], None] | None) -> None:
        self._jobs.append(job)
        self._bell.ring()

    def _carry_out(
        self, run: Callable[[Callable[[], Any]], Any], call: Callable[[], Any], future: asyncio.Future[Returned]
    ) -> None:
        try:
            returned = Returned(run(call), None, clock.utc_ns())
        except BaseException as error:  # noqa: BLE001  # whatever a foreign driver raises belongs to its caller
            returned = Returned(None, error, clock.utc_ns())
        self._busy = False
        self._tell(future, returned)

    def _run(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                job()
                del job  # kept while idle, it would keep the driver's last result alive
        finally:
            self._bell.close()
            self._tell(self._ended, None)

    def _next_job(self) -> Callable[[], None] | None:
        while not self._jobs:
            self._bell.wait()
        return self._jobs.popleft()

    def _tell(self, future: asyncio.Future[Any], result: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, future, result)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
