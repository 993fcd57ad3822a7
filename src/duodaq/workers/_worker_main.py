"""What runs in a worker process: one runtime, at the end of a link to the manager.

Rules for whoever edits this:

* The process is the manager's. When the link ends it leaves at once, whatever is under way: nobody is there any more to
  be told, and its leases go back by themselves.
* Until its first message comes it has done nothing: a spare is a worker to which nobody has spoken yet.
* A command is noted on the shared page before it begins; what follows may be cut off anywhere.
* States are told when they change, and before the answer of whatever changed them.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import importlib
import os
import pickle
import select
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from duodaq import clock
from duodaq.drivers import codec as find_codec
from duodaq.errors import DataError, DuodaqError, LifecycleError
from duodaq.link import NO_MEMORY, Pipe, receive_descriptors
from duodaq.model import (
    IN_HAND,
    Command,
    InstrumentDefinition,
    InstrumentState,
    Runtime,
    StartAcquisition,
    command_name,
)
from duodaq.ports import Ended, Granted, Heard, LockTold, RemoteBroker, Stopped, ThreadLines, Written, announce_ports
from duodaq.telemetry import get_logger, told, work_for
from duodaq.workers._across import NeighbourLine, bound
from duodaq.workers._hosting import is_known
from duodaq.workers._lifeline import Keeper
from duodaq.workers._log_line import LogLine
from duodaq.workers._memory_limit import NO_MEMORY_CODE, limit_in_words, limit_memory, with_limit_named
from duodaq.workers._messages import (
    VERSION,
    Alive,
    Answer,
    Ask,
    Cancel,
    Credit,
    Figures,
    Kept,
    Known,
    Lost,
    Made,
    Make,
    Message,
    Nature,
    NeighbourAnswer,
    Order,
    PortIs,
    Probe,
    Snapshot,
    Stops,
    Taken,
    answer_with,
    decode_from_manager,
    encode,
    error_of,
    error_parts,
    result_parcel,
    unpack_trusted,
)
from duodaq.workers._mirror import ParameterMirror
from duodaq.workers._outbox import Outbox
from duodaq.workers._page import PagedNumbers, PagedSequences, SharedPage
from duodaq.workers._parts import RuntimeParts, as_kept, submitted
from duodaq.workers._plan import Stanzas, WorkerPlan, started
from duodaq.workers._recorder import RecorderLine
from duodaq.workers._title import show_as

TELL_EVERY_S = 0.02
FIGURES_EVERY = 25
TERM_S = 0.15
DESCRIPTORS_S = 5.0
NOT_YET_S = 0.0005
_NOT_STARTED = (InstrumentState.DISCONNECTED, InstrumentState.CONNECTING)
_log = get_logger("workers.main")


def run(link: socket.socket, descriptors: socket.socket) -> None:
    """Be a worker at the end of `link` until the other end closes it; descriptors come by `descriptors`."""
    faulthandler.enable()
    _await_word(link)
    loop = new_loop()
    try:
        loop.run_until_complete(Worker(link, descriptors).run())
    finally:
        leave(0)


def _await_word(link: socket.socket) -> None:
    """Wait until somebody speaks or hangs up: a spare has no loop, of which uvloop's alone takes 0.25 MB."""
    word = select.poll()
    word.register(link, select.POLLIN)
    word.poll()


@functools.cache
def keeper() -> Keeper:
    """The thread of this process that tells of its end."""
    return Keeper()


def leave(code: int) -> None:
    """End this process now: no thread of a driver is waited for."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # nobody reads what it says any more
    os._exit(code)


class Worker:
    """A worker at the end of `link`, from its first message on; descriptors come by `descriptors`."""

    def __init__(self, link: socket.socket, descriptors: socket.socket) -> None:
        self._descriptors = descriptors
        self._pipe = Pipe(link, encode, decode_from_manager, self._heard, self._lost)
        self._over = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ready: Ready | None = None

    def open(self) -> None:
        """Hear what the manager says, on the running loop."""
        self._pipe.open()

    async def run(self) -> None:
        """Until the end of this process."""
        self.open()
        loop = asyncio.get_running_loop()
        if hasattr(loop, "add_signal_handler"):
            loop.add_signal_handler(signal.SIGTERM, self._terminate)
        await self._over.wait()

    def _lost(self, why: str) -> None:
        leave(NO_MEMORY_CODE if why.startswith(NO_MEMORY) else 0)

    def _terminate(self) -> None:
        if self._ready is None:
            leave(0)
        else:
            self._terminating = asyncio.ensure_future(self._end_quickly(self._ready.runtime))

    async def _end_quickly(self, runtime: Runtime) -> None:
        """Let drivers that still answer close what they own; the shared ports are the manager's business."""
        try:
            await asyncio.wait_for(runtime.stop(TERM_S), 2 * TERM_S)
        except (TimeoutError, DuodaqError) as error:
            _log.warning("ended in a hurry", error=str(error))
        leave(0)

    def _heard(self, message: Any) -> None:
        ready = self._ready
        if isinstance(message, Make):
            self._make(message)
            return
        if ready is None:
            raise DataError(f"a {type(message).__name__} came before it was told what to be")
        match message:
            case Order() | Ask():
                self._tasks[message.number] = task = asyncio.create_task(self._serve(ready, message))
                task.add_done_callback(lambda _, number=message.number: self._tasks.pop(number, None))
            case Ended() | Granted() | Written() | Heard() | LockTold():
                ready.broker.lines.heard(message)
            case Probe():
                self._pipe.send(Alive(message.number))
            case Taken():
                ready.outbox.credited(message.credits)
                ready.outbox.taken(message.count)
            case Credit():
                ready.outbox.credited(message.numbers)
            case Cancel():
                if (task := self._tasks.get(message.number)) is not None:
                    task.cancel()
            case Stops():
                ready.broker.note_stop(message.port, message.epoch)
            case Lost():
                ready.broker.note_loss(message.port)
            case PortIs():
                ready.broker.note_port(message.name, unpack_trusted(message.definition))
            case Stopped():
                error = None if message.error is None else error_of(message.error)
                ready.broker.stopped(message.number, message.t_ns, error)
            case Known():
                ready.mirror.heard(message.entry)
            case NeighbourAnswer():
                ready.neighbours.heard(message)
            case _:
                raise DataError(f"a {type(message).__name__} comes from a worker, not to one")

    def _make(self, message: Make) -> None:
        try:
            if message.version != VERSION:
                raise LifecycleError(f"the manager speaks version {message.version}, this worker {VERSION}")
            page, threads = self._settle()
            plan = pickle.loads(message.plan)
            show_as(plan.name)
            lines = ThreadLines(threads, encode, result_parcel, asyncio.get_running_loop(), self._lost)
            self._ready = Ready(plan, page, self._pipe.send, self._descriptors, lines)
        except Exception as error:  # noqa: BLE001 - whatever a plan's classes raise when they are made here is told
            told_error = error if isinstance(error, DuodaqError) else LifecycleError(told(error))
            self._pipe.send(Made(error_parts(told_error)[0]))
            return
        self._pipe.send(Made())
        self._ready.tell()

    def _settle(self) -> tuple[SharedPage, socket.socket]:
        """Take what comes beside the first message, and use it; the page, and the line of the drivers' threads."""
        page, output, lifeline, threads = receive_descriptors(self._descriptors, DESCRIPTORS_S)
        _redirect(output)
        keeper().hold(lifeline)
        return SharedPage(page), socket.socket(fileno=threads)

    async def _serve(self, ready: Ready, ask: Order | Ask) -> None:
        work_for(ask.trace_id)
        begun_ns = clock.utc_ns() if ask.traced else 0
        try:
            if isinstance(ask, Order):
                result = await ready.command(ask.number, ask.instrument, ask.command, ask.deadline_s)
            else:
                result = await ready.carry_out(ask.number, ask.op, unpack_trusted(ask.body))
            answer = answer_with(ask.number, result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is the manager who has to know
            answer = Answer(ask.number, None, *error_parts(ready.explained(error, ask)))
        ready.push_changes()
        if ask.traced:
            answer = msgspec.structs.replace(answer, took=(begun_ns, clock.utc_ns()))
        try:
            self._pipe.send(answer)
        except DataError as error:  # e.g. it is too long: whoever waits has to know
            self._pipe.send(Answer(ask.number, None, *error_parts(error)))


class Ready:
    """A worker that knows what it is: its runtime, and the ends of all that the runtime was given."""

    def __init__(
        self,
        plan: WorkerPlan,
        page: SharedPage,
        send: Callable[[Message], None],
        descriptors: socket.socket,
        threads: ThreadLines,
    ) -> None:
        self._send = send
        clock.adopt_anchor(plan.anchor_ns)
        LogLine.install(send, plan.log_level)
        self._limit = limit_in_words(plan.memory_bytes, plan.runtime)
        if plan.memory_bytes is not None and sys.platform == "linux":
            limit_memory(plan.memory_bytes)
        self.page = page
        self.broker = RemoteBroker(
            send, threads, plan.ports, find_codec, plan.epochs, latched=plan.latched, pack=result_parcel
        )
        announce_ports(plan.lab, self.broker)
        self.mirror = ParameterMirror(send, plan.entries)
        self.neighbours = NeighbourLine(send)
        self.outbox = Outbox(plan.runtime, send, descriptors)
        self.runtime: Runtime = plan.factory(
            RuntimeParts(
                self.broker,
                self.mirror,
                self.outbox.v2_data,
                self.outbox.v4_data,
                PagedSequences(page),
                PagedNumbers(page),
                self._keep,
                RecorderLine(self.neighbours.record),
            )
        )
        self._ahead = plan.ahead
        self._said: Any = None
        self._seen = -1
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ticks = 0
        self._ops: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "start": self._start,
            "stop": self._stop,
            "add": self._add,
            "remove": self._remove,
            "restart": self.runtime.restart,
            "end_moving": self._end_moving,
            "submit": self._submit,
            "flush": self._flush,
            "load": self._load,
        }

    def _keep(self, instrument: str, name: str, value: Any) -> None:
        """Have the manager know a setting, for the process that may follow this one."""
        try:
            self._send(Kept(instrument, name, result_parcel(value)))
        except DataError as error:
            _log.warning("a setting that no replacement can be given", instrument=instrument, error=str(error))

    def explained(self, error: BaseException, ask: Order | Ask) -> BaseException:
        """`error` as whoever asked can make use of it."""
        if not isinstance(ask, Order):
            return with_limit_named(error, self._limit, instrument=getattr(error, "instrument", None))
        return with_limit_named(error, self._limit, instrument=ask.instrument, command=command_name(ask.command))

    async def carry_out(self, number: int, op: str, body: Any) -> Any:
        """Do what an Ask asks for."""
        if op == "command":
            return await self.command(number, *body)
        operation = self._ops.get(op)
        if operation is None:
            raise DataError(f"nothing is called {op!r} here")
        return await operation(body)

    def tell(self) -> None:
        """Tell how things are, now and whenever they change."""
        self.push()
        if self._ticks % FIGURES_EVERY == 0:
            self._send(Figures(_figures(self.runtime)))
        self._ticks += 1
        asyncio.get_running_loop().call_later(TELL_EVERY_S, self.tell)

    def push_changes(self) -> None:
        """Tell how things are, if something may have changed: to look at all of it costs more than most commands."""
        if self.runtime.changes != self._seen:
            self.push()

    def push(self) -> None:
        """Tell how things are, if that has changed."""
        self._seen = self.runtime.changes
        now = (self.runtime.status, self.runtime.instruments(), self.runtime.channels())
        if now != self._said:
            self._said = now
            self._send(Snapshot(now[0], list(now[1]), list(now[2])))

    async def _start(self, body: tuple[float, Stanzas]) -> None:
        timeout_s, stanzas = body
        try:
            for definition in started(stanzas, self._ahead):
                await self._add((definition, False))
            await self.runtime.start(timeout_s)
        finally:
            if not self._started.done():
                self._started.set_result(None)

    async def _stop(self, timeout_s: float) -> Any:
        reports = await self.runtime.stop(timeout_s * 0.9)
        delivered = await self.outbox.aclose(timeout_s * 0.1)
        return reports, delivered

    async def _add(self, body: tuple[InstrumentDefinition, bool]) -> None:
        definition, keep = body
        self.mirror.moved_in(definition.id)
        try:
            await self.runtime.add(bound(definition, self.neighbours.put), **as_kept(keep))
        finally:
            if not is_known(definition):
                self._send(Nature(definition.id, self.runtime.moves(definition.id, StartAcquisition())))

    async def _remove(self, instrument: str) -> Any:
        report = await self.runtime.remove(instrument)
        self.mirror.moved_out(instrument)
        return report

    async def _end_moving(self, reason: str) -> int:
        return self.runtime.end_moving(reason)

    async def _flush(self, timeout_s: float) -> bool:
        self.runtime.flush()
        return await self.outbox.flushed(timeout_s)

    async def _load(self, modules: Sequence[str]) -> None:
        """Import these beside everything else, as far as they can be imported."""
        if missing := [module for module in modules if module not in sys.modules]:
            await asyncio.to_thread(_import, missing)

    async def _submit(self, command: Any) -> Any:
        return await submitted(self.runtime, command)

    async def command(self, number: int, instrument: str, command: Command, deadline_s: float | None) -> Any:
        """Carry out one command of the runtime, as soon as its instrument has had its start."""
        IN_HAND.set(_Once(self.page, number))
        while not self._started.done() and self._is_starting(instrument):
            await asyncio.wait({self._started}, timeout=NOT_YET_S)
        return await self.runtime.command(instrument, command, deadline_s)

    def _is_starting(self, instrument: str) -> bool:
        known = next((status for status in self.runtime.instruments() if status.id == instrument), None)
        return known is None or known.state in _NOT_STARTED


class _Once:
    """Notes on the page that a command is in hand; what it leaves behind in other tasks notes nothing."""

    __slots__ = ("_number", "_page")

    def __init__(self, page: SharedPage, number: int) -> None:
        self._page = page
        self._number = number

    def __call__(self) -> None:
        number, self._number = self._number, 0
        if number:
            self._page.begin(number)


def _figures(runtime: Runtime) -> Any:
    try:
        return result_parcel(msgspec.to_builtins(runtime.metrics(), enc_hook=str))
    except (DataError, TypeError):
        return None


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with contextlib.suppress(Exception, SystemExit):  # it is told when the module is needed
            importlib.import_module(module)


def _redirect(output: int) -> None:
    """Let all that drivers and libraries print go to the manager, which says whose it is."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - as above


def new_loop() -> asyncio.AbstractEventLoop:
    """The loop of a worker, set as this thread's."""
    loop = clock.new_loop()
    asyncio.set_event_loop(loop)
    return loop
