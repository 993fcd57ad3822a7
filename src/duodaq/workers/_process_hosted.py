from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from duodaq.clock import Deadline, Deadlines, monotonic_s
from duodaq.errors import (
    DeliveryError,
    DuodaqError,
    InstrumentError,
    LifecycleError,
    MailboxFullError,
    RestartingError,
)
from duodaq.model import (
    ChannelInfo,
    Command,
    ComponentReport,
    Fate,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Outcome,
    Recover,
    RuntimeName,
    RuntimeStatus,
    SetParameter,
    Stop,
    command_name,
)
from duodaq.telemetry import current_trace_id, get_logger
from duodaq.v2 import V2Command
from duodaq.workers._after_death import Remembered, WorkerDiedError, fate_after_death, waits_for_replacement
from duodaq.workers._hosting import HUNG_AFTER_S, deadline_of, moves_as_far_as_known
from duodaq.workers._nursery import modules_of
from duodaq.workers._page import IN_HAND
from duodaq.workers._process import Pending, ProcessWorker
from duodaq.workers._process_group import ProcessGroup

MARGIN_S = 0.06
"""How much longer than its deadline a command is waited for: the runtime's own verdict is the better one."""
WINDOW = IN_HAND - 32
"""So many commands may be at one worker; more wait here, in the order of coming."""
ADD_S, RESTART_S, REMOVE_S, FORGET_S = 30.0, 60.0, 30.0, 5.0
_log = get_logger("workers")


class ProcessHosted:
    """A runtime in a process of its own, as the manager sees it: one promise, across the deaths of the process.

    On the manager's loop. A command ends once, whatever becomes of the process that had it.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self._window = asyncio.Semaphore(WINDOW)
        self._deadlines = Deadlines()
        self._channels: tuple[ChannelInfo, ...] = ()

    @property
    def name(self) -> RuntimeName:
        return self.group.runtime

    @property
    def worker(self) -> ProcessEnd:
        """The process, for the watch."""
        return ProcessEnd(self.group)

    @property
    def status(self) -> RuntimeStatus:
        """The runtime's own status; degraded while its process hangs or is being replaced, failed beyond that."""
        group = self.group
        if not group.running:
            return RuntimeStatus.STOPPED
        if group.failed:
            return RuntimeStatus.FAILED
        if group.current is None:
            return RuntimeStatus.DEGRADED if group.cause else RuntimeStatus.STARTING
        if group.blocked_s > HUNG_AFTER_S or group.strangers:
            return RuntimeStatus.DEGRADED
        return group.current.snapshot.status

    async def start(self, timeout_s: float) -> None:
        """Have a process made, the runtime in it, and its instruments started."""
        await self.group.start(timeout_s)

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Stop the runtime, then its process; both within `timeout_s`. A process that does not is killed: forced."""
        deadline = Deadline(timeout_s)
        self.group.stop_taking()
        worker, reports = self.group.current, ()
        if worker is not None:
            try:
                reports = await self._stop(worker, timeout_s)
            except (DuodaqError, asyncio.CancelledError) as error:
                why = f"its process was killed: {str(error) or 'there was no more time'}"
                worker.child.kill()
                reports = tuple(
                    ComponentReport(f"{self.name}.{i}", Outcome.FORCED, why) for i in self.group.definitions
                )
        outcome, why = await self.group.end(max(deadline.left_s, 0.02))
        self._deadlines.close()
        return (*reports, ComponentReport(f"worker.{self.group.name}", outcome, why))

    async def _stop(self, worker: ProcessWorker, timeout_s: float) -> tuple[ComponentReport, ...]:
        reports, delivered = await worker.request("stop", timeout_s * 0.8, timeout_s * 0.9)
        ended = tuple(_forced_if_leaked(report) for report in reports)
        if delivered:
            return ended
        return (*ended, ComponentReport(f"{self.group.name} data", Outcome.FORCED, "not all of it was delivered"))

    async def add(self, definition: InstrumentDefinition, *, keep: bool = False) -> None:
        """Add an instrument, now or at the next start; without `keep`, one that does not start is not there then."""
        group = self.group
        worker, unavailable = None, None
        if group.running:  # first: a replacement that is being made would start it, too
            try:
                worker = await group.available(Deadline(ADD_S))
            except DuodaqError as error:
                if not keep:
                    raise
                unavailable = error
        group.definitions[definition.id] = definition
        group.known[definition.id] = Remembered()
        for channel, number in definition.numbers.items():
            group.books.goes_on_at(f"{definition.id}.{channel}", number)
        if group.around.broker.latched:
            group.note_stop(definition)
        if unavailable is not None:
            raise unavailable
        if worker is None:
            return
        try:
            await worker.request("add", (definition, keep), ADD_S)
        except BaseException as error:
            if keep and isinstance(error, DuodaqError):
                group.learn(definition)
                raise
            group.definitions.pop(definition.id, None)
            if group.current is not None:  # one runtime keeps what did not start, the other forgets it
                await self._forget_quietly(group.current, definition.id)
            raise
        group.learn(definition)

    @staticmethod
    async def _forget_quietly(worker: ProcessWorker, instrument: str) -> None:
        try:
            await worker.request("remove", instrument, FORGET_S)
        except DuodaqError as error:
            _log.debug("nothing to forget", instrument=instrument, error=str(error))

    async def remove(self, instrument: str) -> ComponentReport:
        """Stop an instrument and forget it."""
        group = self.group
        report = ComponentReport(f"{self.name}.{instrument}", Outcome.CLEAN)
        if group.current is not None and instrument not in group.strangers:
            report = await group.current.request("remove", instrument, REMOVE_S)
        group.definitions.pop(instrument, None)
        group.strangers.pop(instrument, None)
        return report

    def forget(self, instrument: str) -> None:
        """Have no replacement start an instrument that could not be removed in time."""
        self.group.definitions.pop(instrument, None)
        self.group.strangers.pop(instrument, None)

    def expect(self, definition: InstrumentDefinition) -> None:
        """Have the next process made for this instrument, and the present one load what its driver is made of."""
        self.group.expected = (definition,)

    async def awake(self, limit_s: float) -> None:
        """Wait for the process, if it is being made, and until it has loaded what is expected."""
        limit = Deadline(limit_s)
        worker, expected, self.group.expected = await self.group.available(limit), self.group.expected, ()
        if modules := modules_of(expected):
            with contextlib.suppress(DuodaqError):  # what cannot be loaded is told when it is needed
                await worker.request("load", modules, limit.left_s)

    async def restart(self, instrument: str) -> None:
        """Close and start one instrument again; the others notice nothing."""
        worker = await self.group.available(Deadline(RESTART_S))
        self._refuse_stranger(instrument)
        await worker.request("restart", instrument, RESTART_S)

    async def submit(self, command: V2Command, timeout_s: float) -> Any:
        """Carry out one of V2's own commands in the process; see V2Runtime.submit."""
        worker = await self.group.available(Deadline(timeout_s))
        return await worker.request("submit", command, timeout_s)

    async def end_moving(self, reason: str, timeout_s: float = 1.0) -> int:
        """End every waiting command that moves or emits; the number ended, 0 if the process does not answer."""
        worker = self.group.current
        if worker is None:
            return 0
        try:
            return await worker.request("end_moving", reason, timeout_s)
        except DuodaqError:
            return 0

    async def flush(self, timeout_s: float = 1.0) -> bool:
        """Have all that was measured until now published at the manager; False if it was not in time."""
        worker = self.group.current
        if worker is None:
            return True
        try:
            return await worker.request("flush", timeout_s, timeout_s)
        except DuodaqError:
            return False

    # ---- commands --------------------------------------------------------------------------------------------------

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command in the process; see Runtime.command."""
        definition = self.group.definitions.get(instrument)
        if definition is None or not self.group.running:
            raise LifecycleError(f"runtime {self.name} is not running", instrument=instrument)
        known = self.group.known[instrument]
        if isinstance(command, Stop) and command.axis is None:
            self.group.note_stop(definition)
        try:
            if isinstance(command, Recover) and self.group.failed:
                return await self.group.revive()
            if isinstance(command, Recover) and instrument in self.group.strangers:
                return await self.group.readmit(definition)
            self._refuse_stranger(instrument)
            if isinstance(command, Recover) and known.waiting:
                return await self._apply_waiting(definition, known)
            result = await self._in_turn(definition, command, deadline_s)
        except DuodaqError as error:
            if not isinstance(error, InstrumentError) and getattr(error, "fate", None) != Fate.NOT_DONE:
                known.doubt(command)
            raise error.about(instrument=instrument, command=command_name(command)) from error.__cause__
        known.note(command)
        if isinstance(command, Stop) and self.group.streams(definition):
            known.acquiring = False  # what was stopped does not begin again by itself
        return result

    async def _apply_waiting(self, definition: InstrumentDefinition, known: Remembered) -> None:
        """Somebody has said yes to the settings that were withheld."""
        for name in list(known.waiting):
            await self._in_turn(definition, SetParameter(name, known.waiting[name]), None)
            known.note(SetParameter(name, known.waiting[name]))

    async def _in_turn(self, definition: InstrumentDefinition, command: Command, deadline_s: float | None) -> Any:
        limit = Deadline(deadline_of(definition, command, deadline_s))
        if self._window.locked():
            try:
                await asyncio.wait_for(self._window.acquire(), None if limit.left_s == float("inf") else limit.left_s)
            except TimeoutError:
                raise MailboxFullError(f"{WINDOW} commands are at its worker already") from None
        else:
            await self._window.acquire()
        try:
            return await self._carry_out(definition, command, deadline_s, limit)
        finally:
            self._window.release()

    async def _carry_out(
        self, definition: InstrumentDefinition, command: Command, deadline_s: float | None, limit: Deadline
    ) -> Any:
        begun_s, trace_id = monotonic_s(), current_trace_id()
        while True:
            worker = self.group.current or await self._replacement(definition, command, limit)
            left_s = None if deadline_s is None else max(0.0, deadline_s - (monotonic_s() - begun_s))
            pending = worker.order(definition.id, command, left_s, trace_id)
            try:
                return await self._answer(pending, limit)
            except WorkerDiedError as death:
                fate = fate_after_death(death.begun, command, definition, streams=self.group.streams(definition))
                if fate is Fate.UNKNOWN:
                    raise DeliveryError(f"its worker died while it was in hand: {death}", fate=fate) from None
                if fate is not None:
                    raise RestartingError(f"its worker died before it began: {death}", fate=fate) from None
            finally:
                worker.forget(pending)

    async def _replacement(self, definition: InstrumentDefinition, command: Command, limit: Deadline) -> ProcessWorker:
        streams = self.group.streams(definition)
        if self.group.restarting and not waits_for_replacement(command, definition, streams=streams):
            raise RestartingError(f"its worker is being replaced: {self.group.cause}", fate=Fate.NOT_DONE)
        return await self.group.available(limit)

    async def _answer(self, pending: Pending, limit: Deadline) -> Any:
        self._deadlines.add(pending, asyncio.get_running_loop().time() + limit.left_s + MARGIN_S)
        try:
            return await pending.answer
        finally:
            self._deadlines.discard(pending)

    def _refuse_stranger(self, instrument: str) -> None:
        if instrument in self.group.strangers:
            raise LifecycleError(self.group.strangers[instrument])

    # ---- what is known ---------------------------------------------------------------------------------------------

    def moves(self, instrument: str, command: Command) -> bool:
        """See Runtime.moves; of an actor whose class is not known here: no, for its worker asks it once more."""
        return moves_as_far_as_known(self.group.definitions.get(instrument), command)

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        """Every instrument's status: as its process told last; restarting or failed while there is none."""
        current = self.group.current
        told = {s.id: s for s in (current.snapshot.instruments if current is not None else ())}
        return tuple(self._status(d, told.get(d.id)) for d in tuple(self.group.definitions.values()))

    def _status(self, definition: InstrumentDefinition, told: InstrumentStatus | None) -> InstrumentStatus:
        group, state = self.group, InstrumentState
        if definition.id in group.strangers:
            return self._untold(definition, state.ERROR, group.strangers[definition.id], recoverable=False)
        if group.failed:
            return self._untold(definition, state.ERROR, group.cause, recoverable=False)
        if told is None and group.running and group.cause:
            return self._untold(definition, state.CONNECTING, f"restarting: {group.cause}")
        if told is None:
            return self._untold(definition, state.DISCONNECTED, "")
        restarts = told.restarts + group.restarts_s.total
        told = msgspec.structs.replace(told, worker=group.name, mode="process", pid=group.pid, restarts=restarts)
        if group.blocked_s > HUNG_AFTER_S:
            why = f"worker {group.name} has not answered for {group.blocked_s:.1f} s"
            return msgspec.structs.replace(told, state=state.HUNG, message=why)
        if not told.message and (waiting := group.known[definition.id].waiting):
            return msgspec.structs.replace(told, message=f"settings wait for recover(): {', '.join(waiting)}")
        if not told.message and group.restarts_s:
            changed = ", ".join(f"{name} = {value}" for name, value in group.changed.get(definition.id, {}).items())
            found = f"; other than before: {changed}" if changed else ""
            return msgspec.structs.replace(told, message=f"replaced after: {group.cause}{found}")
        return told

    def _untold(
        self, definition: InstrumentDefinition, state: InstrumentState, message: str, *, recoverable: bool = True
    ) -> InstrumentStatus:
        group = self.group
        return InstrumentStatus(
            definition.id,
            group.runtime,
            state,
            group.name,
            message,
            recoverable,
            group.since_ns,
            definition.port,
            group.restarts_s.total,
            "process",
            group.pid,
        )

    def channels(self) -> tuple[ChannelInfo, ...]:
        """Every channel, as the process told last."""
        if self.group.current is not None:
            self._channels = tuple(self.group.current.snapshot.channels)
        return self._channels

    def metrics(self) -> dict[str, Any]:
        """The runtime's figures, as its process told last, up to half a second ago; and what is counted of it here.

        That is how often it was replaced, and how often its process was killed and did not end at once.
        """
        worker, group = self.group.current, self.group
        counted = {"restarts": group.restarts_s.total, "lingered": group.lingered}
        if worker is None:
            return counted
        return {**worker.figures, **counted, "output_lines_left_out": worker.output_left_out}


class ProcessEnd:
    """The process of a host, as the watch sees it."""

    kind = "process"

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    @property
    def name(self) -> str:
        return self._group.name

    @property
    def pid(self) -> int | None:
        return self._group.pid

    @property
    def blocked_s(self) -> float:
        return self._group.blocked_s

    def probe(self) -> None:
        self._group.probe()

    async def end(self, timeout_s: float) -> None:
        await self._group.end(timeout_s)


def _forced_if_leaked(report: ComponentReport) -> ComponentReport:
    """What a process leaves behind ends with the process."""
    if report.outcome is not Outcome.LEAKED:
        return report
    return msgspec.structs.replace(report, outcome=Outcome.FORCED, why=f"{report.why}; ended with its process")
