"""The memory of a port's wire: bounded in records and in bytes, and readable while it grows."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from duodaq.model import WireRecord
from duodaq.ports import WireLog


def fill(log: WireLog, *sizes: int) -> None:
    for size in sizes:
        log.add(WireRecord(0, "p", ">", b"x" * size, "a", 1, None, log.count + 1))


def numbers(records: list[WireRecord] | tuple[WireRecord, ...]) -> list[int]:
    return [record.sequence for record in records]


def memory(sizes: Iterable[int]) -> int:
    return sum(size + 350 for size in sizes)


def test_what_is_behind_a_number_is_given_in_order_up_to_a_limit() -> None:
    log = WireLog(limit=80)
    fill(log, *[1] * 25)
    assert numbers(log.after(7)) == list(range(8, 26))
    assert numbers(log.after(7, 12)) == list(range(8, 20))
    assert numbers(log.after(25)) == numbers(log.after(99)) == []


def test_one_record_that_is_larger_than_all_is_kept_until_the_next() -> None:
    log = WireLog(max_bytes=1000)
    fill(log, 1, 5000)
    assert numbers(log.records())[-1:] == [2]
    fill(log, 1)
    assert log.count == 3


@given(st.lists(st.integers(0, 400), max_size=300), st.integers(8, 120), st.integers(100, 80_000))
def test_the_newest_are_kept_within_the_bounds_and_all_are_counted(
    sizes: list[int], limit: int, max_bytes: int
) -> None:
    log = WireLog(limit, max_bytes)
    fill(log, *sizes)
    kept = log.records()
    assert numbers(kept) == list(range(log.pushed_out + 1, len(sizes) + 1))
    assert len(kept) <= limit + limit // 8 + 1
    assert memory(len(record.data) for record in kept) <= max_bytes + 2 * memory([400]) * max(1, limit // 8)
    enough = len(sizes) <= limit - limit // 8 and memory(sizes) <= max_bytes
    assert not (enough and log.pushed_out)
