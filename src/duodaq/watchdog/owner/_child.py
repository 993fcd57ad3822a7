from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duodaq import clock
from duodaq.errors import LifecycleError
from duodaq.telemetry import get_logger
from duodaq.watchdog._wire import Message, packed, receive, send

ANSWER_S = 5.0
"""How long a watchdog may leave unanswered what it was told before it counts as hung, and is killed."""

_HOME = Path(__file__).parents[3]
_log = get_logger("duodaq.watchdog")


class Child:
    """One run of the watchdog's process, and the line to it. Belongs to the running loop.

    Nothing here waits for the process: what its socket does not take at once is kept and sent when it does, and a
    process that does not answer within `ANSWER_S` is killed. `ended` is set when it is gone, whatever ended it.

    The descriptors to be sent are the caller's, and must stay open until `withdraw` was told of them.
    """

    def __init__(self, options: dict[str, Any], hear: Callable[[Message], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hear = hear
        self._unsent: deque[tuple[bytes, int | None]] = deque()
        self._told = 0
        self._heard = 0
        self._timer: asyncio.TimerHandle | None = None
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with far:
                self._process = _spawn(far.fileno(), options)
            self._pidfd = os.pidfd_open(self._process.pid)
        except BaseException:
            self._line.close()
            raise
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ended = asyncio.Event()
        self._loop.add_reader(self._line.fileno(), self._readable)
        self._loop.add_reader(self._pidfd, self._died)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    @property
    def all_heard(self) -> bool:
        """Whether it has answered everything it was told."""
        return self._heard == self._told

    # --- telling

    def tell(self, message: Message, descriptor: int | None = None) -> None:
        """Send it `message`, with a duplicate of `descriptor`; without waiting."""
        if self.ended.is_set():
            return
        self._told += 1
        self._unsent.append((packed({**message, "number": self._told}), descriptor))
        self._send_on()
        if self._timer is None:
            self._await_answer()

    def _send_on(self) -> None:
        while self._unsent:
            packet, descriptor = self._unsent[0]
            try:
                send(self._line, packet, descriptor)
            except BlockingIOError:
                self._loop.add_writer(self._line.fileno(), self._send_on)
                return
            except OSError:
                self._unsent.clear()  # it is dead, which its pidfd says
                break
            self._unsent.popleft()
        self._loop.remove_writer(self._line.fileno())

    def withdraw(self, descriptor: int) -> None:
        """Forget `descriptor` where it still waits to be sent: it is about to be closed."""
        self._unsent = deque((packet, None if own == descriptor else own) for packet, own in self._unsent)

    def _await_answer(self) -> None:
        self._timer = self._loop.call_later(ANSWER_S, self._overdue, self._heard)

    def _overdue(self, heard_then: int) -> None:
        self._timer = None
        self._readable()  # an answer may be waiting while this loop was late
        if self.ended.is_set() or self.all_heard:
            return
        if self._heard == heard_then:
            _log.error("the watchdog does not answer and is killed", pid=self.pid)
            self.kill()
        else:
            self._await_answer()

    # --- hearing

    def _readable(self) -> None:
        while not self.ended.is_set():
            try:
                packet, _ = receive(self._line)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._line.fileno())
                self.kill()  # without its line it would be of no use; its pidfd tells when it is gone
                return
            self._take(json.loads(packet))

    def _take(self, message: Message) -> None:
        if "heard" in message:
            self._heard = message["heard"]
        if "ready" in message and not self.ready.done():
            self.ready.set_result(None)
        if "refused" in message and not self.ready.done():
            self.ready.set_exception(LifecycleError(f"the watchdog does not start: {message['refused']}"))
        self._hear(message)

    # --- its end

    def kill(self) -> None:
        """SIGKILL: it ends without doing anything."""
        self._process.kill()

    def _died(self) -> None:
        if self.ended.is_set():
            return
        with contextlib.suppress(OSError):
            self._readable()
        self._process.wait()
        self.ended.set()
        if self._timer is not None:
            self._timer.cancel()
        if not self.ready.done():
            self.ready.set_exception(LifecycleError(f"the watchdog ended at once (exit code {self.exit_code})"))
        self.ready.exception()
        self._unsent.clear()
        for descriptor in (self._line.fileno(), self._pidfd):
            self._loop.remove_reader(descriptor)
        self._loop.remove_writer(self._line.fileno())
        self._line.close()
        os.close(self._pidfd)

    async def end(self, timeout_s: float) -> bool:
        """Wait for its end for `timeout_s`, then kill it; whether it ended by itself.

        The line stays open until the process is gone: its end is what the last actions wait for.

        Cancellation: It is killed at once.
        """
        by_itself = False
        try:
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
            by_itself = True
        except TimeoutError:
            pass
        finally:
            if not self.ended.is_set():
                self.kill()
                self._process.wait(1.0)
                self._died()
        return by_itself

    async def come_up(self, timeout_s: float) -> None:
        """Wait until it is ready.

        Raises:
            LifecycleError: It is not, within `timeout_s`, or said why it never will be; it is gone.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self.ready)
        except TimeoutError:
            await self.end(0.0)
            raise LifecycleError(f"the watchdog was not ready within {timeout_s:g} s") from None
        except BaseException:
            await self.end(0.2)
            raise


def _spawn(descriptor: int, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    # -P: a file named like a module of the standard library, in the directory of a user's scripts, is not loaded.
    command = [sys.executable, "-P", "-m", "duodaq.watchdog", str(descriptor), json.dumps(options)]
    places = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), str(_HOME)]
    begun_s = clock.monotonic_s()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))},
        )
    except OSError as error:
        raise LifecycleError(f"the watchdog cannot be started: {error}") from error
    _log.debug("watchdog started", pid=process.pid, took_ms=round((clock.monotonic_s() - begun_s) * 1000, 1))
    return process
