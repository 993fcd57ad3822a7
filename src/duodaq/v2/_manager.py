"""The manager task: the one place where V2's state changes.

Rules for whoever edits this:

* `_handle` never awaits. What takes time is handed to an instrument's queue, or to a task that the manager owns, whose
  result is the one-shot reply of the command.
* Every command is answered exactly once: "ok" means done, never queued.
* `_instruments` is replaced whole at each change, so that any thread may read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from duodaq.clock import Deadline
from duodaq.errors import DuodaqError, LifecycleError, MailboxFullError, StoppedError
from duodaq.model import (
    ComponentReport,
    Fate,
    InstrumentDefinition,
    Outcome,
    Stop,
)
from duodaq.model import Shutdown as ShutdownCommand
from duodaq.telemetry import get_logger
from duodaq.v2 import _command as v2
from duodaq.v2._fault import typed_error
from duodaq.v2._instrument import Instrument, Services
from duodaq.v2._rules import may_move, own_deadline_s
from duodaq.v2._stop import StopWriter
from duodaq.v2._work import CAPACITY, Work

POST_S = 5.0
_LOG = get_logger("v2.manager")


class RecorderPromise(Protocol):
    """What StartRecording and StopRecording drive; the application plugs it in. Never lossy."""

    async def start(self, **options: Any) -> Any: ...

    async def stop(self) -> Any: ...


class _Envelope:
    """A command in the manager's queue, with its one-shot reply."""

    __slots__ = ("command", "instrument", "reply", "work")

    def __init__(
        self,
        command: v2.V2Command,
        reply: asyncio.Future[Any],
        work: Work | None = None,
        instrument: Instrument | None = None,
    ) -> None:
        self.command, self.reply, self.work, self.instrument = command, reply, work, instrument


class Manager:
    """Owns V2's instruments. Everything but the properties is called on its loop."""

    def __init__(self, services: Services, stops: StopWriter, recorder: RecorderPromise | None) -> None:
        self._services = services
        self._stops = stops
        self._recorder = recorder
        self._instruments: dict[str, Instrument] = {}
        self._queue: asyncio.Queue[_Envelope] = asyncio.Queue(CAPACITY)
        self._task: asyncio.Task[None] | None = None
        self._owned: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.handled = 0
        self.high_water = 0

    @property
    def instruments(self) -> dict[str, Instrument]:
        """Every instrument that is known, by its id. Not to be changed."""
        return self._instruments

    def start(self) -> None:
        """Start the manager task."""
        self._task = asyncio.create_task(self._run(), name="v2.manager")

    async def submit(self, command: v2.V2Command) -> Any:
        """Carry out one command: its result when it is done, or its typed error.

        Raises:
            LifecycleError: V2 does not run, or the instrument is not known.
            MailboxFullError: There was no room in a queue in time. Nothing was begun.

        Cancellation:
            A command that waits is not done; one in hand goes on, and its outcome is logged as late.
        """
        if self._task is None or self._task.done():
            raise LifecycleError("V2 is not running", command=type(command).__name__)
        if self._closing:
            raise StoppedError("V2 is stopping", command=type(command).__name__)
        if isinstance(command, v2.SendInstrumentCommand):
            return await self._send(command)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._post(_Envelope(command, reply))
        return await reply

    def end_moving(self, reason: str) -> int:
        """End every moving or emitting command that waits anywhere in V2, as not done; how many."""
        return sum(instrument.end_moving(reason) for instrument in self._instruments.values())

    def line_lost(self, port: str) -> None:
        """The line of `port` is lost: what is on it is connected anew when it is back."""
        for instrument in self._instruments.values():
            if instrument.definition.port == port:
                instrument.line_lost()

    async def aclose(self) -> None:
        """End the manager task, once `Shutdown` has been answered."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # ── in the caller's task ────────────────────────────────────────────────────────────────────────────────────────

    async def _send(self, command: v2.SendInstrumentCommand) -> Any:
        instrument = self._get(command.id)
        definition, inner = instrument.definition, command.command
        limit_s = command.deadline_s if command.deadline_s is not None else own_deadline_s(definition, inner)
        moving, deadlines, figures = may_move(definition, inner), instrument.deadlines, instrument.figures
        work = Work(command.id, inner, deadlines, figures, moving=moving, deadline_s=limit_s)
        try:
            if not isinstance(inner, Stop | ShutdownCommand):
                instrument.queue.register(work)
                if not instrument.queue.reserve_nowait(work):
                    await instrument.queue.reserve(work)
            if not work.ended:
                envelope = _Envelope(command, work.reply, work, instrument)
                if self._queue.empty():
                    self._handle_one(envelope)
                else:
                    await self._post(envelope)
            return await work.reply
        finally:
            work.reply.cancel()

    async def _post(self, envelope: _Envelope) -> None:
        try:
            self._queue.put_nowait(envelope)
        except asyncio.QueueFull:
            try:
                await asyncio.wait_for(self._queue.put(envelope), POST_S)
            except TimeoutError:
                raise MailboxFullError(f"V2's manager did not take the command within {POST_S:g} s") from None
        self.high_water = max(self.high_water, self._queue.qsize())

    # ── the task ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        try:
            while True:
                self._handle_one(await self._queue.get())
        finally:
            await self._abandon()

    def _handle_one(self, envelope: _Envelope) -> None:
        self.handled += 1
        try:
            self._handle(envelope)
        except Exception as error:  # noqa: BLE001  # no command may end the manager; its caller gets the error
            _answer(envelope.reply, error=typed_error(error, "", type(envelope.command).__name__))

    def _handle(self, envelope: _Envelope) -> None:
        command, reply = envelope.command, envelope.reply
        match command:
            case v2.SendInstrumentCommand():
                self._route(envelope)
            case v2.AddInstrument():
                _answer(reply, self._add(command.definition))
            case v2.SpawnInstrument():
                self._own(self._get(command.id).start(), reply, f"v2.spawn.{command.id}")
            case v2.StopInstrument():
                self._own(self._get(command.id).aclose(command.timeout_s), reply, f"v2.stop.{command.id}")
            case v2.RestartInstrument():
                self._own(self._get(command.id).restart(command.timeout_s), reply, f"v2.restart.{command.id}")
            case v2.RemoveInstrument():
                self._own(self._remove(self._get(command.id), command.timeout_s), reply, f"v2.remove.{command.id}")
            case v2.GetInstrumentList():
                _answer(reply, tuple(i.status for i in self._instruments.values()))
            case v2.GetAvailableChannels():
                _answer(reply, tuple(c for i in self._instruments.values() for c in i.channels()))
            case v2.GetMetrics():
                _answer(reply, self.metrics())
            case v2.Subscribe():
                _answer(reply, self._services.hub.subscribe(command.name, capacity=command.capacity))
            case v2.StartRecording():
                self._own(self._required_recorder().start(**command.options), reply, "v2.start-recording")
            case v2.StopRecording():
                self._own(self._required_recorder().stop(), reply, "v2.stop-recording")
            case v2.Shutdown():
                self._closing = True
                self._own(self._shut_down(command.timeout_s), reply, "v2.shutdown")

    def _route(self, envelope: _Envelope) -> None:
        work, instrument = envelope.work, envelope.instrument
        assert work is not None
        assert instrument is not None
        if self._instruments.get(work.instrument) is not instrument:
            work.fail(StoppedError("it has been removed", fate=Fate.NOT_DONE))
        elif isinstance(work.command, Stop):
            if work.take():
                self._own(self._stop(instrument, work.command.axis), work.reply, f"v2.{work.instrument}.stop")
        elif isinstance(work.command, ShutdownCommand):
            if work.take():
                limit_s = min(work.deadline_s or POST_S, POST_S)
                self._own(instrument.aclose(limit_s * 0.95), work.reply, f"v2.{work.instrument}.shutdown")
        else:
            instrument.accept(work)

    def metrics(self) -> dict[str, Any]:
        """Figures as plain values; any thread may ask."""
        queue = {"waiting": self._queue.qsize(), "high_water": self.high_water, "capacity": CAPACITY}
        return {
            "manager": {"handled": self.handled, "queue": queue},
            "instruments": {name: instrument.metrics() for name, instrument in self._instruments.items()},
            "subscribers": {
                f.name: {"sent": f.sent, "dropped": f.dropped, "drop_rate": f.drop_rate, "occupancy": f.occupancy,
                         "capacity": f.capacity}
                for f in self._services.hub.figures()
            },
        }  # fmt: skip

    def _get(self, name: str) -> Instrument:
        try:
            return self._instruments[name]
        except KeyError:
            known = ", ".join(sorted(self._instruments)) or "none"
            raise LifecycleError(f"V2 has no instrument {name!r}; it has {known}", instrument=name) from None

    def _add(self, definition: InstrumentDefinition) -> None:
        if definition.id in self._instruments:
            raise LifecycleError("V2 has an instrument of that id already", instrument=definition.id)
        for channel, number in definition.numbers.items():
            self._services.sequences.reach(definition.id, channel, number)
        self._instruments = {**self._instruments, definition.id: Instrument(definition, self._services)}
        self._services.changed()

    async def _remove(self, instrument: Instrument, timeout_s: float) -> ComponentReport:
        instrument.retire("it is being removed")
        report = await instrument.aclose(timeout_s, "removed")
        self._instruments = {k: v for k, v in self._instruments.items() if v is not instrument}
        self._services.changed()
        instrument.deadlines.close()
        return report

    async def _stop(self, instrument: Instrument, axis: str | None) -> int:
        instrument.end_moving("a stop came before it began", whole=axis is None)
        return await self._stops.write(instrument.definition, axis)

    async def _shut_down(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        limit, there = Deadline(timeout_s), self._instruments  # those of now: one may be on its way out
        for instrument in there.values():
            instrument.retire("V2 is stopping")
        reports = await asyncio.gather(
            *(i.aclose(limit.left_s * 0.95, "V2 is stopping") for i in there.values()),
            return_exceptions=True,
        )
        for instrument in there.values():
            instrument.deadlines.close()
        return tuple(
            _failed_to_close(name, report) if isinstance(report, BaseException) else report
            for name, report in zip(there, reports, strict=True)
        )

    def _required_recorder(self) -> RecorderPromise:
        if self._recorder is None:
            raise LifecycleError("no recorder is plugged into V2", left="nothing is recorded")
        return self._recorder

    def _own(self, work: Coroutine[Any, Any, Any], reply: asyncio.Future[Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._owned.add(task)
        task.add_done_callback(lambda t: self._settle(t, reply))

    def _settle(self, task: asyncio.Task[Any], reply: asyncio.Future[Any]) -> None:
        self._owned.discard(task)
        if task.cancelled():
            _answer(reply, error=StoppedError("V2 stopped while it was under way", fate=Fate.UNKNOWN))
        elif (error := task.exception()) is not None:
            _answer(reply, error=typed_error(error, "", task.get_name()))
        else:
            _answer(reply, task.result())

    async def _abandon(self) -> None:
        """The task ends: nobody may wait for an answer that will not come."""
        self._closing = True
        for task in (owned := list(self._owned)):
            task.cancel()
        await asyncio.gather(*owned, return_exceptions=True)
        while not self._queue.empty():
            _answer(self._queue.get_nowait().reply, error=StoppedError("V2 is stopped"))


def _answer(reply: asyncio.Future[Any], result: Any = None, *, error: DuodaqError | None = None) -> None:
    if reply.done():
        if error is not None:
            _LOG.info("an error came after its caller had gone", error=str(error))
    elif error is not None:
        reply.set_exception(error)
        reply.exception()  # whoever asked may be gone
    else:
        reply.set_result(result)


def _failed_to_close(name: str, error: BaseException) -> ComponentReport:
    return ComponentReport(f"v2.{name}", Outcome.FORCED, f"{type(error).__name__}: {error}")
