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
7. `lane` and `limit` are open so that a sender saves the call: ``if len(lane) < limit: lane.append(envelope)`` is all
   of `offer` in the common case. So `limit` is 0 while there is no deque, and rule 3 keeps the lane full while anybody
   waits. The deque stays the same one until `fold`.
8. Counters are kept where things leave (`passed`), not where they come: what came is what left and what is here.

Nothing here waits, schedules or raises: it is a state machine, tested against a model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from duodaq.v4._message import Envelope

Admission = asyncio.Future[None]
_NO_LANE: deque[Envelope] = deque(maxlen=0)


class Mailbox:
    """A bounded FIFO lane with a waiting room, and an urgent lane beside it."""

    __slots__ = ("_high_water", "_urgent", "_waiting", "capacity", "lane", "limit", "passed", "refused")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox holds at least one message, not {capacity}")
        self.capacity = capacity
        self.limit = 0
        self.lane: deque[Envelope] = _NO_LANE
        self.refused = 0
        self.passed = 0
        self._high_water = 0
        self._urgent: deque[Envelope] | None = None
        self._waiting: deque[tuple[Envelope, Admission | None]] | None = None

    def __len__(self) -> int:
        return len(self.lane)

    @property
    def taken(self) -> int:
        """How many it has taken in, both lanes together."""
        return self.passed + len(self.lane) + self.urgent_depth

    @property
    def high_water(self) -> int:
        """How many the lane has held at most."""
        return max(self._high_water, len(self.lane))

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
        if self.lane is _NO_LANE:
            self.lane, self.limit = deque(), self.capacity
        if len(self.lane) >= self.limit:
            return False
        self.lane.append(envelope)
        return True

    def wait(self, envelope: Envelope, admission: Admission | None) -> None:
        """Let a refused `envelope` wait for room; `admission` is set when it is in the lane."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((envelope, admission))

    def take(self) -> Envelope | None:
        """The oldest envelope of the lane, or None; makes room for one who waits."""
        lane = self.lane
        depth = len(lane)
        if depth == 0:
            return None
        if depth > self._high_water:
            self._high_water = depth
        self.passed += 1
        envelope = lane.popleft()
        if self._waiting:
            self._admit()
        return envelope

    def pass_by(self) -> bool:
        """Count a message that is taken in hand without having been here; False if it would overtake one that is."""
        if self.lane or self._waiting:
            return False
        self.passed += 1
        self._high_water = self._high_water or 1
        return True

    def offer_urgent(self, envelope: Envelope, *, force: bool = False) -> bool:
        """Take `envelope` into the urgent lane, or say False if that is full and it is not forced."""
        if self._urgent is None:
            self._urgent = deque()
        if len(self._urgent) >= self.capacity and not force:
            return False
        self._urgent.append(envelope)
        return True

    def take_urgent(self) -> Envelope | None:
        """The oldest envelope of the urgent lane, or None."""
        if not self._urgent:
            return None
        self.passed += 1
        return self._urgent.popleft()

    def remove(self, envelope: Envelope) -> bool:
        """Take `envelope` out wherever it waits; False if it is not here (any more)."""
        self._note_high_water()
        for lane in (self.lane, self._urgent):
            if lane and envelope in lane:
                lane.remove(envelope)
                self.passed += 1
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
        self._note_high_water()
        gone: list[tuple[Envelope, Admission | None]] = []
        for lane in (self._urgent if urgent else None, self.lane):
            ended = [envelope for envelope in lane or () if unwanted(envelope)]
            if lane and ended:
                kept = [envelope for envelope in lane if not unwanted(envelope)]
                lane.clear()
                lane.extend(kept)
            gone += [(envelope, None) for envelope in ended]
        self.passed += len(gone)
        if self._waiting:
            gone += [pair for pair in self._waiting if unwanted(pair[0])]
            self._waiting = deque(pair for pair in self._waiting if not unwanted(pair[0]))
        self._admit()
        return gone

    def fold(self) -> None:
        """Give back what an empty mailbox does not need."""
        if not self.lane:
            self.lane, self.limit = _NO_LANE, 0
        if not self._urgent:
            self._urgent = None
        if not self._waiting:
            self._waiting = None

    def __iter__(self) -> Iterator[Envelope]:
        yield from self.lane

    def _note_high_water(self) -> None:
        self._high_water = max(self._high_water, len(self.lane))

    def _admit(self) -> None:
        while self._waiting and len(self.lane) < self.capacity:
            envelope, admission = self._waiting.popleft()
            self.lane.append(envelope)
            if admission is not None and not admission.done():
                admission.set_result(None)
