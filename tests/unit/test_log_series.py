"""Logs for weeks, the decisions: when a run ends, what the words mean, which runs may go."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodaq.errors import ConfigError
from duodaq.storage._series import (
    KEPT,
    KeptRun,
    age_ns,
    budget_bytes,
    clock_is_implausible,
    next_turn_ns,
    rotation_ns,
    run_name,
    series_name,
    to_remove,
)

S = 1_000_000_000
DAY = 86_400 * S
NOW = 1_800_000_000 * S


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * S


def run(days: float, size: int = 10, *, verified: bool = True, tags: tuple[str, ...] = ()) -> KeptRun:
    return KeptRun(Path(f"log-{days}"), NOW - int(days * DAY), size, verified, tags)


@pytest.mark.parametrize(
    ("word", "begins", "turns"),
    [
        ("daily", at(2026, 5, 31, 13, 7), at(2026, 6, 1)),
        ("daily", at(2026, 6, 1), at(2026, 6, 2)),
        ("hourly", at(2026, 5, 31, 23, 59, 59), at(2026, 6, 1)),
        ("weekly", at(2026, 5, 31, 13), at(2026, 6, 1)),
        ("6h", at(2026, 5, 31, 13), at(2026, 5, 31, 18)),
    ],
)
def test_a_run_ends_at_a_whole_hour_day_or_week_of_utc(word: str, begins: int, turns: int) -> None:
    every = rotation_ns(word)
    assert every is not None
    assert next_turn_ns(begins, every) == turns


@given(st.integers(0, 2**62), st.integers(S, 30 * DAY))
def test_a_turn_is_always_ahead_and_never_further_than_one_run_lasts(t_ns: int, every: int) -> None:
    assert 0 < next_turn_ns(t_ns, every) - t_ns <= every


def test_words_mean_what_a_person_thinks() -> None:
    assert (rotation_ns(None), rotation_ns("never"), age_ns(None), budget_bytes(None)) == (None,) * 4
    assert (age_ns("90d"), age_ns("1.5 h"), age_ns("2w")) == (90 * DAY, 5400 * S, 14 * DAY)
    assert (budget_bytes("50GB"), budget_bytes("1.5 mb"), budget_bytes(7)) == (50 * 10**9, 1_500_000, 7)
    assert run_name("room", at(2026, 5, 31)) == "room-20260531T000000.000000Z"


@pytest.mark.parametrize(("ask", "word"), [(rotation_ns, "dayly"), (rotation_ns, "0s"), (age_ns, "90"), (age_ns, "0d"),
                                           (budget_bytes, "much"), (budget_bytes, "5 XB"),
                                           (budget_bytes, -1)])  # fmt: skip
def test_words_that_mean_nothing_are_refused(ask, word: str | int) -> None:
    with pytest.raises(ConfigError, match=str(word)):
        ask(word)


def test_what_is_older_goes_unless_it_is_kept_or_was_never_found_whole() -> None:
    runs = [run(100), run(95, tags=(KEPT,)), run(94, verified=False), run(89)]
    assert to_remove(runs, NOW, keep_ns=90 * DAY, budget=None) == [(runs[0], "age")]


def test_of_too_much_the_oldest_goes_first_and_no_more_than_needed() -> None:
    runs = [run(3), run(1), run(2), run(4, tags=(KEPT,))]
    going = to_remove(runs, NOW, keep_ns=None, budget=35, growing=10)
    assert [(one.path.name, why) for one, why in going] == [("log-3", "budget"), ("log-2", "budget")]
    assert to_remove(runs, NOW, keep_ns=None, budget=50, growing=10) == []


@given(
    st.lists(
        st.builds(
            run,
            st.floats(0, 200),
            st.integers(0, 100),
            verified=st.booleans(),
            tags=st.sampled_from([(), (KEPT,), ("good",)]),
        ),
        unique_by=lambda one: one.path,
    ),
    st.integers(0, 500),
    st.integers(0, 100),
)
def test_nothing_goes_that_may_not_and_the_budget_is_kept_if_it_can_be(
    runs: list[KeptRun], budget: int, growing: int
) -> None:
    going = [one for one, _ in to_remove(runs, NOW, keep_ns=90 * DAY, budget=budget, growing=growing)]
    assert all(one.may_go for one in going)
    left = [one for one in runs if one not in going]
    assert growing + sum(one.size for one in left) <= budget or not any(one.may_go for one in left)
    assert not any(one.may_go and NOW - one.stop_ns > 90 * DAY for one in left)


@pytest.mark.parametrize("name", ["", ".room", "a/b", "*", "room[1]", "room?", "room\n", "a\nb", "a\tb"])
def test_a_name_that_is_a_pattern_or_no_line_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a log"):
        series_name(name)


@pytest.mark.parametrize("name", ["room", "Cryostat 2", "a-b_c.d", "Kälte"])
def test_plain_names_are_taken(name: str) -> None:
    assert series_name(name) == name


def test_a_clock_that_is_far_ahead_is_not_believed() -> None:
    runs = [run(days) for days in (3, 2, 1)]
    assert not clock_is_implausible(runs, NOW + 118 * DAY, keep_ns=90 * DAY)
    assert clock_is_implausible(runs, NOW + 400 * DAY, keep_ns=90 * DAY)
    assert not clock_is_implausible(runs, NOW + 400 * DAY, keep_ns=None)
    assert not clock_is_implausible([], NOW, keep_ns=DAY)
