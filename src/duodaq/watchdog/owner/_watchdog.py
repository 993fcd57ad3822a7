"""The manager's side of the watchdog.

Rules for whoever edits this:

1.  What the watchdog shall know is kept here (`_ports`, `_workers`), with duplicates of the descriptors, so that every
    watchdog that comes after one that died is told all of it before anything new.
2.  A duplicate is closed when its owner says that the line was lost, closed or changed; nothing else closes it. It is
    a duplicate so that its number cannot come to mean another file while it waits to be sent.
3.  Telling never waits, and never raises for a watchdog that is not there: whoever opens a port goes on. What could not
    be told is told to the next one.
4.  The line to the process is closed after the process is gone, never before: its end sets off the last actions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duodaq import clock
from duodaq.errors import ConfigError, LifecycleError
from duodaq.telemetry import get_logger
from duodaq.watchdog._wire import Message, packed
from duodaq.watchdog.owner._child import Child
from duodaq.watchdog.owner._plan import PortPlan
from duodaq.watchdog.owner._restarts import Restarts

START_S = 10.0
"""How long a watchdog that is started again may take to be ready."""
_SOCKET_PATH_BYTES = 107

_log = get_logger("duodaq.watchdog")


@dataclass(frozen=True, slots=True)
class Disarmed:
    """How the watchdog ended: by itself having done nothing (`clean`), or `why` not; after `took_s`."""

    clean: bool
    why: str
    took_s: float


class Watchdog:
    """A small process that carries out the crash actions when this one dies, however it dies.

    Belongs to the event loop on which `start` is awaited; all of it is called there. Lines and workers may be told
    before `start`, and while no watchdog runs. When it dies it is started again, and told everything.

    Args:
        socket_path: Where it listens for a stop-all that the manager does not answer; None for nowhere.
        log_path: A file to which it writes, besides stderr, what it did.
        on_stop_all: Called with its report when it has done a stop-all past this program: latch then.
        restarts: How often it may be started again.

    Raises:
        ConfigError: `socket_path` is too long for a socket.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str] | None = None,
        *,
        log_path: str | os.PathLike[str] | None = None,
        on_stop_all: Callable[[dict[str, Any]], None] | None = None,
        restarts: Restarts | None = None,
    ) -> None:
        self.socket_path = None if socket_path is None else Path(socket_path).absolute()
        if len(os.fsencode(self.socket_path or "")) > _SOCKET_PATH_BYTES:
            raise ConfigError(f"{socket_path} is too long for a socket", remedy="Choose a shorter directory.")
        self._log_path = None if log_path is None else Path(log_path).absolute()
        self._on_stop_all = on_stop_all
        self._restarts = restarts or Restarts()
        self._ports: dict[str, tuple[PortPlan, int | None]] = {}
        self._workers: dict[int, int] = {}
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._disarmed = False

    # --- what there is

    @property
    def alive(self) -> bool:
        """Whether a watchdog is there and ready."""
        child = self._child
        return child is not None and child.ready.done() and not child.ended.is_set()

    @property
    def pid(self) -> int | None:
        """Its process, while it is alive."""
        return self._child.pid if self._child is not None and self.alive else None

    @property
    def restarted(self) -> int:
        """How often it was started again."""
        return self._restarts.count

    # --- life

    async def start(self, timeout_s: float = 5.0) -> None:
        """Start it and wait until it is ready; from now on it is kept alive.

        Raises:
            LifecycleError: It does not come up in `timeout_s`, and is gone; or it was started before.

        Cancellation: It is gone.
        """
        if self._keeper is not None or self._disarmed:
            raise LifecycleError("the watchdog was started before")
        if not hasattr(os, "pidfd_open"):
            raise LifecycleError("the watchdog needs Linux (pidfd)", left="crash actions are not carried out here")
        await self._come_up(timeout_s)
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="watchdog")

    async def _come_up(self, timeout_s: float) -> None:
        options = {
            "pid": os.getpid(),
            "anchor_ns": clock.anchor_ns(),
            "socket": None if self.socket_path is None else str(self.socket_path),
            "log": None if self._log_path is None else str(self._log_path),
        }
        self._child = child = Child(options, self._hear)
        for name, (plan, descriptor) in self._ports.items():
            child.tell(plan.as_message(name), descriptor)
        for pid, descriptor in self._workers.items():
            child.tell({"about": "worker", "pid": pid}, descriptor)
        await child.come_up(timeout_s)

    async def _keep(self) -> None:
        while True:
            if self._child is not None:
                await self._child.ended.wait()
                _log.error("the watchdog died and is started again", exit_code=self._child.exit_code)
            wait_s = self._restarts.wait_s(clock.monotonic_s())
            if wait_s:
                _log.error("the watchdog died too often: nothing guards this lab now", next_start_in_s=round(wait_s, 1))
                await clock.pause(wait_s)
            self._restarts.begun(clock.monotonic_s())
            try:
                await self._come_up(START_S)
            except LifecycleError as error:
                _log.error("the watchdog did not start again", error=str(error))
            else:
                _log.info("the watchdog is there again", pid=self.pid)

    def _hear(self, message: Message) -> None:
        report = message.get("stopped all")
        if report is None:
            return
        _log.warning("the watchdog did a stop-all", by=report.get("by"), ports=report.get("ports"))
        if self._on_stop_all is not None:
            self._on_stop_all(report)

    async def disarm(self, timeout_s: float = 2.0) -> Disarmed:
        """End it without any action, as a clean shutdown does. Idempotent.

        Returns:
            Whether it ended by itself within `timeout_s`; otherwise it was killed. Either way it is gone, its socket
            too, and every duplicate is closed.

        Cancellation: It is killed, and gone all the same.
        """
        begun_s = clock.monotonic_s()
        self._disarmed = True
        clean, why = True, ""
        try:
            await self._stop_keeping()
            child = self._child
            if child is None or child.ended.is_set():
                clean, why = self._child is None, "it was not running" if self._child is not None else ""
            else:
                child.tell({"about": "disarm"})
                by_itself = await child.end(timeout_s)
                clean = by_itself and child.exit_code == 0
                why = "" if clean else f"it did not end within {timeout_s:g} s and was killed"
        finally:
            await self._put_away()
        return Disarmed(clean, why, clock.monotonic_s() - begun_s)

    async def _stop_keeping(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _put_away(self) -> None:
        child, self._child = self._child, None
        if child is not None and not child.ended.is_set():
            await child.end(0.0)
        for name in list(self._ports):
            self.forget_port(name)
        for pid in list(self._workers):
            self.forget_worker(pid)
        if self.socket_path is not None and child is not None:
            self.socket_path.unlink(missing_ok=True)

    async def settled(self, timeout_s: float = 1.0) -> bool:
        """Wait until the watchdog has answered all that it was told, and this question; False if it does not."""
        child = self._child
        if child is None or child.ended.is_set():
            return False
        child.tell({"about": "nothing"})
        deadline = clock.Deadline(timeout_s)
        while not child.all_heard:
            if deadline.passed or child.ended.is_set():
                return False
            await clock.pause(0.002)
        return True

    # --- what it is told

    def watch_port(self, name: str, plan: PortPlan, descriptor: int | None = None) -> None:
        """Have `plan` carried out on port `name`; told again, the new plan and the new line count.

        Args:
            name: Of the port.
            plan: What is to be written there.
            descriptor: Of its open line, which stays the caller's; None if it has none.

        Raises:
            ValueError: The plan is too long to be told (60 kB). What was told before still counts.
            OSError: `descriptor` is not open. What was told before still counts.
        """
        message = plan.as_message(name)
        packed(message)
        own = _duplicate(descriptor)
        self._drop_line(name)
        self._ports[name] = (plan, own)
        self._tell(message, own)

    def line_changed(self, name: str, descriptor: int | None) -> None:
        """The line of a port was opened, or is lost or closed (None): a listener for `Broker.subscribe_lines`.

        A port that is not watched is none of its business, and ignored.
        """
        if name not in self._ports:
            return
        own = _duplicate(descriptor)
        self._drop_line(name)
        self._ports[name] = (self._ports[name][0], own)
        self._tell({"about": "line", "name": name}, own)

    def forget_port(self, name: str) -> None:
        """Leave port `name` alone from now on."""
        if name in self._ports:
            self._drop_line(name)
            del self._ports[name]
            self._tell({"about": "forget port", "name": name})

    def watch_worker(self, pid: int, pidfd: int) -> None:
        """Have the process `pid` killed before the crash actions. `pidfd` stays the caller's.

        Raises:
            OSError: `pidfd` is not open.
        """
        own = os.dup(pidfd)
        self._drop_worker(pid)
        self._workers[pid] = own
        self._tell({"about": "worker", "pid": pid}, own)

    def forget_worker(self, pid: int) -> None:
        """The process `pid` has ended."""
        if pid in self._workers:
            self._drop_worker(pid)
            self._tell({"about": "forget worker", "pid": pid})

    # --- within

    def _tell(self, message: Message, descriptor: int | None = None) -> None:
        if self._child is not None:
            self._child.tell(message, descriptor)

    def _drop_line(self, name: str) -> None:
        _plan, descriptor = self._ports.get(name, (None, None))
        if descriptor is not None:
            self._give_up(descriptor)

    def _drop_worker(self, pid: int) -> None:
        descriptor = self._workers.pop(pid, None)
        if descriptor is not None:
            self._give_up(descriptor)

    def _give_up(self, descriptor: int) -> None:
        if self._child is not None:
            self._child.withdraw(descriptor)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _duplicate(descriptor: int | None) -> int | None:
    return None if descriptor is None else os.dup(descriptor)
