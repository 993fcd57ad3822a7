"""Every worker keeps the one promise."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from duodaq.clock import block, monotonic_s, pause
from duodaq.errors import ConfigError, LifecycleError, RefusedError, ReplyTimeoutError
from duodaq.model import Outcome
from duodaq.workers import ThreadWorker, Worker, make_worker


@pytest.fixture(params=["inline", "thread"])
async def worker(request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    made = make_worker(request.param, "w")
    await made.start(5.0)
    yield made
    await made.stop(5.0)


async def test_call_returns_the_result(worker: Worker) -> None:
    async def work() -> int:
        await pause(0.001)
        return 42

    assert await worker.call(work, 5.0) == 42


async def test_call_raises_the_works_own_error(worker: Worker) -> None:
    async def work() -> None:
        raise RefusedError("no", code=7)

    with pytest.raises(RefusedError) as caught:
        await worker.call(work, 5.0)
    assert caught.value.code == 7


async def test_a_timeout_of_the_work_itself_is_not_taken_for_the_workers(worker: Worker) -> None:
    async def work() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await worker.call(work, 5.0)


async def test_the_deadline_frees_the_caller_and_cancels_the_work(worker: Worker) -> None:
    ended = threading.Event()

    async def work() -> None:
        try:
            await pause(30.0)
        finally:
            ended.set()

    with pytest.raises(ReplyTimeoutError):
        await worker.call(work, 0.05)
    assert await asyncio.to_thread(ended.wait, 5.0)


async def test_cancelling_the_caller_cancels_the_work(worker: Worker) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await pause(30.0)
        finally:
            ended.set()

    caller = asyncio.create_task(worker.call(work, None))
    assert await asyncio.to_thread(begun.wait, 5.0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await asyncio.to_thread(ended.wait, 5.0)


async def test_a_stopped_worker_begins_nothing(worker: Worker) -> None:
    await worker.stop(5.0)

    async def work() -> None:
        raise AssertionError("begun")

    with pytest.raises(LifecycleError):
        await worker.call(work, 1.0)


async def test_stop_is_clean_and_may_be_repeated(worker: Worker) -> None:
    assert (await worker.stop(5.0)).outcome is Outcome.CLEAN
    assert (await worker.stop(5.0)).outcome is Outcome.CLEAN
    assert not worker.alive


async def test_a_blocked_thread_frees_its_caller_shows_for_how_long_and_is_reported_as_leaked() -> None:
    worker, free = ThreadWorker("w"), threading.Event()
    await worker.start(5.0)

    async def blocked() -> None:
        block(30.0, free)

    began = monotonic_s()
    with pytest.raises(ReplyTimeoutError):
        await worker.call(blocked, 0.3)
    assert monotonic_s() - began < 2.0
    worker.probe()
    await pause(0.1)
    assert worker.blocked_s >= 0.1
    thread = worker._thread
    report = await worker.stop(0.1)
    assert report.outcome is Outcome.LEAKED
    free.set()
    assert thread is not None
    await asyncio.to_thread(thread.join, 5.0)


def test_an_unknown_kind_is_refused_with_what_would_be_right() -> None:
    with pytest.raises(ConfigError, match="inline"):
        make_worker("moon", "w")
