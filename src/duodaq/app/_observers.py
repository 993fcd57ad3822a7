"""Who looks at a lab from outside, and what is only counted for them; started and ended with the lab."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from duodaq.app._flight_recorder import FlightRecorder
from duodaq.app._wire_spans import WireSpans
from duodaq.clock import Deadline, pause
from duodaq.dataplane import Subscription
from duodaq.dual import DualRuntimeManager, StateChange
from duodaq.errors import ConfigError, StoppedError
from duodaq.link import LastRun
from duodaq.model import InstrumentState, LabDefinition
from duodaq.telemetry import SPANS, Histogram, LogFile, OtelSpans, get_logger, otlp_exporter

LOOK_S = 0.25
WORKS = frozenset({InstrumentState.READY, InstrumentState.ACQUIRING})
SIGN_EVERY_S = 1.0
LOG_S = 2.0
"""How long the end of a lab waits for the disk to take the rest of the log."""
EXPORT_S = 3.0
_log = get_logger("observers")


class Observers:
    """Counts what nobody else does: how late the loop is, into which states instruments came, how often all stopped.

    Attributes:
        facts: What every line of the log file belongs to.
        flight: The flight recorder.
        lag: How late the loop came, looked at four times a second.
        changes: How often each instrument came into each state.
        listeners: Who is told, as plain values, when an instrument is lost, hangs, or is there (again).
        stops_all: How often a stop-all came into force.
        last_run: How the last run of this lab ended, if that is known.
        sign_of_life: What tells the next run until when this one was alive, called every second.
    """

    def __init__(self, manager: DualRuntimeManager, lab: LabDefinition) -> None:
        self.lag = Histogram()
        self.changes: dict[tuple[str, str], int] = {}
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._away: set[str] = set()
        self.stops_all = 0
        self.last_run: LastRun | None = None
        self.sign_of_life: Callable[[], None] | None = None
        self._latched = False
        self.facts: dict[str, Any] = {"lab": lab.name}
        self.flight = FlightRecorder(
            manager.broker, lab.name, lab.observers, lambda: msgspec.to_builtins(manager.health(), enc_hook=str)
        )
        self._definition = lab.observers
        self._file = lab.file
        self._log_file: LogFile | None = None
        self._spans: OtelSpans | None = None
        self._wire_spans: WireSpans | None = None
        self._manager = manager
        self._tasks: list[asyncio.Task[None]] = []
        manager.broker.subscribe_stops(self._stopped)

    async def start(self) -> None:
        """Begin to look, before the lab is started.

        Raises:
            ConfigError: The log file cannot be written.
        """
        self._open_log_file()
        self._take_spans()
        self.flight.start()
        states = self._manager.subscribe_state("observers")
        self._tasks = [
            asyncio.create_task(self._measure_lag(), name="loop-lag"),
            asyncio.create_task(self._count_changes(states), name="state-changes"),
            asyncio.create_task(self._give_signs(), name="signs-of-life"),
        ]

    async def aclose(self) -> None:
        """Look no more. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._take_no_spans()
        await self.flight.aclose()
        if self._log_file is not None:
            self._log_file.end()
            if not await _until(lambda one=self._log_file: one.ended, LOG_S):
                _log.error("the log file did not take all of the log", file=str(self._log_file.path))
            self._log_file = None

    @property
    def lines_lost(self) -> int:
        """How many lines of the log the log file did not take."""
        return 0 if self._log_file is None else self._log_file.lost

    @property
    def spans(self) -> dict[str, int]:
        """What became of the spans of traces; empty where there are none."""
        queue = None if self._spans is None else self._spans.queue
        return {} if queue is None else {"sent": queue.sent, "failed": queue.failed, "dropped": queue.dropped}

    def _open_log_file(self) -> None:
        one = self._definition
        if one.log_file is None or self._log_file is not None:
            return
        log_file = LogFile(one.log_file, one.log_bytes, one.log_keep, self.facts)
        try:
            log_file.open()
        except OSError as error:
            what = f"{one.log_file} cannot be written: {(error.strerror or str(error)).lower()}"
            raise ConfigError(what, file=self._file, key="logging.file", remedy="Name another file") from error
        self._log_file = log_file

    def watch_wire(self) -> None:
        """Begin to make spans of what passes the ports, once they are there."""
        if self._spans is not None and self._wire_spans is None:
            self._wire_spans = WireSpans(self._manager.broker, self._spans)

    def _take_spans(self) -> None:
        endpoint = self._definition.otlp
        if endpoint is not None and self._spans is None:
            self._spans = OtelSpans(otlp_exporter(endpoint), self.facts["lab"])
            SPANS.taker = self._spans

    async def _take_no_spans(self) -> None:
        taken, self._spans = self._spans, None
        if self._wire_spans is not None:
            self._wire_spans.close()
            self._wire_spans = None
        if taken is None:
            return
        if SPANS.taker is taken:
            SPANS.taker = None
        taken.end()
        if not await _until(lambda: taken.ended, EXPORT_S):
            _log.error("the collector did not take all spans", otlp=self._definition.otlp)

    def _stopped(self, port: str, epoch: int) -> None:
        if port:
            return
        if epoch and not self._latched:
            self.stops_all += 1
            self.flight.trigger("stop-all")
        self._latched = bool(epoch)

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LOOK_S
            await pause(LOOK_S)
            self.lag.note(max(0.0, loop.time() - due_s))

    async def _give_signs(self) -> None:
        while self.sign_of_life is not None:
            self.sign_of_life()
            await pause(SIGN_EVERY_S)

    async def _count_changes(self, states: Subscription[StateChange]) -> None:
        try:
            while True:
                change = await states.get()
                self.flight.note("state", msgspec.to_builtins(change))
                runtime, dot, instrument = change.subject.partition(".")
                if change.new == InstrumentState.HUNG:
                    self.flight.trigger("hang")
                    _log.error("instrument hangs", instrument=instrument, runtime=runtime, cause=change.cause)
                elif dot and change.new == InstrumentState.ERROR:
                    _log.warning("instrument is in error", instrument=instrument, runtime=runtime, cause=change.cause)
                if dot:
                    key = (instrument, change.new)
                    self.changes[key] = self.changes.get(key, 0) + 1
                    self._tell(instrument, runtime, change)
        except StoppedError:
            return
        finally:
            states.close()

    def _tell(self, instrument: str, runtime: str, change: StateChange) -> None:
        """Tell of an outage as it begins and as it ends; not of each try to have the instrument back."""
        if change.new in WORKS:
            if change.old in WORKS:
                return
            self._away.discard(instrument)
        elif change.new == InstrumentState.HUNG:
            self._away.add(instrument)
        elif instrument in self._away or (change.new == InstrumentState.CONNECTING and change.old not in WORKS):
            return
        else:
            self._away.add(instrument)
        told = {"instrument": instrument, "runtime": runtime, **msgspec.to_builtins(change)}
        del told["subject"]
        for listener in self.listeners:
            listener(told)


async def _until(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline = Deadline(limit_s)
    while not condition():
        if deadline.passed:
            return False
        await pause(0.002)
    return True
