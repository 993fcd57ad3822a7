"""Reading a subscription: waits, time-outs, cancellation, threads, the end."""

import asyncio
import threading

import pytest

from duodaq.clock import pause
from duodaq.dataplane import Hub
from duodaq.errors import StoppedError


@pytest.fixture
def hub() -> Hub[int]:
    return Hub("test", key=lambda _: "numbers")


async def test_get_waits_for_an_item_published_on_the_same_loop(hub):
    reader = hub.subscribe("reader")
    waiting = asyncio.create_task(reader.get(5))
    await pause(0)
    hub.publish(7)
    assert await waiting == 7


async def test_get_is_woken_by_a_publisher_in_another_thread(hub):
    reader = hub.subscribe("reader")
    waiting = asyncio.create_task(reader.get(5))
    await pause(0)
    await asyncio.to_thread(hub.publish, 7)
    assert await waiting == 7


async def test_get_times_out_when_nothing_comes(hub):
    reader = hub.subscribe("reader")
    with pytest.raises(TimeoutError):
        await reader.get(0.01)
    assert await reader.get_many(5, 0.01) == []


async def test_a_cancelled_get_loses_nothing(hub):
    reader = hub.subscribe("reader")
    waiting = asyncio.create_task(reader.get(5))
    await pause(0)
    hub.publish(7)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert reader.get_nowait() == 7


async def test_a_reader_that_waits_for_many_holds_up_nobody_who_waits_for_fewer(hub):
    reader = hub.subscribe("reader")
    hub.publish(1)
    hurried = asyncio.create_task(reader.get_many(10, 5, linger_s=30, enough=2))
    patient = asyncio.create_task(reader.get_many(10, 5, linger_s=30, enough=10))
    await pause(0)
    hub.publish(2)
    assert await asyncio.wait_for(hurried, 5) == [1, 2]
    hub.publish(3)
    hub.close()
    assert await patient == [3]


async def test_a_cancelled_reader_passes_its_wakeup_to_the_next(hub):
    reader = hub.subscribe("reader")
    first, second = asyncio.create_task(reader.get(5)), asyncio.create_task(reader.get(5))
    await pause(0)
    hub.publish(7)
    first.cancel()
    assert await second == 7
    assert first.cancelled()


async def test_several_readers_share_the_items_without_losing_any(hub):
    reader = hub.subscribe("reader", capacity=10_000)
    got: list[int] = []

    async def read() -> None:
        got.extend([item async for item in reader])

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await asyncio.to_thread(lambda: [hub.publish(number) for number in range(2000)])
    hub.close()
    await asyncio.gather(*readers)
    assert sorted(got) == list(range(2000))


async def test_get_many_takes_what_waits_and_no_more_than_the_limit(hub):
    reader = hub.subscribe("reader")
    for number in range(5):
        hub.publish(number)
    assert await reader.get_many(3) == [0, 1, 2]
    assert await reader.get_many(3) == [3, 4]


async def test_get_many_lingers_for_a_full_batch(hub):
    reader = hub.subscribe("reader")
    waiting = asyncio.create_task(reader.get_many(3, 5, linger_s=5))
    for number in range(3):
        await pause(0)
        hub.publish(number)
    assert await asyncio.wait_for(waiting, 1) == [0, 1, 2]


async def test_get_many_lingers_no_longer_than_told(hub):
    reader = hub.subscribe("reader")
    hub.publish(1)
    assert await reader.get_many(3, 5, linger_s=0.01) == [1]


async def test_a_lingering_reader_comes_at_once_when_its_queue_is_full(hub):
    reader = hub.subscribe("reader", capacity=2)
    waiting = asyncio.create_task(reader.get_many(100, 5, linger_s=60))
    await pause(0)
    hub.publish(1)
    hub.publish(2)
    assert await asyncio.wait_for(waiting, 1) == [1, 2]


def test_get_blocking_waits_in_a_thread(hub):
    reader = hub.subscribe("reader")
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(reader.get_blocking(10)))
    thread.start()
    hub.publish(7)
    thread.join(10)
    assert got == [7]


def test_get_blocking_times_out(hub):
    with pytest.raises(TimeoutError):
        hub.subscribe("reader").get_blocking(0.01)


def test_get_nowait_never_waits(hub):
    with pytest.raises(BlockingIOError):
        hub.subscribe("reader").get_nowait()


async def test_closing_wakes_a_waiting_reader(hub):
    reader = hub.subscribe("reader")
    waiting = asyncio.create_task(reader.get(5))
    await pause(0)
    reader.close()
    reader.close()
    with pytest.raises(StoppedError):
        await waiting


def test_closing_wakes_a_blocked_thread(hub):
    reader = hub.subscribe("reader")
    ended: list[Exception] = []

    def read() -> None:
        try:
            reader.get_blocking(10)
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    reader.close()
    thread.join(10)
    assert len(ended) == 1


async def test_iteration_ends_with_the_hub_after_what_waits(hub):
    reader = hub.subscribe("reader")
    for number in range(3):
        hub.publish(number)
    hub.close()
    assert [number async for number in reader] == [0, 1, 2]


async def test_a_finished_reader_takes_nothing_new_and_may_read_the_rest(hub):
    reader = hub.subscribe("reader")
    hub.publish(1)
    reader.finish()
    hub.publish(2)
    assert await reader.get(1) == 1
    with pytest.raises(StoppedError):
        await reader.get(1)
    row = hub.ledger().row("numbers", "reader")
    assert (row.produced, row.delivered, row.in_flight) == (1, 1, 0)


def test_a_reader_on_a_loop_that_is_gone_does_not_disturb_the_publisher(hub):
    reader = hub.subscribe("reader")
    loop = asyncio.new_event_loop()
    task = loop.create_task(reader.get())
    loop.run_until_complete(pause(0))
    loop.close()
    publisher = threading.Thread(target=hub.publish, args=(1,))
    publisher.start()
    publisher.join(10)
    assert reader.get_nowait() == 1
    task._log_destroy_pending = False  # its loop was closed on purpose
