"""The end of a worker, made known before the kernel has taken its memory down.

A process that is killed first unmaps its memory, which takes 2 ms for a bare worker and more for one with a ring; only
then does it close its descriptors, and only after these does its pidfd tell. But each thread ends by itself. Whichever
comes last unmaps; the others go on at once to close the descriptors that they have. So a worker has one thread that
does nothing, with a table of descriptors of its own in which there is one end of a pipe and nothing else: either that
thread is not the last, and the pipe ends at once; or it is, and the link does, which the others hold.

Rules for whoever edits this:

* The end of the pipe says that the process will not come back, not that it has gone: its other threads may be in their
  last system call, and what it had open may still be open. What needs more waits for the pidfd.
* The thread never takes a signal: the descriptor by which it would wake the loop is not in its table.
* It is no `threading.Thread`, so that no driver finds it among its own.
* Where a table of its own cannot be had, the pipe is the process's, and ends when the link does.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from typing import Any

_UNSHARE = 2
_LAST = 2**31 - 1
_STACK_BYTES = 256 * 1024


def _find_close_range() -> Any:
    """The system call that makes a table and empties it in one; None where there is none."""
    return getattr(ctypes.CDLL(None), "close_range", None) if sys.platform == "linux" else None


_close_range = _find_close_range()


class Lifeline:
    """The manager's end of the pipe. On the manager's loop.

    Args:
        on_end: Called once, when the worker's end is known.

    Attributes:
        far: The worker's end, to be sent to it and then let go here.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._near, self.far = os.pipe()
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._near, self._ended)

    def let_go(self) -> None:
        """Close the worker's end on this side: it has been sent, or never will be. Idempotent."""
        if self.far >= 0:
            os.close(self.far)
            self.far = -1

    def close(self) -> None:
        """Be told of nothing any more. Idempotent."""
        self.let_go()
        if self._near >= 0:
            self._loop.remove_reader(self._near)
            os.close(self._near)
            self._near = -1

    def _ended(self) -> None:
        self.close()
        self._on_end()


class Keeper:
    """In the worker: the thread that holds its end, and does nothing until it is given one."""

    def __init__(self) -> None:
        self._given, self._tried = allocate_lock(), allocate_lock()
        self._given.acquire()
        self._tried.acquire()
        self._far = -1
        self._alone = False
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        size = threading.stack_size(_STACK_BYTES)
        try:
            start_new_thread(self._run, ())
        finally:
            threading.stack_size(size)
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    def hold(self, far: int) -> bool:
        """Hold the end `far`, which belongs to this from now on, until this process ends. Once.

        Returns:
            Whether its end will be known early.
        """
        self._far = far
        self._given.release()
        self._tried.acquire()
        if self._alone:
            os.close(far)
        return self._alone

    def _run(self) -> None:
        self._given.acquire()
        self._alone = _keep_only(self._far)
        self._tried.release()
        if self._alone:
            self._given.acquire()  # for ever: nobody gives twice


def _keep_only(fd: int) -> bool:
    """Give this thread a table of descriptors of its own, in which there is `fd` alone."""
    if _close_range is None or _close_range(fd + 1, _LAST, _UNSHARE):
        return False
    return not fd or not _close_range(0, fd - 1, 0)
