"""The mailbox as a state machine, beside a model made of three plain lists."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from duodaq.v4._mailbox import Mailbox
from duodaq.v4._message import Envelope, HandlerSpec


class Unequal:
    """A message that must never be compared: an array would raise as well."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        raise AssertionError("messages are found by identity")

    __hash__ = None


STAY = HandlerSpec(lambda _self, _message: None)
MOVE = HandlerSpec(lambda _self, _message: None, moves=True)


class MailboxMachine(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 4))
    def make(self, capacity: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.mailbox = Mailbox(capacity)
        self.lane: list[Envelope] = []
        self.waiting: list[tuple[Envelope, asyncio.Future[None] | None]] = []
        self.urgent: list[Envelope] = []
        self.entered: list[Envelope] = []
        self.sent = 0

    def envelope(self, moves: bool) -> Envelope:
        self.sent += 1
        cell: Any = None
        return Envelope(Unequal(self.sent), MOVE if moves else STAY, copy_context(), None, cell)

    def admit(self) -> None:
        while self.waiting and len(self.lane) < self.mailbox.capacity:
            envelope, admission = self.waiting.pop(0)
            self.enter(envelope)
            assert admission is None or admission.done()

    def enter(self, envelope: Envelope) -> None:
        self.lane.append(envelope)
        self.entered.append(envelope)

    @rule(moves=st.booleans())
    def offer(self, moves: bool) -> None:
        envelope = self.envelope(moves)
        room = len(self.lane) < self.mailbox.capacity and not self.waiting
        assert self.mailbox.offer(envelope) is room
        if room:
            self.enter(envelope)

    @rule(moves=st.booleans(), told=st.booleans())
    def offer_or_wait(self, moves: bool, told: bool) -> None:
        envelope = self.envelope(moves)
        if self.mailbox.offer(envelope):
            self.enter(envelope)
            return
        admission = self.loop.create_future() if told else None
        self.mailbox.wait(envelope, admission)
        self.waiting.append((envelope, admission))

    @rule()
    def take(self) -> None:
        assert self.mailbox.take() is (self.lane.pop(0) if self.lane else None)
        self.admit()

    @rule(force=st.booleans())
    def offer_urgent(self, force: bool) -> None:
        envelope = self.envelope(False)
        taken = force or len(self.urgent) < self.mailbox.capacity
        assert self.mailbox.offer_urgent(envelope, force=force) is taken
        if taken:
            self.urgent.append(envelope)
            self.entered.append(envelope)

    @rule()
    def take_urgent(self) -> None:
        assert self.mailbox.take_urgent() is (self.urgent.pop(0) if self.urgent else None)

    @rule(data=st.data())
    def remove_one_that_is_here(self, data: st.DataObject) -> None:
        here = [*self.lane, *self.urgent, *(envelope for envelope, _ in self.waiting)]
        if not here:
            return
        gone = data.draw(st.sampled_from(range(len(here))))
        envelope = here[gone]
        assert self.mailbox.remove(envelope)
        self.lane = [other for other in self.lane if other is not envelope]
        self.urgent = [other for other in self.urgent if other is not envelope]
        self.waiting = [pair for pair in self.waiting if pair[0] is not envelope]
        self.admit()

    @rule()
    def remove_one_that_is_not_here(self) -> None:
        assert not self.mailbox.remove(self.envelope(False))

    @rule(urgent=st.booleans())
    def end_moving(self, urgent: bool) -> None:
        gone = self.mailbox.end(lambda envelope: envelope.spec is MOVE, urgent=urgent)
        expected = [envelope for envelope in self.lane if envelope.spec is MOVE]
        expected += [envelope for envelope, _ in self.waiting if envelope.spec is MOVE]
        assert [envelope for envelope, _ in gone] == expected
        assert all(admission is None or not admission.done() for _, admission in gone)
        self.lane = [envelope for envelope in self.lane if envelope.spec is not MOVE]
        self.waiting = [pair for pair in self.waiting if pair[0].spec is not MOVE]
        self.admit()

    @rule()
    def fold(self) -> None:
        self.mailbox.fold()

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        box = self.mailbox
        assert list(box) == self.lane
        assert (len(box), box.waiting, box.urgent_depth) == (len(self.lane), len(self.waiting), len(self.urgent))
        assert box.taken == len(self.entered)

    @invariant()
    def the_lane_is_bounded_and_nobody_waits_without_need(self) -> None:
        assert len(self.mailbox) <= self.mailbox.capacity
        assert self.mailbox.high_water <= self.mailbox.capacity
        assert not self.waiting or len(self.mailbox) == self.mailbox.capacity

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()


MailboxMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMailbox = MailboxMachine.TestCase
