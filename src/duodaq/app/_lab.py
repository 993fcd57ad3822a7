from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import msgspec

from duodaq.alarms import Alarms
from duodaq.app._apply import Applier
from duodaq.app._chores import Chores
from duodaq.app._control import Client, ControlChange, ControlTable, acting_client
from duodaq.app._endings import Endings
from duodaq.app._file_limit import raise_file_limit
from duodaq.app._last_run import tell_of_last_run
from duodaq.app._log import Log, LogPlan
from duodaq.app._log_channels import expect_channels
from duodaq.app._metrics_server import MetricsServer
from duodaq.app._migration import Migration
from duodaq.app._observers import Observers
from duodaq.app._opening import explain
from duodaq.app._presets import Presets
from duodaq.app._reading import Reading, reading_of
from duodaq.app._recording import Recording
from duodaq.app._scans import Scans
from duodaq.app._settings_now import Names, read_settings
from duodaq.app._wire import WireRecording
from duodaq.clock import Deadline, pause
from duodaq.config import load_lab
from duodaq.dual import DualRuntimeManager, Health, StopReport
from duodaq.errors import LifecycleError, PortError, StorageError
from duodaq.link import Session
from duodaq.model import AlarmChange, Command, LabDefinition, ManagerState, ReadChannel, ShutdownReport
from duodaq.ports import Transport
from duodaq.schema import WIRE_FILE
from duodaq.storage import Recorder, RecordingSummary, WireSummary
from duodaq.storage.export import WANTED, Format
from duodaq.telemetry import get_logger

CATCH_UP_S = 0.5
REST_S = 5.0
"""How long the end of a lab waits for changes and migrations to give up; at most a quarter of its time."""
NOTICES_S = 2.0
"""How long the end of a lab waits for notices of alarms that are on their way."""
_log = get_logger("lab")
_GIVE_UP_S = 0.5
_ALONE, _WITH_RECORDING = "wire log", "wire log of the recording"


class Lab:
    """A laboratory, for asynchronous programs: two runtimes, their ports, and what is recorded of them.

    ::

        async with Lab.from_file("lab.toml") as lab:
            await lab.command("stage", Execute("move", ("x", 12.5)))

    Belongs to the event loop on which it is started.
    """

    def __init__(self, definition: LabDefinition, *, transports: Mapping[str, Transport] | None = None) -> None:
        self.definition = definition
        self.manager = DualRuntimeManager(definition, transports=transports)
        self.last_stop: tuple[StopReport, str] | None = None
        """What the last stop-all did, and for whom, if one asked for it."""
        data = (self.manager.v2_data, self.manager.v4_data)
        self.alarms = Alarms(definition.name, definition.alarms, *data, self.stop_all, definition.mail)
        self.alarms.listeners.append(self._note_alarm)
        self.observers = Observers(self.manager, definition)
        self.observers.listeners.append(partial(self.note_in_runs, "state"))
        self.migration = Migration(self)
        self._hurried = asyncio.Event()
        self._metrics: MetricsServer | None = None
        self._recording: Recording | None = None
        self._recordings = asyncio.Lock()
        self._ends_recording = False
        self._wanted: tuple[Format, ...] = ()
        self._wires: dict[str, WireRecording] = {}
        self.chores = Chores(self.runs_directory)
        self.control = ControlTable(self._note_control)
        self.presets = Presets(self)
        self.scans = Scans(self, self._serve)
        self._logs: dict[str, Log] = {}
        self._endings = Endings()
        self.manager.recorder.recorder = _V2Recorder(self)
        self.recordings: list[RecordingSummary] = []
        self.not_begun = 0
        """How many recordings and logs could not begin: a full disk, a place that is read-only."""
        self.changes = Applier(self)
        """What makes it what its lab file says now."""
        self.page: str | None = None
        """The address of its page, while one is served."""
        self.report: ShutdownReport | None = None
        """What became of it, once it has been shut down."""

    @classmethod
    def from_file(cls, path: str | Path) -> Lab:
        """A lab as its file describes it, not yet started.

        Raises:
            ConfigError: The file cannot be read, or something in it is wrong: file, line, key and remedy.
        """
        return cls(load_lab(path))

    async def __aenter__(self) -> Lab:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def start(self, timeout_s: float = 30.0) -> None:
        """Open the ports and start both runtimes; see DualRuntimeManager.start.

        Recordings in the lab's own folder that a crash left unfinished are repaired beside it: nobody waits for that.
        The program may have as many files open from now on as the system lets it: each recorded stream takes some.

        Raises:
            PortOpenError, PortBusyError: A port cannot be opened: names its line in the lab file, its device, and who
                has it. Nothing was left open.
        """
        raise_file_limit()
        try:
            await self._start_observers()
            await self.manager.start(timeout_s)
        except PortError as error:
            await self._end_observers()
            raise explain(error, self.definition, self.manager.broker.status()) from error
        except BaseException:
            await self._end_observers()
            raise
        self.observers.watch_wire()
        await self.alarms.start()
        self.manager.attach("scans", self.scans)  # first: what they still say goes into the recording
        self.manager.attach("chores", self.chores)
        self.chores.recover()

    async def shutdown(self, timeout_s: float | None = None) -> ShutdownReport:
        """Stop everything in order; see DualRuntimeManager.shutdown. A recording under way is finished.

        Whatever becomes of changes, alarms and migrations under way, the manager is shut down, with its safe states.
        """
        limit = Deadline(self.manager.lab.shutdown_s if timeout_s is None else timeout_s)
        in_time = False
        self.scans.rest()
        try:
            in_time = await self._rest(min(REST_S, limit.left_s / 4))
        finally:
            try:
                report = await self.manager.shutdown(None if in_time and timeout_s is None else limit.left_s)
                self.report = report
            finally:
                await self._endings.rest(_GIVE_UP_S)  # those that were begun meanwhile: what they end is ended
                await self._end_observers()
        self._note_recording()
        return report

    def hurry(self) -> None:
        """Make a shutdown that is under way, or about to begin, quicker; see DualRuntimeManager.hurry."""
        self._hurried.set()
        self.manager.hurry()

    async def _rest(self, limit_s: float) -> bool:
        """Nothing further is begun, by anybody, and nobody is waited for longer; whether all ended in time."""
        ends = {"changes": self.changes.aclose(), "alarms": self.alarms.rest(), "migrations": self.migration.aclose()}
        ends["ends of recordings"] = self._endings.rest()
        resting = {what: asyncio.ensure_future(end) for what, end in ends.items()}
        rested, hurried = (asyncio.ensure_future(one) for one in (asyncio.wait(resting.values()), self._hurried.wait()))
        try:
            await asyncio.wait((rested, hurried), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            rested.cancel()
            hurried.cancel()
            late = [what for what, task in resting.items() if task.cancel()]
        if late:
            await asyncio.wait(resting.values(), timeout=_GIVE_UP_S)
        ended = {what: task for what, task in resting.items() if task.done() and not task.cancelled()}
        failed = {what: str(error) for what, task in ended.items() if (error := task.exception()) is not None}
        if late or failed:
            _log.error("not all came to rest before the end of the lab", late=late, failed=failed)
        return not late

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command; see DualRuntimeManager.command.

        Raises:
            NotInControlError: It may move, emit or set something, and somebody else holds control. Nothing was sent.
        """
        if self.control.holders():
            called = self.manager.translated(instrument, command)
            self.control.check_command(self.manager.definition(instrument), called)
        return await self.manager.command(instrument, command, deadline_s)

    async def read(self, instrument: str, channel: str, deadline_s: float | None = None) -> Reading:
        """Take one measurement of a channel now; it is published and recorded like any other."""
        return reading_of(await self.manager.command(instrument, ReadChannel(channel), deadline_s))

    async def stop(self, instrument: str, axis: str | None = None) -> int | None:
        """Stop one instrument at once, and end the scan that moves it; see DualRuntimeManager.stop."""
        self.scans.stopped_by_hand(instrument, axis)
        return await self.manager.stop(instrument, axis)

    async def stop_all(self, who: str | None = None) -> StopReport:
        """Stop everything that moves or emits, and latch, for `who`; see DualRuntimeManager.stop_all."""
        report, client = await self.manager.stop_all(), acting_client()
        self.last_stop = (report, who or (client.called() if client is not None else ""))
        return report

    @property
    def stopped_by(self) -> str | None:
        """For whom the stop-all was that is in force, as soon as that is known; None if none is."""
        done = self.last_stop if self.manager.broker.latched else None
        return None if done is None else done[1] or None

    def reset_stop(self, who: str) -> None:
        """Lift the latch of a stop-all."""
        self.manager.reset_stop(who)
        self.last_stop = None

    def health(self) -> Health:
        """The whole lab at this moment."""
        return self.manager.health()

    async def start_recording(
        self,
        directory: str | Path | None = None,
        *,
        wire: bool | None = None,
        finalise: Sequence[Format] | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> Path:
        """Record every channel of both runtimes from now on, into a new directory.

        Args:
            directory: Where to; a new one in the lab's own folder for recordings by default.
            wire: Whether the wire log goes with it, as `wire.arrows`; by default what the lab file says.
            finalise: What it is turned into at its end, beside the lab: ``parquet``, ``hdf5`` or both; by default what
                the lab file says. `finalised.json` in its directory says what came of that.
            labels: What is said of it: sample, operator, note, tags; see `duodaq.storage.edit_labels`.

        Raises:
            LifecycleError: A recording is under way, or the lab ends.
            StorageError: The directory cannot be made.
        """
        async with self._recordings:  # of several that begin one at once one does
            if self._recording is not None:
                raise LifecycleError(f"a recording is under way, in {self._recording.recorder.directory}")
            target = Path(directory) if directory is not None else self._new_directory()
            forms = self.definition.finalise if finalise is None else tuple(finalise)
            wanted = {WANTED: {"to": forms, "keep_journal": self.definition.keep_journal}} if forms else {}
            unread = await self._settings_read()
            recording = Recording(
                self.manager,
                self.definition,
                target,
                labels=labels,
                more=wanted,
                unread=unread,
                alarms=self.alarms,
            )
            with self._beginning("recording", target):
                await recording.start()
            self._recording = recording
            self._wanted = cast("tuple[Format, ...]", forms)
            self.observers.facts["run"] = None if recording.recorder.page is None else str(recording.recorder.page.uid)
            self.manager.attach("recording", recording)
            if self.definition.record_wire if wire is None else wire:
                await self._start_wire(_WITH_RECORDING, target / WIRE_FILE)
            return target

    async def _settings_read(self) -> Names:
        """Have the parameter table say what is so, for a recording that begins; what was not read.

        Raises:
            LifecycleError: Meanwhile the lab has begun to end, and would not end the recording. Nothing was begun.
        """
        before = self.manager.state
        unread = await read_settings(self.manager)
        if before is ManagerState.RUNNING and self.manager.state is not before:
            raise LifecycleError("the lab ends", left="nothing is recorded")
        return unread

    def adopt(self, definition: LabDefinition) -> None:
        """From now on this is what the lab is described by: it has become that."""
        self.definition = definition
        self.manager.adopt(definition)

    def note_in_recording(self, name: str, doc: Mapping[str, Any]) -> None:
        """Put something that happens into the event log of the recording under way; nothing happens without one."""
        if self._recording is not None:
            self._recording.recorder.note(name, dict(doc))

    def note_in_runs(self, name: str, doc: Mapping[str, Any]) -> None:
        """The same for the recording and all logs under way."""
        self.note_in_recording(name, doc)
        for log in self._logs.values():
            log.note(name, doc)

    async def stop_recording(self) -> RecordingSummary:
        """Write what is still under way, close every file and say what was recorded.

        It goes on to its end when nobody waits for it any more; until then the recording is under way, and whoever asks
        for its end waits for the same one.

        Raises:
            LifecycleError: No recording is under way.
        """
        return await self._endings.carry_out("the recording", self._end_recording)

    async def _end_recording(self) -> RecordingSummary:
        async with self._recordings:
            recording = self._recording
            if recording is None:
                raise LifecycleError("no recording is under way")
            self._ends_recording = True
            try:
                if _WITH_RECORDING in self._wires:
                    await self._stop_wire(_WITH_RECORDING)
                await self._let_measurements_arrive()
                await recording.close(30.0)
                self.manager.detach("recording")
                self._note_recording()
            finally:
                self._ends_recording = False
            return self.recordings[-1]

    async def log(
        self,
        name: str = "log",
        channels: Sequence[str] = (),
        *,
        directory: str | Path | None = None,
        rotate: str | None = "daily",
        keep: str | None = None,
        budget: str | int | None = None,
        finalise: Sequence[Format] = ("parquet",),
        keep_journal: bool = False,
    ) -> Path:
        """Record for weeks, beside any other recording: a series of runs, the oldest of which are removed in time.

        Args:
            name: Of the series; its runs are called after it, and ``duodaq.runs(log=name)`` finds them. One that has
                been there before goes on.
            channels: Which streams, with ``*`` and ``?`` as in file names; all if none is given.
            directory: Where its runs lie; the lab's own folder for recordings by default.
            rotate: When a run ends and the next begins: ``hourly``, ``daily``, ``weekly`` (whole ones of UTC), a
                duration (``6h``), or None.
            keep: For how long an ended run is kept: ``90d``. None: for ever.
            budget: What the series may take on the disk: ``50GB``. None: all there is.
            finalise: What each run is turned into at its end, beside the lab; with none, it is read and checked.
            keep_journal: Whether the journal's rows stay once Parquet holds them, read back and found equal.

        Returns:
            The directory of the first run.

        Raises:
            LifecycleError: A log of this name is under way.
            ConfigError: A word means nothing, or no channel fits. Nothing is recorded.
            StorageError: The directory cannot be made. Nothing is recorded.
        """
        if name in self._logs:
            raise LifecycleError(f"a log called {name} is under way, in {self._logs[name].directory}")
        root = self.runs_directory if directory is None else Path(directory)
        if isinstance(channels, str):
            channels = (channels,)
        expect_channels(channels, self.manager)
        plan = LogPlan(name, root, (*channels,), rotate, keep, budget, (*finalise,), keep_journal)
        log = Log(self.manager, self.definition, plan, self.chores, alarms=self.alarms)
        if root != self.runs_directory:
            self.chores.recover(root)
        self._logs[name] = log
        try:
            with self._beginning(f"log {name}", root):
                await log.start()
        except BaseException:
            del self._logs[name]
            raise
        self.manager.attach(f"log {name}", log)
        return log.directory

    async def stop_log(self, name: str = "log") -> dict[str, Any]:
        """End a log; what its last run came to. As `stop_recording`, it goes on to its end.

        Raises:
            LifecycleError: There is none of this name.
        """
        if name not in self._logs:
            known = ", ".join(self._logs) or "none is under way"
            raise LifecycleError(f"no log called {name}; {known}")
        return await self._endings.carry_out(f"log {name}", partial(self._end_log, name))

    async def _end_log(self, name: str) -> dict[str, Any]:
        log = self._logs[name]
        await self._let_measurements_arrive()
        await log.close(30.0)
        self.manager.detach(f"log {name}")
        del self._logs[name]
        return {**log.facts(), **summary_facts(log.runs[-1]), "runs": len(log.runs)}

    def logs(self) -> list[dict[str, Any]]:
        """The logs under way, as plain values."""
        return [log.facts() for log in self._logs.values()]

    async def record_wire(self, path: str | Path | None = None) -> Path:
        """Record all that passes the ports into one file, beside a recording or without one.

        It begins with what the ports still keep in memory, so that a replay can answer what drivers asked at first.

        Args:
            path: The file, which must not exist; by default `wire.arrows` in a new directory for recordings.

        Raises:
            LifecycleError: This is under way already.
            StorageError: The file cannot be made. Nothing is recorded.
        """
        if _ALONE in self._wires:
            raise LifecycleError(f"the wire is being recorded, to {self._wires[_ALONE].path}")
        return await self._start_wire(_ALONE, Path(path) if path is not None else self._new_directory() / WIRE_FILE)

    async def stop_wire(self) -> WireSummary:
        """End the file that `record_wire` began, and say what it came to.

        Raises:
            LifecycleError: There is none.
        """
        if _ALONE not in self._wires:
            raise LifecycleError("the wire is not being recorded")
        return await self._endings.carry_out(_ALONE, partial(self._stop_wire, _ALONE))

    async def _start_wire(self, name: str, path: Path) -> Path:
        wire = WireRecording(self.manager.broker, path, self.definition.name, remembered=name == _ALONE)
        with self._beginning(name, path):
            await wire.start()
        self._wires[name] = wire
        self.manager.attach(name, wire)
        return path

    async def _stop_wire(self, name: str) -> WireSummary:
        wire = self._wires[name]
        await wire.close(30.0)
        self.manager.detach(name)
        self._wires.pop(name, None)
        assert wire.summary is not None
        return wire.summary

    @contextmanager
    def _beginning(self, what: str, place: Path) -> Generator[None]:
        """Of what does not begin a line is left besides its error: who asked for it may be a program in the night."""
        try:
            yield
        except StorageError as error:
            self.not_begun += 1
            _log.error("a recording could not begin", what=what, place=str(place), error=str(error))
            raise

    async def _let_measurements_arrive(self) -> None:
        """Wait until what was measured so far is published, and what V2 measured on the other side, to be recorded."""
        if not await self.manager.flush(CATCH_UP_S):
            _log.warning("a worker did not say that all it measured has come", within_s=CATCH_UP_S)
        offered, settled = _bridged(self.manager)
        deadline = Deadline(CATCH_UP_S)
        while settled < offered and not deadline.passed:
            await pause(0.005)
            _, settled = _bridged(self.manager)

    @property
    def recording_directory(self) -> Path | None:
        """Where a recording is under way, if one is."""
        return None if self._recording is None else self._recording.recorder.directory

    @property
    def recording_open(self) -> Path | None:
        """Where what happens from now on is recorded; None, too, while a recording is being ended."""
        return None if self._ends_recording else self.recording_directory

    @property
    def recorder(self) -> Recorder | None:
        """What writes the recording that is under way, if one is."""
        return None if self._recording is None else self._recording.recorder

    async def _start_observers(self) -> None:
        await self.observers.start()
        await tell_of_last_run(self.observers.last_run, self.runs_directory)
        port = self.definition.observers.metrics_port
        if port is not None:
            from duodaq.app._samples import exposition

            def exposed(openmetrics: bool) -> bytes:
                return exposition(self, openmetrics=openmetrics)

            self._metrics = MetricsServer(port, exposed, self.definition.file)
            await self._metrics.start()

    async def _end_observers(self) -> None:
        if self._metrics is not None:
            await self._metrics.aclose()
        await self.alarms.close(NOTICES_S)
        await self.observers.aclose()

    def _note_recording(self) -> None:
        if self._recording is not None and self._recording.summary is not None:
            summary = self._recording.summary
            self.recordings.append(summary)
            self._recording = None
            self.observers.facts.pop("run", None)
            if self._wanted and summary.ended:
                keep = self.definition.keep_journal
                self.chores.finalise(Path(summary.directory), self._wanted, keep_journal=keep)

    def _serve(self, client: Client) -> Session:
        from duodaq.app._service import LabService  # it is made of the lab

        return LabService(self).session(client)

    def _note_control(self, change: ControlChange) -> None:
        facts = {name: value for name, value in msgspec.to_builtins(change).items() if value and name != "what"}
        facts.pop("t_ns")
        say = _log.warning if change.what in ("taken over", "lost") else _log.info
        say(f"control was {change.what}", **facts)
        self.observers.flight.note("control", msgspec.to_builtins(change))
        self.note_in_runs("control", msgspec.to_builtins(change))
        if change.what == "taken over":
            self.scans.taken_over(change.instrument, change.who)

    def _note_alarm(self, change: AlarmChange) -> None:
        told = msgspec.to_builtins(change)
        self.observers.flight.note("alarm", told)
        self.note_in_runs("alarm", told)

    @property
    def runs_directory(self) -> Path:
        """Where recordings lie unless they were told where to go."""
        return self.definition.recording_dir or self.definition.directory / "runs"

    def _new_directory(self) -> Path:
        return self.runs_directory / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


class _V2Recorder:
    """What V2's own commands StartRecording and StopRecording drive: the lab's recording, as anybody else's."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    async def start(self, **options: Any) -> dict[str, Any]:
        return {"directory": str(await self._lab.start_recording(**options))}

    async def stop(self) -> dict[str, Any]:
        return summary_facts(await self._lab.stop_recording())


def summary_facts(summary: RecordingSummary) -> dict[str, Any]:
    """What a recording came to, as plain values."""
    return {
        "directory": str(summary.directory),
        "files": dict(summary.files),
        "complete": summary.complete,
        "lost": dict(summary.lost),
    }


def _bridged(manager: DualRuntimeManager) -> tuple[int, int]:
    """How many measurements of V2 the bridge was offered so far, and how many of them it has done with."""
    rows = [row for row in manager.v2_data.ledger().rows() if row.subscriber == manager.bridge.name]
    return sum(row.offered for row in rows), sum(row.offered - row.in_flight for row in rows)
