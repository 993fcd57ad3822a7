"""The instruments that share one worker process, across the deaths of the process.

Rules for whoever edits this:

* Whoever waits is told. When the process has gone, each request that it had gets its fate (`_settle`) before anything
  else; not when its death is known, which is earlier: until then one of its threads may begin what waits.
* The replacement is made while the dead one is still being taken down, and starts no instrument before that is over.
  The crash actions come before its start; the identity of a device before anything is written to it.
* A process that hangs is ended as a whole: first asked (TERM), then not (KILL). Those who live in it are told why.
* Restarts are counted in a window; beyond its limit the group is failed, and nothing starts it but a person.
* `end` ends everything, a recovery under way included, and leaves no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from duodaq import clock
from duodaq.clock import Deadline, monotonic_s, utc_ns
from duodaq.errors import (
    ConfigError,
    DeliveryError,
    DuodaqError,
    LifecycleError,
    ReplyTimeoutError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import (
    Fate,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    PortDefinition,
    RuntimeName,
    StartAcquisition,
)
from duodaq.telemetry import get_logger
from duodaq.v4 import GiveUp, RestartPolicy
from duodaq.workers._across import neighbours_of
from duodaq.workers._after_death import (
    Readings,
    Remembered,
    WorkerDiedError,
    definition_for_replacement,
    differences,
    lived_there,
)
from duodaq.workers._crash_actions import CrashActions, OnCrash
from duodaq.workers._hosting import HUNG_AFTER_S, is_known, moves_as_far_as_known
from duodaq.workers._identity import impostors, learn_identities
from duodaq.workers._inbox import FeedBooks
from duodaq.workers._nursery import Nursery
from duodaq.workers._page import SharedPage
from duodaq.workers._parts import RuntimeFactory
from duodaq.workers._plan import WorkerPlan, stanzas_ahead, to_start
from duodaq.workers._process import COMMAND, ProcessWorker, Surroundings
from duodaq.workers._restart_times import RestartTimes

TERM_S = 0.3
SEEN_S = 0.06
"""How long a hang is left standing, so that whoever watches sees it before the worker is replaced."""
MAKE_S = 20.0
LATCHED_S = 0.05
"""How often it is looked whether a stop is still latched that refused a replacement its start."""
RESTARTS = RestartPolicy(limit=5, window_s=60.0)
_log = get_logger("workers")


class ProcessGroup:
    """One worker after the other for one group of instruments. On the manager's loop.

    Args:
        runtime: Which runtime it hosts.
        name: The group's.
        factory: Makes the runtime, in the process.
        nursery: Where processes come from.
        around: The broker, the table and the hubs of the lab.
        page: What outlives a process; it stays its owner's.
        books: What was produced, and what became of it; likewise.
        on_crash: Carries out the crash actions of these instruments that are bytes, for this cause.
        memory_bytes: How much private memory a process may take.
    """

    def __init__(
        self,
        runtime: RuntimeName,
        name: str,
        factory: RuntimeFactory,
        nursery: Nursery,
        around: Surroundings,
        page: SharedPage,
        books: FeedBooks,
        on_crash: OnCrash,
        memory_bytes: int | None = None,
    ) -> None:
        self.runtime: RuntimeName = runtime
        self.name = name
        self.around = around
        self.page = page
        self.books = books
        self.definitions: dict[str, InstrumentDefinition] = {}
        self.expected: tuple[InstrumentDefinition, ...] = ()
        self.known: dict[str, Remembered] = {}
        self.strangers: dict[str, str] = {}
        self.natures: dict[str, bool] = {}
        self.changed: dict[str, dict[str, Any]] = {}
        self.current: ProcessWorker | None = None
        self.restarts_s = RestartTimes()
        self.running = self.failed = False
        self.cause = self.lingering = ""
        self.lingered = 0
        self.since_ns = 0
        self._factory = factory
        self._nursery = nursery
        self._crash = CrashActions(name, on_crash)
        self._memory_bytes = memory_bytes
        self._stopping = False
        self._before: Readings = {}
        self._news = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._making: asyncio.Task[ProcessWorker] | None = None
        self._made: ProcessWorker | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._unmourned: ProcessWorker | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._burials: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], object] | None = None

    @property
    def restarting(self) -> bool:
        """Whether a replacement is on its way."""
        return self.current is None and self._recovery is not None and not self._recovery.done()

    @property
    def pid(self) -> int | None:
        """The process's id, if there is a process."""
        return None if self.current is None else self.current.child.pid

    @property
    def blocked_s(self) -> float:
        """For how long the process has owed a sign of progress."""
        return 0.0 if self.current is None else self.current.blocked_s

    async def start(self, timeout_s: float) -> None:
        """Have a process made, the runtime in it, and its instruments started.

        A process that dies of that is replaced like any other; the start is no failure then.
        """
        deadline = Deadline(timeout_s)
        self.running, self._stopping, self.failed, self.cause = True, False, False, ""
        self.restarts_s.clear()
        broker = self.around.broker
        no_stops, no_losses = broker.subscribe_stops(self._tell_stop), broker.subscribe_losses(self._tell_loss)
        no_ports = broker.subscribe_ports(self._tell_port)
        self._unsubscribe = lambda: (no_stops(), no_losses(), no_ports())
        if broker.latched:
            self._note_stop_all()
        starting = self._starting = asyncio.create_task(self._start_first(deadline), name=f"start of {self.name}")
        try:
            await asyncio.wait({starting})
            if self._stopping:
                raise StoppedError(f"worker {self.name} was stopped while it was being started")
            starting.result()
        except BaseException:
            await self.end()
            raise
        self._beside = [
            asyncio.create_task(self._pass_entries_on(), name=f"entries for {self.name}"),
            asyncio.create_task(learn_identities(self.around.broker, tuple(self.definitions.values()))),
        ]

    def learn(self, definition: InstrumentDefinition) -> None:
        """Ask who answers at the port of an instrument that was added, so that another one is known for that later."""
        self._beside_recovery(learn_identities(self.around.broker, (definition,)), f"identity of {definition.id}")

    async def readmit(self, definition: InstrumentDefinition) -> None:
        """A person says that the right device is there again: it is asked once more, and started if it is.

        Raises:
            LifecycleError: Another one still answers, or none. Nothing was written to it.
            DuodaqError: It did not start.
        """
        strange = await impostors(self.around.broker, (definition,))
        if strange:
            self.strangers |= strange
            raise LifecycleError(strange[definition.id], left="put the right device back, then recover() it")
        worker = await self.available(Deadline(MAKE_S))
        if self.strangers.pop(definition.id, None) is not None:
            (given,) = (d for d in self._given_again() if d.id == definition.id)
            await worker.request("add", (given, False), MAKE_S)

    async def end(self, timeout_s: float = 0.5) -> tuple[Outcome, str]:
        """End the process and all that is under way for it, within `timeout_s`; how it ended. Idempotent."""
        self.stop_taking()
        while owned := [t for t in (*self._beside, self._starting, self._recovery, self._ending) if t is not None]:
            self._starting = self._recovery = self._ending = None
            self._beside = []
            for task in owned:
                task.cancel()
            await asyncio.gather(*owned, return_exceptions=True)  # meanwhile it may die, and a recovery begin
        worker, self.current = self.current, None  # from here on nobody recovers it
        lingering, self.lingering = self.lingering, ""
        if (dead := self._unmourned) is not None:  # its recovery was ended before it had begun
            self._unmourned = None
            self._beside_recovery(dead.bury(), f"burial of {self.name}")
        await self._discard_made()
        if self._burials:
            await asyncio.wait(self._burials)
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        left = worker is None or await worker.aclose(timeout_s)
        self._nursery.drop(self.name)
        self.running = False
        if lingering:
            return Outcome.LEAKED, lingering
        return (Outcome.CLEAN, "") if left else (Outcome.FORCED, "it did not leave by itself and was killed")

    def stop_taking(self) -> None:
        """Let nobody wait for a worker any more."""
        self._stopping = True
        self._news.set()

    async def available(self, limit: Deadline) -> ProcessWorker:
        """The worker, once there is one again.

        Raises:
            StoppedError: It is stopping: not done.
            LifecycleError: It has failed beyond its restarts.
            ReplyTimeoutError: There was none in time: not done.
        """
        while self.current is None:
            if self._stopping:
                raise StoppedError(f"runtime {self.runtime} is stopping")
            if self.failed:
                raise LifecycleError(f"its worker has failed: {self.cause}", left="mend the cause, then recover() it")
            if limit.passed:
                raise ReplyTimeoutError(f"its worker was still being replaced: {self.cause}", fate=Fate.NOT_DONE)
            self._news.clear()
            await _within(self._news.wait(), limit.left_s)
        return self.current

    def probe(self) -> None:
        """Ask the process for a sign of progress; end it if it has not given one, or an instrument in it hangs."""
        worker = self.current
        if worker is None or self._stopping or self._ending is not None:
            return
        worker.probe()
        hung = next((s for s in worker.snapshot.instruments if s.state is InstrumentState.HUNG), None)
        if hung is not None:
            self._ending = asyncio.create_task(self._end_hung(worker, f"{hung.id} hung: {hung.message}"))
        elif worker.blocked_s > min((d.kill_after_s for d in self.definitions.values()), default=10.0):
            cause = f"its process gave no sign of progress for {worker.blocked_s:.1f} s"
            self._ending = asyncio.create_task(self._end_hung(worker, cause))

    async def _end_hung(self, worker: ProcessWorker, cause: str) -> None:
        """TERM, so that the others in it may close what they own; then KILL."""
        await clock.pause(SEEN_S)
        _log.error("worker is ended", **lived_there(self), cause=cause)
        worker.fault = worker.fault or cause
        if worker.blocked_s <= HUNG_AFTER_S:
            worker.child.terminate()
            await asyncio.wait({worker.child.gone}, timeout=TERM_S)
        worker.give_up(cause)

    def streams(self, definition: InstrumentDefinition) -> bool:
        """Whether the acquisition of an instrument moves or emits; yes, until its worker has told."""
        if is_known(definition):
            return moves_as_far_as_known(definition, StartAcquisition())
        return self.natures.get(definition.id, True)

    def note_stop(self, definition: InstrumentDefinition) -> None:
        """All of an instrument is stopped: what its replacements are given may not undo that."""
        self.known[definition.id].note_stop(definition, streams=self.streams(definition))

    def _note_stop_all(self) -> None:
        for definition in tuple(self.definitions.values()):
            self.note_stop(definition)

    def _tell_stop(self, port: str, epoch: int) -> None:
        if not port and epoch:
            self._note_stop_all()
        for worker in filter(None, (self.current, self._made)):
            worker.tell_stop(port, epoch)

    def _tell_loss(self, port: str) -> None:
        for worker in filter(None, (self.current, self._made)):
            worker.tell_loss(port)

    def _tell_port(self, port: str, definition: PortDefinition | None) -> None:
        for worker in filter(None, (self.current, self._made)):
            worker.tell_port(port, definition)

    async def _pass_entries_on(self) -> None:
        """Tell the process what the other side's entries of the parameter table are."""
        changes = self.around.watch(f"worker {self.name}")
        try:
            async for entry in changes:
                for worker in filter(None, (self.current, self._made)):
                    if entry.instrument not in self.definitions:
                        worker.tell_entry(entry)
        finally:
            changes.close()

    # ---- death and replacement -------------------------------------------------------------------------------------

    def _lost(self, worker: ProcessWorker, fault: str) -> None:
        if worker is not self.current:
            return  # it died while it was being made; whoever makes it is told
        self.current = None
        self.since_ns = utc_ns()
        self.cause = fault or "its process died"
        if self._recovery_runs:  # a replacement that dies while it starts: that recovery goes on
            self._beside_recovery(self._settle_once_gone(worker), f"last words of {self.name}")
            return
        self._unmourned = worker
        self._recovery = asyncio.create_task(self._recover(worker), name=f"recovery of {self.name}")

    async def _recover(self, dead: ProcessWorker | None) -> None:
        self._unmourned = None
        while dead is not None:
            noticed_s = monotonic_s()
            if not isinstance(RESTARTS.decide(self.restarts_s, noticed_s), GiveUp):
                self._begin_making()
            try:
                await self._mourn(dead)
            finally:
                self._beside_recovery(dead.bury(), f"burial of {self.name}")
            decision = RESTARTS.decide(self.restarts_s, monotonic_s())
            if isinstance(decision, GiveUp):
                await self._discard_made()
                self._give_up(decision.why)
                return
            if decision.delay_s:
                await clock.pause(decision.delay_s)
            self.restarts_s.append(monotonic_s())
            dead = await self._replace_by_policy(noticed_s)

    async def _replace_by_policy(self, noticed_s: float) -> ProcessWorker | None:
        """Replace it; not to start is a failure like a death, but what a stop refuses waits for its reset."""
        while True:
            try:
                return await self._replace(noticed_s)
            except DuodaqError as error:
                self.cause = f"its replacement did not start: {error}"
                await self._crash.write(tuple(self.definitions.values()), self.cause)
                while self.around.broker.latched and isinstance(error, UnsafeStateError | StoppedError):
                    await clock.pause(LATCHED_S)
                decision = RESTARTS.decide(self.restarts_s, monotonic_s())
                if isinstance(error, ConfigError) or isinstance(decision, GiveUp):
                    self._give_up(decision.why if isinstance(decision, GiveUp) else "its stanza is wrong")
                    return None
                _log.error("replacement did not start", **lived_there(self), error=str(error))
            if decision.delay_s:
                await clock.pause(decision.delay_s)
            self.restarts_s.append(monotonic_s())

    async def _mourn(self, dead: ProcessWorker) -> None:
        """All that a death asks for before a replacement may start its instruments."""
        self.cause = await dead.cause_of_death()
        await self._settle_once_gone(dead)
        await dead.leave_the_stage()
        lost = self.books.close_accounts(self.page.counts())
        _log.error("worker died", **lived_there(self), cause=self.cause, measurements_lost=lost)
        self._before = self._readings(old_too=True)
        self.changed.clear()
        for instrument in self.definitions:
            self.around.parameters.mark_stale(self.runtime, instrument)
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.cancel()
        await self._crash.write(tuple(self.definitions.values()), self.cause)
        await self._outlive(dead)

    async def _outlive(self, dead: ProcessWorker) -> None:
        """Wait for the end of a process that does not end at once: what it has open, no other may open beside it."""
        if await dead.has_gone():
            return
        self.lingered += 1
        self.lingering = f"its process {dead.child.pid} was killed and does not end"
        _log.error("worker does not end", **lived_there(self), pid=dead.child.pid, cause=self.cause)
        cause, self.cause = self.cause, f"{self.cause}; {self.lingering}"
        await asyncio.wait({dead.child.gone})
        self.cause, self.lingering = cause, ""

    async def _replace(self, noticed_s: float) -> ProcessWorker | None:
        """Have a replacement made and started; itself, if it died of that."""
        before = self._before or self._readings(old_too=True)
        self._begin_making()
        making, self._making = self._making, None
        assert making is not None
        worker = await making
        self.strangers = await impostors(self.around.broker, tuple(self.definitions.values()))
        definitions = tuple(d for d in self._given_again() if d.id not in self.strangers)
        self._made = None
        if not worker.alive:
            return worker
        self.current = worker
        self._news.set()
        try:
            await worker.request("start", (MAKE_S, to_start(definitions, worker.ahead)), MAKE_S)
            for moved in [d for d in definitions if d.id not in self.definitions]:  # away, while this was being made
                with contextlib.suppress(LifecycleError):  # or it has been taken away already
                    await worker.request("remove", moved.id, TERM_S)
            took_ms = round((monotonic_s() - noticed_s) * 1e3, 2)
            _log.warning("worker replaced", **lived_there(self), cause=self.cause, took_ms=took_ms)
            self._note_differences(before)
            known = tuple(d for d in self.definitions.values() if d.id not in self.strangers)
            await self._crash.call(worker, known, self.cause)
        except DuodaqError as error:
            if worker.alive or not isinstance(error, DeliveryError):
                self.current = None
                await worker.aclose(TERM_S)
                raise
        return None if worker.alive else worker

    def _readings(self, *, old_too: bool = False) -> Readings:
        """What is known of each instrument's settings, as its driver last told; what is stale only if `old_too`."""
        found: Readings = {}
        for entry in self.around.entries():
            if entry.instrument in self.definitions and (old_too or not entry.stale):
                found.setdefault(entry.instrument, {})[entry.name] = entry.value
        return found

    def _note_differences(self, before: Readings) -> None:
        """Say which settings a replacement found other than they were: nobody could give it what a method has set."""
        after = self._readings()
        self._before = {}
        for definition in self.definitions.values():
            id = definition.id
            changed = differences(definition, before.get(id, {}), after.get(id, {}))
            self.changed[id] = changed
            if changed:
                _log.warning("settings are not what they were", instrument=id, before=before[id], now=changed)

    def _begin_making(self) -> None:
        """Have the next process made what it is to be, unless that has begun: all but its instruments."""
        if self._making is None:
            work = self._make(tuple(self.definitions.values()), Deadline(MAKE_S))
            self._making = asyncio.create_task(work, name=f"making of {self.name}")

    async def _discard_made(self) -> None:
        """End a process that was made in vain."""
        making, self._making = self._making, None
        if making is not None:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        worker, self._made = self._made, None
        if worker is not None:
            await worker.aclose(TERM_S)

    def _beside_recovery(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do what a death leaves to do, without the recovery waiting for it."""
        task = asyncio.create_task(work, name=name)
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def revive(self) -> None:
        """A person says that a failed group shall live again: its restarts are counted anew.

        Raises:
            DuodaqError: It did not start. It has failed again.
        """
        if not self.failed or self._recovery_runs:
            return
        self.failed = False
        self.restarts_s.clear()
        self._recovery = asyncio.create_task(self._begin_again(), name=f"revival of {self.name}")
        await asyncio.shield(self._recovery)

    async def _begin_again(self) -> None:
        try:
            dead = await self._replace(monotonic_s())
        except DuodaqError as error:
            self._give_up(f"it did not start again: {error}")
            raise
        await self._recover(dead)

    async def _settle_once_gone(self, worker: ProcessWorker) -> None:
        gone = await worker.has_gone()
        self._settle(worker, self.cause, gone=gone)

    def _settle(self, worker: ProcessWorker, cause: str, *, gone: bool) -> None:
        """Give every request that it had its fate; its reads go on as soon as there is another.

        Of a process that has not gone nobody knows what it may still begin: then every fate is unknown.
        """
        for pending in list(worker.pending.values()):
            if pending.answer.done():
                continue
            begun = self.page.begun(pending.number) or not gone
            if pending.op == COMMAND:
                pending.answer.set_exception(WorkerDiedError(begun, cause))
            else:
                pending.answer.set_exception(DeliveryError(f"its worker died: {cause}", fate="unknown"))
            pending.answer.exception()
        worker.pending.clear()

    def _give_up(self, why: str) -> None:
        self.failed = True
        self.cause = f"{why}; the last cause was: {self.cause}"
        self.since_ns = utc_ns()
        self._news.set()
        _log.error("worker has failed", **lived_there(self), cause=self.cause)

    def _given_again(self) -> tuple[InstrumentDefinition, ...]:
        """The stanzas for a replacement, after all that was asked since."""
        given: list[InstrumentDefinition] = []
        for definition in self.definitions.values():
            latched = self.around.broker.latched
            replaced, withheld = definition_for_replacement(definition, self.known[definition.id], latched=latched)
            if withheld:
                _log.warning("settings withheld", instrument=definition.id, withheld=withheld)
            given.append(replaced)
        return tuple(given)

    def _keep(self, instrument: str, name: str, value: Any) -> None:
        if (known := self.known.get(instrument)) is not None:
            known.settings[name] = value

    def _given_to(self, instrument: str) -> frozenset[str]:
        definition = self.definitions.get(instrument)
        return frozenset() if definition is None else neighbours_of(definition)

    async def _make(self, definitions: Sequence[InstrumentDefinition], deadline: Deadline) -> ProcessWorker:
        """A process that has been told what to be, and waits for the word to start; `_made` until it gets that."""
        broker = self.around.broker
        child = await self._nursery.take(self.name, definitions, deadline.left_s)
        worker = ProcessWorker(
            self.name,
            self.runtime,
            child,
            self.around,
            self.page,
            self.books,
            self._lost,
            self._given_to,
            self._keep,
            self.natures,
        )
        plan = WorkerPlan(
            name=self.name,
            runtime=self.runtime,
            factory=self._factory,
            ports=broker.definitions(),
            epochs=broker.epochs(),
            latched=broker.latched,
            anchor_ns=clock.anchor_ns(),
            log_level=logging.getLogger("duodaq").getEffectiveLevel(),
            entries=self.around.entries(),
            memory_bytes=self._memory_bytes,
            lab=broker.lab,
            ahead=stanzas_ahead(definitions),
        )
        try:
            worker.make(plan)
        except BaseException:
            await worker.aclose(0.1)
            raise
        self._made = worker
        return worker

    async def _start_first(self, deadline: Deadline) -> None:
        await self._nursery.start(deadline.left_s)
        self.strangers = {}
        worker = await self._make(tuple(self.definitions.values()) or self.expected, deadline)
        try:
            await worker.made(deadline.left_s)
            self.current, self._made = worker, None
            start = (deadline.left_s, to_start(self.definitions.values(), worker.ahead))
            await worker.request("start", start, deadline.left_s + SEEN_S)
        except DeliveryError as error:
            if worker is self.current or not self._recovery_runs:
                self.current = self._made = None
                await worker.aclose(0.2)
                raise
            _log.error("worker died while it started", **lived_there(self), error=str(error))
        except BaseException:
            self.current = self._made = None
            await worker.aclose(0.2)
            raise

    @property
    def _recovery_runs(self) -> bool:
        return self._recovery is not None and not self._recovery.done()


async def _within(work: Awaitable[Any], limit_s: float) -> bool:
    """Await `work` for `limit_s` at most; whether it ended by itself."""
    try:
        await asyncio.wait_for(work, None if limit_s == float("inf") else limit_s)
    except TimeoutError:
        return False
    return True
