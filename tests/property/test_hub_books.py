"""Whatever is published, read, filtered, closed and joined, in whatever order: the books balance and order is kept."""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.errors import MailboxFullError, StoppedError

STREAMS = ("a", "b", "c")


@dataclass(frozen=True)
class Item:
    stream: str
    number: int
    weight: int
    size: int


@dataclass(eq=False)
class Model:
    """A subscription as plain Python keeps it: slow, obvious."""

    subscription: Subscription[Item]
    policy: Policy
    capacity: int
    max_bytes: int | None
    picky: bool
    spills: bool
    queue: deque[Item] = field(default_factory=deque)
    offered: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    finished: bool = False

    def wants(self, item: Item) -> bool:
        return not self.picky or item.number % 2 == 0

    def fits(self, item: Item) -> bool:
        if len(self.queue) >= self.capacity:
            return False
        return not self.queue or self.max_bytes is None or sum(i.size for i in self.queue) + item.size <= self.max_bytes

    def lose(self, item: Item, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + item.weight

    def offer(self, item: Item) -> None:
        self.offered += item.weight
        if self.policy is Policy.LATEST:
            for older in [i for i in self.queue if i.stream == item.stream]:
                self.queue.remove(older)
                self.lose(older, "superseded")
        if self.policy in (Policy.DROP_OLDEST, Policy.LATEST):
            while not self.fits(item):
                self.lose(self.queue.popleft(), "drop-oldest")
        if self.fits(item):
            self.queue.append(item)
        else:
            self.lose(item, "overflow" if self.policy is Policy.BLOCK else "drop-newest")


class HubBooks(RuleBasedStateMachine):
    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[Item] = Hub("hub", lambda i: i.stream, lambda i: i.weight, size_of=lambda i: i.size)
        self.models: list[Model] = []
        self.produced = dict.fromkeys(STREAMS, 0)
        self.number = 0
        self.names = 0

    @rule(
        target=readers,
        capacity=st.integers(1, 4),
        policy=st.sampled_from(Policy),
        picky=st.booleans(),
        spills=st.booleans(),
        max_bytes=st.none() | st.integers(1, 20),
    )
    def join(self, capacity, policy, picky, spills, max_bytes):
        self.names += 1
        subscription = self.hub.subscribe(
            f"reader-{self.names}",
            capacity=capacity,
            policy=policy,
            accepts=(lambda item: item.number % 2 == 0) if picky else None,
            max_bytes=max_bytes,
            sync_overflow="drop" if spills else "refuse",
        )
        model = Model(subscription, policy, capacity, max_bytes, picky, spills)
        self.models.append(model)
        return model

    @rule(stream=st.sampled_from(STREAMS), weight=st.integers(0, 5), size=st.integers(0, 30))
    def publish(self, stream, weight, size):
        self.number += 1
        item = Item(stream, self.number, weight, size)
        takers = [m for m in self.models if not m.finished]
        refused = any(m.policy is Policy.BLOCK and not m.spills and m.wants(item) and not m.fits(item) for m in takers)
        try:
            self.hub.publish(item)
        except MailboxFullError:
            assert refused
            return
        assert not refused
        self.produced[stream] += weight
        for model in takers:
            if model.wants(item):
                model.offer(item)

    @rule(model=readers)
    def read(self, model):
        try:
            item = model.subscription.get_nowait()
        except StoppedError:
            assert model.finished
            assert not model.queue
        except BlockingIOError:
            assert not model.finished
            assert not model.queue
        else:
            assert item is model.queue.popleft()
            model.delivered += item.weight

    @rule(model=readers)
    def finish(self, model):
        model.subscription.finish()
        model.finished = True

    @rule(model=consumes(readers))
    def leave(self, model):
        model.subscription.close()
        for item in model.queue:
            model.lose(item, "closed")
        model.queue.clear()
        model.finished = True

    @invariant()
    def the_books_balance(self):
        ledger = self.hub.ledger()
        assert ledger.balanced
        assert {s: n for s, n in self.produced.items() if n} == {
            s: n for s, n in ledger.produced.get("hub", {}).items() if n
        }

    @invariant()
    def every_counter_is_the_model_s(self):
        ledger = self.hub.ledger()
        for model in self.models:
            rows = [row for row in ledger.entries if row.subscriber == model.subscription.name]
            waiting = sum(item.weight for item in model.queue)
            assert sum(row.offered for row in rows) == model.offered == model.subscription.offered
            assert sum(row.delivered for row in rows) == model.delivered == model.subscription.delivered
            assert sum(row.in_flight for row in rows) == waiting == model.subscription.in_flight
            assert sum(row.lost for row in rows) == sum(model.dropped.values()) == model.subscription.dropped
            for reason, count in model.dropped.items():
                assert sum(row.dropped.get(reason, 0) for row in rows) == count
            assert model.subscription.occupancy == len(model.queue)


TestHubBooks = HubBooks.TestCase
TestHubBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
