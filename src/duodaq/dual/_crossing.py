"""The hands of a cutover: what is done to the two sides of a lab, its ports and its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from duodaq.bridge import Bridge, ParameterTable
from duodaq.clock import Deadline, pause
from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.dual._gates import Gates
from duodaq.dual._guard import Guard
from duodaq.dual._housing import Housing
from duodaq.dual._placement import place
from duodaq.dual._side import Side
from duodaq.errors import DuodaqError, LifecycleError, StoppedError
from duodaq.model import (
    ComponentReport,
    InstrumentDefinition,
    InstrumentState,
    ParameterEntry,
    RuntimeName,
    holder_of,
)
from duodaq.ports import Broker
from duodaq.schema import channel_of, instrument_of
from duodaq.workers import impostors, learn_identities

if TYPE_CHECKING:
    from duodaq.migration import Handed, Limits, Passage

_LOOK_S = 0.001
_SAMPLE_S = 0.3
"""For so long at most the next measurement is waited for; one that comes less often is not in hand for long."""


class Crossing:
    """Takes an instrument from one side and gives it to the other; keeps the promise of `migration.Hands`.

    Args:
        sides: Both.
        housing: Where the numbers of the streams are.
        gates: Where commands wait.
        broker: Whose fences there are.
        parameters: The lab's table.
        bridge: Between the hubs of either side's data.
        guard: The watchdog, which has to know who is where.
        definitions: Every instrument there is.
    """

    def __init__(
        self,
        sides: Mapping[RuntimeName, Side],
        housing: Housing,
        gates: Gates,
        broker: Broker,
        parameters: ParameterTable,
        bridge: Bridge,
        guard: Guard,
        definitions: Callable[[], list[InstrumentDefinition]],
    ) -> None:
        self._sides = sides
        self._housing = housing
        self._gates = gates
        self._broker = broker
        self._parameters = parameters
        self._hubs: dict[RuntimeName, Hub[Any]] = {"v2": bridge.v2_hub, "v4": bridge.v4_hub}
        self._bridge = bridge.name
        self._guard = guard
        self._definitions = definitions
        self._watches: dict[str, list[_Watch]] = {}
        self._moves: set[asyncio.Task[Any]] = set()

    async def move(
        self,
        old: InstrumentDefinition,
        new: InstrumentDefinition,
        handed: Handed | None,
        limits: Limits | None,
    ) -> tuple[InstrumentDefinition, Passage]:
        """Move an instrument; see DualRuntimeManager.move. It goes on if whoever asked does not wait for it."""
        from duodaq.migration import Limits, cut_over, nothing_handed  # brings what writes lab files: for few labs

        if old.runtime == new.runtime:
            raise LifecycleError(f"it lives in {old.runtime} already", instrument=old.id)
        work = cut_over(self, old, new, handed or nothing_handed, limits or Limits())
        task = asyncio.create_task(self._carried_out(work, new), name=f"move {old.id}")
        self._moves.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _carried_out(
        self, work: Awaitable[tuple[InstrumentDefinition, Passage]], new: InstrumentDefinition
    ) -> tuple[InstrumentDefinition, Passage]:
        try:
            return await work
        except Exception:
            await self._sides[new.runtime].leave(new)  # it may have been made for this
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._moves.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone; the log has it

    async def aclose(self, limit_s: float) -> None:
        """End the moves under way, within `limit_s`."""
        for task in self._moves:
            task.cancel()
        if self._moves:
            await asyncio.wait(self._moves, timeout=limit_s)

    def hold(self, instrument: str) -> None:
        """See Hands.hold."""
        runtime = next((name for name, side in self._sides.items() if instrument in side), None)
        if runtime is None:
            raise LifecycleError("there is no such instrument", instrument=instrument)
        self._gates.close(instrument)
        self._watches[instrument] = [self._watch(name, instrument) for name in self._hubs]

    def resume(self, instrument: str) -> None:
        """See Hands.resume."""
        for watch in self._watches.pop(instrument, []):
            watch.close()
        self._gates.open(instrument)

    async def settled(self, instrument: str, limit_s: float) -> bool:
        """See Hands.settled."""
        return await self._gates.idle(instrument, limit_s)

    async def same_device(self, definition: InstrumentDefinition) -> str:
        """See Hands.same_device."""
        await learn_identities(self._broker, (definition,))
        return (await impostors(self._broker, (definition,))).get(definition.id, "")

    async def has_no_place(self, definition: InstrumentDefinition, limit_s: float) -> str:
        """See Hands.has_no_place."""
        side = self._sides[definition.runtime]
        try:
            await self._guard.start(self._definitions(), workers=side.in_process(definition), timeout_s=limit_s)
            await side.awake(definition, limit_s)
        except DuodaqError as error:
            return str(error)
        return ""

    async def take_down(self, definition: InstrumentDefinition, limit_s: float) -> ComponentReport:
        """See Hands.take_down."""
        if definition.runtime == "v4" and self.state(definition.id) is InstrumentState.ACQUIRING:
            await self._between_samples(definition.id, min(limit_s / 2, _SAMPLE_S))
        report = await self._sides[definition.runtime].take_down(definition.id, limit_s)
        self._parameters.mark_stale(definition.runtime, definition.id)
        self._parameters.release(definition.runtime, definition.id)
        return report

    async def _between_samples(self, instrument: str, limit_s: float) -> None:
        """Wait for the next measurement of an actor: behind it nothing of its stream is in hand, and none is cut."""
        watch = next((w for w in self._watches.get(instrument, []) if w.runtime == "v4"), None)
        deadline, before = Deadline(limit_s), 0 if watch is None else watch.came
        while watch is not None and watch.came == before and not deadline.passed:
            await pause(_LOOK_S)

    async def fence(self, definition: InstrumentDefinition) -> None:
        """See Hands.fence."""
        await self._broker.fence(definition.id, holder_of(definition), definition.port)

    async def drained(self, definition: InstrumentDefinition, limit_s: float) -> dict[str, int]:
        """See Hands.drained."""
        deadline = Deadline(limit_s)
        group = place(definition, self._sides[definition.runtime].definition)
        watch = next(w for w in self._watches[definition.id] if w.runtime == definition.runtime)
        while True:
            numbers = self._housing.numbers(group, definition.id)
            if (complete := self._housing.accounted_for(group, definition.id, numbers)) is None:
                complete = watch.has_seen(numbers)
            if complete or deadline.passed:
                break
            await pause(_LOOK_S)
        bridges = [s for hub in self._hubs.values() for s in hub.subscriptions() if s.name == self._bridge]
        due = [(bridge, bridge.offered) for bridge in bridges]
        while any(b.delivered + b.dropped < offered for b, offered in due) and not deadline.passed:
            await pause(_LOOK_S)
        await pause(0)  # the bridge publishes in the step in which it takes
        return numbers

    async def bring_up(self, definition: InstrumentDefinition, limit_s: float) -> None:
        """See Hands.bring_up."""
        before: InstrumentDefinition | None = None
        try:
            async with asyncio.timeout(limit_s):
                workers = self._sides[definition.runtime].in_process(definition)
                all_of_them = (*(one for one in self._definitions() if one.id != definition.id), definition)
                await self._guard.start(all_of_them, workers=workers, timeout_s=limit_s)
                before = self._unregister(definition.id)  # a stop that comes now finds the one or the other
                await self._sides[definition.runtime].add(definition)
        except BaseException as error:
            if before is not None:
                self._sides[definition.runtime].forget(definition.id)
                self._sides[before.runtime].park(before)
            self._parameters.release(definition.runtime, definition.id)
            if isinstance(error, TimeoutError) and not isinstance(error, DuodaqError):
                raise LifecycleError(f"it did not start within {limit_s:g} s", instrument=definition.id) from error
            raise
        self._guard.tell(self._definitions())

    def park(self, definition: InstrumentDefinition) -> None:
        """See Hands.park."""
        self._unregister(definition.id)
        self._sides[definition.runtime].park(definition)
        self._guard.tell(self._definitions())

    def state(self, instrument: str) -> InstrumentState:
        """See Hands.state."""
        side = next((side for side in self._sides.values() if instrument in side), None)
        states = () if side is None else (s.state for s in side.instruments() if s.id == instrument)
        return next(iter(states), InstrumentState.DISCONNECTED)

    def values(self, instrument: str) -> tuple[ParameterEntry, ...]:
        """See Hands.values."""
        return tuple(entry for entry in self._parameters.snapshot() if entry.instrument == instrument)

    def _watch(self, runtime: RuntimeName, instrument: str) -> _Watch:
        return _Watch(runtime, self._hubs[runtime], instrument, self._numbers(runtime, instrument))

    def _numbers(self, runtime: RuntimeName, instrument: str) -> dict[str, int]:
        side = self._sides[runtime]
        if instrument not in side:
            return {}
        return self._housing.numbers(place(side[instrument], side.definition), instrument)

    def _unregister(self, instrument: str) -> InstrumentDefinition | None:
        for side in self._sides.values():
            if instrument in side:
                definition = side[instrument]
                side.forget(instrument)
                return definition
        return None


class _Watch:
    """The last number seen on one side's hub, of each channel of an instrument, since this was made."""

    def __init__(self, runtime: RuntimeName, hub: Hub[Any], instrument: str, at_first: dict[str, int]) -> None:
        self.runtime: RuntimeName = runtime
        self._read = _of_v2 if runtime == "v2" else _of_v4
        self._at_first = at_first
        self._seen: dict[str, int] = {}
        of = _instrument_in_v2 if runtime == "v2" else instrument_of
        name = f"move of {instrument}"
        self._subscription: Subscription[Any] = hub.subscribe(
            name, capacity=4096, policy=Policy.DROP_OLDEST, accepts=lambda item: of(item) == instrument
        )

    @property
    def came(self) -> int:
        """How much has been published here since this was made."""
        return self._subscription.offered

    def has_seen(self, numbers: Mapping[str, int]) -> bool:
        """Whether all that was given a number before these, since this was made, has been published here."""
        while True:
            try:
                channel, last = self._read(self._subscription.get_nowait())
            except (BlockingIOError, StoppedError):
                break
            self._seen[channel] = max(self._seen.get(channel, -1), last)
        new = {channel: number for channel, number in numbers.items() if number > self._at_first.get(channel, 0)}
        return all(self._seen.get(channel, -1) + 1 >= number for channel, number in new.items())

    def close(self) -> None:
        self._subscription.close()


def _instrument_in_v2(item: Any) -> str:
    return item.instrument


def _of_v2(item: Any) -> tuple[str, int]:
    return item.channel, item.sequence


def _of_v4(batch: Any) -> tuple[str, int]:
    column = batch.schema.get_field_index("sequence")
    last = int(batch.column(column)[-1].as_py()) if column >= 0 and batch.num_rows else -1
    return channel_of(batch), last
