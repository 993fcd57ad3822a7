"""Blocking driver threads and foreign event loops on one real pty."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from duodaq import clock
from duodaq.clock import Deadline
from duodaq.errors import (
    DeliveryError,
    LifecycleError,
    PortBusyError,
    PortTimeoutError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Port
from duodaq.ports._exchange import Exchange
from duodaq.testing._linked_broker import LinkedBroker
from duodaq.testing._pty_bench import PtyDevice, holder_of, in_thread, until, used_from
from duodaq.testing._scripted_port import ScriptedCodec

T = TypeVar("T")
pytestmark = pytest.mark.serial
STOP_NS = 150_000_000
"""50 ms are promised, the rest is for a loaded machine; the query in hand takes 300 ms, so a wait for it shows."""


@pytest.fixture
async def broker(device: PtyDevice, where: str) -> AsyncIterator[Broker | LinkedBroker]:
    broker = Broker()
    facts = {"timeout_s": 1.0, "options": {"quiet_s": 0.03}, "serial": {"path": device.path, "baud": 115200}}
    definition = PortDefinition("p", codec="scripted", **facts)
    await broker.add(definition, ScriptedCodec(longest_reply_s=0.5))
    await broker.open("p")
    async with used_from(where, broker) as used:
        yield used


async def on_another_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await in_thread(asyncio.run, work())


async def test_a_blocking_driver_writes_and_reads_like_on_its_own_port(broker: Broker) -> None:
    session = broker.session("p", "driver")

    def drive() -> list[bytes]:
        session.write(b"SET 1\n")
        session.write(b"A?\n")
        first = session.read(3, 1)
        return [first, session.read_until(b"\n", 1), session.read(0), bytes([session.write(b"B?\n")])]

    assert await in_thread(drive) == [b"A=o", b"k\n", b"", b"\x03"]


async def test_a_command_written_in_pieces_goes_out_whole(broker: Broker, device: PtyDevice) -> None:
    session = broker.session("p", "driver")

    def drive() -> bytes:
        for piece in (b"A", b"?", b"\n"):
            session.write(piece)
        return session.read_until(b"\n", 1)

    assert await in_thread(drive) == b"A=ok\n"
    assert device.lines == [b"A?"]


async def test_a_reader_that_comes_late_blocks_nobody_and_finds_its_reply(broker: Broker) -> None:
    session = broker.session("p", "driver")
    await in_thread(session.write, b"A?\n")
    assert await broker.port("p").exchange(b"B?\n", holder="other", wait_s=1) == b"B=ok\n"
    await until(lambda: session.in_waiting == 5)
    assert await in_thread(session.read_some) == b"A=ok\n"


async def test_what_a_driver_call_wrote_to_a_busy_port_is_sent_when_that_is_free_though_the_call_has_ended(
    broker: Broker, device: PtyDevice
) -> None:
    session = broker.session("p", "driver", hold_max_s=5)

    def begin() -> None:
        with session.call():
            session.write(b"A?\n")

    def go_on() -> list[bytes]:
        with session.call():
            first = session.read_until(b"\n", 2)
            session.write(b"B?\n")
            return [first, session.read_until(b"\n", 2)]

    async with broker.port("p").lease("other"):
        await in_thread(begin)
    assert await in_thread(go_on) == [b"A=ok\n", b"B=ok\n"]
    assert device.lines == [b"A?", b"B?"]
    assert holder_of(broker) is None


async def test_a_driver_call_outlives_the_threads_that_write_for_it(broker: Broker) -> None:
    session = broker.session("p", "driver", hold_max_s=5)

    def ask(query: bytes) -> bytes:
        session.write(query)
        return session.read_until(b"\n", 2)

    def drive() -> bytes:
        with session.call():
            first = threading.Thread(target=ask, args=(b"A?\n",))
            first.start()
            first.join()
            return ask(b"SLOW 600?\n")  # three looks after owners that are dead

    assert await in_thread(drive) == b"slow\n"


async def test_nothing_comes_between_the_exchanges_of_a_driver_call(broker: Broker, device: PtyDevice) -> None:
    session = broker.session("p", "driver", hold_max_s=5)
    between = threading.Event()

    def drive() -> None:
        with session.call():
            session.write(b"A?\n")
            session.read_until(b"\n")
            between.wait(5)
            session.write(b"B?\n")
            session.read_until(b"\n")

    call = asyncio.create_task(in_thread(drive))
    await until(lambda: device.lines == [b"A?"])
    other = asyncio.create_task(broker.port("p").exchange(b"OTHER?\n", holder="other"))
    await until(lambda: broker.status()[0].queue == 1)
    between.set()
    await asyncio.gather(call, other)
    assert device.lines == [b"A?", b"B?", b"OTHER?"]


async def test_a_driver_call_that_holds_too_long_goes_on_exchange_by_exchange(
    broker: Broker, device: PtyDevice
) -> None:
    session = broker.session("p", "driver", hold_max_s=0.05)
    between = threading.Event()

    def drive() -> bytes:
        with session.call():
            session.write(b"A?\n")
            session.read_until(b"\n")
            between.wait(5)
            session.write(b"B?\n")
            return session.read_until(b"\n")

    call = asyncio.create_task(in_thread(drive))
    await until(lambda: device.lines == [b"A?"])
    assert await broker.port("p").exchange(b"OTHER?\n", holder="other") == b"OTHER=ok\n"
    between.set()
    assert await call == b"B=ok\n"
    assert device.lines == [b"A?", b"OTHER?", b"B?"]


async def test_a_reply_after_its_reader_gave_up_does_not_answer_the_next_question(broker: Broker) -> None:
    session = broker.session("p", "driver")

    def drive() -> bytes:
        session.write(b"SLOW 200?\n")
        with pytest.raises(PortTimeoutError):
            session.read_until(b"\n", 0.05)
        session.write(b"B?\n")
        return session.read_until(b"\n", 1)

    assert await in_thread(drive) == b"B=ok\n"


async def test_a_query_without_answer_raises_at_its_read(broker: Broker) -> None:
    session = broker.session("p", "driver")
    session.timeout_s = 0.1

    def drive() -> None:
        session.write(b"MUTE?\n")
        session.read_until(b"\n", 5)

    with pytest.raises(PortTimeoutError, match="no whole reply"):
        await in_thread(drive)


async def test_a_stop_reaches_the_wire_at_once_beside_a_driver_that_is_blocked_reading(
    broker: Broker, device: PtyDevice
) -> None:
    session = broker.session("p", "driver")

    def drive() -> None:
        with session.call():
            session.write(b"SLOW 300?\n")
            session.read_until(b"\n", 5)

    call = asyncio.create_task(in_thread(drive))
    await until(lambda: device.lines == [b"SLOW 300?"])
    asked_ns = clock.utc_ns()
    t_ns = await broker.stop("p")
    with pytest.raises(DeliveryError) as caught:
        await call
    assert caught.value.fate == "unknown"
    await until(lambda: b"ST" in device.heard_at)
    assert t_ns - asked_ns < STOP_NS
    assert device.heard_at[b"ST"] - asked_ns < STOP_NS
    assert await broker.port("p").exchange(b"B?\n", holder="other") == b"B=ok\n"


async def test_a_stop_ends_the_later_moves_of_a_driver_call_that_began_before(broker: Broker) -> None:
    session = broker.session("p", "driver")
    begun, stopped = threading.Event(), threading.Event()

    def drive() -> None:
        with session.call():
            begun.set()
            stopped.wait(5)
            session.write(b"MV 1\n")

    call = asyncio.create_task(in_thread(drive))
    await until(begun.is_set)
    await broker.stop("p")
    stopped.set()
    with pytest.raises(StoppedError):
        await call
    await in_thread(session.write, b"MV 2\n")


async def test_a_latched_stop_refuses_a_drivers_move_at_its_write(broker: Broker, device: PtyDevice) -> None:
    await broker.stop_all({"p": None})
    with pytest.raises(UnsafeStateError):
        await in_thread(broker.session("p", "driver").write, b"MV 1\n")
    await until(lambda: device.lines == [b"ST"])


async def test_a_thread_that_dies_in_a_call_gives_its_lease_back(broker: Broker) -> None:
    session = broker.session("p", "driver", hold_max_s=60)
    kept: list[Any] = []

    def die() -> None:
        kept.append(session.call())
        kept[0].__enter__()
        session.write(b"A?\n")
        session.read_until(b"\n")

    await in_thread(die)
    assert holder_of(broker) == "driver"
    assert await broker.port("p").exchange(b"B?\n", holder="other", wait_s=3) == b"B=ok\n"
    kept[0].__exit__(None, None, None)


async def test_a_revoked_session_frees_its_thread_and_the_port_and_raises_from_then_on(broker: Broker) -> None:
    session = broker.session("p", "driver")

    def drive() -> None:
        session.write(b"SLOW 400?\n")
        session.read_until(b"\n", 60)

    call = asyncio.create_task(in_thread(drive))
    await until(lambda: holder_of(broker) == "driver")
    session.revoke("it hangs")
    with pytest.raises(LifecycleError, match="it hangs"):
        await call
    with pytest.raises(LifecycleError, match="it hangs"):
        await in_thread(session.write, b"A?\n")
    assert await broker.port("p").exchange(b"B?\n", holder="other") == b"B=ok\n"


async def test_a_driver_calls_deadline_limits_its_wait_for_the_port(broker: Broker) -> None:
    session = broker.session("p", "driver")

    def drive() -> None:
        with session.call(deadline=Deadline(0.05)):
            session.write(b"SET 1\n")

    async with broker.port("p").lease("the scan"):
        with pytest.raises(PortBusyError, match="the scan"):
            await in_thread(drive)


async def test_a_session_refuses_to_block_the_loop_that_hears_its_replies(broker: Broker, where: str) -> None:
    async def block() -> None:
        with pytest.raises(LifecycleError, match="block"):
            broker.session("p", "driver").write(b"A?\n")

    if isinstance(broker, LinkedBroker):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(block(), broker.far_loop))
    else:
        await block()


async def test_a_port_is_used_from_another_loop_like_from_its_own(broker: Broker) -> None:
    async def elsewhere() -> list[bytes]:
        port = broker.port("p")
        async with port.lease("elsewhere") as lease:
            first = await lease.exchange(b"A?\n")
        return [first, await port.exchange(b"B?\n", holder="elsewhere")]

    assert await on_another_loop(elsewhere) == [b"A=ok\n", b"B=ok\n"]
    assert holder_of(broker) is None


async def test_cancelling_on_another_loop_cuts_the_exchange_on_the_brokers(broker: Broker, device: PtyDevice) -> None:
    async def elsewhere() -> None:
        port: Port = broker.port("p")
        task = asyncio.create_task(port.exchange(b"SLOW 100?\n", holder="elsewhere"))
        await until(lambda: device.lines == [b"SLOW 100?"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await on_another_loop(elsewhere)
    assert await broker.port("p").exchange(b"B?\n", holder="other") == b"B=ok\n"
    assert broker.status()[0].late == 1


async def test_a_lease_held_by_a_loop_that_stopped_is_taken_back(broker: Broker) -> None:
    loop = asyncio.new_event_loop()
    kept: list[asyncio.Task[None]] = []

    async def hold() -> None:
        async with broker.port("p").lease("gone"):
            await asyncio.Event().wait()

    def run() -> None:
        kept.append(loop.create_task(hold()))
        limit = Deadline(5)
        while holder_of(broker) != "gone" and not limit.passed:
            loop.run_until_complete(clock.pause(0.002))

    await in_thread(run)
    assert await broker.port("p").exchange(b"B?\n", holder="other", wait_s=3) == b"B=ok\n"

    def bury() -> None:
        kept[0].cancel()
        loop.run_until_complete(asyncio.wait(kept))
        loop.close()

    await in_thread(bury)


async def test_stop_works_from_another_loop(broker: Broker, device: PtyDevice) -> None:
    async def elsewhere() -> int:
        return await broker.stop("p")

    assert await on_another_loop(elsewhere) > 0
    await until(lambda: device.lines == [b"ST"])


@pytest.mark.parametrize("each", [2_000, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_two_clients_share_thousands_of_exchanges_without_one_crossed_reply(
    broker: Broker, device: PtyDevice, each: int
) -> None:
    session, port = broker.session("p", "driver"), broker.port("p")

    def drive() -> int:
        wrong = 0
        for number in range(each):
            with session.call():
                session.write(b"D%d?\n" % number)
                wrong += session.read_until(b"\n") != b"D%d=ok\n" % number
        return wrong

    async def ask() -> int:
        wrong = 0
        for number in range(each):
            wrong += await port.exchange(b"A%d?\n" % number, holder="async") != b"A%d=ok\n" % number
        return wrong

    assert await asyncio.gather(in_thread(drive), ask()) == [0, 0]
    assert len(device.lines) == 2 * each


async def test_queries_leave_nothing_for_the_garbage_collector(broker: Broker) -> None:
    session = broker.session("p", "driver")

    def drive(count: int) -> None:
        for _ in range(count):
            session.write(b"A?\n")
            session.read_until(b"\n", 1)

    await in_thread(drive, 1)
    gc.collect()
    gc.disable()
    try:
        await in_thread(drive, 50)
        assert sum(isinstance(one, Exchange) for one in gc.get_objects()) <= 2  # the last, and one that ends
    finally:
        gc.enable()
