"""Time that passes when nothing else is left to do.

The loop's clock stands still while there is work and jumps to the next timer when there is none, so a test of an hour
of back-off takes milliseconds, and its order of events is always the same.

Rules whoever edits this must keep:

* The clock never jumps while a descriptor is ready, nor while a job that this loop gave to an executor is under way:
  their time is real, and what they bring comes before the next timer.
* With neither timer nor descriptor the loop would wait for ever: that is an error of the test, and says so, unless
  another thread may still call in (`call_soon_threadsafe`), for which it waits `PATIENCE_S` of real time.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S = 5.0


class VirtualTimeError(RuntimeError):
    """Everything waits, and for nothing that could still happen."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` jumps instead of passing. It begins at 0."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._jobs = 0
        self._jumping = _JumpingSelector(self)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def jump(self, seconds: float) -> None:
        """Let time pass at once (the selector does)."""
        self._now_s += seconds

    @property
    def busy_elsewhere(self) -> bool:
        """Whether an executor works for this loop, in real time."""
        return self._jobs > 0

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """As ever; time stands still until the job is done."""
        self._jobs += 1
        try:
            job = super().run_in_executor(executor, func, *args)
        except BaseException:
            self._jobs -= 1
            raise
        job.add_done_callback(self._job_done)
        return job

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1


class _JumpingSelector(selectors.DefaultSelector):
    """Looks at real descriptors, but lets virtual time pass instead of waiting for them."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; if nothing is, the clock has jumped by `timeout`."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop.busy_elsewhere or timeout is None:
            ready = super().select(PATIENCE_S)
            if not ready and timeout is None:
                raise VirtualTimeError("every task waits, and there is no timer, descriptor or job to wake one")
            return ready
        self._loop.jump(timeout)
        return ready


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a fresh loop with virtual time, and return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorate an async test to run it on virtual time: ``@virtual_time`` above ``async def test_…``."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run
