"""A runtime in a process of its own, as the manager sees it: the same promise, across the deaths of the process.

Rules for whoever edits this:

* Whoever waits is told. When the process dies, each command that it had gets its fate there: in hand is unknown, a read
  that waited goes on to the replacement, what would move is not done.
* The crash actions come before the replacement; the identity of a device before anything is written to it.
* A process that hangs is killed as a whole: first asked (TERM), then not (KILL). Those who live in it are told why.
* Restarts are counted in a window; beyond its limit the runtime is failed, and nothing starts it but a person.
* `stop` ends everything, a recovery under way included, and leaves no process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from duodaq import clock
from duodaq.clock import Deadline, monotonic_s, utc_ns
from duodaq.dataplane import Ledger
from duodaq.errors import (
    ConfigError,
    DeliveryError,
    DuodaqError,
    LifecycleError,
    ReplyTimeoutError,
    RestartingError,
    StoppedError,
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
    command_name,
)
from duodaq.telemetry import current_trace_id, get_logger
from duodaq.v4 import GiveUp, RestartPolicy
from duodaq.workers._after_death import (
    Remembered,
    definition_for_replacement,
    fate_after_death,
    waits_for_replacement,
)
from duodaq.workers._hosting import HUNG_AFTER_S, deadline_of, moves_as_far_as_known
from duodaq.workers._identity import impostors, learn_identities
from duodaq.workers._inbox import FeedBooks
from duodaq.workers._nursery import Nursery
from duodaq.workers._page import IN_HAND, SharedPage
from duodaq.workers._parts import RuntimeFactory
from duodaq.workers._plan import WorkerPlan
from duodaq.workers._process import Pending, ProcessWorker, Surroundings

MARGIN_S = 0.06
"""How much longer than its deadline a command is waited for: the runtime's own verdict is the better one."""
TERM_S = 0.3
MAKE_S = 20.0
CRASH_ACTIONS_S = 1.0
RESTARTS = RestartPolicy(limit=5, window_s=60.0)
_log = get_logger("workers")

OnCrash = Callable[[Sequence[InstrumentDefinition], str], Awaitable[None]]


class _WorkerDiedError(Exception):
    """The worker died before it answered; `begun` says whether the command was in hand."""

    def __init__(self, begun: bool, cause: str) -> None:
        super().__init__(cause)
        self.begun = begun


class ProcessHosted:
    """A runtime in a worker process. On the manager's loop.

    Args:
        name: Which runtime.
        group: The worker's name.
        factory: Makes the runtime, in the process.
        nursery: Where processes come from.
        around: The broker, the table and the hubs of the lab.
        on_crash: Carries out the crash actions of these instruments, for this cause.
        memory_bytes: How much private memory the process may take.
    """

    def __init__(
        self,
        name: RuntimeName,
        group: str,
        factory: RuntimeFactory,
        nursery: Nursery,
        around: Surroundings,
        on_crash: OnCrash,
        memory_bytes: int | None = None,
    ) -> None:
        self._runtime: RuntimeName = name
        self.group = group
        self._factory = factory
        self._nursery = nursery
        self._around = around
        self._on_crash = on_crash
        self._memory_bytes = memory_bytes
        self._definitions: dict[str, InstrumentDefinition] = {}
        self._known: dict[str, Remembered] = {}
        self._strangers: dict[str, str] = {}
        self.books = FeedBooks(f"worker {group}", around.v2_data.name if name == "v2" else around.v4_data.name)
        self._page: SharedPage | None = None
        self._current: ProcessWorker | None = None
        self._last: tuple[ChannelInfo, ...] = ()
        self._window = asyncio.Semaphore(IN_HAND - 32)
        self._recovery: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._restarts_s: list[float] = []
        self._cause = ""
        self._since_ns = 0
        self._failed = False
        self._stopping = False
        self._unsubscribe: Callable[[], None] | None = None
        self._beside: list[asyncio.Task[None]] = []

    # ---- what is known ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> RuntimeName:
        return self._runtime

    @property
    def worker(self) -> ProcessEnd:
        """The process, for the watch."""
        return ProcessEnd(self)

    @property
    def status(self) -> RuntimeStatus:
        """The runtime's own status; degraded while its process hangs or is being replaced, failed beyond that."""
        if self._page is None:
            return RuntimeStatus.STOPPED
        if self._failed:
            return RuntimeStatus.FAILED
        if self._current is None or self.blocked_s > HUNG_AFTER_S or self._strangers:
            return RuntimeStatus.DEGRADED if self._restarts_s or self._current else RuntimeStatus.STARTING
        return self._current.snapshot.status

    @property
    def alive(self) -> bool:
        return self._current is not None

    @property
    def blocked_s(self) -> float:
        return 0.0 if self._current is None else self._current.blocked_s

    @property
    def pid(self) -> int | None:
        """The process that hosts the runtime now, if there is one."""
        return None if self._current is None else self._current.child.pid

    def instruments(self) -> tuple[InstrumentStatus, ...]:
        """Every instrument's status: as its process told last; restarting or failed while there is none."""
        restarts = len(self._restarts_s)
        told = {s.id: s for s in (self._current.snapshot.instruments if self._current is not None else ())}
        return tuple(self._status_of(d, told.get(d.id), restarts) for d in self._definitions.values())

    def _status_of(
        self, definition: InstrumentDefinition, told: InstrumentStatus | None, restarts: int
    ) -> InstrumentStatus:
        if definition.id in self._strangers:
            why = self._strangers[definition.id]
            return self._untold(definition, InstrumentState.ERROR, why, restarts, recoverable=False)
        if told is None:
            if self._failed:
                return self._untold(definition, InstrumentState.ERROR, self._cause, restarts, recoverable=False)
            if self._page is None or not self._cause:
                return self._untold(definition, InstrumentState.DISCONNECTED, "", restarts)
            return self._untold(definition, InstrumentState.CONNECTING, f"restarting: {self._cause}", restarts)
        message = told.message
        if not message and (waiting := self._known[definition.id].waiting):
            message = f"settings wait for a Recover: {', '.join(waiting)}"
        told = msgspec.structs.replace(told, worker=self.group, restarts=told.restarts + restarts, message=message)
        if self.blocked_s <= HUNG_AFTER_S:
            return told
        why = f"worker {self.group} has not answered for {self.blocked_s:.1f} s"
        return msgspec.structs.replace(told, state=InstrumentState.HUNG, message=why)

    def _untold(
        self, d: InstrumentDefinition, state: InstrumentState, message: str, restarts: int, *, recoverable: bool = True
    ) -> InstrumentStatus:
        return InstrumentStatus(
            d.id, self._runtime, state, self.group, message, recoverable, self._since_ns, d.port, restarts
        )

    def channels(self) -> tuple[ChannelInfo, ...]:
        """Every channel, as the process told last."""
        if self._current is not None:
            self._last = tuple(self._current.snapshot.channels)
        return self._last

    def metrics(self) -> dict[str, Any]:
        """The runtime's figures, as its process told last, up to half a second ago."""
        return {} if self._current is None else {**self._current.figures, "restarts": len(self._restarts_s)}

    def moves(self, instrument: str, command: Command) -> bool:
        """See Runtime.moves; of an actor whose class is not known here: no, for its worker asks it once more."""
        return moves_as_far_as_known(self._definitions.get(instrument), command)

    def ledger(self) -> Ledger | None:
        """What the processes of this group produced, and what became of it."""
        return self.books.ledger()

    # ---- life ------------------------------------------------------------------------------------------------------

    async def start(self, timeout_s: float) -> None:
        """Have a process made, the runtime in it, and its instruments started."""
        deadline = Deadline(timeout_s)
        self._page, self._stopping, self._failed, self._cause = SharedPage(), False, False, ""
        self._restarts_s.clear()
        self._unsubscribe = self._around.broker.subscribe_stops(self._tell_stop)
        try:
            await self._nursery.start(deadline.left_s)
            worker = await self._make(self._given(fresh=True), deadline)
            await self._begin(worker, deadline)
        except BaseException:
            await self.end()
            raise
        self._beside = [
            asyncio.create_task(self._pass_entries_on(), name=f"entries for {self.group}"),
            asyncio.create_task(learn_identities(self._around.broker, self._given(fresh=True))),
        ]

    async def _pass_entries_on(self) -> None:
        """Tell the process what the other side's entries of the parameter table are."""
        changes = self._around.watch(f"worker {self.group}")
        try:
            async for entry in changes:
                if entry.instrument not in self._definitions and self._current is not None:
                    self._current.tell_entry(entry)
        finally:
            changes.close()

    async def stop(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        """Stop the runtime, then its process; both within `timeout_s`. A process that does not is killed: forced."""
        deadline = Deadline(timeout_s)
        self._stopping = True
        self._news.set()
        reports: tuple[ComponentReport, ...] = ()
        worker, asked_s = self._current, timeout_s * 0.8
        if worker is not None:
            try:
                reports, delivered = await worker.request("stop", asked_s, asked_s + timeout_s * 0.1)
                reports = tuple(_forced_if_leaked(report) for report in reports)
                if not delivered:
                    reports += (ComponentReport(f"{self.group} data", Outcome.FORCED, "not all of it was delivered"),)
            except (DuodaqError, asyncio.CancelledError) as error:
                why = f"its process was killed: {error}"
                reports = tuple(ComponentReport(f"{self._runtime}.{i}", Outcome.FORCED, why) for i in self._definitions)
        outcome, why = await self.end(max(deadline.left_s, 0.02))
        return (*reports, ComponentReport(f"worker.{self.group}", outcome, why))

    async def end(self, timeout_s: float = 0.5) -> tuple[Outcome, str]:
        owned = [task for task in (*self._beside, self._recovery, self._ending) if task is not None]
        self._recovery = self._ending = None
        self._beside = []
        for task in owned:
            task.cancel()
        await asyncio.gather(*owned, return_exceptions=True)
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        worker, self._current = self._current, None
        left = worker is None or await worker.aclose(timeout_s)
        self._nursery.drop(self.group)
        if self._page is not None:
            self._page.close()
            self._page = None
        return (Outcome.CLEAN, "") if left else (Outcome.FORCED, "it did not leave by itself and was killed")

    async def add(self, definition: InstrumentDefinition) -> None:
        """Add an instrument, now or at the next start; one that does not start is not there afterwards."""
        self._definitions[definition.id] = definition
        self._known[definition.id] = Remembered()
        if self._page is None:
            return
        try:
            worker = await self._available(Deadline(30.0))
            await worker.request("add", definition, 30.0)
        except BaseException:
            self._definitions.pop(definition.id, None)
            if self._current is not None:  # one runtime keeps what did not start, the other forgets it
                await self._forget_quietly(self._current, definition.id)
            raise

    async def _forget_quietly(self, worker: ProcessWorker, instrument: str) -> None:
        try:
            await worker.request("remove", instrument, 5.0)
        except DuodaqError as error:
            _log.debug("nothing to forget", instrument=instrument, error=str(error))

    async def remove(self, instrument: str) -> ComponentReport:
        """Stop an instrument and forget it."""
        report = ComponentReport(f"{self._runtime}.{instrument}", Outcome.CLEAN)
        if self._current is not None and instrument not in self._strangers:
            report = await self._current.request("remove", instrument, 30.0)
        self._definitions.pop(instrument, None)
        self._strangers.pop(instrument, None)
        return report

    async def restart(self, instrument: str) -> None:
        """Close and start one instrument again."""
        worker = await self._available(Deadline(30.0))
        self._refuse_stranger(instrument)
        await worker.request("restart", instrument, 60.0)

    async def end_moving(self, reason: str, timeout_s: float = 1.0) -> int:
        """End every waiting command that moves or emits; the number ended, 0 if the process does not answer."""
        worker = self._current
        if worker is None:
            return 0
        try:
            return await worker.request("end_moving", reason, timeout_s)
        except DuodaqError:
            return 0

    # ---- commands --------------------------------------------------------------------------------------------------

    async def command(self, instrument: str, command: Command, deadline_s: float | None = None) -> Any:
        """Carry out one command in the process; see Runtime.command. It ends once, whatever becomes of the process."""
        definition = self._definitions.get(instrument)
        if definition is None or self._page is None:
            raise LifecycleError(f"runtime {self._runtime} is not running", instrument=instrument)
        self._refuse_stranger(instrument)
        known = self._known[instrument]
        if isinstance(command, Recover) and known.waiting:
            return await self._recover_settings(definition, known)
        limit = Deadline(deadline_of(definition, command, deadline_s))
        try:
            async with self._window:
                result = await self._carry_out(definition, command, deadline_s, limit)
        except DuodaqError as error:
            raise error.about(instrument=instrument, command=command_name(command)) from error.__cause__
        known.note(command)
        return result

    async def _recover_settings(self, definition: InstrumentDefinition, known: Remembered) -> None:
        for name in list(known.waiting):
            await self._carry_out(definition, SetParameter(name, known.waiting[name]), None, Deadline(None))
            known.settings[name] = known.waiting.pop(name)

    async def _carry_out(
        self, definition: InstrumentDefinition, command: Command, deadline_s: float | None, limit: Deadline
    ) -> Any:
        begin_s = monotonic_s()
        trace_id = current_trace_id()
        while True:
            worker = await self._available_for(definition, command, limit)
            left_s = None if deadline_s is None else max(0.0, deadline_s - (monotonic_s() - begin_s))
            pending = worker.ask("command", (definition.id, command, left_s), trace_id)
            try:
                return await self._answer(worker, pending, limit)
            except _WorkerDiedError as death:
                fate = fate_after_death(death.begun, command, definition)
                if fate is Fate.UNKNOWN:
                    raise DeliveryError(f"its worker died while it was in hand: {death}", fate=fate) from None
                if fate is not None:
                    raise RestartingError(f"its worker died before it began: {death}", fate=fate) from None
            finally:
                worker.forget(pending)

    async def _answer(self, worker: ProcessWorker, pending: Pending, limit: Deadline) -> Any:
        left_s = limit.left_s
        if not pending.answer.done():
            await asyncio.wait({pending.answer}, timeout=None if left_s == float("inf") else left_s + MARGIN_S)
        if pending.answer.done():
            return pending.answer.result()
        fate = Fate.UNKNOWN if worker.page.begun(pending.number) else Fate.NOT_DONE
        raise ReplyTimeoutError(f"no answer from worker {self.group} in time", fate=fate)

    async def _available_for(
        self, definition: InstrumentDefinition, command: Command, limit: Deadline
    ) -> ProcessWorker:
        if self._current is None and self._restarting and not waits_for_replacement(command, definition):
            raise RestartingError(f"its worker is being replaced: {self._cause}", fate=Fate.NOT_DONE)
        return await self._available(limit)

    @property
    def _restarting(self) -> bool:
        return self._recovery is not None and not self._recovery.done()

    async def _available(self, limit: Deadline) -> ProcessWorker:
        """The worker, once there is one again.

        Raises:
            LifecycleError: It is stopped, or failed beyond its restarts.
            ReplyTimeoutError: There was none in time: not done.
        """
        while self._current is None:
            if self._stopping:
                raise StoppedError(f"runtime {self._runtime} is stopping")
            if self._failed:
                raise LifecycleError(f"its worker has failed: {self._cause}", left="start the runtime again")
            if limit.passed:
                raise ReplyTimeoutError(f"its worker was still being replaced: {self._cause}", fate=Fate.NOT_DONE)
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), None if limit.left_s == float("inf") else limit.left_s)
            except TimeoutError:
                continue
        return self._current

    def _refuse_stranger(self, instrument: str) -> None:
        if instrument in self._strangers:
            raise LifecycleError(self._strangers[instrument], instrument=instrument)

    # ---- watching --------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Ask the process for a sign of progress; end it if it has not given one, or an instrument in it hangs."""
        worker = self._current
        if worker is None or self._stopping or self._ending is not None:
            return
        worker.probe()
        hung = next((s for s in worker.snapshot.instruments if s.state is InstrumentState.HUNG), None)
        if hung is not None:
            self._ending = asyncio.ensure_future(self._end_hung(worker, f"{hung.id} hung: {hung.message}"))
        elif worker.blocked_s > self._patience_s():
            cause = f"its process gave no sign of progress for {worker.blocked_s:.1f} s"
            self._ending = asyncio.ensure_future(self._end_hung(worker, cause))

    def _patience_s(self) -> float:
        return min((d.kill_after_s for d in self._definitions.values()), default=10.0)

    async def _end_hung(self, worker: ProcessWorker, cause: str) -> None:
        """TERM, so that the others in it may close what they own; then KILL."""
        await clock.pause(0.06)  # let the watch see and tell that it hangs, before it is replaced
        _log.error("worker is ended", worker=self.group, cause=cause)
        worker.fault = worker.fault or cause
        if worker.blocked_s <= HUNG_AFTER_S:
            worker.child.terminate()
            await asyncio.wait({worker.child.gone}, timeout=TERM_S)
        worker.give_up(cause)

    def _tell_stop(self, port: str, epoch: int) -> None:
        worker = self._current
        if worker is not None:
            worker.tell_stop(port, epoch)

    # ---- death and replacement -------------------------------------------------------------------------------------

    def _lost(self, worker: ProcessWorker, fault: str) -> None:
        if worker is not self._current:
            return  # it died while it was being made, or stopped
        self._current = None
        self._since_ns = utc_ns()
        self._cause = fault or "its process died"
        self._recovery = asyncio.ensure_future(self._recover(worker))

    async def _recover(self, worker: ProcessWorker) -> None:
        noticed_s = monotonic_s()
        while True:
            self._cause = await worker.cause_of_death()
            self._settle(worker, self._cause)
            await worker.bury()
            self._account(worker)
            if self._ending is not None:
                self._ending.cancel()
                self._ending = None
            await self._take_safe_state()
            decision = RESTARTS.decide(self._restarts_s, monotonic_s())
            if isinstance(decision, GiveUp):
                self._give_up(decision.why)
                return
            await clock.pause(decision.delay_s)
            self._restarts_s.append(monotonic_s())
            try:
                worker = await self._make(self._given(fresh=False), Deadline(MAKE_S), identities=True)
            except DuodaqError as error:
                self._give_up(f"no replacement could be made: {error}")
                return
            self._current = worker
            self._news.set()
            _log.warning(
                "worker replaced", worker=self.group, cause=self._cause, took_ms=(monotonic_s() - noticed_s) * 1e3
            )
            try:
                await worker.request("start", MAKE_S, MAKE_S)
            except (ConfigError, LifecycleError) as error:
                self._give_up(f"its replacement did not start: {error}")
                return
            except DeliveryError:
                if worker.alive:
                    raise
                self._current = None  # it died, too; this is the next one
                noticed_s = monotonic_s()
                continue
            return

    def _settle(self, worker: ProcessWorker, cause: str) -> None:
        """Give every request that it had its fate; its reads go on as soon as there is another."""
        for pending in list(worker.pending.values()):
            if not pending.answer.done():
                begun = worker.page.begun(pending.number)
                if pending.op == "command":
                    pending.answer.set_exception(_WorkerDiedError(begun, cause))
                else:
                    pending.answer.set_exception(DeliveryError(f"its worker died: {cause}", fate="unknown"))
                pending.answer.exception()
        worker.pending.clear()

    def _account(self, worker: ProcessWorker) -> None:
        lost = self.books.close_accounts(worker.page.counts())
        _log.error("worker died", worker=self.group, cause=self._cause, measurements_lost=lost)
        for instrument in self._definitions:
            self._around.parameters.mark_stale(self._runtime, instrument)

    async def _take_safe_state(self) -> None:
        try:
            async with asyncio.timeout(CRASH_ACTIONS_S):
                await self._on_crash(tuple(self._definitions.values()), self._cause)
        except TimeoutError:
            _log.error("safe state not reached in time", worker=self.group)

    def _give_up(self, why: str) -> None:
        self._failed = True
        self._cause = f"{why}; the last cause was: {self._cause}" if self._cause else why
        self._since_ns = utc_ns()
        self._news.set()
        worker, self._current = self._current, None
        if worker is not None:
            self._ending = asyncio.ensure_future(self._close_quietly(worker))
        _log.error("worker has failed", worker=self.group, cause=self._cause)

    @staticmethod
    async def _close_quietly(worker: ProcessWorker) -> None:
        await worker.aclose(TERM_S)

    def _given(self, *, fresh: bool) -> tuple[InstrumentDefinition, ...]:
        """The stanzas for a new process: as they are, or as they must be after all that was asked since."""
        if fresh:
            return tuple(self._definitions.values())
        given: list[InstrumentDefinition] = []
        for definition in self._definitions.values():
            known = self._known[definition.id]
            replaced, withheld = definition_for_replacement(definition, known, latched=self._around.broker.latched)
            if withheld:
                _log.warning("settings withheld", instrument=definition.id, withheld=withheld)
            given.append(replaced)
        return tuple(given)

    async def _make(
        self, definitions: tuple[InstrumentDefinition, ...], deadline: Deadline, *, identities: bool = False
    ) -> ProcessWorker:
        page = self._page
        assert page is not None
        self._strangers = await impostors(self._around.broker, definitions) if identities else {}
        child = await self._nursery.take(self.group, definitions, deadline.left_s)
        broker = self._around.broker
        worker = ProcessWorker(self.group, self._runtime, child, self._around, page, self.books, self._lost)
        plan = WorkerPlan(
            name=self.group,
            runtime=self._runtime,
            factory=self._factory,
            ports=broker.definitions(),
            epochs=broker.epochs(),
            latched=broker.latched,
            anchor_ns=clock.anchor_ns(),
            log_level=logging.getLogger("duodaq").getEffectiveLevel(),
            definitions=tuple(d for d in definitions if d.id not in self._strangers),
            entries=self._around.entries(),
            memory_bytes=self._memory_bytes,
        )
        try:
            worker.make(plan)
        except BaseException:
            await worker.aclose(0.1)
            raise
        return worker

    async def _begin(self, worker: ProcessWorker, deadline: Deadline) -> None:
        """The first start: what fails here fails the start."""
        try:
            await worker.made(deadline.left_s)
            self._current = worker
            await worker.request("start", deadline.left_s, deadline.left_s + MARGIN_S)
        except BaseException:
            self._current = None
            await worker.aclose(0.2)
            raise


class ProcessEnd:
    """The process of a host, as the watch sees it."""

    kind = "process"

    def __init__(self, host: ProcessHosted) -> None:
        self._host = host

    @property
    def name(self) -> str:
        return self._host.group

    @property
    def blocked_s(self) -> float:
        return self._host.blocked_s

    def probe(self) -> None:
        self._host.probe()

    async def end(self, timeout_s: float) -> None:
        await self._host.end(timeout_s)


def _forced_if_leaked(report: ComponentReport) -> ComponentReport:
    """What a process leaves behind ends with the process."""
    if report.outcome is not Outcome.LEAKED:
        return report
    return msgspec.structs.replace(report, outcome=Outcome.FORCED, why=f"{report.why}; ended with its process")
