from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from duodaq.clock import new_loop
from duodaq.errors import LifecycleError, ReplyTimeoutError

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, for programs that block: scripts, and notebooks whose own loop is busy."""

    def __init__(self, name: str) -> None:
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Begin `work` on the loop; the future may be waited for, cancelled, or given a callback."""
        if not self._thread.is_alive():
            work.close()
            raise LifecycleError("this lab is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Await `work` on the loop and return its result. Ctrl-C cancels it.

        Raises:
            ReplyTimeoutError: It took longer than `timeout_s`; it was cancelled.
            LifecycleError: The loop's own thread would wait for itself. It was cancelled.
        """
        return self.wait(self.submit(work), timeout_s)

    def wait(self, future: concurrent.futures.Future[T], timeout_s: float | None = None) -> T:
        """What has been submitted, awaited: as `run`."""
        try:
            if threading.current_thread() is self._thread:
                what = "the lab's own thread, where callbacks of futures are run, would wait for itself for ever"
                raise LifecycleError(what, left="wait in a thread of your own, or use what ends in _soon")
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise ReplyTimeoutError(f"no answer within {timeout_s:g} s") from None
        except BaseException:
            future.cancel()
            raise

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop the loop and end the thread. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
