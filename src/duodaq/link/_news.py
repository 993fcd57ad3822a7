"""What threads sleep on until there is news: a condition variable whose waiters wake without a fight.

A `threading.Condition` wakes with the interpreter's lock in hand, so the woken thread runs straight into that and
sleeps again; an eventfd is rung by a system call that lets go of it first. Rules for whoever edits this:

1.  Rung is only behind the lock, never under it: else the woken thread would run into that instead.
2.  A descriptor is closed when nobody knows its bell any more, so a ring never reaches whoever has its number next.
3.  A waiter may wake for nothing: a ring may come when it has stopped waiting, and is heard by the next wait.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from types import TracebackType

_LONGEST_S = 86400.0
"""A poll counts milliseconds in 32 bits; who waits for longer is woken for nothing once a day."""


class _EventBell:
    """Wakes one thread, by the kernel."""

    __slots__ = ("_fd", "_poll")

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout_s: float | None) -> None:
        if timeout_s is None or self._poll.poll(min(timeout_s, _LONGEST_S) * 1000):
            os.eventfd_read(self._fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


class _QueueBell:
    """Wakes one thread, where the kernel has no bells."""

    __slots__ = ("_rings",)

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        self._rings.put(None)

    def wait(self, timeout_s: float | None) -> None:
        try:
            self._rings.get(timeout=None if timeout_s is None else min(timeout_s, _LONGEST_S))
        except queue.Empty:
            return


_Bell = _EventBell | _QueueBell


def _new_bell() -> _Bell:
    if hasattr(os, "eventfd"):
        try:
            return _EventBell()
        except OSError:
            return _QueueBell()  # the process has no descriptor left
    return _QueueBell()


class News:
    """A lock, and what threads that wait for a change under it sleep on; used as a `threading.Condition` is.

    One descriptor is kept from the first wait until `close`, or until nobody knows the object any more; a thread that
    waits beside another has one of its own meanwhile.
    """

    __slots__ = ("_bell", "_closed", "_lock", "_rung", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Bell] = []
        self._rung: list[_Bell] = []
        self._bell: _Bell | None = None
        self._closed = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock."""
        self._lock.acquire()

    def release(self) -> None:
        """Give the lock back, and wake whom `notify_all` named."""
        rung = self._rung
        if rung:
            self._rung = []
        self._lock.release()
        for bell in rung:
            bell.ring()

    def notify_all(self) -> None:
        """Wake all that wait, as soon as the lock, which the caller holds, is given back."""
        if self._waiting:
            self._rung += self._waiting
            self._waiting = []

    def wait(self, timeout_s: float | None = None) -> None:
        """Give the lock back, sleep until notified or for `timeout_s`, and take it again. May wake for nothing."""
        bell, self._bell = self._bell or _new_bell(), None
        self._waiting.append(bell)
        self.release()
        try:
            bell.wait(timeout_s)
        finally:
            self._lock.acquire()
            if bell in self._waiting:
                self._waiting.remove(bell)
            if self._bell is None and not self._closed:
                self._bell = bell

    def close(self) -> None:
        """Wake all that wait, and keep no descriptor. What is waited for later still works."""
        with self:
            self._closed, self._bell = True, None
            self.notify_all()
