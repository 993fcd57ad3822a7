from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from duodaq.errors import ReplyTimeoutError
from duodaq.model import Fate

T = TypeVar("T")
Jobs = set["concurrent.futures.Future[Any]"]
_END_S = 2.0
_jobs: contextvars.ContextVar[Jobs | None] = contextvars.ContextVar("_jobs", default=None)
"""What the call in whose context this is asked still has in threads of the loop's own."""


class DeviceLoop:
    """An event loop in a thread of its own, for one device that is written for asyncio.

    It runs between the calls too: what a device watches or has begun goes on. A call that takes too long is cancelled;
    it is waited for until it has ended, so that a device that does not let itself be cancelled counts as hung. So is
    what it has given to a thread (``asyncio.to_thread``), which nothing can cancel: the device believes that its line
    is free when the cancelled call has let go of it, but that thread still reads the reply.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_DaemonExecutor(1))
        self._thread = threading.Thread(target=self._run, name=f"{name}-loop", daemon=True)
        self._thread.start()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], left_s: float, name: str) -> T:
        """The result of ``make()``, which is called and awaited on the loop, in the caller's context.

        Raises:
            ReplyTimeoutError: It did not end within `left_s`. It has been cancelled; what it had begun may go on.
        """

        begun: list[asyncio.Task[Any]] = []
        jobs: Jobs = set()

        async def work() -> T:
            _jobs.set(jobs)
            begun.extend(task for task in [asyncio.current_task()] if task is not None)
            return await make()

        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result(left_s if math.isfinite(left_s) else None)
        except concurrent.futures.TimeoutError as error:
            if future.done():
                raise  # its own
            future.cancel()
            asyncio.run_coroutine_threadsafe(_end_of(begun, jobs), self._loop).result()
            raise ReplyTimeoutError(
                "it is not done in time", fate=Fate.UNKNOWN, command=name, left="it was cancelled"
            ) from error

    def close(self) -> None:
        """Cancel what is still in it, and end it."""
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


async def _end_of(tasks: list[asyncio.Task[Any]], jobs: Jobs) -> None:
    """Wait until `tasks` have ended, which have been told to, and what they left in threads."""
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.gather(*(asyncio.wrap_future(job) for job in list(jobs)), return_exceptions=True)


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _DaemonExecutor(concurrent.futures.ThreadPoolExecutor):
    """Runs each job in a daemon thread of its own: one that never returns must not hold up the interpreter's exit.

    A job is known to its call until it has ended; one that was cancelled before it began never runs.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        jobs = _jobs.get()
        if jobs is not None:
            jobs.add(future)
            future.add_done_callback(jobs.discard)

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # it belongs to whoever awaits the job
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name=f"{threading.current_thread().name}-job", daemon=True).start()
        return future
