"""The lease queue against a slow, obvious model, in any order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from duodaq.errors import PortBusyError
from duodaq.ports import Lane, LeaseQueue, Ticket

LIMIT = 5


class LeaseQueueMachine(RuleBasedStateMachine):
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.queue = LeaseQueue(LIMIT)
        self.held: Ticket | None = None
        self.waiting: list[Ticket] = []

    @rule(target=tickets, lane=st.sampled_from(Lane))
    def ask(self, lane: Lane) -> Ticket:
        ticket = Ticket("holder", lane, lambda _: None)
        if lane is Lane.NORMAL and sum(t.lane is lane for t in self.waiting) >= LIMIT:
            with pytest.raises(PortBusyError):
                self.queue.ask(ticket)
        else:
            self.queue.ask(ticket)
            self.waiting.append(ticket)
        return ticket

    @rule()
    def grant(self) -> None:
        expected = None
        if self.held is None and self.waiting:
            expected = min(self.waiting, key=lambda ticket: ticket.lane)  # min is stable: first come, first served
            self.waiting.remove(expected)
            self.held = expected
        assert self.queue.grant() is expected

    @rule(ticket=tickets)
    def give_back(self, ticket: Ticket) -> None:
        assert self.queue.give_back(ticket) is (ticket is self.held)
        if ticket is self.held:
            self.held = None

    @rule(ticket=tickets)
    def withdraw(self, ticket: Ticket) -> None:
        assert self.queue.withdraw(ticket) is (ticket in self.waiting)
        if ticket in self.waiting:
            self.waiting.remove(ticket)

    @rule()
    def clear(self) -> None:
        everybody = self.queue.clear()
        assert everybody == ([self.held] if self.held else []) + sorted(self.waiting, key=lambda t: t.lane)
        self.held, self.waiting = None, []

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.queue.held is self.held
        assert self.queue.waiting() == sorted(self.waiting, key=lambda ticket: ticket.lane)
        assert len(self.queue) == len(self.waiting)


TestLeaseQueue = LeaseQueueMachine.TestCase
TestLeaseQueue.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
