"""One worker process as the manager holds it, from its first message to its end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from duodaq.clock import monotonic_s
from duodaq.dataplane import Hub, Subscription
from duodaq.errors import DataError, DeliveryError, DuodaqError, LifecycleError, ReplyTimeoutError, StoppedError
from duodaq.link import Pipe, RingReader, receive_descriptors, send_descriptors
from duodaq.model import (
    Command,
    InstrumentDefinition,
    Measurement,
    ParameterEntry,
    Parameters,
    PortDefinition,
    RuntimeName,
    RuntimeStatus,
)
from duodaq.ports import Broker, DeskLine, OfUser, PortDesk
from duodaq.telemetry import SPANS, current_trace_id, get_logger
from duodaq.workers._across import NeighbourDesk, Switchboard
from duodaq.workers._by_value import dumps
from duodaq.workers._child import Child
from duodaq.workers._inbox import FeedBooks, Inbox
from duodaq.workers._lifeline import Lifeline
from duodaq.workers._log_line import log_here
from duodaq.workers._memory_limit import NO_MEMORY_CODE, limit_in_words
from duodaq.workers._messages import (
    VERSION,
    Alive,
    Answer,
    Ask,
    Batch,
    Cancel,
    Credit,
    Figures,
    Item,
    Kept,
    Known,
    Log,
    Lost,
    Made,
    Make,
    Message,
    Nature,
    NeighbourAsk,
    Order,
    PortIs,
    Probe,
    Put,
    RecorderAsk,
    Ring,
    Rows,
    Snapshot,
    Stale,
    Stops,
    Taken,
    decode_from_worker,
    encode,
    error_of,
    may_be_ordered,
    parcel,
    unpack,
)
from duodaq.workers._output import OutputReader
from duodaq.workers._page import IN_HAND, SharedPage
from duodaq.workers._plan import WorkerPlan
from duodaq.workers._recorder import RecorderDesk

LAST_S = 0.5
COMMAND = "command"
"""The request that most requests are; every other may have begun as soon as it was sent."""
_QUOTA_SHARE = 0.75
_log = get_logger("workers")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker's end at the manager is connected to."""

    broker: Broker
    parameters: Parameters
    v2_data: Hub[Measurement]
    v4_data: Hub[pa.RecordBatch]
    entries: Callable[[], tuple[ParameterEntry, ...]]
    watch: Callable[[str], Subscription[ParameterEntry]]
    worker_began: Callable[[int, int], None]
    worker_ended: Callable[[int], None]
    board: Switchboard
    recorder: RecorderDesk = field(default_factory=RecorderDesk)


class Pending:
    """A request without an answer: what it was, and who waits."""

    __slots__ = ("answer", "body", "number", "op", "trace_id", "worker")

    def __init__(self, worker: ProcessWorker, number: int, op: str, body: Any, trace_id: str | None) -> None:
        self.worker = worker
        self.number = number
        self.op = op
        self.body = body
        self.trace_id = trace_id
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def expire(self) -> None:
        """It has not been answered in time."""
        if not self.answer.done():
            fate = "unknown" if self.worker.page.begun(self.number) else "not done"
            self.answer.set_exception(ReplyTimeoutError(f"no answer from worker {self.worker.name} in time", fate=fate))


class ProcessWorker:
    """Speaks with one child process. On the manager's loop.

    Args:
        name: The worker's.
        runtime: Which runtime it hosts.
        child: The process, which this owns from now on.
        around: What it is connected to.
        page: The page of its group.
        books: The feed books of its group.
        on_lost: Called once, when it is dead or has been given up: with the cause, in words.
        neighbours: Which others one of its instruments may ask.
        keep: Told of each setting that a replacement has to know: instrument, name and value.
    """

    _numbers = itertools.count(1)  # never used twice in this program: the page remembers them across replacements

    def __init__(
        self,
        name: str,
        runtime: RuntimeName,
        child: Child,
        around: Surroundings,
        page: SharedPage,
        books: FeedBooks,
        on_lost: Callable[[ProcessWorker, str], None],
        neighbours: Callable[[str], frozenset[str]],
        keep: Callable[[str, str, Any], None],
        natures: dict[str, bool],
    ) -> None:
        self.name = name
        self.child = child
        self.page = page
        self.snapshot = Snapshot(RuntimeStatus.STARTING, [], [])
        self.figures: dict[str, Any] = {}
        self.pending: dict[int, Pending] = {}  # by number % IN_HAND, which is their place on the page
        self.fault = ""
        self.memory_bytes: int | None = None
        self.ahead: dict[str, InstrumentDefinition] = {}
        self._runtime: RuntimeName = runtime
        self._around = around
        self._on_lost = on_lost
        self._keep = keep
        self._natures = natures
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pipe = Pipe(child.link, encode, decode_from_worker, self._heard, self._ended)
        self._desk = PortDesk(around.broker, self._pipe.send, self._own, unpack)
        self._threads: DeskLine | None = None
        self._neighbours = NeighbourDesk(around.board, neighbours, self._tell)
        self._inbox = Inbox(around.v2_data, around.v4_data, books, self._acknowledge)
        self._output: OutputReader | None = None
        self._lifeline = Lifeline(self._pipe.end)
        self._made: asyncio.Future[None] = self._loop.create_future()
        self._asked_s: float | None = None
        self._probes = itertools.count(1)
        self._credits: deque[int] = deque()
        self._over = False
        self._lingers = False
        child.gone.add_done_callback(lambda _: self._pipe.end())  # a process that it forked may hold its link open
        around.worker_began(child.pid, child.pidfd)

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return not self._over

    @property
    def blocked_s(self) -> float:
        """For how long its loop has owed the answer to a probe, in seconds."""
        return 0.0 if self._asked_s is None or self._over else monotonic_s() - self._asked_s

    @property
    def output_left_out(self) -> int:
        """How many lines that its drivers printed were too many to be logged."""
        return 0 if self._output is None else self._output.left_out

    def make(self, plan: WorkerPlan) -> None:
        """Tell the process what to be; `made` tells whether it is."""
        read, write = os.pipe()
        self._output = OutputReader(read, self.name)
        near, far = socket.socketpair()
        self._threads = DeskLine(self._around.broker, near, encode, self._own, unpack, self._pipe.end)
        self._threads.open()
        self._pipe.open()
        self.ahead, self.memory_bytes = plan.ahead, plan.memory_bytes
        try:
            body = dumps(plan)
            if not send_descriptors(self.child.fds, [self.page.fd, write, self._lifeline.far, far.fileno()]):
                raise LifecycleError(f"worker {self.name} ended before it was told what to be")
            self._pipe.send(Make(VERSION, body))
        except DuodaqError:
            raise
        except Exception as error:
            raise DataError(f"what {self.name} is to be cannot be sent to a process: {error}") from error
        finally:
            os.close(write)
            far.close()
            self._lifeline.let_go()

    async def made(self, timeout_s: float) -> None:
        """Wait until the process is what it was told to be.

        Raises:
            LifecycleError: Not in time.
            DuodaqError: It cannot be that; or it died.
        """
        await asyncio.wait({self._made}, timeout=timeout_s)
        if not self._made.done():
            raise LifecycleError(f"worker {self.name} was not ready within {timeout_s:.3g} s")
        self._made.result()

    def ask(self, op: str, body: Any, trace_id: str | None = None) -> Pending:
        """Send a request; its answer is in the returned Pending.

        Raises:
            DeliveryError: The worker is gone, or has too many requests open: not done.
            DataError: The body does not travel: not done.
        """
        pending = self._new_pending(op, body, trace_id)
        self._send(pending, Ask(pending.number, op, parcel(body), pending.trace_id))
        return pending

    def order(
        self, instrument: str, command: Command, deadline_s: float | None, trace_id: str | None = None
    ) -> Pending:
        """Send a command; as `ask`."""
        pending = self._new_pending(COMMAND, (instrument, command, deadline_s), trace_id)
        message: Ask | Order
        if (taker := SPANS.taker) is not None:
            taker.expect_inner(pending.trace_id, instrument)
        if may_be_ordered(command):
            message = Order(pending.number, instrument, command, deadline_s, pending.trace_id, taker is not None)
        else:
            message = Ask(pending.number, COMMAND, parcel(pending.body), pending.trace_id, taker is not None)
        self._send(pending, message)
        return pending

    def _new_pending(self, op: str, body: Any, trace_id: str | None) -> Pending:
        if self._over:
            raise DeliveryError(f"worker {self.name} is gone", fate="not done")
        if len(self.pending) >= IN_HAND:
            raise DeliveryError(f"worker {self.name} has {IN_HAND} requests open already", fate="not done")
        number = next(ProcessWorker._numbers)
        while number % IN_HAND in self.pending:
            number = next(ProcessWorker._numbers)
        return Pending(self, number, op, body, trace_id or current_trace_id())

    def _send(self, pending: Pending, message: Ask | Order) -> None:
        self._pipe.send(message)
        self.pending[pending.number % IN_HAND] = pending

    def forget(self, pending: Pending) -> None:
        """Nobody waits for this answer any more."""
        if self._settled(pending.number) and not self._over:
            self._tell(Cancel(pending.number))

    def _settled(self, number: int) -> Pending | None:
        """The request of that number, which is open no more; None if it was not."""
        pending = self.pending.get(number % IN_HAND)
        if pending is None or pending.number != number:
            return None
        del self.pending[number % IN_HAND]
        return pending

    async def request(self, op: str, body: Any, timeout_s: float) -> Any:
        """Send a request and await its answer.

        Raises:
            ReplyTimeoutError: No answer within `timeout_s`: unknown.
            DeliveryError: The worker died: unknown.
        """
        pending = self.ask(op, body)
        try:
            await asyncio.wait({pending.answer}, timeout=timeout_s)
            if not pending.answer.done():
                raise ReplyTimeoutError(f"no answer from worker {self.name} within {timeout_s:.3g} s")
            return pending.answer.result()
        finally:
            self.forget(pending)

    def probe(self) -> None:
        """Ask its loop for a sign of progress, unless it owes one already."""
        if not self._over and self._asked_s is None and self._made.done():
            self._asked_s = monotonic_s()
            self._tell(Probe(next(self._probes)))

    def tell_stop(self, port: str, epoch: int) -> None:
        """A stop epoch or the latch has changed. From any thread."""
        self._tell(Stops(port, epoch))

    def tell_loss(self, port: str) -> None:
        """The line of a port is lost."""
        self._tell(Lost(port))

    def tell_port(self, name: str, definition: PortDefinition | None) -> None:
        """A port was added, or was removed (None)."""
        self._tell(PortIs(name, parcel(definition)))

    def tell_entry(self, entry: ParameterEntry) -> None:
        """An entry of the parameter table has changed on the other side."""
        with contextlib.suppress(DataError):  # a value that does not travel stays where it is
            self._tell(Known(msgspec.structs.replace(entry, value=parcel(entry.value))))

    def give_up(self, cause: str) -> None:
        """Kill it, because of `cause`; `on_lost` is called once it is dead."""
        self.fault = self.fault or cause
        self.child.kill()

    async def aclose(self, timeout_s: float) -> bool:
        """End it: hang up, let it leave, kill it if it does not; whether it left by itself. `on_lost` is not called."""
        self._over = True
        self._lifeline.close()
        self._leave_ports()
        left = False
        try:
            await asyncio.wait({self.child.gone}, timeout=timeout_s)
            left = self.child.gone.done()
        finally:
            await self._release()
        return left

    # ---- what it says --------------------------------------------------------------------------------------------

    def _heard(self, message: Any) -> None:
        match message:
            case Answer():
                self._answered(message)
            case Rows() | Item() | Batch():
                self._inbox.heard(message)
            case Snapshot():
                self.snapshot = message
            case Alive():
                self._asked_s = None
            case Put():
                self._put(message)
            case Kept():
                self._keep(message.instrument, message.name, unpack(message.value))
            case Nature():
                self._natures[message.instrument] = message.streams
            case Stale():
                self._around.parameters.mark_stale(self._runtime, message.instrument)
            case Log():
                log_here(message, self.name)
            case Figures():
                self.figures = unpack(message.figures) or self.figures
            case Ring():
                self._attach_ring(message.size)
            case Made():
                self._note_made(message)
            case NeighbourAsk():
                self._own(self._neighbours.serve(message, self._neighbours.checked(message)))
            case RecorderAsk():
                self._own(self._around.recorder.serve(message, self._tell))
            case _:
                self._port_request(message)

    def _port_request(self, request: OfUser) -> None:
        self._desk.heard(request)

    def _answered(self, message: Answer) -> None:
        pending = self.pending.get(message.number % IN_HAND)
        if pending is None or pending.number != message.number or pending.answer.done():
            return
        if message.took is not None and pending.op == COMMAND and (taker := SPANS.taker) is not None:
            facts = {"worker": self.name, "pid": self.child.pid}
            taker.inner(pending.trace_id, pending.body[0], *message.took, facts)
        if message.error is None:
            pending.answer.set_result(message.result)
        else:
            error = error_of(message.error, message.cause)
            if self.fault and isinstance(error, StoppedError):
                return  # it is being ended: its death says why, and what becomes of what waits
            pending.answer.set_exception(error)
        del self.pending[message.number % IN_HAND]

    def _put(self, message: Put) -> None:
        try:
            value = unpack(message.value)
            self._around.parameters.put(self._runtime, message.instrument, message.name, value, message.unit)
        except LifecycleError as error:  # the other side owns it
            _log.warning("not in the parameter table", worker=self.name, error=str(error))

    def _note_made(self, message: Made) -> None:
        if self._made.done():
            return
        if message.error is None:
            self._made.set_result(None)
        else:
            self._made.set_exception(error_of(message.error))
            self._made.exception()  # whoever started it may have gone

    def _attach_ring(self, size: int) -> None:
        found = receive_descriptors(self.child.fds)
        if len(found) != 1:
            for descriptor in found:
                os.close(descriptor)
            raise DataError("a ring without its descriptor")
        try:
            self._inbox.attach(RingReader(found[0], self._credit, int(size * _QUOTA_SHARE)))
        finally:
            os.close(found[0])

    def _credit(self, number: int) -> None:
        """A blob is not looked at any more. From any thread, also from the garbage collector: only enqueue."""
        self._credits.append(number)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._send_credits)

    def _send_credits(self) -> None:
        if (numbers := self._take_credits()) and not self._over:
            self._tell(Credit(numbers))

    def _acknowledge(self, count: int) -> None:
        self._tell(Taken(count, self._take_credits()))

    def _take_credits(self) -> list[int]:
        return [self._credits.popleft() for _ in range(len(self._credits))]

    # ---- its end -------------------------------------------------------------------------------------------------

    def _ended(self, why: str) -> None:
        """The link has ended: it died, or said something that made no sense."""
        if self._over:
            return
        self._over = True
        self._lifeline.close()
        if why:
            self.fault = self.fault or f"its link ended: {why}"
        self.child.kill()
        self._leave_ports()
        if not self._made.done():
            self._made.set_exception(DeliveryError(f"worker {self.name} died while it was being made", fate="not done"))
            self._made.exception()
        self._on_lost(self, self.fault)

    def _leave_ports(self) -> None:
        """Hear nothing more from it, and give back all that it had at the ports."""
        self._pipe.close()
        self._desk.close()
        if self._threads is not None:
            self._threads.close()

    async def cause_of_death(self, patience_s: float = 0.05) -> str:
        """Why it died, in words; asked after `on_lost`."""
        if self.fault:
            return self.fault
        if await self.has_gone():
            await asyncio.wait({self.child.exit}, timeout=patience_s)
        code = self.child.exit.result() if self.child.exit.done() else None
        if code == NO_MEMORY_CODE:
            return f"its process had no memory left: {limit_in_words(self.memory_bytes, self._runtime)}"
        return cause_in_words(code)

    async def has_gone(self) -> bool:
        """After `on_lost`: wait until none of its threads runs any more, and it has let go of all it had open.

        Returns:
            False if that takes longer than half a second: a process in an uninterruptible call of its kernel, say. Who
            asks again is told at once.
        """
        if not self.child.gone.done() and not self._lingers:
            await asyncio.wait({self.child.gone}, timeout=LAST_S)
            self._lingers = not self.child.gone.done()
        return self.child.gone.done()

    async def leave_the_stage(self) -> None:
        """After `on_lost`: wait until its process has gone, and what had arrived is published."""
        await self.has_gone()
        await self._inbox.empty(LAST_S)

    async def bury(self) -> None:
        """After that: release everything. Unmapping a large ring alone takes milliseconds."""
        await self._release()

    async def _release(self) -> None:
        self._over = True
        self._lifeline.close()
        self._leave_ports()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._inbox.aclose(LAST_S)
        await self.child.aclose(LAST_S)
        self._around.worker_ended(self.child.pid)
        if self._output is not None:
            self._output.close()
        for pending in self.pending.values():
            if not pending.answer.done():
                fate = "unknown" if self.page.begun(pending.number) or pending.op != COMMAND else "not done"
                pending.answer.set_exception(DeliveryError(f"worker {self.name} has ended", fate=fate))
                pending.answer.exception()
        self.pending.clear()

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, message: Message) -> None:
        if not self._over:
            with contextlib.suppress(DeliveryError):  # its end is noticed where the pipe is read
                self._pipe.send(message)


def cause_in_words(code: int | None) -> str:
    """How a process ended, from its exit code as `subprocess` counts; None if nobody could tell."""
    if code is None:
        return "its process died"
    if code >= 0:
        return f"its process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was killed by {name}"
