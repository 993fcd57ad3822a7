"""A worker process as the manager holds it: its sockets, and how its end becomes known."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
from typing import Protocol

from duodaq.clock import Deadline, block
from duodaq.workers._fork_order import ANSWER_BYTES, Ended, decode_answer, receive

REAP_EVERY_S = 0.002
LAST_WAIT_S = 1.0


class Child:
    """One worker process. It belongs to the event loop on which it was made.

    Attributes:
        pid: Its process id.
        pidfd: Readable once it has ended; -1 where the system has none. `loop.add_reader` on it is free to use.
        link: This end of a non-blocking stream to its entry point.
        fds: This end of a packet socket for passing descriptors.
        gone: Done at once when the process has ended.
        exit: Done when its exit code is known: as `subprocess` counts (negative for a signal), or None if nobody
            could tell, because the fork server had ended before it.
    """

    def __init__(self, pid: int, pidfd: int, link: socket.socket, fds: socket.socket, end: End) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.pidfd = pidfd
        self.link = link
        self.fds = fds
        self.gone: asyncio.Future[None] = loop.create_future()
        self.exit: asyncio.Future[int | None] = loop.create_future()
        self._end = end
        self._closed = False
        end.watch(self, loop)

    @property
    def exited(self) -> bool:
        """Whether the process has ended; asked of the system, not of the loop."""
        return self.gone.done() or self._end.reached()

    def kill(self) -> None:
        """SIGKILL. Nothing if it has ended or was closed."""
        self.signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM. Nothing if it has ended or was closed."""
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send it a signal; never to another process that got its number. Nothing if it has ended or was closed."""
        if not self._closed:
            with contextlib.suppress(ProcessLookupError):
                self._end.signal(number)

    def close(self) -> None:
        """Release everything that is held for it; kill it if it still runs. Idempotent.

        An `exit` that has not come by then is None.
        """
        if self._closed:
            return
        if not self.exited:
            self.kill()
        self._closed = True
        self._end.close()
        self.link.close()
        self.fds.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.note_gone()
        self.note_exit(None)

    async def aclose(self, timeout_s: float = LAST_WAIT_S) -> int | None:
        """Kill it if it still runs, wait until it is gone, release everything. Its exit code, if known."""
        try:
            self.kill()
            await asyncio.wait({self.exit}, timeout=timeout_s)
            return self.exit.result() if self.exit.done() else None
        finally:
            self.close()

    def note_gone(self) -> None:
        """For `End`: the process has ended."""
        if not self.gone.done():
            self.gone.set_result(None)

    def note_exit(self, code: int | None) -> None:
        """For `End`: this is its exit code, and there will be no other."""
        if not self.exit.done():
            self.exit.set_result(code)


class End(Protocol):
    """How the end of a process becomes known, and how it is brought about."""

    def watch(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        """Tell `child`, on `loop`, when it is gone and with which code."""
        ...

    def reached(self) -> bool:
        """Whether the process has ended."""
        ...

    def signal(self, number: int) -> None:
        """Send it a signal. Raises ProcessLookupError if there is no such process any more."""
        ...

    def close(self) -> None:
        """Watch no longer, release everything."""
        ...


class ForkedEnd:
    """For a child of the fork server: the pidfd tells at once, the server's report tells the code a moment later."""

    def __init__(self, pidfd: int, status: socket.socket) -> None:
        self._pidfd = os.dup(pidfd)  # a loop takes one reader for each descriptor, and the other one is the user's
        self._status = status
        self._silent = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        """See End."""
        self._loop = loop
        loop.add_reader(self._pidfd, self._note_gone, child)
        loop.add_reader(self._status, self._note_status, child)

    def reached(self) -> bool:
        """See End."""
        return _readable(self._pidfd)

    def signal(self, number: int) -> None:
        """See End."""
        signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """See End."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._pidfd)
            self._loop.remove_reader(self._status)
        os.close(self._pidfd)
        self._status.close()

    def _note_gone(self, child: Child) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._pidfd)
        child.note_gone()
        if self._silent:
            child.note_exit(None)

    def _note_status(self, child: Child) -> None:
        assert self._loop is not None
        try:
            data, _ = receive(self._status, ANSWER_BYTES, 0)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._loop.remove_reader(self._status)
        self._silent = True
        if data:
            answer = decode_answer(data)
            assert isinstance(answer, Ended)
            child.note_gone()
            child.note_exit(answer.code)
        elif child.gone.done():
            child.note_exit(None)


class FreshEnd:
    """For a child of this process: a socket of which it holds the other end for as long as it lives."""

    def __init__(self, process: subprocess.Popen[bytes], held: socket.socket) -> None:
        self._process = process
        self._held = held
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        """See End."""
        self._loop = loop
        loop.add_reader(self._held, self._released, child)

    def reached(self) -> bool:
        """See End."""
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """See End."""
        self._process.send_signal(number)

    def close(self) -> None:
        """See End. Waits a moment for a process that has just been killed, so that nothing is left of it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._held)
        self._held.close()
        deadline = Deadline(LAST_WAIT_S)
        while not self.reached() and not deadline.passed:
            block(REAP_EVERY_S)

    def _released(self, child: Child) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._held)
        self._reap(child)

    def _reap(self, child: Child) -> None:
        assert self._loop is not None
        if self.reached():
            child.note_gone()
            child.note_exit(self._process.returncode)
        else:  # its descriptors close a moment before it can be reaped
            self._timer = self._loop.call_later(REAP_EVERY_S, self._reap, child)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
