"""A shadow in a process of its own, as the lab has it: whatever the V4 driver does there, the lab goes on.

The rules that whoever edits this must keep:

* Nothing here waits for the process on the way of a command, a record or a measurement, and nothing raises there.
* What it has not taken yet is bounded: a driver that blocks loses what comes meanwhile, and the report says so.
* A report is always at hand: what the process said last, and what is known of the process itself.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from duodaq.clock import Deadline, anchor_ns, monotonic_s, pause, utc_ns
from duodaq.errors import DuodaqError, LifecycleError
from duodaq.link import Pipe
from duodaq.migration._beside import Beside, mirrored
from duodaq.migration._compare import Finding
from duodaq.migration._report import ShadowReport
from duodaq.migration._shadow_words import (
    Be,
    Became,
    Began,
    Commanded,
    Made,
    News,
    NoNumber,
    Number,
    Past,
    Records,
    ShadowPlan,
    Start,
    Tell,
    Told,
    decode_from_shadow,
)
from duodaq.model import Command, Measurement, Scalar, WireRecord, command_name
from duodaq.telemetry import get_logger, told
from duodaq.workers import Child, Log, by_value, cause_of_exit, encode_words, error_of, log_here, parcel, spawn_child

T = TypeVar("T")
_log = get_logger("migration")
ENTRY = "duodaq.migration._shadow_main:run"
BLOCKED_S = 1.0
"""A loop that stands for so long is blocked: a machine that is merely busy does not keep one waiting like that."""
_SPAWN_S, _BEGIN_S, _LAST_S, _LEAVES_S = 20.0, 10.0, 2.0, 1.0
_TELL_EVERY_S, _SEND_EVERY_S = 0.2, 0.01
_SEND_AT = 256
_PAST_AT_ONCE = 200
_BACKLOG = 4 << 20


class ShadowProcess:
    """A V4 driver in the shadow of V2's, in a process of its own. On the loop of the lab.

    Args:
        beside: What is compared.
        latched: Whether a stop is latched in the lab.
        memory_bytes: What the process may take.
        lives_inline: Whether the driver is to live on the lab's own loop.
    """

    def __init__(
        self, beside: Beside, latched: Callable[[], bool], *, memory_bytes: int | None, lives_inline: bool
    ) -> None:
        self.beside = beside
        self._latched = latched
        self._plan = ShadowPlan(
            beside, "the running lab", anchor_ns(), logging.getLogger("duodaq").level, memory_bytes, lives_inline
        )
        self._child: Child | None = None
        self._pipe: Pipe | None = None
        self._looking: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._made: asyncio.Future[None] = loop.create_future()
        self._began: asyncio.Future[None] = loop.create_future()
        self._began_ns = utc_ns()
        self._items: list[Records | Number | NoNumber | Commanded | Became] = []
        self._timer: asyncio.TimerHandle | None = None
        self._v2_failures = 0
        self._asked_s: float | None = None
        self._answered = asyncio.Event()
        self._said: dict[str, Any] = {}
        self._died = ""
        self._left_out = 0
        self._not_told: dict[str, str] = {}
        self._over = False

    # --- life

    async def start(self, history: Sequence[WireRecord] = ()) -> None:
        """Start the process and the driver in it; a driver that does not start is a finding, not an error.

        Args:
            history: What the port's log still has: known, but no evidence.

        Raises:
            LifecycleError: There is no process in time, or it does not become what it is to be.
            DataError: The driver's class does not travel to a process.
        """
        plan = by_value(self._plan)
        child = self._child = await spawn_child(ENTRY, _SPAWN_S)
        self._pipe = Pipe(child.link, encode_words, decode_from_shadow, self._heard, self._lost)
        self._pipe.open()
        self._pipe.send(Be(plan))
        await asyncio.wait({self._made}, timeout=_SPAWN_S)  # it imports the driver, and is not asked meanwhile
        if not self._made.done():
            raise LifecycleError(f"its process was not ready within {_SPAWN_S:g} s", instrument=self.beside.v2.id)
        self._made.result()
        if self._died:
            return
        for begin in range(0, len(history), _PAST_AT_ONCE):
            self._pipe.send(Past(list(history[begin : begin + _PAST_AT_ONCE])))
            await pause(0)  # there are tens of thousands, and the lab's loop stands for nothing
        self._pipe.send(Start())
        self._looking = asyncio.create_task(self._look(), name=f"look at the shadow of {self.beside.v2.id}")
        await asyncio.wait({self._began}, timeout=_BEGIN_S)
        if self._began.done():
            self._began.result()

    async def aclose(self) -> None:
        """End the process: it may leave by itself, and is killed if it does not. Idempotent."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            try:
                await asyncio.wait({self._child.gone}, timeout=0 if self._owes_s > BLOCKED_S else _LEAVES_S)
            finally:
                await self._child.aclose()

    # --- what V2 does

    def take(self, record: WireRecord) -> None:
        """A record of the port's log."""
        last = self._items[-1] if self._items else None
        if isinstance(last, Records):
            last.records.append(record)
            if len(last.records) >= _SEND_AT:
                self._send_items()
            return
        self._put(Records([record]))

    def take_measurement(self, measurement: Measurement) -> None:
        """A measurement of V2's."""
        if isinstance(measurement, Scalar):
            self._put(Number(measurement.channel, measurement.unit, measurement.t_ns, float(measurement.value)))
        else:
            self._put(NoNumber(measurement.channel))

    async def mirror(self, command: Command, work: Awaitable[T]) -> T:
        """Have V2 carry out `command` by `work`, and V4 beside it; V2's result, or its error."""
        return await mirrored(self, command, work)

    def commanded(self, number: int, command: Command, trace_id: str) -> None:
        """See Onlooker."""
        try:
            self._put(Commanded(number, parcel(command), trace_id))
        except DuodaqError as error:
            self._not_told[f"command {command_name(command)}"] = str(error)

    def became(self, number: int, result: Any, error: str | None, *, is_known: bool = True) -> None:
        """See Onlooker."""
        self._put(Became(number, _as_number(result), error, is_known))

    def note_poll_failures(self, v2: int) -> None:
        """So many readings of V2's failed since the shadow began."""
        self._v2_failures = v2

    # --- what it comes to

    def report(self) -> ShadowReport:
        """What the process said last, and what is known of it."""
        beside = self.beside
        if self._said:
            report = ShadowReport.of_dict(copy.deepcopy(self._said))
        else:
            report = ShadowReport(
                beside.v2.id, self._plan.source, str(beside.v2.driver), str(beside.v4.driver), self._began_ns
            )
        if self._died:
            report.add([Finding("died", "its process", "goes on", self._died)])
        elif self._owes_s > BLOCKED_S:
            report.add([Finding("blocked", "its loop", "", f"for {self._owes_s:.1f} s until now")])
        report.not_comparable |= self._not_told
        if self._left_out:
            report.not_comparable["what V4 did not take"] = f"{self._left_out} pieces of news: it did not keep up"
        return report

    async def refresh(self) -> None:
        """Have the report say what is so now, if the process answers in time."""
        deadline = Deadline(_LAST_S)
        while self._asked_s is not None and not deadline.passed and not self._died:  # that one is of before
            await self._answer(deadline.left_s)
        if self._asked_s is None:
            self._ask()
            await self._answer(deadline.left_s)

    async def _answer(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._answered.wait()
        except TimeoutError:
            return

    # --- within

    @property
    def _owes_s(self) -> float:
        return 0.0 if self._asked_s is None else monotonic_s() - self._asked_s

    async def _look(self) -> None:
        while True:
            if self._asked_s is None:
                self._ask()
            await pause(_TELL_EVERY_S)

    def _ask(self) -> None:
        self._send_items()
        if self._pipe is None or self._pipe.closed:
            return
        self._asked_s = monotonic_s()
        self._answered.clear()
        self._send(Tell(self._v2_failures))

    def _put(self, item: Records | Number | NoNumber | Commanded | Became) -> None:
        self._items.append(item)
        if len(self._items) >= _SEND_AT:
            self._send_items()
        elif self._timer is None and not self._over:
            self._timer = self._loop.call_later(_SEND_EVERY_S, self._send_items)

    def _send_items(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pipe is None or not self._items:
            return  # before its first word it hears of nothing else
        items, self._items = self._items, []
        if self._pipe.backlog > _BACKLOG:
            self._left_out += sum(len(item.records) if isinstance(item, Records) else 1 for item in items)
            return
        self._send(News(items, self._latched()))

    def _send(self, message: Any) -> None:
        try:
            if self._pipe is not None and not self._pipe.closed:
                self._pipe.send(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, V2's command and the log of its port go on
            self._left_out += 1
            _log.error("a shadow is not told", instrument=self.beside.v2.id, error=told(error))

    def _heard(self, message: Any) -> None:
        match message:
            case Told():
                self._said, self._asked_s = message.report, None
                self._answered.set()
            case Made():
                _settle(self._made, message.error)
            case Began():
                _settle(self._began, message.error)
            case _:
                assert isinstance(message, Log)
                log_here(message, f"shadow of {self.beside.v2.id}")

    def _lost(self, why: str) -> None:
        """The link has ended: it died, or said something that made no sense."""
        self._died = why or "it died"
        self._asked_s = None
        self._answered.set()
        if self._child is not None:
            self._child.kill()
            self._child.exit.add_done_callback(lambda exit: self._exited(exit.result(), why))
        for waited in (self._made, self._began):
            _settle(waited, None)

    def _exited(self, code: int | None, why: str) -> None:
        self._died = why or cause_of_exit(code)
        _log.error("a shadow died", instrument=self.beside.v2.id, cause=self._died)


def _settle(waited: asyncio.Future[None], error: dict[str, Any] | None) -> None:
    if waited.done():
        return
    if error is None:
        waited.set_result(None)
        return
    waited.set_exception(error_of(error))
    waited.exception()  # whoever started it may have gone


def _as_number(result: Any) -> float | int | None:
    return result if type(result) is float or (type(result) is int and -(2**63) <= result < 2**63) else None
