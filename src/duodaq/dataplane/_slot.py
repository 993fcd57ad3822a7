"""One subscriber's queue and its books. Everything here runs under the hub's lock and never waits.

Rules for whoever edits this file: an item changes hands only together with its counters, within one call; `in_flight`
goes up where an item enters the queue and down where it leaves, so that offered = delivered + dropped + in flight holds
whenever the lock is free; nothing here calls code of a user. `offer` is the path of every reading: what it need not
do for an item that simply finds room, it leaves to `_squeeze_in`, and totals over streams are added up when asked for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import Any, Generic, TypeVar

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


class Entry(msgspec.Struct, Generic[T], gc=False):
    """An item in a queue, its weight, its size in bytes, and the books it is entered in.

    Not known to the cyclic collector: with a long queue its rounds took a third of the time of `Hub.publish`. An entry
    can be in no cycle but through an item that holds its hub, and a closed queue is emptied.
    """

    item: T
    weight: int
    size: int
    account: Account


class LatestQueue(Generic[T]):
    """A queue with at most one entry of each stream, in the order of arrival."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry[T]) -> None:
        self._entries[entry.account.stream] = entry

    def popleft(self) -> Entry[T]:
        return self._entries.popitem(last=False)[1]

    def take(self, stream: str) -> Entry[T] | None:
        """Take out the entry of `stream`, if one waits."""
        return self._entries.pop(stream, None)


class Slot(Generic[T]):
    """A bounded queue with a policy, its counters, and who sleeps at either end of it."""

    __slots__ = (
        "_easy",
        "_queue",
        "_readers",
        "_wake_at",
        "_worried",
        "accounts",
        "alarm",
        "alarms",
        "bytes",
        "capacity",
        "closed",
        "dropped",
        "finished",
        "high_water",
        "look_at_s",
        "max_bytes",
        "missed",
        "name",
        "policy",
        "refuses",
        "writers",
    )

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
        self.writers: deque[Sleeper] = deque()
        self.finished = False
        self.closed = False
        self.dropped = self.missed = self.bytes = self.high_water = 0
        self.alarms = dict.fromkeys(AlarmKind, 0)
        self.look_at_s = float("-inf")
        self._queue: deque[Entry[T]] | LatestQueue[T] = LatestQueue() if policy is Policy.LATEST else deque()
        latest = policy is Policy.LATEST
        self._worried = capacity + 1 if latest else max(1, -int(-alarm.full_ratio * capacity // 1))
        self._easy = 0 if latest else min(capacity, self._worried) - 1  # with fewer waiting, an item just gets in line
        self._readers: deque[Sleeper] = deque()
        self._wake_at: float = inf  # the fewest waiting items that any reader wants

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def offered(self) -> int:
        """Everything the hub had for this subscriber."""
        return sum([account.offered for account in list(self.accounts.values())])

    @property
    def delivered(self) -> int:
        """What was taken."""
        return sum([account.delivered for account in list(self.accounts.values())])

    @property
    def in_flight(self) -> int:
        """What waits."""
        return sum([account.in_flight for account in list(self.accounts.values())])

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
        queue = self._queue
        waiting = len(queue) + 1
        if waiting > self._easy or size or self.bytes:
            return self._squeeze_in(account, item, weight, size)
        queue.append(Entry(item, weight, 0, account))
        account.in_flight += weight
        if waiting > self.high_water:
            self.high_water = waiting
        if waiting >= self._wake_at:
            self._wake_reader(waiting)
        return False

    def miss(self, account: Account, weight: int) -> bool:
        """Enter an item that the reader's own filter could not judge; returns whether an alarm may be due: yes."""
        account.offered += weight
        self._lose(account, weight, FILTER_FAILED)
        return True

    def take(self, limit: int) -> list[T]:
        """Hand over the items that waited longest, at most `limit`; they are delivered from now on."""
        popleft = self._queue.popleft
        entries = [popleft() for _ in range(min(limit, len(self._queue)))]
        account, run = None, 0
        for entry in entries:
            if entry.account is not account:
                _deliver(account, run)
                account, run = entry.account, 0
            run += entry.weight
            self.bytes -= entry.size
        _deliver(account, run)
        if self.writers:
            self._wake_writers()
        return [entry.item for entry in entries]

    def finish(self, produced: dict[str, int]) -> None:
        """Take nothing more; what waits can still be read. Sleepers at both ends wake and see it."""
        if self.finished:
            return
        self.finished = True
        for account in self.accounts.values():
            account.after = produced.get(account.stream, 0)
        self._wake_writers()
        while self._readers:
            self._readers.popleft().wake()
        self._wake_at = inf

    def close(self, produced: dict[str, int]) -> None:
        """Take and give nothing more: what waited is dropped as closed."""
        self.finish(produced)
        self.closed = True
        while self._queue:
            self._discard(self._queue.popleft(), CLOSED)

    def join_readers(self, sleeper: Sleeper) -> None:
        """A reader goes to sleep until as much waits as it wants."""
        self._readers.append(sleeper)
        self._wake_at = min(self._wake_at, sleeper.want)

    def leave_readers(self, sleeper: Sleeper) -> None:
        """A reader goes, woken or not; a wake-up it had and does not use goes to the next one."""
        if sleeper in self._readers:
            self._unseat(sleeper)
        if self._readers:
            self._wake_reader(len(self._queue))

    def leave_writers(self, sleeper: Sleeper) -> None:
        """A publisher goes, woken or not."""
        if sleeper in self.writers:
            self.writers.remove(sleeper)
        if self._readers:
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
        full = max(full, self._bytes_ratio())
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

    def _squeeze_in(self, account: Account, item: T, weight: int, size: int) -> bool:
        dropped = self.dropped
        queue = self._queue
        if isinstance(queue, LatestQueue):
            older = queue.take(account.stream)
            if older is not None:
                self._discard(older, SUPERSEDED)
        if self.fits(size) or self._make_room(size):
            queue.append(Entry(item, weight, size, account))
            account.in_flight += weight
            self.bytes += size
        else:
            self._lose(account, weight, OVERFLOW if self.policy is Policy.BLOCK else self.policy.value)
        waiting = len(queue)
        self.high_water = max(self.high_water, waiting)
        if self._readers:
            self._wake_reader(waiting)
        return self.dropped != dropped or waiting >= self._worried or self._bytes_ratio() >= self.alarm.full_ratio

    def _bytes_ratio(self) -> float:
        return self.bytes / self.max_bytes if self.max_bytes else 0.0

    def _make_room(self, size: int) -> bool:
        if self.policy not in (Policy.DROP_OLDEST, Policy.LATEST):
            return False
        while not self.fits(size):
            self._discard(self._queue.popleft(), Policy.DROP_OLDEST.value)
        return True

    def _discard(self, entry: Entry[Any], reason: str) -> None:
        entry.account.in_flight -= entry.weight
        self.bytes -= entry.size
        self._lose(entry.account, entry.weight, reason)

    def _lose(self, account: Account, weight: int, reason: str) -> None:
        account.dropped[reason] = account.dropped.get(reason, 0) + weight
        self.dropped += weight
        self.missed += weight

    def _wake_reader(self, waiting: int) -> None:
        for reader in self._readers:
            if waiting >= reader.want or (waiting and self._pressed()):
                self._unseat(reader)
                reader.wake()
                return

    def _unseat(self, reader: Sleeper) -> None:
        self._readers.remove(reader)
        self._wake_at = min((other.want for other in self._readers), default=inf)

    def _pressed(self) -> bool:
        if len(self._queue) >= self.capacity:
            return True
        return self.max_bytes is not None and 2 * self.bytes >= self.max_bytes

    def _wake_writers(self) -> None:
        while self.writers:
            self.writers.popleft().wake()


def _deliver(account: Account | None, weight: int) -> None:
    if account is not None:
        account.in_flight -= weight
        account.delivered += weight
