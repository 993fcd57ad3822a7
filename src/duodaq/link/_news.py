"""What threads sleep on until there is news: a condition variable whose waiters wake without a fight.

A `threading.Condition` wakes with the interpreter's lock in hand, so the woken thread runs straight into that and
sleeps again; an eventfd is rung by a system call that lets go of it first. Rules for whoever edits this:

1.  Rung is only behind the lock, never under it: else the woken thread would run into that instead.
2.  A descriptor is closed when nobody knows its bell any more, so a ring never reaches whoever has its number next.
3.  A waiter may wake for nothing: a ring may come when it has stopped waiting, and is heard by the next wait.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from types import TracebackType

from duodaq.clock import Deadline

_LONGEST_S = 86400.0
"""A poll counts milliseconds in 32 bits; who waits for longer is woken for nothing once a day."""


_LOOK_S = 0.02
"""How often a bell that is no descriptor is looked at beside one that is."""


class _EventBell:
    """Wakes one thread, by the kernel."""

    __slots__ = ("_beside", "_both", "_fd", "_poll")

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._both: select.poll | None = None
        self._beside = -1

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout_s: float | None) -> None:
        if timeout_s is None or self._poll.poll(min(timeout_s, _LONGEST_S) * 1000):
            os.eventfd_read(self._fd)

    def wait_beside(self, fd: int, timeout_s: float | None) -> bool:
        """Wait until it rings, or `fd` can be read: whether that can."""
        if self._both is None or fd != self._beside:
            self._both, self._beside = select.poll(), fd
            self._both.register(self._fd, select.POLLIN)
            self._both.register(fd, select.POLLIN)
        found = False
        for ready, _ in self._both.poll(None if timeout_s is None else min(timeout_s, _LONGEST_S) * 1000):
            if ready == fd:
                found = True
            else:
                os.eventfd_read(self._fd)
        return found

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

    def wait_beside(self, fd: int, timeout_s: float | None) -> bool:
        """As the other's: a ring is heard `_LOOK_S` late."""
        limit = Deadline(timeout_s)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while not (found := bool(poll.poll(min(limit.left_s, _LOOK_S) * 1000))) and not limit.passed:
            with contextlib.suppress(queue.Empty):
                self._rings.get_nowait()
                break
        return found


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

    Attributes:
        told: How often `notify_all` was called.
    """

    __slots__ = ("_bell", "_closed", "_lock", "_rung", "_waiting", "told")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Bell] = []
        self._rung: list[_Bell] = []
        self._bell: _Bell | None = None
        self._closed = False
        self.told = 0

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
        self.told += 1
        if self._waiting:
            self._rung += self._waiting
            self._waiting = []

    def nudge(self) -> None:
        """As `notify_all`, though nothing has changed: whoever waits looks again whether it is his turn to read."""
        self._rung += self._waiting

    def wait(self, timeout_s: float | None = None) -> bool:
        """Give the lock back, sleep until notified or for `timeout_s`, and take it again. May wake for nothing.

        Returns:
            Whether it was notified.
        """
        told, bell = self.told, self._fall_asleep()
        try:
            bell.wait(timeout_s)
        finally:
            self._lock.acquire()
            self._wake_up(bell)
        return self.told != told

    def wait_beside(self, fd: int, timeout_s: float | None) -> bool:
        """As `wait`, or until `fd` can be read; the lock is not taken again.

        Returns:
            Whether `fd` can be read.
        """
        bell = self._fall_asleep()
        try:
            return bell.wait_beside(fd, timeout_s)
        finally:
            with self._lock:
                self._wake_up(bell)

    def _fall_asleep(self) -> _Bell:
        bell, self._bell = self._bell or _new_bell(), None
        self._waiting.append(bell)
        self.release()
        return bell

    def _wake_up(self, bell: _Bell) -> None:
        if bell in self._waiting:
            self._waiting.remove(bell)
        if self._bell is None and not self._closed:
            self._bell = bell

    def close(self) -> None:
        """Wake all that wait, and keep no descriptor. What is waited for later still works."""
        with self:
            self._closed, self._bell = True, None
            self.notify_all()
