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
    idle_times,
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
    assert to_remove(runs, NOW, keep_ns=90 * DAY, budget=None, since_ns=NOW - 88 * DAY) == [(runs[0], "age")]


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
    idle = idle_times(sorted(runs, key=lambda one: one.stop_ns), NOW)
    assert growing + sum(one.size for one in left) <= budget or not any(one.may_go for one in left)
    assert not any(one.may_go and NOW - one.stop_ns > 90 * DAY + sum(idle) for one in left)


@pytest.mark.parametrize("name", ["", ".room", "a/b", "*", "room[1]", "room?", "room\n", "a\nb", "a\tb"])
def test_a_name_that_is_a_pattern_or_no_line_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a log"):
        series_name(name)


@pytest.mark.parametrize("name", ["room", "Cryostat 2", "a-b_c.d", "Kälte"])
def test_plain_names_are_taken(name: str) -> None:
    assert series_name(name) == name


def daily(first: int, days: int, wrong: int = 0) -> list[KeptRun]:
    """Runs of a day each, from so many days before `NOW` on, by a clock that is so many days ahead."""
    begins = [NOW + (wrong - first + n) * DAY for n in range(days)]
    return [KeptRun(Path(f"{t}"), t + DAY, 10, True, (), t) for t in begins]


@pytest.mark.parametrize("ahead", [60, 400, 20_000])
@pytest.mark.parametrize("keep", [7, 90])
def test_a_clock_that_is_far_ahead_makes_no_run_older(ahead: int, keep: int) -> None:
    """Neither at once nor after the runs that it has recorded itself."""
    before = daily(keep + 3, keep + 3)
    now = NOW + ahead * DAY
    assert len(to_remove(before, now, keep_ns=keep * DAY, budget=None, since_ns=now)) == 2
    for more in (1, 3):
        later = daily(0, more, ahead)
        then = now + more * DAY
        gone = to_remove(before + later, then, keep_ns=keep * DAY, budget=None, since_ns=then)
        assert [run for run, _ in gone] == before[: 2 + more]
        assert idle_times([*before, *later], then) == [0] * (keep + 2) + [ahead * DAY] + [0] * more


def test_a_lab_that_was_closed_for_a_month_has_older_runs() -> None:
    before = daily(10, 10)
    now = NOW + 31 * DAY
    assert len(to_remove(before, now, keep_ns=30 * DAY, budget=None, since_ns=now)) == 10
    assert idle_times([], NOW) == []
