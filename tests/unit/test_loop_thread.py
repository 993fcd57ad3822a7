"""The loop of a private lab: whoever would have it wait for itself is told so, and it goes on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading

import pytest

from duodaq.app._loop_thread import LoopThread
from duodaq.clock import pause
from duodaq.errors import LifecycleError


async def answer() -> int:
    await pause(0.02)
    return 7


def test_a_callback_of_a_future_that_waits_for_the_lab_is_refused_and_the_lab_goes_on() -> None:
    thread = LoopThread("a lab")
    told: concurrent.futures.Future[LifecycleError] = concurrent.futures.Future()

    def wait_there(_: object) -> None:
        try:
            thread.run(answer())
        except LifecycleError as error:
            told.set_result(error)

    try:
        thread.submit(answer()).add_done_callback(wait_there)
        assert "would wait for itself for ever" in str(told.result(5))
        assert thread.run(answer(), 5) == 7
    finally:
        thread.close()


def test_what_is_cancelled_before_the_loop_comes_to_it_is_never_begun_and_who_waits_is_told() -> None:
    thread, begun = LoopThread("a lab"), []
    held, go = threading.Event(), threading.Event()

    async def hold() -> None:
        held.set()
        go.wait(5)

    async def work() -> None:
        begun.append(True)

    try:
        holding = thread.submit(hold())
        assert held.wait(5)
        waiting = thread.submit(work())
        assert waiting.cancel()
        go.set()
        holding.result(5)
        assert thread.run(answer(), 5) == 7  # its turn has come and gone
        assert concurrent.futures.wait([waiting], 5).done == {waiting}
        assert waiting.cancelled()
        assert not begun
    finally:
        go.set()
        thread.close()


def test_cancelling_what_is_under_way_cancels_it_at_the_loop() -> None:
    thread = LoopThread("a lab")
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    try:
        under_way = thread.submit(work())
        assert begun.wait(5)
        assert under_way.cancel()
        assert ended.wait(5)
        assert concurrent.futures.wait([under_way], 5).done == {under_way}
        with pytest.raises(concurrent.futures.CancelledError):
            under_way.result(5)
    finally:
        thread.close()


def test_work_that_is_cancelled_at_the_loop_or_fails_there_ends_so_for_who_waits() -> None:
    thread = LoopThread("a lab")

    async def given_up() -> None:
        raise asyncio.CancelledError

    def wrong(number: int) -> None:
        raise ValueError(f"{number} is wrong")

    try:
        with pytest.raises(concurrent.futures.CancelledError):
            thread.submit(given_up()).result(5)
        with pytest.raises(ValueError, match="7 is wrong"):
            thread.submit(answer(), wrong).result(5)
        assert thread.submit(answer(), str).result(5) == "7"
    finally:
        thread.close()


def test_whoever_calls_while_the_lab_is_closed_is_answered_or_refused_and_never_left_waiting() -> None:
    thread, refused = LoopThread("a lab"), []

    def call_on() -> None:
        while True:
            try:
                thread.submit(answer()).result(5)
            except concurrent.futures.CancelledError:
                continue
            except (LifecycleError, TimeoutError, RuntimeError) as error:
                refused.append(error)
                return

    async def stubborn() -> None:
        for _ in range(4):
            with contextlib.suppress(asyncio.CancelledError):
                await pause(0.05)

    thread.submit(stubborn())  # keeps the loop at its end for a moment
    callers = [threading.Thread(target=call_on) for _ in range(8)]
    for caller in callers:
        caller.start()
    thread.close()
    for caller in callers:
        caller.join(10)
    assert [str(error) for error in refused] == ["this lab is closed"] * len(callers)


def test_who_waits_for_what_does_not_end_with_its_lab_is_told_that_the_lab_is_closed() -> None:
    thread, begun = LoopThread("a lab"), threading.Event()

    async def never() -> None:
        begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    waiting = thread.submit(never())
    assert begun.wait(5)
    thread.close()
    with pytest.raises(LifecycleError, match="this lab is closed"):
        waiting.result(5)
