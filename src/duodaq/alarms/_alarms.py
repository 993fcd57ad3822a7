"""The alarms of a lab: fed by the hubs of both runtimes, on the manager's loop.

An alarm never slows an instrument. Each hub gives it a queue of 65,536 items of the watched instruments alone, which is
emptied in one step whenever there is something; should the loop stand still for so long that it overflows, the oldest
values are lost, counted in the ledger, and said in the log, and whatever is wrong *now* is still seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from duodaq.alarms._machine import Machine
from duodaq.alarms._messenger import Messenger, Notice
from duodaq.clock import Deadline, pause, utc_ns
from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.errors import DuodaqError, LifecycleError, SchemaMismatchError, StoppedError
from duodaq.model import (
    AlarmChange,
    AlarmDefinition,
    AlarmState,
    AlarmStatus,
    MailDefinition,
    Measurement,
    Scalar,
)
from duodaq.schema import instrument_of, numeric_scalars, origin_of, scalars_of, schema_name, stage_scalars
from duodaq.telemetry import get_logger, named
from duodaq.units import ratio, same_unit

TICK_S = 0.1
_CAPACITY = 65536
_AT_ONCE = 4096
_NAME = "alarms"
_NO_SCALARS = frozenset({"vector/1", "spectrum/1", "image/1", "camera_frame/1", "scpi_event/1"})
_RINGS = frozenset({AlarmState.RAISED, AlarmState.RETURNED})
_log = get_logger("alarms")

Listener = Callable[[AlarmChange], None]


class Alarms:
    """Watches channels, says in the log and to subscribers what changes, and does what a raised alarm shall do.

    Args:
        lab: Whose, for the notices.
        definitions: What is watched.
        v2_data: Where V2's measurements are.
        v4_data: Where V4's batches are.
        stop_all: What stops everything; it is told by whom.
        mail: The server for mail.
    """

    def __init__(
        self,
        lab: str,
        definitions: Iterable[AlarmDefinition],
        v2_data: Hub[Measurement],
        v4_data: Hub[pa.RecordBatch],
        stop_all: Callable[[str], Awaitable[Any]],
        mail: MailDefinition | None = None,
    ) -> None:
        self.definitions = tuple(definitions)
        self.changes: Hub[AlarmChange] = Hub("alarms", key=lambda change: change.alarm)
        self.messenger = Messenger(mail)
        self.listeners: list[Listener] = []
        self._lab = lab
        self._v2_data, self._v4_data = v2_data, v4_data
        self._stop_all = stop_all
        self._machines = {one.name: Machine(one, utc_ns()) for one in self.definitions}
        self._own: dict[str, Machine] = {}
        self._watching: dict[tuple[str, str], list[Machine]] = {}
        self._watched: frozenset[str] = frozenset()
        self._ratios: dict[tuple[str, str], tuple[float, float]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping: set[asyncio.Task[None]] = set()

    # ---- what people ask -------------------------------------------------------------------------------------------

    def status(self) -> tuple[AlarmStatus, ...]:
        """Every alarm now; of the lab's own those that somebody should know of. From any thread."""
        return tuple(machine.status() for machine in (*self._machines.values(), *[*self._own.values()]))

    def acknowledge(self, name: str, by: str = "") -> AlarmStatus:
        """Say that somebody knows of a raised alarm; how it stands then. Where there is nothing to know, it stays.

        Raises:
            LifecycleError: There is no such alarm.
        """
        machine = self._machines.get(name) or self._own.get(name)
        if machine is None:
            names = (*self._machines, *self._own)
            raise LifecycleError(f"no alarm {name!r}; there are: {', '.join(names) or 'none'}")
        self._changed(machine, machine.acknowledge(utc_ns(), by))
        self._forget_calm()
        return machine.status()

    def tell(self, part: str, why: str | None) -> None:
        """Raise an alarm of the lab's own, about a part of it, or say that all is well there again. On the loop.

        It stands among the others until somebody acknowledges it, whatever becomes of it.

        Args:
            part: Of which part: ``recording``.
            why: What is wrong; None: nothing any more.
        """
        name = f"lab: {part}"
        if why is None:
            if name in self._own:
                self._changed(self._own[name], self._own[name].usable(utc_ns()))
                self._forget_calm()
            return
        if name not in self._own:
            self._own[name] = Machine(AlarmDefinition(name, "lab", part, latch=True), utc_ns())
        self._changed(self._own[name], self._own[name].unusable(utc_ns(), why))

    def _forget_calm(self) -> None:
        for name in [name for name, machine in self._own.items() if machine.state is AlarmState.NORMAL]:
            del self._own[name]

    def subscribe(self, name: str, capacity: int = 1024) -> Subscription[AlarmChange]:
        """Every change of an alarm from now on."""
        return self.changes.subscribe(name, capacity=capacity)

    @property
    def holds(self) -> tuple[str, ...]:
        """The alarms for which scans wait now: raised or returned, not acknowledged, and made to pause them."""
        return tuple(
            m.definition.name for m in self._machines.values() if m.definition.pause_scan and m.state in _RINGS
        )

    # ---- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to watch; nothing if there is no alarm."""
        self._begin()

    def _begin(self) -> None:
        if not self.definitions or self._tasks:
            return
        self._watch_over({})
        v2 = self._v2_data.subscribe(
            _NAME, capacity=_CAPACITY, policy=Policy.DROP_OLDEST, accepts=lambda one: _is_scalar_of(self._watched, one)
        )
        v4 = self._v4_data.subscribe(
            _NAME, capacity=_CAPACITY, policy=Policy.DROP_OLDEST, accepts=lambda one: _is_batch_of(self._watched, one)
        )
        self._tasks = [
            asyncio.create_task(self._watch(v2, _as_scalars), name="alarms-v2"),
            asyncio.create_task(self._watch(v4, _scalars_in), name="alarms-v4"),
            asyncio.create_task(self._tick(), name="alarms-tick"),
        ]

    def redefine(self, definitions: Iterable[AlarmDefinition], mail: MailDefinition | None) -> None:
        """Watch this from now on. An alarm that is as it was stays where it stands; another begins anew.

        On the loop on which it was started, and only between `start` and `rest`.
        """
        kept = {m.definition.name: m for m in self._machines.values() if self._tasks}
        self.definitions = tuple(definitions)
        self.messenger.use(mail)
        if self._tasks:
            self._watch_over(kept)
        else:
            self._begin()

    def _watch_over(self, kept: Mapping[str, Machine]) -> None:
        begun_ns = utc_ns()
        machines: dict[str, Machine] = {}
        watching: dict[tuple[str, str], list[Machine]] = {}
        for one in self.definitions:
            old = kept.get(one.name)
            machine = old if old is not None and old.definition == one else Machine(one, begun_ns)
            machines[one.name] = machine
            watching.setdefault((one.instrument, one.channel), []).append(machine)
        self._machines, self._watching = machines, watching
        self._watched = frozenset(one.instrument for one in self.definitions)

    async def rest(self) -> None:
        """Watch no more: what falls silent from now on is meant to. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.messenger.end()

    async def close(self, timeout_s: float) -> bool:
        """Watch no more, and let be sent what is to be sent; whether it was, within `timeout_s`. Idempotent."""
        deadline = Deadline(timeout_s)
        await self.rest()
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=deadline.left_s / 2)
            for task in self._stopping:
                task.cancel()
        while not self.messenger.ended and not deadline.passed:
            await pause(0.005)
        self.changes.close()
        if not self.messenger.ended:
            _log.error("a notice of an alarm was still on its way at the end", waited_s=timeout_s)
        return self.messenger.ended

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _watch(self, subscription: Subscription[Any], scalars: Callable[[Any], Sequence[Scalar]]) -> None:
        try:
            while True:
                for item in await subscription.get_many(_AT_ONCE):
                    for one in scalars(item):
                        self._heard(one)
                await pause(0)  # a queue that never runs empty must not keep the loop from everybody else
        except StoppedError:
            return
        finally:
            subscription.close()

    async def _tick(self) -> None:
        while True:
            await pause(TICK_S)
            now_ns = utc_ns()
            for machine in self._machines.values():
                self._changed(machine, machine.tick(now_ns))

    def _heard(self, one: Scalar) -> None:
        for machine in self._watching.get((one.instrument, one.channel), ()):
            unit = machine.definition.unit or one.unit
            try:
                times, parts = self._ratio(one.unit, unit)
            except ValueError:
                why = f"its values are in {one.unit or 'no unit'}, which is no {unit}"
                self._changed(machine, machine.unusable(one.t_ns, why))
            else:
                self._changed(machine, machine.value(one.t_ns, one.value * times / parts, unit))

    def _ratio(self, unit: str, target: str) -> tuple[float, float]:
        key = (unit, target)
        if key not in self._ratios:
            self._ratios[key] = (1.0, 1.0) if same_unit(unit, target) else ratio(unit, target)
        return self._ratios[key]

    def _changed(self, machine: Machine, change: AlarmChange | None) -> None:
        if change is None:
            return
        if not self.changes.closed:
            self.changes.publish(change)
        for listener in self.listeners:
            try:
                listener(change)
            except Exception as error:  # noqa: BLE001 - what the alarm does must be done all the same
                _log.error("somebody who listens to alarms failed", alarm=change.alarm, error=named(error))
        pending, normal = AlarmState.PENDING, AlarmState.NORMAL
        if (change.old, change.new) in ((normal, pending), (pending, normal)):
            return  # nothing has happened yet, or nothing came of it; from any other state pending is an end
        raised = change.new is AlarmState.RAISED
        say = _log.error if raised else _log.warning
        facts = _facts(machine.definition, change)
        say(f"alarm {change.new}", **facts)
        if raised and machine.definition.stop_all:
            task = asyncio.ensure_future(self._stop_everything(change.alarm))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
        if raised or change.new in (normal, pending, AlarmState.RETURNED):
            subject = f"{self._lab}: alarm {change.alarm} {change.new}" + (f": {change.why}" if raised else "")
            one = machine.definition
            self.messenger.post(Notice(subject, {"lab": self._lab, **facts}, one.webhook, one.email))

    async def _stop_everything(self, alarm: str) -> None:
        try:
            await self._stop_all(f"the alarm {alarm}")
        except DuodaqError as error:
            _log.error("an alarm could not stop everything", alarm=alarm, error=str(error))


def _facts(definition: AlarmDefinition, change: AlarmChange) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "alarm": change.alarm,
        "state": str(change.new),
        "instrument": definition.instrument,
        "channel": definition.channel,
        "why": change.why,
        "value": change.value,
        "unit": change.unit,
        "t_ns": change.t_ns,
        "by": change.by,
        "note": definition.note,
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _is_scalar_of(instruments: frozenset[str], one: Measurement) -> bool:
    """Of its own side: what came over the bridge is watched where it was measured."""
    return one.instrument in instruments and one.__class__ is Scalar and one.origin != "v4"


def _is_batch_of(instruments: frozenset[str], batch: pa.RecordBatch) -> bool:
    """As `_is_scalar_of`."""
    return (
        instrument_of(batch) in instruments
        and origin_of(batch) != "v2"
        and schema_name(batch.schema) not in _NO_SCALARS
    )


def _as_scalars(one: Scalar) -> Sequence[Scalar]:
    return (one,)


def _scalars_in(batch: pa.RecordBatch) -> Sequence[Scalar]:
    """The numbers of a batch as V2 would see them; none, if it has none."""
    match schema_name(batch.schema):
        case "scalar/1":
            return scalars_of(batch)
        case "stage/1":
            return stage_scalars(batch)
        case _:
            try:
                return numeric_scalars(batch)
            except SchemaMismatchError:
                return ()
