"""What is known of a worker after its death: its page, against a model, and across a real SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq.clock import Deadline, block
from duodaq.errors import OutOfRangeError
from duodaq.workers._page import _BEGIN, CHANNELS, IN_HAND, PagedNumbers, PagedSequences, SharedPage

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=25)


@pytest.fixture
def page() -> Iterator[SharedPage]:
    made = SharedPage()
    yield made
    made.close()
    made.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, st.integers(0, 2**53 - 1)), max_size=30))
def test_counts_are_what_was_set_last_from_either_side(steps: list[tuple[str, int]]) -> None:
    page, model = SharedPage(), dict[str, int]()
    manager = SharedPage(os.dup(page.fd))
    for name, number in steps:
        page.set_next(name, number)
        model[name] = number
        assert manager.counts() == model
    later = SharedPage(os.dup(page.fd))
    assert {name: later.next_of(name) for name in model} == model
    assert later.next_of("never") == 0
    for one in (page, manager, later):
        one.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 2**40), max_size=40), st.integers(1, 2**40))
def test_a_command_is_begun_if_it_was_the_last_of_its_slot(numbers: list[int], asked: int) -> None:
    page = SharedPage()
    for number in numbers:
        page.begin(number)
    last = {number % IN_HAND: number for number in numbers}
    for number in (*numbers, asked, asked + IN_HAND):
        assert page.begun(number) == (last.get(number % IN_HAND) == number)
    assert not page.begun(0)
    page.close()


def test_of_a_page_that_was_written_over_every_command_is_unknown_and_no_count_is_believed(page: SharedPage) -> None:
    page.set_next("meter.power", 7)
    page.begin(5)
    os.pwrite(page.fd, b"\xff" * 4096, 0)
    assert page.begun(6)
    assert page.begun(7 + 3 * IN_HAND)
    assert page.counts().get("meter.power", 0) in (0, 7)
    assert all(count < 2**53 for count in page.counts().values())


def test_too_many_channels_and_names_of_no_fitting_length_are_refused(page: SharedPage) -> None:
    for name in ("", "x" * 120, "µ" * 60):
        with pytest.raises(OutOfRangeError, match="at most"):
            page.set_next(name, 1)
    page.set_next("y" * 119, 5)
    for number in range(CHANNELS - 1):
        page.set_next(f"c{number}", number)
    with pytest.raises(OutOfRangeError, match=str(CHANNELS)):
        page.set_next("one more", 1)
    page.set_next("c7", 70)
    assert len(page.counts()) == CHANNELS
    assert (page.next_of("c7"), page.next_of("y" * 119)) == (70, 5)


def test_a_page_that_a_driver_has_written_over_is_still_read(page: SharedPage) -> None:
    page.set_next("a", 1)
    page._memory[_BEGIN + 8] = 255
    page._memory[_BEGIN + 9 : _BEGIN + 12] = b"\xff\xfe\xfd"
    assert list(page.counts().values()) == [1]


def test_both_runtimes_numbers_go_on_from_the_page(page: SharedPage) -> None:
    PagedSequences(page).used("dmm", "voltage")
    PagedSequences(page).used("dmm", "voltage")
    numbers = PagedNumbers(page).setdefault("stage", {})
    numbers["x"] = 8
    assert PagedSequences(page).next_of("dmm", "voltage") == 2
    assert PagedNumbers(page).setdefault("stage", {}) == {"x": 8}
    assert page.counts() == {"dmm.voltage": 2, "stage.x": 8}


WRITER = """
import sys
from duodaq.workers._page import SharedPage
page, number = SharedPage(int(sys.argv[1])), 0
while True:
    number += 1
    page.begin(number)
    page.set_next("dmm.voltage", number)
    if number % 1000 == 0:
        print(number, flush=True)
"""


def test_whoever_reads_while_it_is_written_never_sees_less_than_before(page: SharedPage) -> None:
    """For the writer may be killed in that moment: a store must have no parts."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(page.fd)], pass_fds=[page.fd], stdout=subprocess.DEVNULL
    ) as writer:
        try:
            deadline = Deadline(20)
            while not page.counts() and not deadline.passed:
                block(0.005)
            reader = SharedPage(os.dup(page.fd))
            seen = [reader.next_of("dmm.voltage") for _ in range(300_000)]
            reader.close()
        finally:
            writer.kill()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_counts_survive_the_kill_of_their_writer(page: SharedPage) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(page.fd)], pass_fds=[page.fd], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(5)][-1]
        writer.send_signal(signal.SIGKILL)
    count = page.counts()["dmm.voltage"]
    assert count >= told
    assert page.begun(count) or page.begun(count + 1)
    again = SharedPage(os.dup(page.fd))
    assert again.next_of("dmm.voltage") == count
    again.close()
