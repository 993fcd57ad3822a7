"""Locks of a port under any sequence of requests: who may speak, who waits, and that nothing is left over."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from duodaq.ports._lock import LockAction, LockOutcome, LockRequest, LockVerdict, PortLocks
from duodaq.ports._queue import Lane, LeaseQueue, Ticket
from duodaq.ports._seat import Seat

SEATS = st.integers(0, 3)
KEYS = st.sampled_from([None, "a", "b"])
DONE = (LockVerdict.DONE, LockVerdict.NESTED_EXCLUSIVE, LockVerdict.NESTED_SHARED)


class Timer:
    """A timer that a test runs when it wants."""

    def __init__(self, work: Any, *args: Any) -> None:
        self.work: Any = lambda: work(*args)

    def cancel(self) -> None:
        self.work = None


class FakeLoop:
    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, _: float, work: Any, *args: Any) -> Timer:
        self.timers.append(Timer(work, *args))
        return self.timers[-1]


class LocksMachine(RuleBasedStateMachine):
    """The model counts how often each seat has locked; the product must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = LeaseQueue()
        self.loop = FakeLoop()
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.locks = PortLocks("p", loop, self._ask, self._end, lambda _: None)
        self.seats = [Seat(alone=True, impatient=True) for _ in range(4)]
        self.counts = [0, 0, 0, 0]
        self.waiting: dict[int, LockRequest] = {}
        self.void: set[int] = set()
        self.user: Ticket | None = None

    # what the port's owner does
    def _ask(self, ticket: Ticket) -> None:
        self.queue.ask(ticket)
        self._pump()

    def _end(self, ticket: Ticket) -> None:
        if not self.queue.withdraw(ticket):
            self.queue.give_back(ticket)
        self._pump()

    def _pump(self) -> None:
        ticket = self.queue.grant()
        if ticket is not None:
            ticket.settle(None)

    @rule(seat=SEATS, exclusive=st.booleans(), key=KEYS, patient=st.booleans())
    def lock(self, seat: int, exclusive: bool, key: str | None, patient: bool) -> None:
        if seat in self.waiting:
            return  # a session asks for one thing at a time

        def told(outcome: LockOutcome | None, error: BaseException | None) -> None:
            self.waiting.pop(seat, None)
            if error is not None:
                assert seat in self.void or self.seats[seat].lock is None
            elif outcome is not None and outcome.verdict in DONE:
                self.counts[seat] += 1

        action = LockAction.EXCLUSIVE if exclusive else LockAction.SHARED
        request = LockRequest(self.seats[seat], f"seat {seat}", action, None if exclusive else key, told)
        self.waiting[seat] = request
        self.locks.request(request, 5.0 if patient else 0)

    @rule(seat=SEATS)
    def unlock(self, seat: int) -> None:
        if seat in self.waiting:
            return
        verdicts: list[LockVerdict] = []

        def told(outcome: LockOutcome | None, error: BaseException | None) -> None:
            assert outcome is not None
            verdicts.append(outcome.verdict)

        self.locks.request(LockRequest(self.seats[seat], "", LockAction.UNLOCK, None, told), 0)
        (verdict,) = verdicts
        assert (verdict is LockVerdict.NOT_LOCKED) == (self.counts[seat] == 0)
        self.counts[seat] = max(0, self.counts[seat] - 1)
        assert (verdict is LockVerdict.DONE) == (self.counts[seat] == 0 and verdict is not LockVerdict.NOT_LOCKED)
        if not self.counts[seat]:
            self.void.discard(seat)

    @rule(seat=SEATS)
    def leave(self, seat: int) -> None:
        self.waiting.pop(seat, None)
        self.counts[seat] = 0
        self.void.discard(seat)
        self.locks.leave(self.seats[seat])

    @rule(seat=SEATS)
    def withdraw(self, seat: int) -> None:
        request = self.waiting.pop(seat, None)
        if request is not None:
            self.locks.withdraw(request)

    @rule()
    def time_passes(self) -> None:
        timers, self.loop.timers = self.loop.timers, []
        for timer in timers:
            if timer.work is not None:
                timer.work()

    @rule()
    def somebody_else_comes_or_goes(self) -> None:
        user, self.user = self.user, None
        if user is None:
            self.user = Ticket("v2.x", Lane.NORMAL, lambda _: None)
            self._ask(self.user)
        else:
            self._end(user)

    @rule()
    def the_line_is_lost(self) -> None:
        error = ConnectionError("lost")
        self.void |= {number for number, seat in enumerate(self.seats) if seat.lock is not None}
        self.user = None
        tickets = self.queue.clear()
        self.locks.lost(error)
        for ticket in tickets:
            if ticket.holder.startswith("seat"):
                ticket.settle(error)

    @invariant()
    def a_lock_is_the_lease_and_its_members_agree(self) -> None:
        held = self.locks.held
        members = [seat for seat in self.seats if seat.lock is not None and seat.lock.void is None]
        assert [count > 0 for count in self.counts] == [seat.lock is not None for seat in self.seats]
        if held is None:
            assert members == []
            return
        assert self.queue.held is held.ticket
        assert members
        assert all(seat.lock is held for seat in members)
        may_speak = [seat for seat in members if held.refusal(seat, "p") is None]
        assert may_speak == ([held.exclusive] if held.exclusive is not None else members)
        assert all(self.locks.refusal(seat) is not None for seat in self.seats if seat.lock is None)

    @invariant()
    def nobody_waits_for_a_port_that_is_free(self) -> None:
        if self.waiting:
            assert self.queue.held is not None

    def teardown(self) -> None:
        for number in range(4):
            self.leave(number)
        if self.user is not None:
            self._end(self.user)
        assert self.locks.held is None
        assert self.queue.held is None
        assert len(self.queue) == 0


TestLocks = LocksMachine.TestCase
