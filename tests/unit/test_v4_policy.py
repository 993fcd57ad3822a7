"""Restart decisions, by matrix."""

from __future__ import annotations

import pytest

from duodaq.v4 import GiveUp, Restart, RestartPolicy
from duodaq.v4._policy import affected_by, doubling_backoff_s


@pytest.mark.parametrize(
    ("kind", "failed", "restarts"),
    [
        ("permanent", True, True),
        ("permanent", False, True),
        ("transient", True, True),
        ("transient", False, False),
        ("never", True, False),
        ("never", False, False),
    ],
)
def test_the_kind_decides_whether_an_end_is_mended(kind, failed, restarts):
    verdict = RestartPolicy(kind).decide((), 0.0, failed=failed)
    assert isinstance(verdict, Restart if restarts else GiveUp)


@pytest.mark.parametrize(
    ("restarts_s", "now_s", "expected"),
    [
        ((), 100.0, Restart(0.0)),
        ((99.0,), 100.0, Restart(0.1)),
        ((98.0, 99.0), 100.0, Restart(0.2)),
        ((30.0, 98.0, 99.0), 100.0, Restart(0.2)),
        ((40.0, 98.0, 99.0), 100.0, Restart(0.2)),
    ],
)
def test_only_restarts_within_the_window_count(restarts_s, now_s, expected):
    assert RestartPolicy(limit=3, window_s=60).decide(restarts_s, now_s) == expected


def test_beyond_the_limit_it_gives_up_and_says_why():
    verdict = RestartPolicy(limit=2, window_s=10).decide((1.0, 2.0), 3.0)
    assert isinstance(verdict, GiveUp)
    assert "2 restarts within 10 s" in verdict.why


def test_no_restart_is_allowed_by_a_limit_of_none():
    assert isinstance(RestartPolicy(limit=0).decide((), 0.0), GiveUp)


def test_the_first_restart_is_at_once_and_the_pauses_double_to_ten_seconds():
    assert [doubling_backoff_s(n) for n in (1, 2, 3, 4, 20)] == [0.0, 0.1, 0.2, 0.4, 10.0]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("one-for-one", [1]), ("one-for-all", [0, 1, 2, 3]), ("rest-for-one", [1, 2, 3])],
)
def test_the_strategy_decides_who_goes_with_number_one_of_four(strategy, expected):
    assert list(affected_by(strategy, 1, 4)) == expected
