"""A V4 driver beside the V2 one that has the instrument, on what the wire tells V2.

The V4 driver runs as it will run: the same runtime, the same actor, with ports, parameters and a publisher of its own,
none of which leads anywhere. Every exchange of V2's on the wire is handed to it, and commands to the instrument are
given to both. It is not on the wire at all. On a running lab it is in a process of its own: see `_shadow_process`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from duodaq.bridge import ParameterTable
from duodaq.clock import monotonic_s, pause, utc_ns
from duodaq.drivers import codec as find_codec
from duodaq.errors import ConfigError, DuodaqError, InstrumentError, OutOfRangeError, StoppedError
from duodaq.migration._answers import Answers
from duodaq.migration._assumed import assumed_answer
from duodaq.migration._beside import Beside, mirrored
from duodaq.migration._compare import (
    Finding,
    Value,
    Written,
    compare_axes,
    compare_ends,
    compare_rate,
    compare_sources,
    ends_in_words,
    number_of,
    percentiles,
)
from duodaq.migration._equivalents import command_in_v4
from duodaq.migration._exchanges import Exchanges, Seen
from duodaq.migration._report import ShadowReport
from duodaq.migration._shadow_line import NotedNumbers, ShadowLine, ShadowPorts
from duodaq.migration._tally import OrderTally, ValueTally
from duodaq.model import (
    Command,
    Execute,
    GetParameter,
    InstrumentState,
    Measurement,
    ReadChannel,
    Recover,
    Scalar,
    Shutdown,
    SnapFrame,
    StartAcquisition,
    Stop,
    StopAcquisition,
    WireRecord,
    command_name,
)
from duodaq.schema import scalars_of, schema_name, stage_scalars
from duodaq.telemetry import get_logger, told, tracing
from duodaq.v4 import DataPublisher, V4Runtime

T = TypeVar("T")
_log = get_logger("migration")
_KEPT, _KEPT_FINDINGS = 2_000, 1_000
_AT_ONCE = 200
"""So many records of the past are taken in one step of the loop."""
_READ_EVERY_S = 0.05
"""So often at most a reading that somebody asks of V2 is asked of V4, too: it shall cost the instrument nothing."""
_COMMAND_S, _START_S, _SILENT_S = 20.0, 10.0, 10.0
_STARVED = 0.25
"""Of the time: a shadow that has wanted for a processor longer than this asks less often, whatever its driver is."""
_NOT_MIRRORED = (StartAcquisition, StopAcquisition, Recover, Shutdown, SnapFrame, Stop)


class Shadow:
    """Runs a V4 driver in the shadow of V2's, on the running loop: of a process of its own, or of a replay.

    Args:
        beside: What is compared.
        latched: Whether a stop is latched in the lab.
        source: Where the exchanges come from, in words.
        in_order: Of a recording, which has no pace: every answer is used, and rates are not compared.
    """

    def __init__(
        self, beside: Beside, latched: Callable[[], bool] = lambda: False, source: str = "the running lab", *,
        in_order: bool = False,
    ) -> None:  # fmt: skip
        name = beside.port.codec
        if name is None:
            raise ConfigError(
                "a shadow needs to know what bytes mean",
                key=f"ports.{beside.port.name}.codec",
                remedy="Give the port a codec",
            )
        codec = find_codec(name)
        self.beside = beside
        self._source = source
        self._in_order = in_order
        slowest_s = max((poll.every_s for poll in beside.v2.polls), default=0.0)
        self._answers = Answers(
            lambda subject: assumed_answer(name, subject, beside.v4),
            first_wait_s=min(_START_S / 2, max(0.5, 1.5 * slowest_s)),
            in_order=in_order,
        )
        self.line = ShadowLine(beside.port, codec, self._answers)
        self._exchanges = Exchanges(codec, beside.v2.id)
        self._publisher = DataPublisher()
        numbers: dict[str, dict[str, int]] = {beside.v4.id: NotedNumbers(self.line)}
        ports = ShadowPorts(self.line, latched)
        self.runtime = V4Runtime(ports, ParameterTable("shadow"), self._publisher, numbers=numbers)
        self._of_v4 = self._publisher.subscribe("shadow", capacity=10 * _KEPT)
        self._records: deque[WireRecord] = deque()
        self._has_past = False
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[int, tuple[Command, str, asyncio.Task[Exception | None] | None]] = {}
        self._values = ValueTally(beside.tolerances)
        self._orders = OrderTally(beside.tolerances)
        self._v4_values: list[Value] = []  # of a recording
        self._alone: dict[str, None] = {}
        self._too_early: dict[str | None, None] = {}
        self._made_for: dict[str, list[int]] = {}
        self._v2_took: deque[float] = deque(maxlen=_KEPT)
        self._v4_late: deque[float] = deque(maxlen=_KEPT)
        self._ended_ns: dict[int, int] = {}
        self._asked_in: dict[int, str] = {}
        self._not_comparable: dict[str, str] = {}
        self._findings: deque[Finding] = deque(maxlen=_KEPT_FINDINGS)
        self._excused = 0
        self._starved_s = 0.0
        self._errors = {"v2": 0, "v4": 0}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._began_ns, self._began_s = utc_ns(), monotonic_s()
        self._is_ready = self._in_order
        self._read_s = 0.0

    # --- life

    async def start(self, history: Sequence[WireRecord] = ()) -> None:
        """Start the V4 driver; one that does not start is a finding, not an error.

        Args:
            history: What the port's log still has: known, but no evidence.
        """
        for n, record in enumerate(history, 1):
            seen = self._exchanges.take(record)
            if seen is not None:
                self._answers.heard(seen, old=True)
            if not n % _AT_ONCE:
                await pause(0)  # there are tens of thousands, and the lab's loop stands for nothing
        self._has_past = True
        self._take_all()
        acquire = not self._in_order
        definition = replace(self.beside.v4, worker="", autostart=True, options={
            **self.beside.v4.options, "acquire": acquire, "restart": "never"})  # fmt: skip
        await self.runtime.start(5.0)
        try:
            await self.runtime.add(definition)
        except DuodaqError as error:
            if self.line.tainted:
                self._not_comparable["the start"] = f"it rests on answers that V2 never had: {error}"
            self._findings.append(Finding("start", self.beside.v4.id, "runs", str(error)))
        self._take_all()
        self._is_ready = True
        for order in self.line.orders:
            what = f"order at start: {order.deed.subject} {order.deed.value}".strip()
            self._not_comparable[what] = "V2 had started before the shadow began"
        self.line.orders.clear()

    async def aclose(self) -> None:
        """End the V4 driver. Idempotent."""
        try:
            self.line.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            try:
                await self.runtime.stop(2.0)
                self.collect()
            finally:
                self._of_v4.close()
                self._publisher.close()

    # --- what V2 does

    def take(self, record: WireRecord) -> None:
        """A record of the port's log. On the loop; what it means is seen to when V2 has been given its reply."""
        if not self._records:
            self._loop.call_soon(self._take_all)
        self._records.append(record)

    def _take_all(self) -> None:
        while self._has_past and self._records:
            self._aside("an exchange", self._take_record, self._records.popleft())

    def _take_record(self, record: WireRecord) -> None:
        seen = self._exchanges.take(record)
        if seen is not None:
            self.take_exchange(seen)

    def take_exchange(self, seen: Seen) -> None:
        """An exchange of V2's."""
        asks = False
        for deed in seen.deeds:
            asks = asks or deed.asks
            if not deed.asks and self._is_ready and seen.trace_id not in self._too_early:
                self._take_orders()
                self._orders.add("v2", Written(seen.ended_ns, deed))
        if asks:
            self._ended_ns[seen.number] = seen.ended_ns
            self._asked_in[seen.number] = next(deed.subject for deed in seen.deeds if deed.asks)
            if len(self._ended_ns) > _KEPT:
                oldest = next(iter(self._ended_ns))
                del self._ended_ns[oldest], self._asked_in[oldest]
            self._v2_took.append(seen.took_s)
        if asks and seen.trace_id is not None:
            self._made_for.setdefault(seen.trace_id, []).append(seen.number)
            if len(self._made_for) > _KEPT:
                del self._made_for[next(iter(self._made_for))]
        self.line.heard(seen, alone=seen.trace_id in self._alone)

    def take_measurement(self, measurement: Measurement) -> None:
        """A measurement of V2's."""
        if isinstance(measurement, Scalar):
            self.take_number(measurement.channel, measurement.unit, measurement.t_ns, measurement.value)
        else:
            self.take_no_number(measurement.channel)

    def take_number(self, channel: str, unit: str, t_ns: int, value: float) -> None:
        """A measurement of V2's that is one number: it was made of the last exchange before it."""
        self._take_all()
        made_of = next((n for n, ended_ns in reversed(self._ended_ns.items()) if ended_ns <= t_ns), 0)
        self._values.add_v2(Value(channel, t_ns, value, unit, frozenset({made_of})))
        self.collect()

    def take_no_number(self, channel: str) -> None:
        """A measurement of V2's that is none."""
        self.note_not_comparable(f"channel {channel}", "only single numbers are compared")

    async def mirror(self, command: Command, work: Awaitable[T]) -> T:
        """Have V2 carry out `command` by `work`, and V4 beside it; V2's result, or its error."""
        return await mirrored(self, command, work)

    def commanded(self, number: int, command: Command, trace_id: str) -> None:
        """See Onlooker."""
        if not self._is_ready:
            self._too_early[trace_id] = None
            self.note_not_comparable(f"command {command_name(command)} at the start", "V4 was not there yet")
            return
        task = self._aside("a command", self._mirrored, command, trace_id)
        self._under_way[number] = command, trace_id, task
        if len(self._under_way) > _KEPT:
            del self._under_way[next(iter(self._under_way))]

    def became(self, number: int, result: Any, error: str | None, *, is_known: bool = True) -> None:
        """See Onlooker."""
        command, trace_id, task = self._under_way.pop(number, (None, "", None))
        if command is None or not is_known:
            return
        if error is None:
            self._aside("a command", self._take_result, command, trace_id, result)
        if task is not None:
            self._own(self._judge(command, task, error))

    def note_not_comparable(self, what: str, why: str) -> None:
        """Something of V2's cannot be compared."""
        self._not_comparable[what] = why

    def note_blocked(self, late_s: float, *, lives_inline: bool) -> None:
        """The loop stood for so long: the lab's own would have, if the driver is to live there."""
        if lives_inline:
            self._findings.append(Finding("blocked", "its loop", "", f"for {late_s:.1f} s"))
        else:
            self._not_comparable["its loop"] = f"it stood for {late_s:.1f} s; it is to live in a worker of its own"

    def note_starved(self, seconds: float) -> None:
        """So much longer it could have run here and had no processor: what it does late for that says nothing of V4."""
        self._starved_s += seconds

    def note_poll_failures(self, v2: int) -> None:
        """So many readings of V2's failed since the shadow began."""
        self._errors["v2"] = v2

    # --- of a recording

    def unused(self) -> int:
        """How many of V2's answers were not used yet."""
        return self._answers.waiting()

    def note_error(self, what: str, error: Exception) -> None:
        """The V4 driver could not do something that V2 did, as far as the recording shows."""
        if self._excused < self._unanswered():
            self._excused += 1
            self._not_comparable[what] = f"it rests on answers that V2 never had: {error}"
            return
        self._errors["v4"] += 1
        self._findings.append(Finding("error", what, "answered", str(error)))

    async def rest(self) -> None:
        """End the V4 driver, so that all it has measured has been published."""
        await self.runtime.stop(2.0)

    def compare_with_replies(self, seen: Iterable[Seen]) -> None:
        """Take the numbers in V2's replies for its measurements, under the channels and units that V4 gave them."""
        self.collect()
        numbers = {one.number: value for one in seen if (value := _only_number(one)) is not None}
        for value in self._v4_values:
            for number in value.exchanges:
                if number in numbers:
                    made_of = frozenset({number})
                    self._values.add_v2(Value(value.channel, value.t_ns, numbers[number], value.unit, made_of))

    # --- what it comes to

    def collect(self) -> None:
        """Take what the V4 driver has published, and would have written."""
        self._take_orders()
        while True:
            try:
                batch = self._of_v4.get_nowait()
            except (BlockingIOError, StoppedError):
                return
            name = schema_name(batch.schema)
            rows = scalars_of(batch) if name.startswith("scalar/") else _of_stage(batch, name)
            for row in rows:
                self._take_v4(row)

    def _take_orders(self) -> None:
        while self._is_ready and self.line.orders:
            self._orders.add("v4", self.line.orders.popleft())

    def report(self) -> ShadowReport:
        """What was found so far."""
        self._take_all()
        self.collect()
        beside, now_ns = self.beside, utc_ns()
        lasted_s = monotonic_s() - self._began_s
        report = ShadowReport(
            beside.v2.id, self._source, str(beside.v2.driver), str(beside.v4.driver), self._began_ns, lasted_s
        )
        report.add(self._findings)
        self._report_orders(report, now_ns)
        self._report_values(report)
        self._report_questions(report, now_ns)
        self._report_ends(report)
        self._report_errors(report)
        self._report_actor(report)
        report.not_comparable |= self._not_comparable
        report.timing_s = {
            k: found
            for k, values in (("V2's exchanges", self._v2_took), ("V4, from the reply to the value", self._v4_late))
            if (found := percentiles(values))
        }
        return report

    def _report_orders(self, report: ShadowReport, now_ns: int) -> None:
        if self._in_order:
            if self._orders.waiting["v2"]:
                report.not_comparable["orders"] = "a recording does not say for which commands V2 wrote them"
            return
        report.orders, found = self._orders.so_far(now_ns)
        report.add_counted(found)

    def _report_values(self, report: ShadowReport) -> None:
        values = self._values
        report.values = {"compared": values.compared, "same": values.same}
        report.add_counted(values.found.rows())
        for channel in values.channels["v2"] - values.paired:
            own = channel in values.channels["v4"]
            why = "no two measurements were made of the same reply" if own else "V4 has measured nothing of that name"
            report.not_comparable[f"channel {channel}"] = why
            if values.counts[channel] >= self.beside.tolerances.least_polls:
                report.add(filter(None, [self._never_paired(channel, report.lasted_s)]))

    def _never_paired(self, channel: str, lasted_s: float) -> Finding | None:
        """Why a channel of V2's has no counterpart, where that says something of V4."""
        last = self._values.last
        if channel in last["v4"]:
            subjects = [{self._asked_in.get(n, "") for n in last[side][channel]} for side in ("v2", "v4")]
            return compare_sources(channel, next(iter(subjects[0]), ""), subjects[1])
        if lasted_s > _SILENT_S and channel in {info.channel for info in self.runtime.channels()}:
            return Finding("silent", f"channel {channel}", f"{self._values.counts[channel]} measurements", "none")
        return None

    def _report_ends(self, report: ShadowReport) -> None:
        v2, v4 = self.line.ends["v2"], self.line.ends["v4"]
        report.add(filter(None, [compare_ends(v2, v4)]))
        if v2 and (others := v4 - v2 - {b""}):
            what = f"V2's end with {ends_in_words(v2)}, V4's with {ends_in_words(others)}"
            report.not_comparable["the ends of commands"] = f"{what}: whether the device takes both, nobody can tell"

    def _report_questions(self, report: ShadowReport, now_ns: int) -> None:
        asked = self._answers.asked()
        report.add(compare_axes(asked, self.line.asked, self.beside.tolerances))
        for subject in sorted({*asked, *self.line.asked}):
            v2, v4 = asked.get(subject, 0), self.line.asked.get(subject, 0)
            report.questions[subject] = {"v2": v2, "v4": v4}
            if not self._in_order:
                began_ns, before = self.line.first_asked.get(subject, (now_ns, 0))
                seconds = max(1e-3, (now_ns - began_ns) / 1e9)
                wanted = self._answers.asked_of(subject)
                late = compare_rate(subject, wanted - before, v4, seconds, self.beside.tolerances)
                if late is not None and self._starved_s > _STARVED * seconds:
                    said = f"the shadow itself had no processor for {self._starved_s:.1f} s of {seconds:.1f} s"
                    report.not_comparable[f"pace of question «{subject}»"] = said
                else:
                    report.add([] if late is None else [late])
            if v2 and not v4:
                report.not_comparable[f"question «{subject}»"] = "only V2 asks it"
        for subject, sources in self.line.stand_ins.items():
            how = ", ".join(f"{_SOURCES[source]} ({count})" for source, count in sorted(sources.items()))
            report.not_comparable[f"question «{subject}»"] = f"V2 has no answer of its own to it; V4 got {how}"

    def _report_actor(self, report: ShadowReport) -> None:
        """An actor that has given up measures nothing any more that could differ."""
        for status in self.runtime.instruments():
            if status.state is InstrumentState.ERROR:
                report.errors["v4"] += 1
                report.add([Finding("error", "its actor", "runs", status.message)])

    def _report_errors(self, report: ShadowReport) -> None:
        figures = self.runtime.metrics()["instruments"].get(self.beside.v4.id, {})
        failures = sum(figures.get("poll_failures", {}).values())
        report.errors = {"v2": self._errors["v2"], "v4": self._errors["v4"] + failures}
        excused = min(failures, self._unanswered() - self._excused)
        if excused > 0:
            report.not_comparable["failed readings of V4"] = f"{excused} of them rest on answers that V2 never had"
            if excused == failures:
                return
        if bool(report.errors["v2"]) != bool(failures):
            report.add([Finding("error", "readings", str(report.errors["v2"]), str(failures))])

    def _unanswered(self) -> int:
        """How many of V4's questions were given no answer: so many of its failures at most say nothing of it."""
        return sum(sources.get("none", 0) for sources in self.line.stand_ins.values())

    # --- within

    def _take_v4(self, row: Scalar) -> None:
        made_of = self.line.made_of.get((row.channel, row.sequence))
        if made_of is None:  # of a stage: one number for all that its axis tells
            made_of = self.line.made_of.get((row.channel.partition(".")[0], row.sequence), frozenset())
        value = Value(row.channel, row.t_ns, row.value, row.unit, made_of)
        self._values.add_v4(value)
        if self._in_order:
            self._v4_values.append(value)
            return
        given = max((self.line.given_ns[number] for number in made_of if number in self.line.given_ns), default=None)
        if given is not None:  # it may have asked long after V2's reply
            self._v4_late.append(max(0.0, (row.t_ns - given) / 1e9))

    def _take_result(self, command: Command, trace_id: str, result: Any) -> None:
        """A number that V2 was asked for outside its polls is a measurement, too, if one of them names it."""
        if not isinstance(command, Execute | GetParameter) or type(result) not in (int, float):
            return
        for poll in self.beside.v2.polls:
            if command.name in (poll.call, poll.read):
                self._take_all()
                made_of = frozenset(self._made_for.get(trace_id, ()))
                if len(made_of) == 1:  # of several nobody knows which one it is made of
                    self._values.add_v2(Value(poll.channel, utc_ns(), float(result), poll.unit, made_of))

    def _mirrored(self, command: Command, trace_id: str) -> asyncio.Task[Exception | None] | None:
        if isinstance(command, _NOT_MIRRORED):
            return None
        wanted = command_in_v4(command, self.beside.same)
        if wanted is None:
            self._leave_alone(trace_id)
            self._not_comparable[f"command {command_name(command)}"] = "V4 has nothing of that name"
            return None
        if isinstance(wanted, GetParameter | ReadChannel):
            now_s = monotonic_s()
            if now_s - self._read_s < _READ_EVERY_S:
                self._leave_alone(trace_id)
                self._not_comparable["some readings"] = "more often than every 50 ms they are not asked for twice"
                return None
            self._read_s = now_s
        return self._own(self._carry_out(wanted))

    def _aside(self, what: str, work: Callable[..., T], *args: Any) -> T | None:
        """Do what is the shadow's own affair; whatever goes wrong in it, V2 and the rest of the shadow go on."""
        try:
            return work(*args)
        except Exception as error:  # noqa: BLE001 - codecs and drivers of others take part in it
            _log.error("a shadow failed", beside=what, instrument=self.beside.v2.id, error=told(error))
            self._not_comparable[what] = f"the shadow failed beside it: {told(error)}"
            return None

    def _leave_alone(self, trace_id: str) -> None:
        """What V2 asks for this action is not asked of V4: it says nothing of how often V4 asks."""
        self._alone[trace_id] = None
        if len(self._alone) > _KEPT:
            del self._alone[next(iter(self._alone))]

    async def _carry_out(self, command: Command) -> Exception | None:
        with tracing() as trace_id:
            try:
                await self.runtime.command(self.beside.v4.id, command, _COMMAND_S)
            except OutOfRangeError as error:
                return error
            except DuodaqError as error:
                if trace_id in self.line.tainted:
                    what = f"error of {command_name(command)}"
                    self._excused += 1
                    self._not_comparable[what] = f"it rests on answers that V2 never had: {error}"
                    return _Excused()
                return error
            except Exception as error:  # noqa: BLE001 - V4's own mistake: it is what V2's success is compared with
                return InstrumentError(told(error), instrument=self.beside.v4.id, command=command_name(command))
        return None

    async def _judge(self, command: Command, task: asyncio.Task[Exception | None], error: str | None) -> None:
        other = await task
        if isinstance(other, _Excused):
            return
        self._errors["v4"] += other is not None
        if (error is None) != (other is None):
            said = ("done" if error is None else error, "done" if other is None else str(other))
            self._findings.append(Finding("error", command_name(command), *said, utc_ns()))

    def _own(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Excused(Exception):  # noqa: N818 - it is raised by nobody
    """A command that failed for want of an answer that V2 never had: nothing can be said of it."""


_SOURCES = {
    "again": "V2's last one again",
    "set": "what V2 has set",
    "assumed": "what a device in order says",
    "none": "none",
}


def _only_number(seen: Seen) -> float | None:
    """The number that an exchange was answered, if it asked one thing and was answered one."""
    if len(seen.answers) != 1 or seen.error:
        return None
    return number_of(seen.answers[0].decode("latin-1").strip())


def _of_stage(batch: Any, name: str) -> list[Scalar]:
    return stage_scalars(batch) if name.startswith("stage/") else []
