"""A recorded instrument without a line: how commands are cut, what unknown ones get, what came unasked or broke off."""

from __future__ import annotations

import pytest

from duodaq.errors import PortLostError
from duodaq.model import Direction, WireRecord
from duodaq.sim.replay import Matcher, ReplayedInstrument, UnknownPolicy, rebuild, speed_of

MS = 1_000_000


def record(at_ms: int, direction: Direction, data: bytes, exchange: int, holder: str = "v2.x") -> WireRecord:
    return WireRecord(at_ms * MS, "x", direction, data, holder, exchange, None, at_ms)


def instrument(*records: WireRecord, unknown: str = "silent", speed: float = 1.0) -> ReplayedInstrument:
    commands, lines = rebuild(records)
    policy = UnknownPolicy.parse(unknown)
    return ReplayedInstrument(Matcher(commands), "x", lines=lines["x"], speed=speed, unknown=policy)


def said(device: ReplayedInstrument, data: bytes, now_s: float = 0.0) -> list[bytes]:
    return [reply.data for reply in device.feed(data, now_s)]


ASKED = (record(10, ">", b"V 1\n", 1), record(20, ">", b"V?\n", 2), record(50, "<", b"1\r\n", 2))


def test_lines_are_commands_however_they_are_cut_and_ended() -> None:
    device = instrument(*ASKED)
    assert said(device, b"V") == []
    assert said(device, b"?\r\nV?\n") == [b"1\r\n", b"1\r\n"]


def test_a_reply_comes_as_late_as_it_was_recorded_or_sooner_by_the_speed() -> None:
    (reply,) = instrument(*ASKED).feed(b"V?\n", 0.0)
    assert reply.delay_s == pytest.approx(0.03)
    (reply,) = instrument(*ASKED, speed=10).feed(b"V?\n", 0.0)
    assert reply.delay_s == pytest.approx(0.003)
    (reply,) = instrument(*ASKED, speed=speed_of("max")).feed(b"V?\n", 0.0)
    assert reply.delay_s == 0.0


def test_commands_without_an_end_of_line_are_told_apart_by_what_is_known() -> None:
    device = instrument(
        record(1, ">", b"0in", 1), record(2, "<", b"0IN\r\n", 1), record(3, ">", b"0i", 2), record(4, "<", b"0I\r\n", 2)
    )
    assert said(device, b"0in0i") == [b"0IN\r\n"]  # the second may still become the first
    at_s = device.due_at_s()
    assert at_s is not None
    assert [reply.data for reply in device.due(at_s)] == [b"0I\r\n"]


MIXED = (
    *(
        one
        for n in range(1, 31)
        for one in (record(10 * n, ">", b"2gp\r\n", n), record(10 * n + 1, "<", b"2PO%02d\r\n" % n, n))
    ),
    record(400, ">", b"0i", 40, "v4.y"),
    record(401, ">", b"n", 40, "v4.y"),
    record(402, "<", b"0IN11\r\n", 40, "v4.y"),
    record(410, ">", b"2gp\r\n", 41),
    record(411, "<", b"2PO77\r\n", 41),
)
"""Two drivers on one bus, as they are: one ends its commands, the other does not."""


def test_requests_with_and_without_an_end_of_line_on_one_port_are_both_answered() -> None:
    device = instrument(*MIXED)
    assert said(device, b"0in") == [b"0IN11\r\n"]
    assert said(device, b"2gp\r") == [b"2PO01\r\n"]
    assert said(device, b"\n0in2gp\r\n0in") == [b"0IN11\r\n", b"2PO02\r\n", b"0IN11\r\n"]
    assert said(device, b"0i") == []
    assert said(device, b"n") == [b"0IN11\r\n"]
    assert device.report()["unknown"] == {}


def test_a_request_recorded_with_an_end_is_answered_without_one_after_a_silence() -> None:
    device = instrument(*MIXED)
    assert said(device, b"2gp") == []  # it may go on
    at_s = device.due_at_s()
    assert at_s is not None
    assert [reply.data for reply in device.due(at_s)] == [b"2PO01\r\n"]


def test_an_unknown_line_is_not_answered_by_a_known_one_that_it_begins_with() -> None:
    device = instrument(*MIXED)
    assert said(device, b"2gp1\r\n0in9\r\n0in") == [b"0IN11\r\n"]
    assert device.report()["unknown"] == {"2gp1": 1, "0in9": 1}


def test_one_request_that_a_fault_cut_off_leaves_lines_lines() -> None:
    cut = (record(60, ">", b"V", 3), record(61, "!", b"write failed", 3))
    device = instrument(*[record(n, ">", b"W 1\n", 10 + n) for n in range(9)], *ASKED, *cut)
    assert said(device, b"V") == []
    assert said(device, b"?\n") == [b"1\r\n"]


def test_commands_that_are_no_text_keep_every_byte() -> None:
    device = instrument(
        record(1, ">", b"\x01\n", 1), record(2, "<", b"a", 1), record(3, ">", b"\x02", 2), record(4, "<", b"b", 2)
    )
    assert said(device, b"\x02\x01\n\x02") == [b"b", b"a", b"b"]
    assert said(device, b"\x02\n") == [b"b"]
    assert [reply.data for reply in device.due(1.0)] == []
    assert device.report()["unknown"] == {"\n": 1}


@pytest.mark.parametrize(
    ("policy", "answers"),
    [("silent", []), ("error=what?", [b"what?\r\n"]), ("nearest", [b"1\r\n"])],
)
def test_an_unknown_query_gets_what_the_policy_says(policy: str, answers: list[bytes]) -> None:
    device = instrument(*ASKED, unknown=policy)
    assert said(device, b"VV?\n") == answers
    assert said(device, b"W 3\n") == []  # no query: nobody waits for an error
    assert device.report()["unknown"] == {"VV?": 1, "W 3": 1}


def test_the_first_of_each_unknown_command_is_told() -> None:
    told: list[tuple[str, str]] = []
    device = instrument(*ASKED)
    device.on_unknown = lambda port, key: told.append((port, key))
    said(device, b"Q\nV?\nQ\nR\n")
    assert told == [("x", "Q"), ("x", "R")]


def test_an_unknown_command_can_end_the_replay() -> None:
    with pytest.raises(PortLostError, match="x was told b'Q', which was never recorded"):
        instrument(*ASKED, unknown="stop").feed(b"Q\n", 0.0)


def test_nearest_is_the_same_command_with_the_nearest_number() -> None:
    device = instrument(
        record(1, ">", b"1PA1\n", 1),
        record(2, ">", b"1TP?\n", 2),
        record(3, "<", b"one\n", 2),
        record(4, ">", b"1PA5\n", 3),
        record(5, ">", b"1TP?\n", 4),
        record(6, "<", b"five\n", 4),
        unknown="nearest",
    )
    assert said(device, b"1PA4.2\n1TP?\n") == [b"five\n"]
    assert said(device, b"1PA2\n1TP?\n") == [b"one\n"]


def test_what_was_said_unasked_comes_at_its_time() -> None:
    device = instrument(*ASKED, record(250, "<", b"!ALARM\n", 0, ""))
    said(device, b"V?\n", 100.0)
    assert device.due_at_s() == pytest.approx(100.23)
    assert device.due(100.2) == []
    assert [reply.data for reply in device.due(100.24)] == [b"!ALARM\n"]


BROKEN = (
    record(1, ">", b"A?\n", 1),
    record(2, "<", b"a\n", 1),
    record(3, ">", b"B?\n", 2),
    record(4, "!", b"no whole reply within 2 s", 2),
    record(5, "!", b"resynchronising", 0, "broker"),
    record(6, "<", b"late\n", 0, ""),
    record(7, ">", b"Z?\n", 0, "broker"),
    record(8, "<", b"later\nz\n", 0, ""),
    record(9, "!", b"resynchronised", 0, "broker"),
    record(10, ">", b"B?\n", 3),
    record(11, "<", b"b\n", 3),
)


def test_a_broken_exchange_is_silent_again_where_it_was_and_only_there() -> None:
    device = instrument(*BROKEN)
    assert said(device, b"A?\nB?\n") == [b"a\n"]
    assert said(device, b"Z?\nB?\n") == [b"z\n", b"b\n"]
    elsewhere = instrument(*BROKEN)
    assert said(elsewhere, b"B?\n") == [b"b\n"]


def test_what_a_session_reads_later_belongs_to_what_it_wrote() -> None:
    device = instrument(record(1, ">", b"SHUT?\n", 1, "v2.s"), record(9, "<", b"1\n", 0, "v2.s"))
    assert said(device, b"SHUT?\n") == [b"1\n"]


@pytest.mark.parametrize("word", ["loud", "error", "stop=1"])
def test_a_policy_that_there_is_not_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="possible: silent, error=TEXT, nearest, stop"):
        UnknownPolicy.parse(word)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "fast", ""])
def test_a_speed_is_over_zero(text: str) -> None:
    with pytest.raises(ValueError, match="is no speed"):
        speed_of(text)
