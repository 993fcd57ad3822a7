from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from duodaq.clock import new_loop, pause
from duodaq.errors import LifecycleError, ReplyTimeoutError

T = TypeVar("T")


class _Errand(concurrent.futures.Future[Any]):
    """What another thread has begun on the loop: done when that has ended; to cancel it is to cancel that.

    In place of asyncio's own `run_coroutine_threadsafe`, which has the loop go round twice more for each.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any],
        convert: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__()
        self._loop, self._work, self._convert = loop, work, convert
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin, on the loop; nothing if it was cancelled before."""
        if self.cancelled():
            self._work.close()
            self.set_running_or_notify_cancel()
        else:
            self._task = self._loop.create_task(self._carry_out())

    def cancel(self) -> bool:
        """See concurrent.futures.Future; the work is cancelled with it."""
        cancelled = super().cancel()
        if cancelled:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing runs there any more
                self._loop.call_soon_threadsafe(self._end)
        return cancelled

    def give_up(self) -> None:
        """The loop is closed, and nothing is carried out any more: whoever waits is told so."""
        if self._task is None:
            self._work.close()
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # it has just ended, or was cancelled
            self.set_exception(_closed())

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _carry_out(self) -> None:
        try:
            result = await self._work
            self._settle(result if self._convert is None else self._convert(result), None)
        except asyncio.CancelledError:
            super().cancel()
            self.set_running_or_notify_cancel()
            raise
        except GeneratorExit:  # thrown away, with a loop that is closed: who waits has been told
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            self._settle(None, error)
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
            self._settle(None, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        try:
            if error is None:
                self.set_result(result)
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:  # it was cancelled a moment before
            self.set_running_or_notify_cancel()


class LoopThread:
    """An event loop in a thread of its own, for programs that block: scripts, and notebooks whose own loop is busy."""

    def __init__(self, name: str) -> None:
        self._loop = new_loop()
        self._errands: set[_Errand] = set()  # that have not ended
        self._closed = False
        self._gate = threading.RLock()
        """Held to hand an errand over, and to close: whatever comes later is refused, and nothing is forgotten."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(
        self, work: Coroutine[Any, Any, T], convert: Callable[[T], Any] | None = None
    ) -> concurrent.futures.Future[Any]:
        """Begin `work` on the loop; the future may be waited for, cancelled, or given a callback.

        Its result is that of `work`, or what `convert` makes of that; LifecycleError, if the loop ends before.
        """
        errand = _Errand(self._loop, work, convert)
        with self._gate:
            if self._closed:
                work.close()
                raise _closed()
            self._errands.add(errand)
            self._loop.call_soon_threadsafe(errand.begin)
        errand.add_done_callback(self._ended)
        return errand

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
            self._refuse_more()
            self._loop.run_until_complete(pause(0))  # what was handed over before begins, and ends with the rest
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._refuse_more()
            self._loop.close()
            for errand in tuple(self._errands):
                errand.give_up()

    def _ended(self, errand: Any) -> None:
        self._errands.discard(errand)

    def _refuse_more(self) -> None:
        with self._gate:
            self._closed = True


def _closed() -> LifecycleError:
    return LifecycleError("this lab is closed")
