from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from duodaq.bluesky._promise import Measured
from duodaq.clock import monotonic_s

LOOK_EVERY_S = 0.1
"""How often a move that somebody watches is looked at."""

Look = Callable[[], "concurrent.futures.Future[Measured]"]
Watcher = Callable[..., Any]
Begin = Callable[[], "concurrent.futures.Future[Any]"]


class FutureStatus:
    """A Bluesky Status over one or several futures: done when all are, a success if none failed.

    `futures` are those that have not ended; those that have are let go of, so that no cycle keeps them.
    """

    def __init__(self, futures: list[concurrent.futures.Future[Any]]) -> None:
        self.futures = list(futures)
        self._left = len(futures)
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Any], None]] = []
        self._verdict: BaseException | bool | None = None
        for future in tuple(futures):
            future.add_done_callback(self._one_done)

    @property
    def done(self) -> bool:
        """Whether all futures have ended."""
        return self._left == 0

    @property
    def success(self) -> bool:
        """Whether all have ended, and none failed."""
        return self.done and self.exception() is None

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        """The first failure, if there is one yet; None also after `finish`."""
        if self._verdict is not None:
            return None if isinstance(self._verdict, bool) else self._verdict
        return self._failure

    def finish(self, error: BaseException | None = None) -> None:
        """Be done now, whatever becomes of the futures: a success, unless there is an `error`."""
        with self._lock:
            if not self._left:
                return
            self._verdict = True if error is None else error
            self._left = 0
            callbacks, self._callbacks = self._callbacks, []
        self._call(callbacks)

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` when done; at once if it is."""
        with self._lock:
            if self._left:
                self._callbacks.append(callback)
                return
        callback(self)

    def _one_done(self, done: concurrent.futures.Future[Any]) -> None:
        failure = concurrent.futures.CancelledError() if done.cancelled() else done.exception()
        with self._lock:
            self.futures.remove(done)
            if self._verdict is not None:
                return
            self._failure = self._failure or failure
            self._left -= 1
            if self._left:
                return
            callbacks, self._callbacks = self._callbacks, []
        self._call(callbacks)

    def _call(self, callbacks: list[Callable[[Any], None]]) -> None:
        for callback in callbacks:
            with contextlib.suppress(RuntimeError):  # an engine whose scan is over has closed its loop
                callback(self)


class MoveStatus(FutureStatus):
    """A move under way. Watched, it looks where the axis is, ten times a second, and tells how far it has come.

    Args:
        move: Ends when the axis has arrived.
        name, unit: Of the axis.
        target: Where it was sent.
        look: Begins to read where it is.
    """

    def __init__(
        self, move: concurrent.futures.Future[Any], *, name: str, unit: str, target: float, look: Look
    ) -> None:
        self._facts: dict[str, Any] = {"name": name, "unit": unit, "target": target, "precision": 4}
        self._look = look
        self._began_s = monotonic_s()
        self._initial: float | None = None
        self._watchers: list[Watcher] = []
        self._next: threading.Timer | None = None
        super().__init__([move])

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with name, current, initial, target, unit, precision, fraction (of the way that is left) and
        time_elapsed (s), in a thread of the lab's, until the move has ended.
        """
        with self._lock:
            self._watchers.append(watcher)
            first = len(self._watchers) == 1
        if first:
            self._begin_look()

    def _begin_look(self) -> None:
        if not self.done:
            self._look().add_done_callback(self._seen)

    def _seen(self, looked: concurrent.futures.Future[Measured]) -> None:
        if self.done:
            return
        if not looked.cancelled() and looked.exception() is None:
            self._tell(float(looked.result().value))
        self._next = threading.Timer(LOOK_EVERY_S, self._begin_look)
        self._next.daemon = True
        with self._lock:
            if self._left:
                self._next.start()

    def _tell(self, current: float) -> None:
        if self._initial is None:
            self._initial = current
        way = abs(self._facts["target"] - self._initial)
        left = min(abs(self._facts["target"] - current) / way, 1.0) if way else 0.0
        told = {"current": current, "initial": self._initial, "fraction": left}
        for watcher in tuple(self._watchers):
            watcher(**self._facts, **told, time_elapsed=monotonic_s() - self._began_s)

    def _one_done(self, done: concurrent.futures.Future[Any]) -> None:
        super()._one_done(done)
        if self._next is not None:
            self._next.cancel()


def stop_under_way(status: FutureStatus | None, stop: Callable[[], Any], *, success: bool) -> None:
    """Stop what is not done yet, and end its status. Its futures end by themselves, when what moved stands."""
    if status is None or status.done:
        return
    stop()
    status.finish(None if success else concurrent.futures.CancelledError())


def after(status: FutureStatus | None, begin: Begin) -> concurrent.futures.Future[Any]:
    """What `begin` begins: at once, or when the futures of `status`, whose status was ended before them, have ended."""
    still = [future for future in list(status.futures) if not future.done()] if status and status.done else []
    if not still:
        return begin()
    standing: concurrent.futures.Future[Any] = concurrent.futures.Future()
    still[-1].add_done_callback(lambda _: standing.cancelled() or standing.set_result(None))
    return chained(standing, begin)


def chained(first: concurrent.futures.Future[Any], begin: Begin) -> concurrent.futures.Future[Any]:
    """Ends when what `begin` begins has ended, which happens once `first` has ended well."""
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()
    under_way = [first]

    def failed(future: concurrent.futures.Future[Any]) -> bool:
        error = concurrent.futures.CancelledError() if future.cancelled() else future.exception()
        if error is not None and not result.done():
            result.set_exception(error)
        return error is not None or result.done()

    def second_ended(future: concurrent.futures.Future[Any]) -> None:
        if not failed(future):
            result.set_result(future.result())

    def first_ended(future: concurrent.futures.Future[Any]) -> None:
        if failed(future):
            return
        try:
            under_way.append(begin())
        except Exception as error:  # noqa: BLE001 - whoever waits for the result is told
            result.set_exception(error)
        else:
            under_way[-1].add_done_callback(second_ended)

    def give_up(ended: concurrent.futures.Future[Any]) -> None:
        if ended.cancelled():
            under_way[-1].cancel()

    result.add_done_callback(give_up)
    first.add_done_callback(first_ended)
    return result
