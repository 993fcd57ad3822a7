from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from duodaq.bridge import Bridge, ParameterTable
from duodaq.clock import Deadline, monotonic_s, pause, utc_ns
from duodaq.config import in_file
from duodaq.dataplane import Hub, Subscription
from duodaq.drivers import codec as find_codec
from duodaq.dual._crossing import Crossing
from duodaq.dual._gates import Gates
from duodaq.dual._guard import Guard
from duodaq.dual._health import Health, StateChange
from duodaq.dual._housing import Housing
from duodaq.dual._roster import Roster
from duodaq.dual._safety import StopReport, after_crash, gather_failures, make_safe, stop_bytes, stop_everything
from duodaq.dual._shutdown import DataComponent, ShutdownRun, tell_of
from duodaq.dual._side import Side
from duodaq.dual._watch import Watch
from duodaq.errors import ConfigError, LifecycleError, UnsafeStateError
from duodaq.model import (
    Cause,
    ChannelInfo,
    Command,
    ComponentReport,
    InstrumentDefinition,
    InstrumentStatus,
    LabDefinition,
    ManagerState,
    Measurement,
    Outcome,
    PortDefinition,
    RuntimeName,
    RuntimeStatus,
    ShutdownReport,
    Stop,
    check_limits,
    command_name,
    may_move,
)
from duodaq.ports import Broker, Transport
from duodaq.telemetry import get_logger, named, span
from duodaq.v2 import DataDistributor, SendInstrumentCommand, V2Command
from duodaq.v4 import DataPublisher
from duodaq.workers import Factories, RecorderDesk, RuntimeParts, Switchboard, introduced, spawn_port_worker

if TYPE_CHECKING:
    from duodaq.migration import Handed, Limits, Passage

Mirror = Callable[[Command, Awaitable[Any]], Awaitable[Any]]
START_ENDS_S = 0.5
"""How long a start that was cancelled by a shutdown may take to end; what it started is stopped all the same."""
ACROSS_EVERY_S = 0.01
"""How often it is looked whether an instrument has started that another one asks."""

_log = get_logger("duodaq.dual")


class DualRuntimeManager:
    """Starts, watches, connects and stops both runtimes.

    Belongs to the event loop on which `start` is awaited. ``Idle → Starting → Running → Stopping → Stopped``; it is
    started once. Each runtime has a status of its own beside that, and may fail while the manager runs.
    """

    def __init__(
        self,
        lab: LabDefinition | None = None,
        *,
        factories: Factories | None = None,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        self.lab = lab or LabDefinition("lab")
        self._transports = dict(transports or {})
        self._ports: dict[str, PortDefinition] = {p.name: p for p in self.lab.ports}
        self.v2_data: Hub[Measurement] = DataDistributor()
        self.v4_data = DataPublisher()
        self.parameters = ParameterTable()
        self.broker = Broker(lab=self.lab.name, spawn_worker=spawn_port_worker)
        self.bridge = Bridge(self.v2_data, self.v4_data)
        self._changes: Hub[StateChange] = Hub("state changes", key=lambda change: change.subject)
        self._state = ManagerState.IDLE
        self._cause = ""
        self._began_s = 0.0
        self._in_hand = 0
        self._settled = asyncio.Event()
        self._settled.set()
        self._components: dict[str, DataComponent] = {}
        self._start_task: asyncio.Task[None] | None = None
        self._shutdown_task: asyncio.Task[ShutdownReport] | None = None
        self._shutdown_run: ShutdownRun | None = None
        self._hurried = False
        self.recorder = RecorderDesk()
        parts = RuntimeParts(self.broker, self.parameters, self.v2_data, self.v4_data, recorder=self.recorder)
        memory: dict[RuntimeName, int | None] = {side.name: side.memory_bytes for side in (self.lab.v2, self.lab.v4)}
        self.guard = Guard(self.broker)
        self.gates = Gates()
        # what an old handle's command is called now · who carries one out beside · who is told of one that failed
        self.translations: dict[str, Callable[[Command], Command]] = {}
        self.mirrors: dict[str, Mirror] = {}
        self.failed_commands: list[Callable[[str, Command, Exception], None]] = []
        self._board = Switchboard(self._command_across)
        around = (memory, self.guard, self._board, self.recorder)
        self.housing = Housing(self.broker, parts, self.parameters, factories or Factories(), *around)
        self._sides: dict[RuntimeName, Side] = {
            "v2": Side(self.lab.v2, self.housing.host, self._introduced),
            "v4": Side(self.lab.v4, self.housing.host, self._introduced),
        }
        self._roster = Roster(self._sides, self.broker, self.guard, self.parameters, self._ports, self._transports)
        around_a_move = (self.broker, self.parameters, self.bridge, self.guard, self._roster.definitions)
        self._crossing = Crossing(self._sides, self.housing, self.gates, *around_a_move)
        self._watch = Watch(self._sides.values(), self._changes, self.parameters, partial(after_crash, self.broker))
        for instrument in self.lab.instruments:
            self._sides[instrument.runtime].register(instrument)

    # ---- what there is -------------------------------------------------------------------------------------------

    @property
    def state(self) -> ManagerState:
        """The manager's own state."""
        return self._state

    @property
    def cause(self) -> str:
        """Why it is Stopped, if a start failed."""
        return self._cause

    def runtime_status(self, runtime: RuntimeName) -> RuntimeStatus:
        """The status of one runtime, beside the manager's state."""
        return self._sides[runtime].status

    def counts(self) -> dict[RuntimeName, int]:
        """How many instruments are registered in each runtime."""
        return {name: len(side.definitions) for name, side in self._sides.items()}

    def definition(self, instrument: str) -> InstrumentDefinition:
        """The definition of an instrument.

        Raises:
            LifecycleError: No such instrument.
        """
        return self._of(instrument)[instrument]

    def has(self, instrument: str) -> bool:
        """Whether there is an instrument of this id."""
        return any(instrument in side for side in self._sides.values())

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        """The status of every instrument."""
        return tuple(s for side in self._sides.values() for s in side.instruments())

    def channels(self) -> tuple[ChannelInfo, ...]:
        """Every channel of both runtimes."""
        return tuple(c for side in self._sides.values() for c in side.channels())

    def health(self) -> Health:
        """The whole lab at this moment."""
        return Health(
            state=self._state,
            v2=self._sides["v2"].status,
            v4=self._sides["v4"].status,
            latched=self.broker.latched,
            workers=tuple(w for side in self._sides.values() for w in side.workers()),
            instruments=self.instruments(),
            ports=tuple(self.broker.status()),
            ledgers=self.ledgers(),
            commands_in_hand=self._in_hand,
            uptime_s=monotonic_s() - self._began_s if self._began_s else 0.0,
            pid=os.getpid(),
            cause=self._cause,
        )

    def ledgers(self) -> dict[str, Any]:
        """The ledger of either side's hub, and of each worker process, as plain values."""
        books = {"v2": self.v2_data.ledger(), "v4": self.v4_data.ledger(), **self.housing.ledgers()}
        return {name: ledger.to_dict() for name, ledger in books.items()}

    def metrics(self) -> dict[str, Any]:
        """Figures of both runtimes, by worker."""
        return {name: side.metrics() for name, side in self._sides.items()}

    async def flush(self, timeout_s: float) -> bool:
        """Have all that both sides measured until now published here; whether every worker said so in time."""
        return all(await asyncio.gather(*(side.flush(timeout_s) for side in self._sides.values())))

    def subscribe_state(self, name: str, capacity: int = 1024) -> Subscription[StateChange]:
        """Every change of state from now on: of the manager, the runtimes and the instruments."""
        return self._changes.subscribe(name, capacity=capacity)

    # ---- start and stop ------------------------------------------------------------------------------------------

    def register_v2(self, instrument: InstrumentDefinition) -> None:
        """Register an instrument for V2, before the start.

        Raises:
            LifecycleError: The manager is not Idle; use `add`.
            ConfigError: The id is taken.
        """
        self._register("v2", instrument)

    def register_v4(self, instrument: InstrumentDefinition) -> None:
        """Register an instrument for V4, before the start; see `register_v2`."""
        self._register("v4", instrument)

    async def start(self, timeout_s: float = 30.0) -> None:
        """Open the ports, then start V2, V4 and the bridge.

        An instrument that fails to start degrades its runtime. Anything else that fails, a `required` instrument
        included, rolls back what had started.

        Raises:
            LifecycleError: Not Idle, or shut down meanwhile.
            ConfigError: A driver's class cannot be loaded, or is none for its runtime: names its line in the lab file.
            DuodaqError: The cause of the failure. The manager is Stopped; `cause` repeats it.
        """
        self._expect(ManagerState.IDLE, "start")
        self._began_s = monotonic_s()
        self._board.start()
        self.recorder.open()
        self._enter(ManagerState.STARTING)
        self._start_task = asyncio.ensure_future(self._start(Deadline(timeout_s)))
        try:
            await asyncio.wait({self._start_task})
        except asyncio.CancelledError:
            await self.shutdown()
            raise
        if self._start_task.cancelled():
            raise LifecycleError("shut down before it had started")
        error = self._start_task.exception()
        if error is not None:
            self._cause = str(error)
            await self.shutdown()
            raise error
        if self._state is not ManagerState.STARTING:
            raise LifecycleError("shut down in the moment in which it had started")
        self._enter(ManagerState.RUNNING)

    async def shutdown(self, timeout_s: float | None = None) -> ShutdownReport:
        """Stop everything, in order, within `timeout_s` (the lab's own budget if None).

        May be called from any state and any number of times; all calls get the one report, and the shortest time
        counts. Ends in Stopped.
        """
        if self._shutdown_run is None or self._shutdown_task is None:
            self._shutdown_run = self._plan_shutdown(self.lab.shutdown_s if timeout_s is None else timeout_s)
            self._shutdown_task = asyncio.ensure_future(self._shutdown(self._shutdown_run))
        elif timeout_s is not None:
            self._shutdown_run.limit(timeout_s)
        return await asyncio.shield(self._shutdown_task)

    def hurry(self) -> None:
        """Make the shutdown that is under way, or about to begin, quicker: work in hand is no longer waited for.

        The safe state is still taken.
        """
        self._hurried = True
        if self._shutdown_run is not None:
            self._shutdown_run.hurry()

    async def start_runtime(self, runtime: RuntimeName, timeout_s: float = 30.0) -> None:
        """Start one runtime that was stopped, or failed, while the manager runs."""
        self._expect(ManagerState.RUNNING, f"start {runtime}")
        await self._sides[runtime].start(timeout_s)

    async def stop_runtime(self, runtime: RuntimeName, timeout_s: float = 10.0) -> tuple[ComponentReport, ...]:
        """Stop one runtime; the other notices nothing."""
        self._expect(ManagerState.RUNNING, f"stop {runtime}")
        return tell_of(await self._sides[runtime].stop(timeout_s))

    async def restart_runtime(self, runtime: RuntimeName, timeout_s: float = 30.0) -> tuple[ComponentReport, ...]:
        """Stop one runtime and start it again."""
        reports = await self.stop_runtime(runtime, timeout_s / 2)
        await self.start_runtime(runtime, timeout_s / 2)
        return reports

    # ---- instruments ---------------------------------------------------------------------------------------------

    async def add(self, instrument: InstrumentDefinition, *, keep: bool = False) -> None:
        """Add an instrument to the running lab; with `keep` it is there, too, if it does not start.

        Raises:
            ConfigError: Its id is taken, or its driver cannot be found. Nothing was added.
            DuodaqError: It did not start. Without `keep` it is not there.
        """
        self._expect(ManagerState.RUNNING, f"add {instrument.id}")
        await self._roster.add(instrument, keep=keep)

    async def remove(self, instrument: str, *, safe: bool = False) -> ComponentReport:
        """Stop an instrument of the running lab and forget it; with `safe`, after its safe state of a shutdown.

        Its entries of the parameter table become stale, and whoever has an instrument of that id next may write them.
        """
        self._expect(ManagerState.RUNNING, f"remove {instrument}")
        with self.gates.changing(instrument, "remove"):
            return await self._roster.remove(self._of(instrument), instrument, safe=safe)

    async def add_port(self, port: PortDefinition, *, keep: bool = False) -> None:
        """Open another port in the running lab; with `keep` it is there, too, if it cannot be opened, and tried again.

        Raises:
            ConfigError: The name is taken.
            PortOpenError, PortBusyError: It cannot be opened. Without `keep` it is not there.
        """
        self._expect(ManagerState.RUNNING, f"open port {port.name}")
        await self._roster.add_port(port, keep=keep)

    async def remove_port(self, name: str) -> ComponentReport:
        """Close a port of the running lab and forget it.

        Raises:
            LifecycleError: An instrument is on it. It stays as it is.
        """
        self._expect(ManagerState.RUNNING, f"close port {name}")
        return await self._roster.remove_port(name)

    def adopt(self, lab: LabDefinition) -> None:
        """From now on the lab is described so: as it has become, step by step."""
        self.lab = lab

    async def restart_instrument(self, instrument: str) -> None:
        """Close and start one instrument again; the others notice nothing."""
        self._expect(ManagerState.RUNNING, f"restart {instrument}")
        with self.gates.changing(instrument, "restart"):
            await self._of(instrument).restart(instrument)

    async def move(
        self, definition: InstrumentDefinition, handed: Handed | None = None, limits: Limits | None = None
    ) -> tuple[InstrumentDefinition, Passage]:
        """Move an instrument to the other runtime, where `definition` says how it lives, while all else goes on.

        `handed` says what the new owner calls the settings that the old one knew. It goes on if nobody waits for it.

        Raises:
            LifecycleError: Not Running, no such instrument, it lives there already, or it is on its way.
            CutoverError: It was refused or undone; exactly one runtime has it, and is named.
        """
        self._expect(ManagerState.RUNNING, f"move {definition.id}")
        return await self._crossing.move(self.definition(definition.id), definition, handed, limits)

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command, in whichever runtime the instrument lives, and return its result.

        Raises:
            LifecycleError: Not Running, or no such instrument. Nothing was begun.
            UnsafeStateError: A stop is latched and the command may move or emit. Nothing was begun.
            DuodaqError: What the runtime says; `fate` where the outcome is not known.
        """
        if self._state is not ManagerState.RUNNING:
            self._expect(ManagerState.RUNNING, f"{instrument}.{command_name(command)}")
        return await self._command(instrument, command, deadline_s)

    def moves(self, instrument: str, command: Command) -> bool:
        """Whether `command` may move or emit something, so that a latched stop refuses it.

        Raises:
            LifecycleError: No such instrument, or its runtime is not running.
        """
        return self._of(instrument).moves(instrument, self.translated(instrument, command))

    def translated(self, instrument: str, command: Command) -> Command:
        """What `command` of an old handle is called now; itself, where its instrument has not moved."""
        return self.translations[instrument](command) if instrument in self.translations else command

    async def submit_v2(self, command: V2Command, timeout_s: float = 60.0) -> Any:
        """Carry out one of V2's own commands, StartRecording for instance, in V2's manager task wherever that lives.

        Raises:
            LifecycleError: Not Running, V2 is not, or there is no such instrument. Nothing was begun.
            DuodaqError: What V2 says.
        """
        self._expect(ManagerState.RUNNING, type(command).__name__)
        if isinstance(command, SendInstrumentCommand):
            return await self._command(command.id, command.command, command.deadline_s)
        return await self._sides["v2"].submit(command, timeout_s)

    async def _command_across(self, instrument: str, command: Command, deadline_s: float) -> Any:
        """A command that another instrument gives; also while the lab starts, for a driver may ask in its beginning."""
        deadline = Deadline(deadline_s)
        while self._state is ManagerState.STARTING and self._of(instrument).is_starting(instrument):
            if deadline.passed:
                break
            await pause(ACROSS_EVERY_S)
        if self._state is not ManagerState.STARTING:
            self._expect(ManagerState.RUNNING, f"{instrument}.{command_name(command)}")
        return await self._command(instrument, command, deadline.left_s)

    async def _command(self, instrument: str, command: Command, deadline_s: float | None) -> Any:
        """Have it done or refused, as one span; whatever went wrong is a line."""
        try:
            with span("command", instrument=instrument, command=command_name(command)):
                return await self._admit(instrument, command, deadline_s)
        except Exception as error:
            _log.info("command failed", instrument=instrument, command=command_name(command), error=named(error))
            raise

    async def _admit(self, instrument: str, command: Command, deadline_s: float | None) -> Any:
        if instrument in self.gates.closed and not isinstance(command, Stop):
            moves = may_move(self.definition(instrument), command)
            deadline_s = await self.gates.pass_through(instrument, command, deadline_s, moves=moves)
        command = self.translated(instrument, command)
        side = self._of(instrument)
        if isinstance(command, Stop):
            await self.stop(instrument, command.axis)
            return None
        check_limits(side[instrument], command)
        if self.broker.latched and side.moves(instrument, command):
            raise UnsafeStateError(
                "refused: stop-all is latched until a person resets it",
                instrument=instrument,
                command=command_name(command),
            )
        self._in_hand += 1
        self._settled.clear()
        self.gates.enter(instrument)
        try:
            work, mirror = side.command(instrument, command, deadline_s), self.mirrors.get(instrument)
            return await (work if mirror is None else mirror(command, work))
        except Exception as error:
            for listener in self.failed_commands:
                listener(instrument, command, error)
            raise
        finally:
            self.gates.leave(instrument)
            self._in_hand -= 1
            if not self._in_hand:
                self._settled.set()

    async def stop(self, instrument: str, axis: str | None = None, limit_s: float = 5.0) -> int | None:
        """Stop one instrument: its stop bytes at once, then what waits in its queue, then its driver is told.

        Returns:
            When the bytes were on the wire (UTC ns), or None if it has no wire path and only its driver was told.
        """
        side = self._of(instrument)
        definition = side[instrument]
        self.gates.note_stop(instrument)
        data = stop_bytes(definition, self.broker, axis)
        t_ns = None
        if data is not None and definition.port is not None:
            whole = axis is None
            t_ns = await self.broker.stop(definition.port, data, holder=f"stop {instrument}", ends_moving=whole)
        if side.has_home(instrument) or instrument not in self.gates.closed:
            await side.command(instrument, Stop(axis), limit_s)
        return t_ns

    async def stop_all(self, limit_s: float = 5.0) -> StopReport:
        """Stop every instrument, without a question, and latch: what moves or emits is refused until `reset_stop`."""
        self.broker.latch("stop-all")
        for definition in (definitions := self._roster.definitions()):
            self.gates.note_stop(definition.id)
        return await stop_everything(definitions, self._of, self.broker, lambda: self._end_moving("stop-all"), limit_s)

    def reset_stop(self, who: str) -> None:
        """Lift the latch of a stop-all; `who` is logged."""
        self.broker.reset_latch(who)

    # ---- data ----------------------------------------------------------------------------------------------------

    def attach(self, name: str, component: DataComponent) -> None:
        """Have `component` closed in a shutdown after both runtimes, before the ports."""
        self._components[name] = component

    def detach(self, name: str) -> None:
        """Forget a component that was closed by whoever attached it."""
        self._components.pop(name, None)

    def _introduced(self, instrument: InstrumentDefinition) -> InstrumentDefinition:
        def known(name: str) -> bool:
            return name != instrument.id and any(name in side for side in self._sides.values())

        return introduced(instrument, known, self._board.line)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _register(self, runtime: RuntimeName, instrument: InstrumentDefinition) -> None:
        if self._state is ManagerState.RUNNING:
            raise LifecycleError(f"cannot register {instrument.id}: the manager is running; use `add`")
        self._expect(ManagerState.IDLE, f"register {instrument.id}")
        if instrument.runtime != runtime:
            raise LifecycleError(f"{instrument.id} is defined for {instrument.runtime}, not {runtime}")
        self._sides[runtime].register(instrument)

    def _of(self, instrument: str) -> Side:
        for side in self._sides.values():
            if instrument in side:
                return side
        known = ", ".join(d.id for side in self._sides.values() for d in side.definitions) or "none"
        raise LifecycleError(f"no instrument {instrument!r}; known: {known}", instrument=instrument)

    def _expect(self, state: ManagerState, wish: str) -> None:
        if self._state is not state:
            raise LifecycleError(f"cannot {wish}: the manager is {self._state}, not {state}")

    def _enter(self, state: ManagerState) -> None:
        old, self._state = self._state, state
        self._changes.publish(StateChange("manager", str(old), str(state), self._cause, utc_ns()))

    async def _start(self, deadline: Deadline) -> None:
        loading = asyncio.ensure_future(self._load(deadline.left_s))
        try:
            await self._open_ports(deadline)
            workers = any(side.needs_processes() for side in self._sides.values())
            await self.guard.start(self._roster.definitions(), workers=workers, timeout_s=deadline.left_s)
            await loading
        except BaseException:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            raise
        await self.bridge.start()
        try:
            await self._sides["v2"].start(deadline.left_s)
            await self._sides["v4"].start(deadline.left_s)
        except ConfigError as error:
            raise in_file(error, self.lab.file) from error.__cause__
        self._watch.start()

    async def _load(self, timeout_s: float) -> None:
        """Have what makes worker processes loaded, while the ports open."""
        if any(side.needs_processes() for side in self._sides.values()):
            await self.housing.nursery.start(timeout_s)

    async def _open_ports(self, deadline: Deadline) -> None:
        for port in self._ports.values():
            codec = find_codec(port.codec) if port.codec else None
            await self.broker.add(port, codec, self._transports.get(port.name))
        for name in self._ports:
            await self.broker.open(name, min(deadline.left_s, 10.0))

    async def _end_moving(self, reason: str) -> int:
        """End what waits and moves or emits, on both sides; how many."""
        return sum(await asyncio.gather(*(side.end_moving(reason) for side in self._sides.values())))

    async def _shutdown(self, run: ShutdownRun) -> ShutdownReport:
        if self._hurried:
            run.hurry()
        if self._start_task is not None and not self._start_task.done():
            self._start_task.cancel()
            await asyncio.wait({self._start_task}, timeout=min(run.budget_s * 0.2, START_ENDS_S))
        await self._crossing.aclose(min(run.budget_s * 0.2, START_ENDS_S))
        self._enter(ManagerState.STOPPING)
        report = await run.run()
        self._enter(ManagerState.STOPPED)
        self._changes.close()
        return report

    def _plan_shutdown(self, budget_s: float) -> ShutdownRun:
        return ShutdownRun(
            budget_s,
            {
                "settle": self._settle,
                "safe state": self._safe_state,
                "v4": self._sides["v4"].stop,
                "v2": self._sides["v2"].stop,
                "data": self._close_data,
                "ports": self._close_ports,
            },
        )

    async def _close_ports(self, limit_s: float) -> tuple[ComponentReport, ...]:
        reports = await self.broker.aclose(limit_s * 0.8)
        return (*reports, *await self.guard.disarm(max(limit_s * 0.2, 0.1)))

    async def _settle(self, limit_s: float) -> tuple[ComponentReport, ...]:
        await self.broker.close_virtual()
        try:
            async with asyncio.timeout(limit_s * 0.98):
                await self._settled.wait()
        except TimeoutError:
            why = f"{self._in_hand} commands were still in hand after {limit_s:.3g} s"
            return (ComponentReport("commands", Outcome.FORCED, why, limit_s),)
        return ()

    async def _safe_state(self, limit_s: float) -> tuple[ComponentReport, ...]:
        await self._watch.aclose()
        await self._end_moving("shutdown")
        work = {
            d.id: make_safe(side, d, self.broker, Cause.SHUTDOWN, limit_s * 0.9)
            for side in self._sides.values()
            if side.running
            for d in side.definitions
        }
        failures = await gather_failures(work)
        return tuple(ComponentReport(f"safe.{name}", Outcome.FORCED, why) for name, why in failures.items())

    async def _close_data(self, limit_s: float) -> tuple[ComponentReport, ...]:
        reports = [await self.bridge.stop(limit_s * 0.4)]
        for name, component in list(self._components.items()):
            reports.append(await component.close(limit_s * 0.5))
            self.detach(name)
        self.v2_data.close()
        self.v4_data.close()
        await self.housing.aclose()
        return tuple(reports)
