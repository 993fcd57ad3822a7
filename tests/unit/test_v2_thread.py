"""A driver's thread: woken for each call, with or without the kernel's bell, and gone without a trace at its end."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

import pytest

from duodaq.v2._bell import Bell, EventBell, QueueBell, new_bell
from duodaq.v2._thread import DriverThread

BELLS: list[Callable[[], Bell]] = [*([EventBell] if hasattr(os, "eventfd") else []), QueueBell]


def no_descriptor(*_: int) -> int:
    raise OSError(errno.EMFILE, "too many open files")


@pytest.mark.parametrize("make", BELLS)
def test_a_ring_is_heard_by_who_waits_and_by_who_comes_later(make: Callable[[], Bell]) -> None:
    bell, heard = make(), threading.Event()

    def wait_twice() -> None:
        bell.wait()
        heard.set()
        bell.wait()
        bell.close()

    bell.ring()
    thread = threading.Thread(target=wait_twice)
    thread.start()
    assert heard.wait(5.0)
    bell.ring()
    thread.join(5.0)
    assert not thread.is_alive()


@pytest.mark.parametrize("make", BELLS)
def test_a_ring_after_the_end_reaches_nobody(make: Callable[[], Bell]) -> None:
    bell = make()
    bell.close()
    read, write = os.pipe()  # takes the number that the bell had
    try:
        os.set_blocking(read, False)
        bell.ring()
        with pytest.raises(BlockingIOError):
            os.read(read, 8)
    finally:
        os.close(read)
        os.close(write)


def test_without_a_descriptor_left_there_is_a_bell_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "eventfd", no_descriptor, raising=False)
    assert isinstance(new_bell(), QueueBell)


@pytest.mark.parametrize("bell", BELLS)
async def test_calls_run_in_the_thread_one_after_the_other(
    bell: Callable[[], Bell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duodaq.v2._thread.new_bell", bell)
    thread = DriverThread("test")
    try:
        for number in range(100):
            returned = await thread.submit(lambda n=number: (n, threading.current_thread().name))
            assert returned.value == (number, "test")
    finally:
        thread.close()
        assert await thread.ended(5.0)


async def test_a_thread_that_is_closed_during_a_call_ends_after_it() -> None:
    thread, gate = DriverThread("test"), threading.Event()
    call = thread.submit(lambda: gate.wait(5.0))
    thread.close()
    thread.close()
    gate.set()
    assert (await call).value
    assert await thread.ended(5.0)
