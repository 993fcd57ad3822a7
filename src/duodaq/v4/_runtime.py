"""The actor runtime as its manager sees it: instruments by id, commands in, results or typed errors out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.errors import ConfigError, DuodaqError, LifecycleError
from duodaq.model import (
    ChannelInfo,
    Command,
    ComponentReport,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Outcome,
    Parameters,
    Recover,
    RuntimeName,
    RuntimeStatus,
    Shutdown,
)
from duodaq.ports import PortSource
from duodaq.telemetry import get_logger
from duodaq.v4._drivers import BUILT_IN, ActorKind, actor_kind
from duodaq.v4._policy import GiveUp, Restart
from duodaq.v4._publisher import DataPublisher
from duodaq.v4._resident import Resident, restart_policy
from duodaq.v4._system import ActorSystem
from duodaq.v4.instruments import Keep

_log = get_logger("v4.runtime")
_UNWELL = frozenset({InstrumentState.ERROR, InstrumentState.HUNG})
_START_S = 10.0
_LATCHED_S = 0.05
"""How soon it is tried again, and how often it is looked whether a stop is still latched."""


class V4Runtime:
    """Instruments as supervised actors. Keeps the promise of `model.Runtime`, on whatever loop `start` is awaited on.

    Args:
        broker: Owner of the ports; may live on another loop.
        parameters: The parameter table.
        publisher: Where Arrow batches go.
        actors: What the driver names ``duodaq:…`` mean, if not the built-in actors.
        numbers: The next sequence number of each channel, by instrument. Given to the next runtime too, they go on.
        keep: Told of each setting that has been accepted and neither moves nor emits: instrument, name and value.
    """

    def __init__(
        self,
        broker: PortSource,
        parameters: Parameters,
        publisher: DataPublisher,
        *,
        actors: Mapping[str, ActorKind] = BUILT_IN,
        numbers: dict[str, dict[str, int]] | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._broker = broker
        self._parameters = parameters
        self._publisher = publisher
        self._actors = actors
        self._keep = keep
        self._numbers: dict[str, dict[str, int]] = {} if numbers is None else numbers
        self._residents: dict[str, Resident] = {}
        self._system: ActorSystem | None = None
        self._comebacks: dict[str, asyncio.Task[None]] = {}
        self._status = RuntimeStatus.STOPPED
        self._changes = 0

    @property
    def name(self) -> RuntimeName:
        return "v4"

    @property
    def status(self) -> RuntimeStatus:
        """Degraded while an instrument is in Error or Hung."""
        if self._status is RuntimeStatus.RUNNING and any(s.state in _UNWELL for s in self.instruments()):
            return RuntimeStatus.DEGRADED
        return self._status

    @property
    def changes(self) -> int:
        """Rises with each change of the status, an instrument or a channel; with a restart when its actor is made."""
        return self._changes

    async def start(self, timeout_s: float) -> None:
        """Start every instrument that was added, all at once.

        Raises:
            LifecycleError: It runs already.
            DuodaqError: An instrument that is `required` did not start. Everything has been stopped again.
        """
        if self._system is not None:
            raise LifecycleError("the runtime is running already", left="it goes on")
        self._system = ActorSystem("v4")
        self._enter(RuntimeStatus.STARTING)
        try:
            failures = await self._start_all(Deadline(timeout_s))
        except BaseException:
            await self.stop(min(timeout_s, 5.0))
            raise
        fatal = [error for resident, error in failures if resident.definition.required]
        if fatal:
            await self.stop(min(timeout_s, 5.0))
            self._enter(RuntimeStatus.FAILED)
            raise fatal[0]
        self._enter(RuntimeStatus.RUNNING)

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Stop everything within `timeout_s`; a report for each instrument. Idempotent."""
        system, self._system = self._system, None
        if system is None:
            return ()
        await self._end_comebacks()
        for resident in self._residents.values():
            if resident.running:
                resident.report(InstrumentState.SHUTTING_DOWN, "")
        reports = await system.stop(timeout_s)
        seen = {report.component for report in reports}
        idle = [r for r in self._residents if f"v4.{r}" not in seen]
        self._settle(reports)
        self._enter(RuntimeStatus.STOPPED)
        return (*reports, *(ComponentReport(f"v4.{instrument}", Outcome.CLEAN) for instrument in idle))

    async def add(self, definition: InstrumentDefinition, *, keep: bool = False) -> None:
        """Add an instrument; start it too if the runtime is running and the definition says so.

        It stays in either case; `keep` is the other runtime's.

        Raises:
            ConfigError: Its id is taken, or its driver cannot be found. Nothing was added.
            DuodaqError: It did not start. It was added, and is in Error.
        """
        if definition.id in self._residents:
            raise ConfigError(
                f"an instrument {definition.id!r} is there already",
                key=f"instruments.{definition.id}",
                remedy="Give it another id",
            )
        kind = actor_kind(definition, self._actors)
        numbers = self._numbers.setdefault(definition.id, {})
        for channel, number in definition.numbers.items():
            if numbers.get(channel, 0) < number:
                numbers[channel] = number
        resident = Resident(
            definition, kind, self._broker, self._parameters, self._publisher, numbers, self._note_change, self._keep
        )
        self._residents = {**self._residents, definition.id: resident}
        self._note_change()
        if self._system is not None and definition.autostart:
            async with resident.turn:
                await self._start(resident, self._system, _START_S)

    async def remove(self, instrument: str) -> ComponentReport:
        """Stop an instrument and forget it. The numbers of its channels go on if it comes back."""
        resident = self._resident(instrument)
        async with resident.turn:
            self._check_known(resident)
            report = await self._end(resident)
            self._residents = {key: value for key, value in self._residents.items() if key != instrument}
            self._note_change()
        return report

    async def restart(self, instrument: str) -> None:
        """Close and start one instrument again; the others notice nothing.

        Raises:
            DuodaqError: It did not start again. It is in Error.
        """
        resident = self._resident(instrument)
        async with resident.turn:
            self._check_known(resident)
            await self._end(resident)
            await self._start(resident, self._running(), _START_S)

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command and return its result, or raise its typed error.

        The limit is `deadline_s`, else the definition's own for the method or channel, else its default; motions and
        exposures without one end by their own limit. An operation whose asker is cancelled, or whose limit passed, is
        cancelled, which stops what it moved.

        Raises:
            LifecycleError: No such instrument, or it is not running. Nothing was sent.
            ReplyTimeoutError: The limit passed; its `fate` says whether anything may have been done.
            DuodaqError: What the instrument, its port or the delivery had to say.
        """
        resident = self._resident(instrument)
        system = self._running()
        if isinstance(command, Shutdown):
            await self._shut_down(resident)
            return None
        if isinstance(command, Recover) and not resident.running:
            async with resident.turn:
                self._check_known(resident)
                if not resident.running:
                    await self._end(resident)
                    await self._start(resident, system, deadline_s or _START_S)
            return None
        return await resident.deliver(command, deadline_s)

    def moves(self, instrument: str, command: Command) -> bool:
        """Whether this command may move or emit. From any thread."""
        resident = self._residents.get(instrument)
        return resident is None or resident.moves(command)

    def end_moving(self, reason: str) -> int:
        """End every moving or emitting command that waits, as not done; the number ended. From the runtime's loop."""
        for resident in self._residents.values():
            resident.note_stop()
        refs = [resident.ref for resident in self._residents.values()]
        return sum(ref.end_moving(reason) for ref in refs if ref is not None)

    def flush(self) -> None:
        """Publish the numbers that wait for others of their channel. From the runtime's loop."""
        for resident in self._residents.values():
            resident.flush()

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        """The status of every instrument. From any thread."""
        return tuple(resident.status for resident in tuple(self._residents.values()))

    def channels(self) -> tuple[ChannelInfo, ...]:
        """Every channel that can be subscribed to. From any thread."""
        return tuple(info for resident in tuple(self._residents.values()) for info in resident.channels)

    def metrics(self) -> dict[str, Any]:
        """Figures of every instrument, and how many messages nobody answered for. From any thread."""
        system = self._system
        return {
            "instruments": {key: resident.metrics() for key, resident in tuple(self._residents.items())},
            "dead_letters": 0 if system is None else system.dead_letters.total,
            "leaked": () if system is None else system.leaked,
        }

    async def _start_all(self, deadline: Deadline) -> list[tuple[Resident, Exception]]:
        system = self._running()
        chosen = [resident for resident in self._residents.values() if resident.definition.autostart]
        starting = (self._start_in_turn(resident, system, deadline) for resident in chosen)
        results = await asyncio.gather(*starting, return_exceptions=True)
        failures: list[tuple[Resident, Exception]] = []
        for resident, result in zip(chosen, results, strict=True):
            if isinstance(result, Exception):
                _log.error("instrument did not start", instrument=resident.definition.id, error=str(result))
                failures.append((resident, result))
            elif isinstance(result, BaseException):
                raise result
        return failures

    async def _start_in_turn(self, resident: Resident, system: ActorSystem, deadline: Deadline) -> None:
        async with resident.turn:  # who restarts it meanwhile waits, and finds it started
            if not resident.running:
                await self._start(resident, system, deadline.left_s)

    async def _start(self, resident: Resident, system: ActorSystem, timeout_s: float) -> None:
        """Start an instrument; one whose start a stop has cut comes up later, by itself."""
        try:
            await resident.start(system, timeout_s)
        except DuodaqError:
            instrument = resident.definition.id
            if resident.cut_by_stop and instrument not in self._comebacks and self._system is system:
                task = asyncio.create_task(self._come_back(resident, system), name=f"v4.{instrument}.comeback")
                self._comebacks[instrument] = task
                task.add_done_callback(lambda _: self._comebacks.pop(instrument, None))
            raise

    async def _come_back(self, resident: Resident, system: ActorSystem) -> None:
        """Start it again by its restart policy; what a latched stop refuses it waits for somebody's reset."""
        policy, tried_s = restart_policy(resident.definition), list[float]()
        while resident.cut_by_stop:
            decision = policy.decide(tried_s, monotonic_s())
            refused = resident.refused_by_stop or (isinstance(decision, GiveUp) and policy.kind != "never")
            while refused and self._broker.latched:
                await pause(_LATCHED_S)
                decision, tried_s = Restart(0.0), []
            if isinstance(decision, GiveUp):
                return
            await pause(max(decision.delay_s, _LATCHED_S))
            tried_s.append(monotonic_s())
            async with resident.turn:
                if resident.running or self._residents.get(resident.definition.id) is not resident:
                    return
                await self._end(resident)
                try:
                    await resident.start(system, _START_S)
                except DuodaqError as error:
                    _log.warning("not started after a stop", instrument=resident.definition.id, error=str(error))

    async def _end_comebacks(self) -> None:
        tasks = tuple(self._comebacks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, resident: Resident) -> ComponentReport:
        ref, resident.ref = resident.ref, None
        self._note_change()
        if ref is None:
            return ComponentReport(f"v4.{resident.definition.id}", Outcome.CLEAN)
        resident.report(InstrumentState.SHUTTING_DOWN, "")
        report = await ref.stop()
        self._settle((report,))
        return report

    async def _shut_down(self, resident: Resident) -> None:
        if resident.ref is None:
            raise LifecycleError("it is shut down already", instrument=resident.definition.id, command="Shutdown")
        report = await self._end(resident)
        if report.outcome is not Outcome.CLEAN:
            raise LifecycleError(f"it did not shut down cleanly: {report.why}", instrument=resident.definition.id)

    def _settle(self, reports: tuple[ComponentReport, ...]) -> None:
        for report in reports:
            resident = self._residents.get(report.component.removeprefix("v4."))
            if resident is not None:
                leaked = report.outcome is Outcome.LEAKED
                resident.report(InstrumentState.HUNG if leaked else InstrumentState.DISCONNECTED, report.why)

    def _resident(self, instrument: str) -> Resident:
        if instrument not in self._residents:
            known = ", ".join(self._residents) or "none"
            raise LifecycleError(f"no such instrument; there are: {known}", instrument=instrument)
        return self._residents[instrument]

    def _check_known(self, resident: Resident) -> None:
        if self._residents.get(resident.definition.id) is not resident:
            raise LifecycleError("it has been removed meanwhile", instrument=resident.definition.id)

    def _enter(self, status: RuntimeStatus) -> None:
        self._status = status
        self._note_change()

    def _note_change(self) -> None:
        self._changes += 1

    def _running(self) -> ActorSystem:
        if self._system is None:
            raise LifecycleError("the actor runtime is not running", left="nothing was sent")
        return self._system
