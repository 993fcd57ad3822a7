"""One subscriber's queue and its books. Everything here runs under the hub's lock and never waits.

Rules for whoever edits this file: an item changes hands only together with its counters, within one call; `in_flight`
goes up where an item enters the queue and down where it leaves, so that offered = delivered + dropped + in flight holds
whenever the lock is free; nothing here calls code of a user.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from duodaq.dataplane._ledger import LedgerRow
from duodaq.dataplane._policy import Alarm, AlarmKind, OccupancyAlarm, Policy
from duodaq.dataplane._sleeper import Sleeper

T = TypeVar("T")

CLOSED = "closed"
OVERFLOW = "overflow"
SUPERSEDED = "superseded"
FILTER_FAILED = "filter failed"


class Figures(msgspec.Struct, frozen=True):
    """How one subscription is doing. Counts are in weight (rows, for batches); occupancy and capacity in items.

    `drop_rate` is the dropped part, 0 to 1, of what was offered within the last window (10 s).
    """

    name: str
    policy: Policy
    sent: int
    delivered: int
    dropped: int
    drop_rate: float
    in_flight: int
    occupancy: int
    capacity: int
    high_water: int
    losing_alarms: int
    full_alarms: int


class Account:
    """The books of one stream at one subscriber. `before` is what the hub had taken of the stream when it joined."""

    __slots__ = ("after", "before", "delivered", "dropped", "in_flight", "offered", "skipped", "stream")

    def __init__(self, stream: str, before: int) -> None:
        self.stream = stream
        self.before = before
        self.after: int | None = None
        self.skipped = 0
        self.offered = 0
        self.delivered = 0
        self.in_flight = 0
        self.dropped: dict[str, int] = {}


Entry: TypeAlias = tuple[T, int, int, Account]
"""An item in a queue, its weight, its size in bytes, and the books it is entered in."""


class LatestQueue(Generic[T]):
    """A queue with at most one entry of each stream, in the order of arrival."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry[T]) -> None:
        self._entries[entry[3].stream] = entry

    def popleft(self) -> Entry[T]:
        return self._entries.popitem(last=False)[1]

    def take(self, stream: str) -> Entry[T] | None:
        """Take out the entry of `stream`, if one waits."""
        return self._entries.pop(stream, None)


class Slot(Generic[T]):
    """A bounded queue with a policy, its counters, and who sleeps at either end of it."""

    def __init__(
        self, name: str, capacity: int, policy: Policy, max_bytes: int | None, refuses: bool, alarm: OccupancyAlarm
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.policy = policy
        self.max_bytes = max_bytes
        self.refuses = refuses
        self.alarm = alarm
        self.accounts: dict[str, Account] = {}
        self.readers: deque[Sleeper] = deque()
        self.writers: deque[Sleeper] = deque()
        self.finished = False
        self.closed = False
        self.offered = self.delivered = self.dropped = self.in_flight = self.missed = 0
        self.bytes = self.high_water = 0
        self.alarms = dict.fromkeys(AlarmKind, 0)
        self.look_at_s = float("-inf")
        self._queue: deque[Entry[T]] | LatestQueue[T] = LatestQueue() if policy is Policy.LATEST else deque()
        self._worried = max(1, -int(-alarm.full_ratio * capacity // 1)) if policy is not Policy.LATEST else capacity + 1

    def __len__(self) -> int:
        return len(self._queue)

    def open_account(self, stream: str, before: int) -> Account:
        """Open the books of a stream seen for the first time; the hub had taken `before` of it until now."""
        account = self.accounts[stream] = Account(stream, before)
        return account

    def fits(self, size: int) -> bool:
        """Whether another item of `size` bytes has room; an empty queue has room for any."""
        waiting = len(self._queue)
        if waiting >= self.capacity:
            return False
        return self.max_bytes is None or waiting == 0 or self.bytes + size <= self.max_bytes

    def ready(self, want: int) -> bool:
        """Whether a reader who wants `want` items should come now: they wait, or as many as there will be room for."""
        waiting = len(self._queue)
        return waiting >= want or self.finished or (waiting > 0 and self._pressed())

    def offer(self, account: Account, item: T, weight: int, size: int) -> bool:
        """Enter an item in the books, and in the queue or among the dropped.

        Returns:
            Whether an alarm may be due: something was dropped, or the queue is nearly full.
        """
        account.offered += weight
        self.offered += weight
        queue = self._queue
        lost = False
        if isinstance(queue, LatestQueue):
            older = queue.take(account.stream)
            if older is not None:
                self._discard(older, SUPERSEDED)
        if len(queue) >= self.capacity or self.max_bytes is not None:
            dropped = self.dropped
            taken = self.fits(size) or self._make_room(size)
            if not taken:
                self._lose(account, weight, OVERFLOW if self.policy is Policy.BLOCK else self.policy.value)
            lost = self.dropped != dropped
        else:
            taken = True
        if taken:
            queue.append((item, weight, size, account))
            account.in_flight += weight
            self.in_flight += weight
            self.bytes += size
        waiting = len(queue)
        if waiting > self.high_water:
            self.high_water = waiting
        if self.readers:
            self._wake_reader(waiting)
        return lost or waiting >= self._worried

    def miss(self, account: Account, weight: int) -> bool:
        """Enter an item that the reader's own filter could not judge; returns whether an alarm may be due: yes."""
        account.offered += weight
        self.offered += weight
        self._lose(account, weight, FILTER_FAILED)
        return True

    def take(self, limit: int) -> list[T]:
        """Hand over the items that waited longest, at most `limit`; they are delivered from now on."""
        items: list[T] = []
        queue = self._queue
        for _ in range(min(limit, len(queue))):
            item, weight, size, account = queue.popleft()
            account.in_flight -= weight
            account.delivered += weight
            self.in_flight -= weight
            self.delivered += weight
            self.bytes -= size
            items.append(item)
        if self.writers:
            self._wake_writers()
        return items

    def finish(self, produced: dict[str, int]) -> None:
        """Take nothing more; what waits can still be read. Sleepers at both ends wake and see it."""
        if self.finished:
            return
        self.finished = True
        for account in self.accounts.values():
            account.after = produced.get(account.stream, 0)
        self._wake_writers()
        while self.readers:
            self.readers.popleft().wake()

    def close(self, produced: dict[str, int]) -> None:
        """Take and give nothing more: what waited is dropped as closed."""
        self.finish(produced)
        self.closed = True
        while self._queue:
            self._discard(self._queue.popleft(), CLOSED)

    def leave(self, sleepers: deque[Sleeper], sleeper: Sleeper) -> None:
        """A sleeper goes, woken or not; a wake-up it had and does not use goes to the next reader."""
        if sleeper in sleepers:
            sleepers.remove(sleeper)
        if self.readers:
            self._wake_reader(len(self._queue))

    def row(self, hub: str, account: Account, produced: int) -> LedgerRow:
        """The books of one stream as they stand."""
        return LedgerRow(
            hub=hub,
            stream=account.stream,
            subscriber=self.name,
            produced=(produced if account.after is None else account.after) - account.before,
            skipped=account.skipped,
            offered=account.offered,
            delivered=account.delivered,
            in_flight=account.in_flight,
            dropped=dict(account.dropped),
        )

    def due_alarms(self, now_s: float) -> list[Alarm]:
        """The alarms that are due now, counted."""
        if now_s < self.look_at_s:
            return []
        full = len(self._queue) / self.capacity if self.policy is not Policy.LATEST else 0.0
        alarms = self.alarm.due(now_s, self.offered, self.dropped, full)
        for alarm in alarms:
            self.alarms[alarm.kind] += 1
        if alarms:
            self.look_at_s = self.alarm.silent_until()
        return alarms

    def figures(self, now_s: float) -> Figures:
        """How this subscription is doing."""
        return Figures(
            name=self.name,
            policy=self.policy,
            sent=self.offered,
            delivered=self.delivered,
            dropped=self.dropped,
            drop_rate=self.alarm.drop_rate(now_s, self.offered, self.dropped),
            in_flight=self.in_flight,
            occupancy=len(self._queue),
            capacity=self.capacity,
            high_water=self.high_water,
            losing_alarms=self.alarms[AlarmKind.LOSING],
            full_alarms=self.alarms[AlarmKind.NEARLY_FULL],
        )

    def _make_room(self, size: int) -> bool:
        if self.policy not in (Policy.DROP_OLDEST, Policy.LATEST):
            return False
        while not self.fits(size):
            self._discard(self._queue.popleft(), Policy.DROP_OLDEST.value)
        return True

    def _discard(self, entry: Entry[Any], reason: str) -> None:
        _, weight, size, account = entry
        account.in_flight -= weight
        self.in_flight -= weight
        self.bytes -= size
        self._lose(account, weight, reason)

    def _lose(self, account: Account, weight: int, reason: str) -> None:
        account.dropped[reason] = account.dropped.get(reason, 0) + weight
        self.dropped += weight
        self.missed += weight

    def _wake_reader(self, waiting: int) -> None:
        for reader in self.readers:
            if waiting >= reader.want or (waiting and self._pressed()):
                self.readers.remove(reader)
                reader.wake()
                return

    def _pressed(self) -> bool:
        if len(self._queue) >= self.capacity:
            return True
        return self.max_bytes is not None and 2 * self.bytes >= self.max_bytes

    def _wake_writers(self) -> None:
        while self.writers:
            self.writers.popleft().wake()
