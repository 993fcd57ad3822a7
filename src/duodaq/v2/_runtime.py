from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from duodaq.clock import Deadline, monotonic_s
from duodaq.dataplane import Hub
from duodaq.errors import ConfigError, DuodaqError, LifecycleError, ReplyTimeoutError
from duodaq.model import (
    ChannelInfo,
    Command,
    ComponentReport,
    Fate,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Measurement,
    Outcome,
    Parameters,
    RuntimeName,
    RuntimeStatus,
)
from duodaq.ports import PortSource
from duodaq.telemetry import get_logger
from duodaq.v2 import _command as v2
from duodaq.v2._instrument import Services
from duodaq.v2._line_watch import watch_lines
from duodaq.v2._manager import Manager, RecorderPromise
from duodaq.v2._member import Member
from duodaq.v2._publisher import Sequences
from duodaq.v2._rules import may_move
from duodaq.v2._state import OnChange
from duodaq.v2._stop import StopWriter
from duodaq.v2.families import SharedLine, shared_line

_LOG = get_logger("v2")
_UNWELL = frozenset({InstrumentState.ERROR, InstrumentState.HUNG, InstrumentState.CONNECTING})


class V2Runtime:
    """The classic runtime: unmodified blocking drivers, each in a thread of its own, behind one manager task.

    It lives on the loop on which it is started; the broker may live on another. `status`, `changes`, `instruments`,
    `channels`, `metrics`, `members` and `moves` may be asked from any thread.

    Args:
        broker: Owner of the shared ports.
        parameters: The parameter table, where watched settings go.
        hub: Where measurements go; a DataDistributor.
        recorder: What StartRecording and StopRecording drive.
        sequences: The numbers of all channels. Given to the next runtime too, they go on without a gap.
        on_change: Told every change of an instrument's state, on the runtime's loop; must be quick.
    """

    def __init__(
        self,
        broker: PortSource,
        parameters: Parameters,
        hub: Hub[Measurement],
        *,
        recorder: RecorderPromise | None = None,
        sequences: Sequences | None = None,
        on_change: OnChange | None = None,
    ) -> None:
        def line(name: str, holder: str) -> SharedLine:
            port = broker.port(name)
            return shared_line(port, port.owner.definition, broker.session(name, holder))

        self._services = Services(
            lines=line,
            hub=hub,
            parameters=parameters,
            sequences=sequences or Sequences(),
            latched=lambda: broker.latched,
            on_change=on_change or _log_change,
            changed=self._note_change,
        )
        self._ports = broker
        self._watch_no_lines: Callable[[], None] = lambda: None
        self._stops = StopWriter(broker)
        self._recorder = recorder
        self._definitions: dict[str, InstrumentDefinition] = {}
        self._manager: Manager | None = None
        self._status = RuntimeStatus.STOPPED
        self._changes = 0
        self._reports: tuple[ComponentReport, ...] = ()
        self._stopping: asyncio.Task[tuple[ComponentReport, ...]] | None = None

    @property
    def name(self) -> RuntimeName:
        """Always "v2"."""
        return "v2"

    @property
    def status(self) -> RuntimeStatus:
        """Degraded while an instrument is in Error, Hung, or not yet connected."""
        if self._status is not RuntimeStatus.RUNNING:
            return self._status
        unwell = any(status.state in _UNWELL for status in self.instruments())
        return RuntimeStatus.DEGRADED if unwell else RuntimeStatus.RUNNING

    @property
    def changes(self) -> int:
        """Rises with each change of the status, an instrument or a channel."""
        return self._changes

    async def start(self, timeout_s: float) -> None:
        """Start the manager task and every instrument that starts by itself, all at once.

        An instrument that is not ready in time, or fails, degrades the runtime and is tried again by itself.

        Raises:
            LifecycleError: It runs already.
            ConfigError: A driver's class cannot be loaded. Everything has been stopped again.
            DuodaqError: An instrument that is required failed. Everything has been stopped again.
        """
        if self._manager is not None:
            raise LifecycleError("V2 is running already")
        limit = Deadline(timeout_s)
        self._manager = manager = Manager(self._services, self._stops, self._recorder)
        self._enter(RuntimeStatus.STARTING)
        manager.start()
        self._watch_no_lines = watch_lines(self._ports, manager.line_lost)
        for definition in self._definitions.values():
            await manager.submit(v2.AddInstrument(definition))
        failures = await self._spawn_all(manager, limit.left_s)
        for name, error in failures.items():
            _LOG.error("instrument did not start", instrument=name, error=str(error))
        fatal = next((error for name, error in failures.items() if self._is_fatal(name, error)), None)
        if fatal is not None:
            await self.stop(max(limit.left_s, 1.0))
            self._enter(RuntimeStatus.FAILED)
            raise fatal
        self._enter(RuntimeStatus.RUNNING)

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Stop everything within `timeout_s`, with any number of hung drivers; how each instrument ended.

        Idempotent: a later call gets the same reports.

        Cancellation: whatever is still in hand is cut off at once; nobody is left to be told how it ended.
        """
        if self._manager is None:
            return self._reports
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(self._manager, timeout_s), name="v2.stop")
        stopping = self._stopping
        try:
            return await asyncio.shield(stopping)
        except asyncio.CancelledError:
            stopping.cancel()
            raise

    async def submit(self, command: v2.V2Command) -> Any:
        """Carry out one command of V2's manager: its result when it is done, or its typed error."""
        if self._manager is None:
            raise LifecycleError("V2 is not running", command=type(command).__name__)
        return await self._manager.submit(command)

    async def add(self, definition: InstrumentDefinition, *, keep: bool = False) -> None:
        """Make an instrument known, and start it if the runtime is running and it starts by itself.

        Raises:
            LifecycleError: The id is taken.
            DuodaqError: It did not start. It has been forgotten again; with `keep`, it is there, and is tried again.
        """
        if definition.id in self._definitions:
            raise LifecycleError("V2 has an instrument of that id already", instrument=definition.id)
        if self._manager is not None:
            await self._manager.submit(v2.AddInstrument(definition))
            if definition.autostart:
                try:
                    await self._manager.submit(v2.SpawnInstrument(definition.id))
                except BaseException as error:
                    if keep and isinstance(error, DuodaqError):
                        self._definitions[definition.id] = definition
                        self._note_change()
                    else:
                        await self._manager.submit(v2.RemoveInstrument(definition.id))
                    raise
        self._definitions[definition.id] = definition
        self._note_change()

    async def remove(self, instrument: str) -> ComponentReport:
        """Stop an instrument and forget it. The numbers of its channels go on if it comes back."""
        report = ComponentReport(f"v2.{instrument}", Outcome.CLEAN)
        if self._manager is not None:
            report = await self._manager.submit(v2.RemoveInstrument(instrument))
        elif instrument not in self._definitions:
            raise LifecycleError(f"V2 has no instrument {instrument!r}", instrument=instrument)
        self._definitions.pop(instrument, None)
        self._note_change()
        return report

    async def restart(self, instrument: str) -> None:
        """Close and start one instrument again; the others notice nothing."""
        await self.submit(v2.RestartInstrument(instrument))

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command: its result when it is done.

        Args:
            instrument: Its id.
            command: What to do.
            deadline_s: From now, waiting in queues included; None means the method's own, or the instrument's.

        Raises:
            ReplyTimeoutError: The deadline passed; its fate says whether the driver had begun.
            StoppedError: A stop, or the end of the instrument, came first.
            LifecycleError: The instrument is not connected, or hung. Nothing was begun.
            UnsafeStateError: A stop is latched and the command may move or emit. Nothing was sent.
            DuodaqError: What the driver raised, typed, with the original as its cause.
        """
        return await self.submit(v2.SendInstrumentCommand(instrument, command, deadline_s))

    def moves(self, instrument: str, command: Command) -> bool:
        """Whether this command may move or emit; of an unknown instrument the cautious answer."""
        definition = self._definitions.get(instrument)
        return True if definition is None else may_move(definition, command)

    def end_moving(self, reason: str) -> int:
        """End every moving or emitting command that waits, as not done; the number ended."""
        return 0 if self._manager is None else self._manager.end_moving(reason)

    def flush(self) -> None:
        """Nothing waits here: what a driver returned was published before its command ended."""

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        """The status of every instrument."""
        if self._manager is None:
            return tuple(
                InstrumentStatus(d.id, "v2", InstrumentState.DISCONNECTED, port=d.port)
                for d in tuple(self._definitions.values())
            )
        return tuple(instrument.status for instrument in self._manager.instruments.values())

    def channels(self) -> tuple[ChannelInfo, ...]:
        """Every channel that can be subscribed to."""
        if self._manager is None:
            return ()
        return tuple(channel for i in self._manager.instruments.values() for channel in i.channels())

    def members(self, instrument: str) -> tuple[Member, ...]:
        """What of an instrument's driver can be read, set and called; empty until it was first connected."""
        found = None if self._manager is None else self._manager.instruments.get(instrument)
        return () if found is None else found.members

    def metrics(self) -> dict[str, Any]:
        """Figures of the manager, every instrument and every subscriber, as plain values."""
        return {} if self._manager is None else self._manager.metrics()

    def _is_fatal(self, instrument: str, error: DuodaqError) -> bool:
        """Whether the whole start fails: it cannot do without it, or its stanza names no class that can be loaded."""
        no_class = isinstance(error, ConfigError) and error.key == f"instruments.{instrument}.driver"
        return no_class or self._definitions[instrument].required

    async def _spawn_all(self, manager: Manager, timeout_s: float) -> dict[str, DuodaqError]:
        wanted = {
            name: asyncio.ensure_future(manager.submit(v2.SpawnInstrument(name)))
            for name, definition in self._definitions.items()
            if definition.autostart
        }
        for task in wanted.values():
            task.add_done_callback(_look_at)  # a start that is cancelled asks none of them any more
        if wanted:
            await asyncio.wait(wanted.values(), timeout=timeout_s)
        failures: dict[str, DuodaqError] = {}
        for name, task in wanted.items():
            if not task.done():
                task.cancel()
                why = f"not connected within {timeout_s:.3g} s"
                failures[name] = ReplyTimeoutError(why, fate=Fate.UNKNOWN, instrument=name)
            elif isinstance(error := task.exception(), DuodaqError):
                failures[name] = error
            elif error is not None:
                raise error
        return failures

    async def _stop(self, manager: Manager, timeout_s: float) -> tuple[ComponentReport, ...]:
        begun_s, before = monotonic_s(), self._status
        self._watch_no_lines()
        try:
            reports: tuple[ComponentReport, ...] = await manager.submit(v2.Shutdown(timeout_s))
        finally:
            await manager.aclose()
        worst = max((report.outcome for report in reports), key=list(Outcome).index, default=Outcome.CLEAN)
        why = ", ".join(r.component for r in reports if r.outcome is not Outcome.CLEAN)
        self._reports = (*reports, ComponentReport("v2", worst, why, monotonic_s() - begun_s))
        self._manager, self._stopping = None, None
        self._enter(RuntimeStatus.FAILED if before is RuntimeStatus.FAILED else RuntimeStatus.STOPPED)
        return self._reports

    def _enter(self, status: RuntimeStatus) -> None:
        self._status = status
        self._note_change()

    def _note_change(self) -> None:
        self._changes += 1


def _look_at(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _log_change(status: InstrumentStatus) -> None:
    _LOG.info("instrument state", instrument=status.id, state=str(status.state), message=status.message)
