"""Registers, error queue and service requests of the SCPI status model."""

from __future__ import annotations

import pytest

from duodaq.sim.scpi import ErrorQueue, Event, RegisterGroup, ScpiFault, Status, StatusByte


def test_rising_edges_latch_and_reading_clears() -> None:
    group = RegisterGroup()
    group.set_condition(0b101)
    group.set_condition(0)
    assert group.condition == 0
    assert group.take_event() == 0b101
    assert group.take_event() == 0


def test_falling_edges_latch_where_the_negative_filter_lets_them() -> None:
    group = RegisterGroup()
    group.positive, group.negative = 0, 0b100
    group.set_condition(0b111)
    assert group.event == 0
    group.set_condition(0)
    assert group.event == 0b100


def test_preset_disables_but_keeps_events() -> None:
    group = RegisterGroup()
    group.enable, group.negative = 0xFF, 0xFF
    group.set_condition(1)
    group.preset()
    assert (group.enable, group.positive, group.negative) == (0, 0x7FFF, 0)
    assert group.event == 1


@pytest.mark.parametrize(
    ("code", "bit"),
    [(-113, 5), (-222, 4), (-350, 3), (531, 3), (-410, 2)],
)
def test_each_class_of_error_sets_its_event(code: int, bit: int) -> None:
    status = Status()
    status.take_event()
    status.fault(ScpiFault(code))
    assert status.take_event() == 1 << bit


def test_a_full_queue_marks_its_last_entry() -> None:
    queue = ErrorQueue(size=3)
    for code in (-100, -101, -102, -103):
        queue.push(code)
    assert [queue.pop() for _ in range(4)] == [
        '-100,"Command error"',
        '-101,"Invalid character"',
        '-350,"Queue overflow"',
        '+0,"No error"',
    ]


def test_all_errors_at_once_and_quotes_doubled() -> None:
    queue = ErrorQueue()
    queue.push(-222, 'at "x"')
    queue.push(-113)
    assert queue.pop_all() == '-222,"Data out of range;at ""x""",-113,"Undefined header"'
    assert queue.pop_all() == '+0,"No error"'


def test_the_status_byte_sums_up() -> None:
    status = Status()
    status.take_event()
    status.fault(ScpiFault(-113))
    status.event_enable = 0xFF
    status.questionable.enable = status.operation.enable = 1
    status.questionable.set_condition(1)
    status.operation.set_condition(1)
    status.message_available = True
    assert status.byte() == (
        StatusByte.ERROR_QUEUE
        | StatusByte.EVENT
        | StatusByte.QUESTIONABLE
        | StatusByte.OPERATION
        | StatusByte.MESSAGE_AVAILABLE
    )


def test_service_is_requested_once_for_each_new_reason() -> None:
    status = Status()
    status.take_event()
    status.event_enable = int(Event.OPERATION_COMPLETE)
    status.set_service_enable(int(StatusByte.EVENT | StatusByte.ERROR_QUEUE))
    status.post(Event.OPERATION_COMPLETE)
    assert status.service_requests == 1
    status.post(Event.OPERATION_COMPLETE)
    assert status.service_requests == 1
    status.fault(ScpiFault(-113))
    assert status.service_requests == 2


def test_a_serial_poll_answers_the_request_and_leaves_the_summary() -> None:
    status = Status()
    status.take_event()
    status.set_service_enable(int(StatusByte.ERROR_QUEUE))
    status.fault(ScpiFault(-113))
    assert status.serial_poll() & StatusByte.MASTER
    assert not status.serial_poll() & StatusByte.MASTER
    assert status.byte() & StatusByte.MASTER


def test_the_master_bit_cannot_be_enabled() -> None:
    status = Status()
    status.set_service_enable(255)
    assert status.service_enable == 255 - 64


def test_clear_empties_events_and_errors_but_no_enables() -> None:
    status = Status()
    status.event_enable = 60
    status.fault(ScpiFault(-113))
    status.operation.set_condition(16)
    status.clear()
    assert (status.event, len(status.errors), status.operation.event) == (0, 0, 0)
    assert (status.event_enable, status.operation.condition) == (60, 16)
