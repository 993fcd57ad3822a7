from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from duodaq.clock import Deadline, monotonic_s
from duodaq.dual._health import WorkerStatus
from duodaq.dual._placement import Group, groups_of, place
from duodaq.errors import ConfigError, DuodaqError, LifecycleError
from duodaq.model import (
    ChannelInfo,
    Command,
    ComponentReport,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Outcome,
    Recover,
    RuntimeDefinition,
    RuntimeName,
    RuntimeStatus,
)
from duodaq.telemetry import SPANS, get_logger
from duodaq.v2 import StopInstrument, V2Command
from duodaq.workers import Host, as_kept

_WORST_FIRST = (RuntimeStatus.FAILED, RuntimeStatus.STARTING, RuntimeStatus.DEGRADED)
LEAVE_S = 5.0
_log = get_logger("duodaq.dual")
_UNWELL = frozenset({InstrumentState.ERROR, InstrumentState.HUNG})
STOP_SHARE = 0.9
"""What the workers get of the time for a stop: the rest is for naming those that did not keep to it."""
END_S = 0.03
"""How long a worker that did not keep to it, but still listens, gets to end its loop."""


class Side:
    """One runtime of the two, as the manager sees it: all its workers, and which instrument lives in which."""

    def __init__(
        self,
        definition: RuntimeDefinition,
        make_host: Callable[[Group], Host],
        introduced: Callable[[InstrumentDefinition], InstrumentDefinition],
    ) -> None:
        self.name: RuntimeName = definition.name
        self.definition = definition
        self._make_host = make_host
        self._introduced = introduced
        self._instruments: dict[str, InstrumentDefinition] = {}
        self._hosted: dict[Group, Host] = {}
        self._homes: dict[str, Host] = {}
        self._failed = ""

    def register(self, instrument: InstrumentDefinition) -> None:
        """Note an instrument for the next start.

        Raises:
            ConfigError: The id is taken.
        """
        if instrument.id in self._instruments:
            raise ConfigError(f"instrument {instrument.id!r} is registered already", key=f"instruments.{instrument.id}")
        self._instruments[instrument.id] = instrument

    @property
    def definitions(self) -> tuple[InstrumentDefinition, ...]:
        """Every instrument registered here."""
        return tuple(self._instruments.values())

    def __contains__(self, instrument: str) -> bool:
        return instrument in self._instruments

    def __getitem__(self, instrument: str) -> InstrumentDefinition:
        return self._instruments[instrument]

    @property
    def running(self) -> bool:
        """Whether it was started and not yet stopped."""
        return bool(self._hosted)

    @property
    def status(self) -> RuntimeStatus:
        """The worst of its workers' statuses; degraded too when an instrument is unwell."""
        if self._failed:
            return RuntimeStatus.FAILED
        if not self._hosted:
            return RuntimeStatus.STOPPED
        seen = {hosted.status for hosted in self._hosted.values()}
        if seen == {RuntimeStatus.STOPPED}:
            return RuntimeStatus.STARTING
        if RuntimeStatus.FAILED in seen and len(self._hosted) > 1:
            return RuntimeStatus.DEGRADED
        for status in _WORST_FIRST:
            if status in seen:
                return status
        unwell = any(s.state in _UNWELL for s in self.instruments())
        return RuntimeStatus.DEGRADED if unwell else RuntimeStatus.RUNNING

    async def start(self, timeout_s: float) -> None:
        """Start every worker and instrument of this side; on failure stop what had started, and raise the cause."""
        if self.running:
            raise LifecycleError(f"runtime {self.name} is running already")
        self._failed = ""
        for group in groups_of(self._instruments.values(), self.definition):
            self._hosted[group] = self._make_host(group)
        self._homes = {i.id: self._hosted[place(i, self.definition)] for i in self._instruments.values()}
        for instrument in self._instruments.values():
            await self._homes[instrument.id].add(self._introduced(instrument))
        results = await asyncio.gather(*(h.start(timeout_s) for h in self._hosted.values()), return_exceptions=True)
        failures = [r for r in results if isinstance(r, BaseException)]
        if failures:
            self._failed = str(failures[0])
            await self.stop(timeout_s)
            raise failures[0]

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Stop every worker of this side at once, within `timeout_s`; hard, if one does not keep to it.

        Cancellation: the same at once; the reports are returned all the same, for somebody must learn who is left.
        """
        hosted, self._hosted, self._homes = self._hosted, {}, {}
        if not hosted:
            return ()
        begun_s = monotonic_s()
        tasks = {asyncio.ensure_future(h.stop(timeout_s * STOP_SHARE)): (g, h) for g, h in hosted.items()}
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(tasks, timeout=timeout_s * (1 + STOP_SHARE) / 2)
        reports: list[ComponentReport] = []
        left = [asyncio.ensure_future(host.worker.end(END_S)) for task, (_, host) in tasks.items() if not task.done()]
        for task, (group, host) in tasks.items():
            reports.extend(self._collect(task, group, host, monotonic_s() - begun_s))
        late = [*left, *(task for task in tasks if not task.done())]
        if late:
            await asyncio.wait(late, timeout=END_S)
        return merged(reports)

    async def add(self, instrument: InstrumentDefinition, *, keep: bool = False) -> None:
        """Register an instrument and, if this side runs, start it in its worker.

        One that does not start is not there afterwards; with `keep` it is, as after the start of the side.
        """
        self.register(instrument)
        if not self.running:
            return
        group = place(instrument, self.definition)
        try:
            first = group not in self._hosted
            if first:
                self._hosted[group] = self._make_host(group)
            host = self._homes[instrument.id] = self._hosted[group]
            if first:
                await host.start(10.0)
            await host.add(self._introduced(instrument), **as_kept(keep))
            if self._hosted.get(group) is not host:
                raise LifecycleError(f"{self.name} was stopped while it was being added", instrument=instrument.id)
        except BaseException as error:
            if not (keep and isinstance(error, DuodaqError)):
                self._instruments.pop(instrument.id, None)
                self._homes.pop(instrument.id, None)
                await self._leave(group)
            raise

    async def remove(self, instrument: str) -> ComponentReport:
        """Stop an instrument and forget it."""
        hosted = self._of(instrument) if self.running and not self._is_parked(instrument) else None
        report = (
            await hosted.remove(instrument) if hosted else ComponentReport(f"{self.name}.{instrument}", Outcome.CLEAN)
        )
        definition = self._instruments.pop(instrument, None)  # two may remove it at once
        self._homes.pop(instrument, None)
        if definition is not None:
            await self._leave(place(definition, self.definition))
        return report

    async def take_down(self, instrument: str, limit_s: float) -> ComponentReport:
        """End an instrument within `limit_s`; it stays registered, without a place. What did not end is reported."""
        host = self._homes.pop(instrument, None)
        component, begun_s = f"{self.name}.{instrument}", monotonic_s()
        if host is None:
            return ComponentReport(component, Outcome.CLEAN)
        try:
            if host.worker.kind == "process" and host.worker.pid is None:
                return ComponentReport(component, Outcome.FORCED, "its process had died")
            async with asyncio.timeout(limit_s):
                if self.name == "v2":
                    ended = await host.submit(StopInstrument(instrument, limit_s * 0.8), limit_s)
                    await host.remove(instrument)
                    return ended
                return await host.remove(instrument)
        except (DuodaqError, TimeoutError) as error:
            why = str(error) or f"it did not end within {limit_s:g} s"
            return ComponentReport(component, Outcome.FORCED, why, monotonic_s() - begun_s)
        finally:
            host.forget(instrument)

    async def awake(self, instrument: InstrumentDefinition, limit_s: float) -> None:
        """Wait until the worker in which `instrument` lives, or is to live, is there; have it made if there is none.

        Raises:
            DuodaqError: It has failed, or is not there after `limit_s`; `leave` ends what is left of it.
        """
        if not self.running:
            return
        deadline, group = Deadline(limit_s), place(instrument, self.definition)
        host = self._hosted.get(group)
        if first := host is None:
            host = self._hosted[group] = self._make_host(group)
        host.expect(instrument)
        if first:
            await host.start(limit_s)
        await host.awake(deadline.left_s)

    async def leave(self, instrument: InstrumentDefinition) -> None:
        """End the worker in which `instrument` was to live, if nobody lives in it."""
        await self._leave(place(instrument, self.definition))

    def has_home(self, instrument: str) -> bool:
        """Whether an instrument has a place at one of the workers."""
        return instrument in self._homes

    def park(self, instrument: InstrumentDefinition) -> None:
        """Register an instrument that is not to run."""
        self._instruments[instrument.id] = instrument

    def forget(self, instrument: str) -> None:
        """Take it from the register."""
        self._instruments.pop(instrument, None)
        self._homes.pop(instrument, None)

    async def _leave(self, group: Group) -> None:
        """End a worker in which nobody lives any more; not the runtime's own."""
        if group in groups_of(self._instruments.values(), self.definition):
            return
        host = self._hosted.pop(group, None)
        if host is not None:
            for report in await host.stop(LEAVE_S):
                if report.outcome is not Outcome.CLEAN:
                    _log.warning("a worker that is not needed any more", component=report.component, why=report.why)

    async def restart(self, instrument: str) -> None:
        """Close and start one instrument again."""
        if not self._is_parked(instrument):
            await self._of(instrument).restart(instrument)
            return
        definition = self._instruments.pop(instrument)
        try:
            await self.add(definition, keep=True)
        except BaseException:
            self._instruments.setdefault(instrument, definition)
            home = self._homes.get(instrument)
            if home is not None and instrument not in {status.id for status in home.instruments()}:
                del self._homes[instrument]  # nobody keeps it there: it is parked as before
            raise

    def _is_parked(self, instrument: str) -> bool:
        """Whether it is registered while this side runs, and has no place."""
        return self.running and instrument in self._instruments and instrument not in self._homes

    async def command(self, instrument: str, command: Command, deadline_s: float | None) -> Any:
        """Hand a command to the instrument's worker; see Runtime.command. One that is parked recovers by starting."""
        if isinstance(command, Recover) and self._is_parked(instrument):
            return await self.restart(instrument)
        host = self._of(instrument)
        if (taker := SPANS.taker) is None:
            return await host.command(instrument, command, deadline_s)
        facts = {"instrument": instrument, "runtime": self.name, "worker": host.worker.name}
        with taker.span("runtime", facts):
            return await host.command(instrument, command, deadline_s)

    async def submit(self, command: V2Command, timeout_s: float) -> Any:
        """Carry out a command of V2's own: at the worker of the instrument that it names, or at the first one."""
        if not self._hosted:
            raise LifecycleError(f"runtime {self.name} is not running", command=type(command).__name__)
        named: str | None = getattr(command, "id", None)
        host = next(iter(self._hosted.values())) if named is None else self._of(named)
        return await host.submit(command, timeout_s)

    def moves(self, instrument: str, command: Command) -> bool:
        """See Runtime.moves."""
        return self._of(instrument).moves(instrument, command)

    async def end_moving(self, reason: str) -> int:
        """End every waiting command that moves or emits; the number ended."""
        return sum(await asyncio.gather(*(h.end_moving(reason) for h in self._hosted.values())))

    async def flush(self, timeout_s: float) -> bool:
        """Have all that was measured until now published; whether every worker said so in time."""
        return all(await asyncio.gather(*(host.flush(timeout_s) for host in self._hosted.values())))

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        """The status of every instrument of this side."""
        if self._hosted:
            own, homes = self._instruments, self._homes
            told = tuple(
                s
                for h in self._hosted.values()
                for s in h.instruments()
                if s.id in own and homes.get(s.id, h) is h  # a worker may still name one that has left it
            )
            if len(told) >= len(own):
                return told
            parked = self._instruments.keys() - {s.id for s in told}
            return (*told, *(self._not_started(d, place(d, self.definition)) for d in map(self.__getitem__, parked)))
        return tuple(self._not_started(d, place(d, self.definition)) for d in self._instruments.values())

    def workers(self) -> tuple[WorkerStatus, ...]:
        """Every worker of this side that runs, or shall."""
        return tuple(
            WorkerStatus(
                host.worker.name,
                self.name,
                host.worker.kind,
                host.worker.pid,
                host.status,
                tuple(status.id for status in host.instruments()),
            )
            for host in self._hosted.values()
        )

    def channels(self) -> tuple[ChannelInfo, ...]:
        """Every channel that can be subscribed to."""
        return tuple(c for h in self._hosted.values() for c in h.channels())

    def metrics(self) -> dict[str, Any]:
        """Figures of every worker, by its name."""
        hosts = tuple(self._hosted.values())
        return {h.worker.name: {**h.metrics(), "blocked_s": h.worker.blocked_s} for h in hosts}

    def probe(self) -> None:
        """Ask every worker for a sign of progress."""
        for hosted in self._hosted.values():
            hosted.worker.probe()

    def is_starting(self, instrument: str) -> bool:
        """Whether an instrument is about to be there; no, if nobody starts this side yet."""
        states = (s.state for s in self.instruments() if s.id == instrument)
        return self.running and next(states, None) in (InstrumentState.DISCONNECTED, InstrumentState.CONNECTING)

    def needs_processes(self) -> bool:
        """Whether any instrument of this side, or its runtime, lives in a process."""
        return any(group.kind == "process" for group in groups_of(self._instruments.values(), self.definition))

    def in_process(self, instrument: InstrumentDefinition) -> bool:
        """Whether `instrument` lives, or would live, in a worker process."""
        return place(instrument, self.definition).kind == "process"

    def mends_itself(self, instrument: str) -> bool:
        """Whether the worker of `instrument` is ended and replaced as a whole when the instrument hangs."""
        host = self._hosted.get(place(self._instruments[instrument], self.definition))
        return host is not None and host.worker.kind == "process"

    def _not_started(self, one: InstrumentDefinition, group: Group) -> InstrumentStatus:
        gone = InstrumentState.DISCONNECTED
        return InstrumentStatus(one.id, self.name, gone, group.name, port=one.port, mode=group.kind)

    def _of(self, instrument: str) -> Host:
        home = self._homes.get(instrument)
        if home is not None:
            return home
        if instrument not in self._instruments:
            raise LifecycleError(f"no instrument {instrument!r} in {self.name}", instrument=instrument)
        if self._hosted:
            raise LifecycleError(
                f"it is not running in {self.name}; recover() or restart() starts it", instrument=instrument
            )
        raise LifecycleError(f"runtime {self.name} is not running", instrument=instrument)

    def _collect(
        self, task: asyncio.Future[tuple[ComponentReport, ...]], group: Group, host: Host, took_s: float
    ) -> tuple[ComponentReport, ...]:
        if not task.done():
            ended = {s.id for s in host.instruments() if s.state is InstrumentState.DISCONNECTED}
            task.cancel()
            why = f"did not stop within {took_s:.3g} s"
            members = [i for i, d in self._instruments.items() if place(d, self.definition) == group]
            return tuple(
                ComponentReport(f"{self.name}.{i}", Outcome.CLEAN)
                if i in ended
                else ComponentReport(f"{self.name}.{i}", Outcome.LEAKED, why, took_s)
                for i in members
            )
        error = task.exception()
        if error is not None:
            return (ComponentReport(f"{self.name}", Outcome.FORCED, f"{type(error).__name__}: {error}"),)
        return task.result()


def merged(reports: Iterable[ComponentReport]) -> tuple[ComponentReport, ...]:
    """One row for each component: the worst outcome, every reason, the longest time.

    Each worker of a side reports how its runtime ended, and they all call it by the runtime's name.
    """
    rows: dict[str, list[ComponentReport]] = {}
    for report in reports:
        rows.setdefault(report.component, []).append(report)
    return tuple(rows_of[0] if len(rows_of) == 1 else _one_of(rows_of) for rows_of in rows.values())


def _one_of(rows: list[ComponentReport]) -> ComponentReport:
    worst = max((row.outcome for row in rows), key=list(Outcome).index)
    why = "; ".join(dict.fromkeys(row.why for row in rows if row.why))
    return ComponentReport(rows[0].component, worst, why, max(row.took_s for row in rows))
