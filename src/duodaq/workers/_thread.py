from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from duodaq.clock import Deadline, monotonic_s, new_loop
from duodaq.errors import LifecycleError, ReplyTimeoutError, StoppedError
from duodaq.model import ComponentReport, Outcome
from duodaq.workers._promise import BLOCKED_LIMIT_S

T = TypeVar("T")

PROBE_EVERY_S = 0.25

SWITCH_INTERVAL_S = 0.0005
"""With the interpreter's own 5 ms, a busy pure-Python driver delays the other loops by 5.2 ms; with this by 0.7 ms."""


class ThreadWorker:
    """A thread with an event loop of its own: what blocks in it blocks nobody else, as long as it releases the GIL.

    A thread cannot be killed. One that does not return is left behind as a daemon and reported as leaked; its loop
    takes no more calls.
    """

    kind = "thread"

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Event | None = None
        self._asked_s: float | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs and its loop takes calls."""
        return self._loop is not None and self._thread is not None and self._thread.is_alive()

    @property
    def blocked_s(self) -> float:
        """For how long the loop has owed the answer to a probe, in seconds."""
        asked = self._asked_s
        return 0.0 if asked is None else monotonic_s() - asked

    def probe(self) -> None:
        """Ask the loop to answer, unless it owes an answer already."""
        if self._loop is not None and self._asked_s is None and self.alive:
            self._asked_s = monotonic_s()
            self._loop.call_soon_threadsafe(self._answer)

    async def start(self, timeout_s: float) -> None:
        """Start the thread and its loop."""
        if self.alive:
            return
        if sys.getswitchinterval() > SWITCH_INTERVAL_S:
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        here, ready = asyncio.get_running_loop(), asyncio.Event()
        self._ended, self._asked_s = asyncio.Event(), None
        loop = self._loop = new_loop()  # there before its thread runs, so that a stop finds it at any moment
        self._thread = threading.Thread(
            target=self._run, args=(loop, here, ready, self._ended), name=f"duodaq-{self.name}", daemon=True
        )
        self._thread.start()
        try:
            async with asyncio.timeout(timeout_s):
                await ready.wait()
        except TimeoutError:
            raise LifecycleError(f"worker {self.name} did not start within {timeout_s:g} s") from None

    async def call(self, work: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Await `work()` on the thread's loop; see Worker.call."""
        loop = self._loop
        if loop is None or not self.alive:
            raise LifecycleError(f"worker {self.name} is not running")
        future = asyncio.run_coroutine_threadsafe(_begin(work), loop)
        waiting, deadline = asyncio.wrap_future(future), Deadline(timeout_s)
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=min(deadline.left_s, PROBE_EVERY_S))
                if not waiting.done() and (deadline.passed or self._given_up(timeout_s)):
                    raise ReplyTimeoutError(self._silence(timeout_s))
                self.probe()
            if waiting.cancelled():  # its loop was ended under it; whoever waits here was not cancelled
                raise StoppedError(f"worker {self.name} ended while it was under way", fate="unknown")
            return waiting.result()
        finally:
            waiting.cancel()

    async def end(self, timeout_s: float) -> None:
        """End it the hard way."""
        await self.stop(timeout_s)

    async def stop(self, timeout_s: float) -> ComponentReport:
        """Cancel what is left on the loop and end the thread; leaked if it does not return in time."""
        loop, thread, ended = self._loop, self._thread, self._ended
        self._loop = None
        if loop is None or thread is None or ended is None:
            return ComponentReport(f"worker.{self.name}", Outcome.CLEAN)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        begun = monotonic_s()
        try:
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        except TimeoutError:
            return ComponentReport(
                f"worker.{self.name}", Outcome.LEAKED, "its thread does not return", monotonic_s() - begun
            )
        thread.join()
        return ComponentReport(f"worker.{self.name}", Outcome.CLEAN, "", monotonic_s() - begun)

    def _answer(self) -> None:
        self._asked_s = None

    def _given_up(self, timeout_s: float | None) -> bool:
        return not self.alive or (timeout_s is None and self.blocked_s > BLOCKED_LIMIT_S)

    def _silence(self, timeout_s: float | None) -> str:
        if not self.alive:
            return f"worker {self.name} ended before it answered"
        limit = BLOCKED_LIMIT_S if timeout_s is None else timeout_s
        return f"no answer from worker {self.name} within {limit:g} s"

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        here: asyncio.AbstractEventLoop,
        ready: asyncio.Event,
        ended: asyncio.Event,
    ) -> None:
        try:
            here.call_soon_threadsafe(ready.set)
            loop.run_forever()
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
            with contextlib.suppress(RuntimeError):  # the manager's loop may be closed if it gave us up
                here.call_soon_threadsafe(ended.set)


async def _begin(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(_gather(tasks))


def _gather(tasks: set[asyncio.Task[Any]]) -> Coroutine[Any, Any, Any]:
    async def wait() -> None:
        await asyncio.wait(tasks, timeout=1.0)

    return wait()
