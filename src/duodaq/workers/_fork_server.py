"""The manager's side of the fork server: one for a program, started by whoever needs it first.

Loading numpy, pyarrow and the runtimes costs 0.5 s of processor time, so the server stays until the program ends. It
belongs to no event loop: every request is one packet that brings its own answering socket, so labs on several loops
and threads ask at the same time, nobody reads for anybody else, and there is no thread here. The end of the control
socket ends the server and, with it, all workers that are left, also when the program is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from duodaq.clock import Deadline, pause
from duodaq.errors import LifecycleError
from duodaq.telemetry import get_logger
from duodaq.workers._child import Child, ForkedEnd
from duodaq.workers._fork_order import (
    ANSWER_BYTES,
    Answer,
    Forked,
    Hello,
    Refused,
    Request,
    decode_answer,
    descriptor_pair,
    encode,
    kept,
    order_for_here,
    receive,
    socket_pairs,
    standard_output,
    status_pair,
)
from duodaq.workers._interpreter import Process, interpreter_environment, launch_interpreter

FULL_QUEUE_PAUSE_S = 0.005
LAST_WAIT_S = 3.0
_log = get_logger("workers.fork_server")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Running:
    process: Process
    control: socket.socket
    environ: Mapping[bytes, bytes]

    def close(self) -> None:
        """Close the control socket, which ends the server with its children, and wait for it."""
        self.control.close()
        try:
            self.process.wait(LAST_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _ServerLostError(Exception):
    """It ended before it answered."""


class ForkServer:
    """A fork server, started when it is needed, and started again if it was killed. Safe from any loop and thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self.died = 0
        """How often it was lost, and started again for whoever asked next."""

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        running = self._running
        return running is not None and running.process.poll() is None

    @property
    def pid(self) -> int | None:
        """The server's process id, if there is one."""
        running = self._running
        return None if running is None else running.process.pid

    async def start(self, timeout_s: float) -> None:
        """Start the server if it does not run, and wait until it has loaded everything.

        Raises:
            LifecycleError: It was not ready in time (it goes on loading), or could not load (it has been ended).
        """
        await self._insist(self._hello, Deadline(timeout_s))

    async def spawn(self, *, entry: str, preload: Sequence[str] = (), paced: bool = False, timeout_s: float) -> Child:
        """Fork a worker process whose entry point is called with its ends of the link and descriptor sockets.

        Args:
            entry: ``"module:function"``.
            preload: Modules that it imports first; one that cannot be imported is passed over.
            paced: Import them without taking the processor from others, until the first message is on the link.
            timeout_s: Includes the start of the server, if it does not run.

        Raises:
            LifecycleError: No answer in time, or the server refused, with its reason. There is no child, or it is
                killed as soon as it appears.

        Cancellation: as after a time-out.
        """
        return await self._insist(
            functools.partial(self._spawn, entry=entry, preload=preload, paced=paced), Deadline(timeout_s)
        )

    async def aclose(self) -> None:
        """End the server and every child that is left. The next one who asks starts a new one. Idempotent."""
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        running.control.close()
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(running.process.pid)
            try:
                await _until_readable(pidfd, LAST_WAIT_S)
            finally:
                os.close(pidfd)
        running.close()

    def close(self) -> None:
        """As `aclose`, for a program that ends: blocks until the server is gone, for 3 s at most."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close()

    def forget(self) -> None:
        """In a process that was forked from this one: the server is the parent's, and must see the parent's end."""
        self._lock = threading.Lock()
        running, self._running = self._running, None
        if running is not None:
            running.control.close()
            running.process.returncode = 0  # not ours to await

    def descriptors(self) -> tuple[int, ...]:
        """What is held open here as long as the server runs."""
        running = self._running
        return () if running is None else (running.control.fileno(),)

    def _ensure(self) -> _Running:
        with self._lock:
            if self._running is not None and not self.alive:
                self._running.close()
                self._mourn(self._running)
                self._running = None
            if self._running is None:
                self._running = _launch()
            return self._running

    def _discard(self, running: _Running) -> None:
        with self._lock:
            lost = self._running is running
            if lost:
                self._running = None
        running.close()
        if lost:
            self._mourn(running)

    def _mourn(self, running: _Running) -> None:
        """Nobody had asked it to end."""
        self.died += 1
        _log.error("the fork server is lost", pid=running.process.pid, exit_code=running.process.returncode)

    async def _insist(self, work: Callable[[_Running, Deadline], Awaitable[T]], deadline: Deadline) -> T:
        """Do it with the server there is, and once more with a new one if that is dead or dies over it."""
        try:
            return await self._attempt(work, deadline)
        except _ServerLostError:
            pass
        try:
            return await self._attempt(work, deadline)
        except _ServerLostError as exc:
            raise LifecycleError(f"the fork server ended twice over one order ({exc})") from None

    async def _attempt(self, work: Callable[[_Running, Deadline], Awaitable[T]], deadline: Deadline) -> T:
        running = self._ensure()
        try:
            return await work(running, deadline)
        except _ServerLostError:
            self._discard(running)  # its sockets close a moment before its process is seen to have ended
            raise

    async def _hello(self, running: _Running, deadline: Deadline) -> None:
        with socket_pairs(status_pair) as ((status,), (far,)):
            await self._send(running, Hello(), [far.fileno()], deadline)
            far.close()
            await self._answer(running, status, deadline)

    async def _spawn(
        self, running: _Running, deadline: Deadline, *, entry: str, preload: Sequence[str], paced: bool
    ) -> Child:
        order = order_for_here(entry, preload, paced=paced, known=running.environ)
        with socket_pairs(status_pair, socket.socketpair, descriptor_pair) as ((status, link, fds), far):
            await self._send(running, order, [*(end.fileno() for end in far), *standard_output()], deadline)
            for end in far:
                end.close()  # the server's death must be seen at ours
            answer, received = await self._answer(running, status, deadline)
            assert isinstance(answer, Forked)
            (pidfd,) = received
            return Child(answer.pid, pidfd, kept(link), kept(fds), ForkedEnd(pidfd, kept(status)))

    async def _send(self, running: _Running, request: Request, fds: Sequence[int], deadline: Deadline) -> None:
        data = encode(request)
        while True:
            try:
                socket.send_fds(running.control, [data], fds)
            except BlockingIOError:  # so many wait while it loads; nobody can watch this socket for all loops
                if deadline.passed:
                    raise LifecycleError("the fork server took no more orders in time") from None
                await pause(FULL_QUEUE_PAUSE_S)
            except (ConnectionError, ValueError) as exc:
                raise _ServerLostError(str(exc)) from None
            except OSError as exc:
                raise LifecycleError(f"the order for a worker could not be sent: {exc}") from exc
            else:
                return

    async def _answer(self, running: _Running, status: socket.socket, deadline: Deadline) -> tuple[Answer, list[int]]:
        status.setblocking(False)
        if not await _until_readable(status.fileno(), deadline.left_s):
            raise LifecycleError(
                "the fork server did not answer in time", left="it will kill the worker if it makes it"
            )
        try:
            data, fds = receive(status, ANSWER_BYTES, 1)
        except ConnectionError:
            data, fds = b"", []
        if not data:
            raise _ServerLostError(f"process {running.process.pid}")
        answer = decode_answer(data)
        if isinstance(answer, Refused):
            if answer.broken:
                self._discard(running)
            raise LifecycleError(f"the fork server makes no worker: {answer.reason}")
        return answer, fds


async def _until_readable(fd: int, timeout_s: float) -> bool:
    """Wait for data or the end on `fd`, on any loop. False after `timeout_s`."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        async with asyncio.timeout(timeout_s):
            await readable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


def _launch() -> _Running:
    environ = interpreter_environment()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    try:
        with far:
            process = launch_interpreter("duodaq.workers._fork_main", far, environ, start_new_session=True)
    except BaseException:
        near.close()
        raise
    return _Running(process, near, environ)


@functools.cache
def shared_fork_server() -> ForkServer:
    """This program's fork server; not started by asking for it."""
    server = ForkServer()
    atexit.register(server.close)
    os.register_at_fork(after_in_child=server.forget)
    return server
