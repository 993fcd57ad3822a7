"""The mailbox of one actor.

Rules whoever edits this must keep:

1. Bounded. The lane never holds more than `capacity` envelopes. What finds no room is refused, or waits *outside* in
   the order of its coming; each waiting envelope belongs to one suspended caller, so their number is the callers'.
2. FIFO, waiting room included: while anybody waits, a newcomer never overtakes him, even if there is room just now.
3. Nobody waits without need: whatever makes room (a take, a removal, an end) admits those who wait, at once.
4. An envelope is in exactly one place: waiting, in the lane, or taken. `remove` finds it only in the first two, by
   identity, so its answer is the fate of an overdue message: removed means *not done*, anything else *unknown*.
5. The urgent lane is apart: never behind the ordinary one, bounded by the same capacity; `force` (link notices, at
   most one for each link) is not refused.
6. An idle mailbox owns no deque: a deque costs 600 bytes, an idle actor may cost 4 kB in all.

Nothing here waits, schedules or raises: it is a state machine, tested against a model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from duodaq.v4._message import Envelope

Admission = asyncio.Future[None]


class Mailbox:
    """A bounded FIFO lane with a waiting room, and an urgent lane beside it."""

    __slots__ = ("_lane", "_urgent", "_waiting", "capacity", "high_water", "refused", "taken")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox holds at least one message, not {capacity}")
        self.capacity = capacity
        self.high_water = 0
        self.refused = 0
        self.taken = 0
        self._lane: deque[Envelope] | None = None
        self._urgent: deque[Envelope] | None = None
        self._waiting: deque[tuple[Envelope, Admission | None]] | None = None

    def __len__(self) -> int:
        return len(self._lane) if self._lane else 0

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiting) if self._waiting else 0

    @property
    def urgent_depth(self) -> int:
        """How many wait in the urgent lane."""
        return len(self._urgent) if self._urgent else 0

    def offer(self, envelope: Envelope) -> bool:
        """Take `envelope` into the lane, or say False if there is no room for it or others wait before it."""
        lane = self._lane
        if lane is None:
            lane = self._lane = deque()
        depth = len(lane)
        if depth >= self.capacity or self._waiting:
            return False
        lane.append(envelope)
        self.taken += 1
        if depth >= self.high_water:
            self.high_water = depth + 1
        return True

    def wait(self, envelope: Envelope, admission: Admission | None) -> None:
        """Let a refused `envelope` wait for room; `admission` is set when it is in the lane."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((envelope, admission))

    def take(self) -> Envelope | None:
        """The oldest envelope of the lane, or None; makes room for one who waits."""
        lane = self._lane
        if not lane:
            return None
        envelope = lane.popleft()
        if self._waiting:
            self._admit()
        return envelope

    def offer_urgent(self, envelope: Envelope, *, force: bool = False) -> bool:
        """Take `envelope` into the urgent lane, or say False if that is full and it is not forced."""
        if self._urgent is None:
            self._urgent = deque()
        if len(self._urgent) >= self.capacity and not force:
            return False
        self._urgent.append(envelope)
        self.taken += 1
        return True

    def take_urgent(self) -> Envelope | None:
        """The oldest envelope of the urgent lane, or None."""
        return self._urgent.popleft() if self._urgent else None

    def remove(self, envelope: Envelope) -> bool:
        """Take `envelope` out wherever it waits; False if it is not here (any more)."""
        for lane in (self._lane, self._urgent):
            if lane and envelope in lane:
                lane.remove(envelope)
                self._admit()
                return True
        for index, (waiter, _) in enumerate(self._waiting or ()):
            if waiter is envelope and self._waiting is not None:
                del self._waiting[index]
                self._admit()
                return True
        return False

    def end(
        self, unwanted: Callable[[Envelope], bool], *, urgent: bool = False
    ) -> list[tuple[Envelope, Admission | None]]:
        """Take out all that is `unwanted`, oldest first; the urgent lane too if `urgent`."""
        gone: list[tuple[Envelope, Admission | None]] = []
        if self._urgent and urgent:
            gone += [(envelope, None) for envelope in self._urgent if unwanted(envelope)]
            self._urgent = deque(envelope for envelope in self._urgent if not unwanted(envelope))
        if self._lane:
            gone += [(envelope, None) for envelope in self._lane if unwanted(envelope)]
            self._lane = deque(envelope for envelope in self._lane if not unwanted(envelope))
        if self._waiting:
            gone += [pair for pair in self._waiting if unwanted(pair[0])]
            self._waiting = deque(pair for pair in self._waiting if not unwanted(pair[0]))
        self._admit()
        return gone

    def fold(self) -> None:
        """Give back what an empty mailbox does not need."""
        if not self._lane:
            self._lane = None
        if not self._urgent:
            self._urgent = None
        if not self._waiting:
            self._waiting = None

    def __iter__(self) -> Iterator[Envelope]:
        yield from self._lane or ()

    def _admit(self) -> None:
        while self._waiting and len(self) < self.capacity:
            envelope, admission = self._waiting.popleft()
            if self._lane is None:
                self._lane = deque()
            self._lane.append(envelope)
            self.taken += 1
            self.high_water = max(self.high_water, len(self._lane))
            if admission is not None and not admission.done():
                admission.set_result(None)
