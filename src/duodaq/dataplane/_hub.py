"""The hub: every item offered to every subscription, and the books of it.

One lock guards the hub, its subscriptions' queues and all counters, so that whoever takes it (`ledger`, `figures`) sees
books that balance, at any moment and from any thread. It is held for the time of a few appends; nothing under it waits,
logs, or calls a user's code except an `accepts` filter, which must be quick and must not touch the hub.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from duodaq import clock
from duodaq.dataplane._ledger import DEPARTED, Ledger, LedgerRow
from duodaq.dataplane._policy import Alarm, AlarmKind, OccupancyAlarm, Policy
from duodaq.dataplane._sleeper import LoopSleeper
from duodaq.dataplane._slot import Account, Figures, Slot
from duodaq.dataplane._subscription import Subscription
from duodaq.errors import MailboxFullError, StoppedError
from duodaq.model import Scalar
from duodaq.telemetry import get_logger

T = TypeVar("T")
SyncOverflow = Literal["refuse", "drop"]

_REMEMBERED = 256
_LOSING = {Policy.BLOCK: 1e-12, Policy.LATEST: float("inf")}
"""From which part lost on a reader loses data: one that blocks with the first item, one that wants the latest never."""


_Taker: TypeAlias = tuple[Slot[T], Callable[[T], bool] | None]
_Route: TypeAlias = tuple[tuple[Slot[T], Account, Callable[[T], bool] | None], ...]


class _Stream(Generic[T]):
    """One stream: how much the hub took of it, and who is offered it (None: to be found out again)."""

    __slots__ = ("produced", "route")

    def __init__(self) -> None:
        self.produced = 0
        self.route: _Route[T] | None = None


class _Due(NamedTuple):
    alarm: Alarm
    figures: Figures


def size_in_memory(item: Any) -> int:
    """The bytes that an item's arrays keep; what has none counts as nothing, being bounded by number."""
    if type(item) is Scalar:
        return 0
    array = getattr(item, "pixels", None)
    if array is None:
        array = getattr(item, "values", item)
    return int(getattr(array, "nbytes", 0))


def measured_stream(item: Any) -> str:
    """The stream id of a measurement: ``<instrument>.<channel>``."""
    return f"{item.instrument}.{item.channel}"


class Hub(Generic[T]):
    """Offers what is published to every subscription, and counts it.

    Args:
        name: How the ledger calls it.
        key: The stream id of an item.
        weigh: What an item counts for in the books (rows, for batches); 1 if not given.
        size_of: The bytes an item keeps in memory, for subscriptions with `max_bytes`; by default its arrays.
        now_s: The clock of the alarms.
    """

    def __init__(
        self,
        name: str,
        key: Callable[[T], str] = measured_stream,
        weigh: Callable[[T], int] | None = None,
        *,
        size_of: Callable[[T], int] = size_in_memory,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._key = key
        self._weigh = weigh
        self._size_of = size_of
        self._now_s = now_s
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream[T]] = {}
        self._members: dict[str, tuple[Slot[T], Subscription[T]]] = {}
        self._seat(())
        self._sizes = False
        self._departed: dict[str, dict[str, LedgerRow]] = {}
        self._closed = False
        self._roll_at_s = now_s()
        self._log = get_logger("dataplane")

    @property
    def closed(self) -> bool:
        """Whether the hub takes nothing more."""
        return self._closed

    def subscribe(
        self,
        name: str,
        *,
        capacity: int = 1024,
        policy: Policy = Policy.DROP_OLDEST,
        accepts: Callable[[T], bool] | None = None,
        max_bytes: int | None = None,
        sync_overflow: SyncOverflow = "refuse",
        initial: Iterable[T] = (),
        alarm_at: float = 0.9,
    ) -> Subscription[T]:
        """Join: from now on every published item that `accepts` says yes to is offered to the new subscription.

        Args:
            name: Unique among the present subscriptions.
            capacity: How many items may wait.
            policy: What happens when they do.
            accepts: A quick, pure filter; it runs under the hub's lock.
            max_bytes: The most memory that waiting items may keep; one item alone may exceed it.
            sync_overflow: With Policy.BLOCK, what a full queue does to `publish`, which cannot wait: "refuse" raises
                MailboxFullError; "drop" lets everybody else have the item and counts it as lost here, with an alarm.
            initial: Items of this hub's past that the newcomer is offered first, as if it had joined before them.
            alarm_at: The part of the capacity, or of `max_bytes`, that is an alarm when it is taken, 0 to 1.

        Raises:
            ValueError: The name is taken, or the capacity is not positive.
            StoppedError: The hub is closed.
        """
        if capacity < 1:
            raise ValueError(f"subscription {name}: capacity is {capacity}; at least 1 is needed")
        drop_ratio = _LOSING.get(policy, 0.01)
        alarm = OccupancyAlarm(drop_ratio=drop_ratio, full_ratio=alarm_at)
        slot: Slot[T] = Slot(name, capacity, policy, max_bytes, sync_overflow == "refuse", alarm)
        subscription = Subscription(slot, self._lock, self._retire)
        with self._lock:
            if self._closed:
                raise StoppedError(f"the hub {self.name} is closed")
            if name in self._members:
                raise ValueError(f"hub {self.name} already has a subscriber called {name}")
            self._members[name] = (slot, subscription)
            self._seat((*self._takers, (slot, accepts)))
            self._sizes = self._sizes or max_bytes is not None
            for item in initial:
                self._replay(slot, item)
        return subscription

    def unsubscribe(self, name: str) -> None:
        """Close the subscription of that name, if there is one."""
        member = self._members.get(name)
        if member is not None:
            member[1].close()

    def publish(self, item: T) -> None:
        """Offer an item to every subscription. Never waits; safe from any thread.

        Raises:
            MailboxFullError: A subscription that blocks is full. Nobody was offered the item, and it is not counted.
            StoppedError: The hub is closed. The item is not counted.
        """
        stream = self._key(item)
        weight = 1 if self._weigh is None else self._weigh(item)
        size = self._size_of(item) if self._sizes else 0
        lock = self._lock
        lock.acquire()  # half the cost of `with`, on the one path that every reading takes
        try:
            full = self._refusing(item, size, False) if self._closed or self._blocking else None
            if full is not None:
                raise MailboxFullError(f"the queue of {full.name} at {self.name} is full; {stream} was not published")
            due = self._offer(stream, item, weight, size)
        finally:
            lock.release()
        if due:
            self._report(due)

    async def publish_wait(self, item: T, timeout_s: float | None = None) -> None:
        """Offer an item to every subscription, once those that block have room for it.

        Raises:
            MailboxFullError: There was still no room after `timeout_s`. Nobody was offered the item.
            StoppedError: The hub is closed, or was meanwhile. The item is not counted.

        Cancellation:
            Nobody was offered the item.
        """
        stream = self._key(item)
        weight = 1 if self._weigh is None else self._weigh(item)
        size = self._size_of(item) if self._sizes else 0
        loop = asyncio.get_running_loop()
        ends_s = None if timeout_s is None else loop.time() + timeout_s
        while True:
            with self._lock:
                full = self._refusing(item, size, True)
                if full is None:
                    due = self._offer(stream, item, weight, size)
                    break
                sleeper = LoopSleeper(0)
                full.writers.append(sleeper)
            try:
                woken = await sleeper.wait(None if ends_s is None else max(0.0, ends_s - loop.time()))
            finally:
                with self._lock:
                    full.leave_writers(sleeper)
            if not woken:
                raise MailboxFullError(f"the queue of {full.name} at {self.name} stayed full for {timeout_s} s")
        if due:
            self._report(due)

    def subscriptions(self) -> tuple[Subscription[T], ...]:
        """The present subscriptions."""
        with self._lock:
            return tuple(subscription for _, subscription in self._members.values())

    def attended(self, *, without: str) -> bool:
        """Whether anybody but `without` is subscribed now. Takes no lock: a filter of another hub may ask."""
        return any(slot.name != without for slot, _ in self._takers)

    def figures(self) -> tuple[Figures, ...]:
        """How every present subscription is doing, all of one moment."""
        now_s = self._now_s()
        with self._lock:
            return tuple(slot.figures(now_s) for slot, _ in self._members.values())

    def ledger(self) -> Ledger:
        """The books of this moment: those who are here, and those who have been."""
        with self._lock:
            rows = [row for slot, _ in self._members.values() for row in self._rows(slot)]
            rows += [row for streams in self._departed.values() for row in streams.values()]
            return Ledger({self.name: self._produced()}, ()).merge(Ledger({}, tuple(rows)))

    def close(self) -> None:
        """Take nothing more. Readers get what waits for them, then StoppedError (or the end of their iteration)."""
        with self._lock:
            self._closed = True
            for slot, _ in self._members.values():
                slot.finish(self._produced())
            self._seat(())

    async def aclose(self, drain_s: float = 0.0) -> None:
        """Close, give readers up to `drain_s` seconds to take what waits, then drop the rest as closed."""
        self.close()
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + drain_s
        while loop.time() < ends_s and any(subscription.occupancy for subscription in self.subscriptions()):
            await clock.pause(0.002)
        for subscription in self.subscriptions():
            subscription.close()

    def _seat(self, takers: tuple[_Taker[T], ...]) -> None:
        self._takers = takers
        self._blocking = tuple(taker for taker in takers if taker[0].policy is Policy.BLOCK)
        for stream in self._streams.values():
            stream.route = None

    def _produced(self) -> dict[str, int]:
        return {name: stream.produced for name, stream in self._streams.items()}

    def _refusing(self, item: T, size: int, waits: bool) -> Slot[T] | None:
        if self._closed:
            raise StoppedError(f"the hub {self.name} is closed; the item was not published")
        for slot, accepts in self._blocking:
            if (waits or slot.refuses) and not slot.fits(size) and (accepts is None or accepts(item)):
                return slot
        return None

    def _offer(self, stream: str, item: T, weight: int, size: int) -> list[_Due] | None:
        now_s = self._now_s()
        if now_s >= self._roll_at_s:
            self._roll(now_s)
        known = self._streams.get(stream)
        if known is None:
            known = self._streams[stream] = _Stream()
        route = known.route
        if route is None:
            route = known.route = self._route(stream, known.produced)
        known.produced += weight
        due: list[_Due] | None = None
        for slot, account, accepts in route:
            try:
                wanted = accepts is None or accepts(item)
            except Exception:  # noqa: BLE001 - a reader's faulty filter costs that reader the item, and nobody else
                worth_a_look = slot.miss(account, weight)
            else:
                if not wanted:
                    account.skipped += weight
                    continue
                worth_a_look = slot.offer(account, item, weight, size)
            if worth_a_look:
                due = [*(due or ()), *(_Due(alarm, slot.figures(now_s)) for alarm in slot.due_alarms(now_s))]
        return due

    def _route(self, stream: str, before: int) -> _Route[T]:
        return tuple(
            (slot, slot.accounts.get(stream) or slot.open_account(stream, before), accepts)
            for slot, accepts in self._takers
        )

    def _replay(self, slot: Slot[T], item: T) -> None:
        stream, weight = self._key(item), 1 if self._weigh is None else self._weigh(item)
        account = slot.accounts.get(stream) or slot.open_account(stream, self._taken_of(stream))
        account.before -= weight
        slot.offer(account, item, weight, self._size_of(item))

    def _roll(self, now_s: float) -> None:
        for slot, _ in self._takers:
            slot.alarm.note(now_s, slot.offered, slot.dropped)
        self._roll_at_s = now_s + 1.0

    def _retire(self, slot: Slot[T], close: bool) -> None:
        with self._lock:
            slot.finish(self._produced())
            self._seat(tuple(taker for taker in self._takers if taker[0] is not slot))
            if not close or slot.closed:
                return
            slot.close(self._produced())
            del self._members[slot.name]
            self._remember(slot)

    def _remember(self, slot: Slot[T]) -> None:
        self._book(slot.name, self._rows(slot))
        named = [name for name in self._departed if name != DEPARTED]
        if len(named) > _REMEMBERED:
            self._book(DEPARTED, list(self._departed.pop(named[0]).values()))

    def _book(self, name: str, rows: list[LedgerRow]) -> None:
        streams = self._departed.setdefault(name, {})
        for row in rows:
            streams[row.stream] = streams[row.stream].plus(row) if row.stream in streams else row

    def _rows(self, slot: Slot[T]) -> list[LedgerRow]:
        return [slot.row(self.name, account, self._taken_of(account.stream)) for account in slot.accounts.values()]

    def _taken_of(self, stream: str) -> int:
        known = self._streams.get(stream)
        return 0 if known is None else known.produced

    def _report(self, due: list[_Due]) -> None:
        for alarm, figures in due:
            facts: dict[str, Any] = {
                "hub": self.name,
                "subscriber": figures.name,
                "dropped": figures.dropped,
                "drop_rate": round(figures.drop_rate, 4),
                "occupancy": figures.occupancy,
                "capacity": figures.capacity,
            }
            if alarm.kind is AlarmKind.NEARLY_FULL:
                self._log.error("queue is nearly full", **facts)
            elif figures.policy is Policy.BLOCK:
                self._log.error("lossless reader lost data", **facts)
            else:
                self._log.warning("slow reader is losing data", **facts)
