"""The loop of a device that is written for asyncio: what a call that took too long leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from duodaq.clock import block
from duodaq.errors import ReplyTimeoutError
from duodaq.v2.families._device_loop import DeviceLoop


@pytest.fixture
def loop() -> Iterator[DeviceLoop]:
    made = DeviceLoop("test")
    yield made
    made.close()


def test_a_call_that_took_too_long_is_not_over_before_what_it_gave_to_a_thread(loop: DeviceLoop) -> None:
    done: list[str] = []
    asked, answers = threading.Event(), threading.Event()

    def query() -> None:
        asked.set()
        answers.wait(5)
        done.append("the thread")

    async def read() -> None:
        await asyncio.create_task(asyncio.to_thread(query))

    def call() -> None:
        with pytest.raises(ReplyTimeoutError, match="not done in time"):
            loop.run(read, 0.02, "read")
        done.append("the call")

    caller = threading.Thread(target=call)
    caller.start()
    assert asked.wait(5)
    block(0.1)
    assert done == []
    answers.set()
    caller.join(5)
    assert done == ["the thread", "the call"]


def test_what_an_earlier_call_has_in_a_thread_holds_up_no_other(loop: DeviceLoop) -> None:
    ends, watching = threading.Event(), threading.Event()
    kept: list[asyncio.Task[bool]] = []

    def watch() -> bool:
        watching.set()
        return ends.wait(5)

    async def begin() -> None:
        kept.append(asyncio.create_task(asyncio.to_thread(watch)))

    loop.run(begin, 5, "begin")
    assert watching.wait(5)
    with pytest.raises(ReplyTimeoutError):
        loop.run(lambda: asyncio.Event().wait(), 0.02, "wait")
    assert not kept[0].done()
    ends.set()


def test_the_error_of_a_thread_of_a_cancelled_call_is_told_to_nobody(loop: DeviceLoop) -> None:
    asked = threading.Event()

    def query() -> None:
        asked.wait(0.1)
        raise OSError("the line is gone")

    with pytest.raises(ReplyTimeoutError):
        loop.run(lambda: asyncio.to_thread(query), 0.02, "read")
    assert loop.run(lambda: asyncio.to_thread(int, "1"), 5, "read") == 1
