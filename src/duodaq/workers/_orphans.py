"""What is left of dead workers: what their drivers started, in whatever session it hides.

A worker adopts what loses its parent below it, and the fork server what loses its worker (PR_SET_CHILD_SUBREAPER,
prctl(2)). So whoever becomes a child of the fork server without having been forked by it is an orphan of a dead worker.
Linux alone knows this; elsewhere there is no fork server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import sys
from collections.abc import Callable, Container

from duodaq.clock import Deadline

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Be the parent, from now on, of every descendant that loses its own. It is not passed on by a fork."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Orphans:
    """Ends this process's children that are not among `own`, and theirs, until there is none.

    Args:
        own: The process ids of the children that are to stay.
        selector: Where their ends are awaited; the data of a key is a callable without arguments, as in the server.
    """

    def __init__(self, own: Container[int], selector: selectors.BaseSelector) -> None:
        self._own = own
        self._selector = selector
        self._dying: dict[int, int] = {}

    def end(self) -> None:
        """Kill those that are there now. Each one's own children come here when it is gone, and are ended then."""
        while new := [pid for pid in _children() if pid not in self._own and pid not in self._dying]:
            for pid in new:  # and look again: the list may miss some while others leave it
                self._kill(pid)

    def end_all(self, deadline: Deadline) -> None:
        """The same, and wait for the end of them all."""
        self.end()
        while self._dying and not deadline.passed:
            for key, _ in self._selector.select(deadline.left_s):
                react: Callable[[], None] = key.data
                react()

    def close(self) -> None:
        """In a fork of this process: close what is held for them."""
        for pidfd in self._dying.values():
            if pidfd >= 0:
                os.close(pidfd)

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(PermissionError):
            os.kill(pid, signal.SIGKILL)  # its number is nobody else's: this process alone can reap it
        try:
            pidfd = self._dying[pid] = os.pidfd_open(pid)
        except OSError:
            self._dying[pid] = -1  # no room to await it; it is reaped when this process ends
        else:
            self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._reap(pid, pidfd))

    def _reap(self, pid: int, pidfd: int) -> None:
        os.waitpid(pid, 0)
        del self._dying[pid]
        self._selector.unregister(pidfd)
        os.close(pidfd)
        self.end()


def _children() -> list[int]:
    """The process ids of this process's children; it has one thread. Empty where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
            return [int(pid) for pid in children.read().split()]
    except OSError:
        return []
