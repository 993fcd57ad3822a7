"""The watchdog of one lab: what it is told, and when it is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from duodaq.clock import monotonic_s
from duodaq.dual._safety import crash_bytes, stops_by_port
from duodaq.errors import DuodaqError
from duodaq.model import ComponentReport, InstrumentDefinition, Outcome
from duodaq.ports import Broker
from duodaq.telemetry import get_logger
from duodaq.watchdog.owner import Watchdog, plan_for

_log = get_logger("duodaq.dual")
COMPONENT = "watchdog"


class Guard:
    """Has a small process carry out the crash actions when this one dies, however it dies.

    It is there for every lab that has something to do for it: a port with crash or stop bytes, or a worker process,
    which must not outlive the manager. Where there can be none (elsewhere than on Linux) the lab runs without it, and
    the log says so.
    """

    def __init__(self, broker: Broker) -> None:
        self.socket_path: Path | None = None
        self._broker = broker
        self._watchdog: Watchdog | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._ports: set[str] = set()
        self._starting, self._let_go = asyncio.Lock(), 0

    @property
    def pid(self) -> int | None:
        """The watchdog's process, while there is one."""
        return None if self._watchdog is None else self._watchdog.pid

    @property
    def restarted(self) -> int:
        """How often the watchdog died and was started again."""
        return 0 if self._watchdog is None else self._watchdog.restarted

    async def start(self, instruments: Iterable[InstrumentDefinition], *, workers: bool, timeout_s: float) -> None:
        """Start the watchdog, if these instruments or their workers need one, and tell it of all ports.

        One that is there is only told.

        Raises:
            ConfigError: The path of its socket is too long.
        """
        definitions, let_go = tuple(instruments), self._let_go
        async with self._starting:  # two that are added at once need one watchdog
            if self._watchdog is None and (workers or self._plans(definitions)) and let_go == self._let_go:
                await self._begin(let_go, timeout_s)
        self.tell(definitions)

    async def _begin(self, let_go: int, timeout_s: float) -> None:
        watchdog = Watchdog(self.socket_path, on_stop_all=self._stopped_all)
        try:
            await watchdog.start(timeout_s)
        except DuodaqError as error:
            _log.error("no watchdog: crash actions are not carried out if this program dies", error=str(error))
            return
        if let_go != self._let_go:  # the lab has ended meanwhile
            await watchdog.disarm(timeout_s)
            return
        self._watchdog = watchdog
        self._unsubscribe = self._broker.subscribe_lines(watchdog.line_changed)

    def tell(self, instruments: Iterable[InstrumentDefinition]) -> None:
        """Tell it what is to be written where, whenever that has changed."""
        if self._watchdog is None:
            return
        plans = self._plans(tuple(instruments))
        for name in self._ports - plans.keys():
            self._watchdog.forget_port(name)
        for name, (crash, stops) in plans.items():
            owner = self._broker.owner(name)
            plan = plan_for(owner.definition, owner.codec, crash, stops)
            self._watchdog.watch_port(name, plan, owner.transport.descriptor)
        self._ports = set(plans)

    def worker_began(self, pid: int, pidfd: int) -> None:
        """A worker process is there: it must not outlive this one."""
        if self._watchdog is not None and pidfd >= 0:
            self._watchdog.watch_worker(pid, pidfd)

    def worker_ended(self, pid: int) -> None:
        """A worker process is gone."""
        if self._watchdog is not None:
            self._watchdog.forget_worker(pid)

    async def disarm(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Let the watchdog go, if there is one: everything has ended in order. Idempotent."""
        watchdog, self._watchdog = self._watchdog, None
        self._let_go += 1
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if watchdog is None:
            return ()
        begun_s = monotonic_s()
        ended = await watchdog.disarm(timeout_s)
        outcome = Outcome.CLEAN if ended.clean else Outcome.FORCED
        return (ComponentReport(COMPONENT, outcome, ended.why, monotonic_s() - begun_s),)

    def _stopped_all(self, report: dict[str, Any]) -> None:
        """It has done a stop-all past this program: nothing may move on."""
        self._broker.latch(str(report.get("by", "the watchdog")))
        for name in self._broker.names():
            self._broker.end_moving(name)

    def _plans(self, instruments: tuple[InstrumentDefinition, ...]) -> dict[str, tuple[list[bytes], list[bytes]]]:
        """Port → its crash actions and its stop bytes, for every port that has any."""
        plans: dict[str, tuple[list[bytes], list[bytes]]] = {}
        known = set(self._broker.names())
        for instrument in instruments:
            if instrument.port in known and (data := crash_bytes(instrument, self._broker)) is not None:
                crash = plans.setdefault(str(instrument.port), ([], []))[0]
                if data not in crash:
                    crash.append(data)
        stops, _ = stops_by_port(instruments, self._broker)
        for port, data in stops.items():
            if data:
                plans.setdefault(port, ([], []))[1].append(data)
        return plans
