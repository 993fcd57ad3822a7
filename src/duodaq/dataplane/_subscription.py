from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from duodaq import clock
from duodaq.dataplane._policy import Policy
from duodaq.dataplane._sleeper import LoopSleeper, ThreadSleeper
from duodaq.dataplane._slot import Figures, Slot
from duodaq.errors import StoppedError

T = TypeVar("T")


class Subscription(Generic[T]):
    """One reader's end of a hub: a bounded queue, its policy and its exact counters.

    Made by `Hub.subscribe`. It may be read from any thread or loop, and by several readers, each item going to one of
    them. Counts are in weight (rows, for batches); `occupancy` and `capacity` in items.
    """

    def __init__(self, slot: Slot[T], lock: threading.Lock, retire: Callable[[Slot[T], bool], None]) -> None:
        self._slot = slot
        self._lock = lock
        self._retire = retire

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r} {self.policy.value} {self.occupancy}/{self.capacity}>"

    @property
    def name(self) -> str:
        """The subscriber's name, unique at its hub."""
        return self._slot.name

    @property
    def policy(self) -> Policy:
        """What happens when the queue is full."""
        return self._slot.policy

    @property
    def capacity(self) -> int:
        """How many items may wait."""
        return self._slot.capacity

    @property
    def occupancy(self) -> int:
        """How many items wait now."""
        return len(self._slot)

    @property
    def waiting_bytes(self) -> int:
        """The memory that waiting items keep, if the subscription is bounded by it."""
        return self._slot.bytes

    @property
    def high_water(self) -> int:
        """The most items that ever waited at once."""
        return self._slot.high_water

    @property
    def offered(self) -> int:
        """Everything the hub had for this reader since it joined."""
        return self._slot.offered

    @property
    def delivered(self) -> int:
        """What the reader took."""
        return self._slot.delivered

    @property
    def dropped(self) -> int:
        """What was lost, for whatever reason; `losses` has the reasons."""
        return self._slot.dropped

    @property
    def in_flight(self) -> int:
        """What waits in the queue."""
        return self._slot.in_flight

    @property
    def finished(self) -> bool:
        """Whether nothing more will come in; what waits can still be read unless the subscription is closed."""
        return self._slot.finished

    @property
    def closed(self) -> bool:
        """Whether the subscription is closed."""
        return self._slot.closed

    def figures(self) -> Figures:
        """Sent, dropped, drop rate, occupancy, capacity and the rest, all of one moment."""
        with self._lock:
            return self._slot.figures(clock.monotonic_s())

    def losses(self) -> dict[str, int]:
        """What was dropped, by reason."""
        losses: dict[str, int] = {}
        with self._lock:
            for account in self._slot.accounts.values():
                for reason, weight in account.dropped.items():
                    losses[reason] = losses.get(reason, 0) + weight
        return losses

    def take_missed(self) -> int:
        """How much was dropped since this was last asked; asking resets it."""
        with self._lock:
            missed, self._slot.missed = self._slot.missed, 0
            return missed

    def get_nowait(self) -> T:
        """The next item.

        Raises:
            BlockingIOError: None waits.
            StoppedError: None waits and none will come.
        """
        with self._lock:
            items = self._take(1)
        if not items:
            raise BlockingIOError(f"nothing waits for {self.name}")
        return items[0]

    async def get(self, timeout_s: float | None = None) -> T:
        """The next item; waits for it.

        Raises:
            TimeoutError: None came within `timeout_s`.
            StoppedError: None waits and none will come.

        Cancellation:
            Nothing is lost: an item is taken only when it is returned.
        """
        items = await self.get_many(1, timeout_s)
        if not items:
            raise TimeoutError(f"nothing came for {self.name} within {timeout_s} s")
        return items[0]

    async def get_many(
        self, limit: int, timeout_s: float | None = None, *, linger_s: float = 0.0, enough: int | None = None
    ) -> list[T]:
        """The next items, at most `limit`: at least one, or none if `timeout_s` passes first.

        Args:
            limit: The most items to return.
            timeout_s: How long to wait for the first one; None: for ever.
            linger_s: Once there is one, how long to wait for `enough` of them.
            enough: How many end the lingering; `limit` if not given.

        Raises:
            StoppedError: None waits and none will come.

        Cancellation:
            Nothing is lost: items are taken only when they are returned.
        """
        loop = asyncio.get_running_loop()
        ends_s = None if timeout_s is None else loop.time() + timeout_s
        while True:
            came = await self._until(1, ends_s)
            if came and linger_s > 0 and limit > 1:
                await self._until(enough or limit, loop.time() + linger_s)
            items = self._take_now(limit)
            if items or not came:
                return items

    def get_blocking(self, timeout_s: float | None = None) -> T:
        """The next item, for a thread without an event loop: blocks it.

        Raises:
            TimeoutError: None came within `timeout_s`.
            StoppedError: None waits and none will come.
        """
        deadline = clock.Deadline(timeout_s)
        while True:
            with self._lock:
                items = self._take(1)
                if items:
                    return items[0]
                sleeper = ThreadSleeper(1)
                self._slot.join_readers(sleeper)
            try:
                woken = sleeper.wait(None if timeout_s is None else deadline.left_s)
            finally:
                with self._lock:
                    self._slot.leave_readers(sleeper)
            if not woken and not self.occupancy:
                raise TimeoutError(f"nothing came for {self.name} within {timeout_s} s")

    def get_many_blocking(self, limit: int, timeout_s: float | None = None, *, linger_s: float = 0.0) -> list[T]:
        """The same as `get_many`, for a thread without an event loop: blocks it.

        Raises:
            StoppedError: None waits and none will come.
        """
        deadline = clock.Deadline(timeout_s)
        came = self._block_until(1, deadline)
        if came and linger_s > 0 and limit > 1:
            self._block_until(limit, clock.Deadline(linger_s))
        with self._lock:
            return self._take(limit) if came else []

    def _block_until(self, want: int, deadline: clock.Deadline) -> bool:
        while True:
            with self._lock:
                if self._slot.ready(want):
                    return True
                sleeper = ThreadSleeper(want)
                self._slot.join_readers(sleeper)
            try:
                woken = sleeper.wait(None if deadline.left_s == float("inf") else deadline.left_s)
            finally:
                with self._lock:
                    self._slot.leave_readers(sleeper)
            if not woken:
                return False

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except StoppedError:
            raise StopAsyncIteration from None

    def finish(self) -> None:
        """Take nothing more from the hub; what waits can still be read, then reading raises StoppedError."""
        self._retire(self._slot, False)

    def close(self) -> None:
        """Leave the hub; what waited is dropped, with the reason "closed". The name is free again. Idempotent."""
        self._retire(self._slot, True)

    async def _until(self, want: int, ends_s: float | None) -> bool:
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._slot.ready(want):
                    return True
                sleeper = LoopSleeper(want)
                self._slot.join_readers(sleeper)
            try:
                woken = await sleeper.wait(None if ends_s is None else max(0.0, ends_s - loop.time()))
            finally:
                with self._lock:
                    self._slot.leave_readers(sleeper)
            if not woken:
                return False

    def _take_now(self, limit: int) -> list[T]:
        with self._lock:
            return self._take(limit)

    def _take(self, limit: int) -> list[T]:
        slot = self._slot
        if not len(slot) and slot.finished:
            raise StoppedError(f"the subscription {slot.name} has ended")
        return slot.take(limit)
