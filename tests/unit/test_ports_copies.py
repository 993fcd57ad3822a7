from __future__ import annotations

import pytest

from duodaq.ports._copies import DestructiveCopies, is_news


@pytest.mark.parametrize(
    ("reply", "news"),
    [
        (b'0,"No error"\n', False),
        (b'+0,"No error"\n', False),
        (b"0, 451322, NO ERROR DETECTED\r\n", False),
        (b"0\r\n", False),
        (b'-113,"Undefined header"\n', True),
        (b"6, 12, COMMAND DOES NOT EXIST\r\n", True),
        (b"?\n", True),
    ],
)
def test_a_reply_whose_number_is_zero_is_no_news(reply: bytes, news: bool) -> None:
    assert is_news(reply) is news


def test_each_other_holder_gets_each_reply_once_and_in_order() -> None:
    copies = DestructiveCopies()
    for holder in "abc":
        assert copies.take(b"TB?\r", holder) is None
    copies.keep(b"TB?\r", "a", b"6\r\n")
    copies.keep(b"tb?\r\n", "a", b"7\r\n")
    for holder in "bc":
        assert [copies.take(b"TB?\r", holder) for _ in range(3)] == [b"6\r\n", b"7\r\n", None]
    assert copies.take(b"TB?\r", "a") is None


def test_who_asks_for_the_first_time_begins_with_what_comes_after() -> None:
    copies = DestructiveCopies()
    copies.keep(b"TB?", "a", b"6\n")
    assert copies.take(b"TB?", "late comer") is None
    copies.keep(b"TB?", "a", b"7\n")
    assert copies.take(b"TB?", "late comer") == b"7\n"


def test_copies_are_bounded_and_what_is_lost_is_counted() -> None:
    copies = DestructiveCopies()
    copies.take(b"TB?", "b")
    for number in range(1, 71):
        copies.keep(b"TB?", "a", b"%d\n" % number)
    assert copies.missed == 6
    assert copies.take(b"TB?", "b") == b"7\n"
