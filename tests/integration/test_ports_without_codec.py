"""Driver threads on a real pty whose bytes nobody understands: silence says when an exchange is over."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from duodaq import clock
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Terminated
from duodaq.testing._linked_broker import LinkedBroker
from duodaq.testing._pty_bench import PtyDevice, holder_of, in_thread, until, used_from

pytestmark = pytest.mark.serial


async def test_without_codec_the_lease_ends_with_silence(device: PtyDevice, where: str) -> None:
    owner = Broker()
    await owner.add(PortDefinition("raw", serial={"path": device.path}, idle_ms=50))
    await owner.open("raw")

    async with used_from(where, owner) as broker:
        session = broker.session("raw", "driver")

        def drive() -> bytes:
            session.write(b"A?\n")
            return session.read_until(b"\n", 1)

        assert await in_thread(drive) == b"A=ok\n"
        await until(lambda: holder_of(broker) is None)


async def test_without_codec_and_idle_time_a_driver_call_holds_until_it_ends(device: PtyDevice, where: str) -> None:
    owner = Broker()
    await owner.add(PortDefinition("raw", serial={"path": device.path}))
    await owner.open("raw")
    async with used_from(where, owner) as broker:
        await hold_until_it_ends(broker, device)


async def raw_port(owner: Broker, device: PtyDevice, **more: Any) -> None:
    await owner.add(PortDefinition("raw", serial={"path": device.path}, idle_ms=10, **more))
    await owner.open("raw")


async def test_without_codec_a_driver_that_reads_late_gets_an_answer_that_comes_late(
    device: PtyDevice, where: str
) -> None:
    """Longer than `idle_ms` after it was asked for; the driver sleeps meanwhile, as many do."""
    owner = Broker()
    await raw_port(owner, device)
    async with used_from(where, owner) as broker:
        session = broker.session("raw", "driver")

        def drive() -> bytes:
            with session.call():
                session.write(b"SLOW 50?\n")
                clock.block(0.1)
                return session.read_until(b"\n", 1)

        other = broker.session("raw", "other")

        def drive_too() -> bytes:
            with other.call():
                other.write(b"B?\n")
                return other.read_until(b"\n", 5)

        for together in (False, True):
            call = asyncio.create_task(in_thread(drive))
            await until(lambda: holder_of(broker) == "driver")
            others = [asyncio.create_task(in_thread(drive_too))] if together else []
            assert await call == b"slow\n"
            assert [await one for one in others] == [b"B=ok\n"] * len(others)
        await until(lambda: holder_of(broker) is None)


async def test_without_codec_a_call_that_is_silent_keeps_nobody_waiting(device: PtyDevice, where: str) -> None:
    owner = Broker()
    await raw_port(owner, device, hold_max_s=0.1)
    async with used_from(where, owner) as broker:
        session, go_on = broker.session("raw", "driver"), threading.Event()

        def drive(first: bytes) -> None:
            with session.call():
                session.write(first)
                if first.endswith(b"?\n"):
                    session.read_until(b"\n", 1)
                go_on.wait(20)

        for first in (b"A?\n", b"SET 1\n"):
            go_on.clear()
            call = asyncio.create_task(in_thread(lambda first=first: drive(first)))
            await until(lambda: holder_of(broker) == "driver")
            asked = broker.port("raw").exchange(b"B?\n", holder="other", reply=Terminated(), timeout_s=5)
            assert await asked == b"B=ok\n"
            assert not call.done()
            go_on.set()
            await call


async def hold_until_it_ends(broker: Broker | LinkedBroker, device: PtyDevice) -> None:
    session, go_on = broker.session("raw", "driver"), threading.Event()

    def drive() -> bytes:
        with session.call():
            session.write(b"A?\n")
            first = session.read_until(b"\n", 1)
            go_on.wait(5)
            session.write(b"B?\n")
            return first + session.read(5, 1)

    call = asyncio.create_task(in_thread(drive))
    await until(lambda: device.lines == [b"A?"])
    other = asyncio.create_task(broker.port("raw").exchange(b"C?\n", holder="other", reply=Terminated()))
    await until(lambda: broker.status()[0].queue == 1)
    go_on.set()
    assert await call == b"A=ok\nB=ok\n"
    assert await other == b"C=ok\n"
    assert device.lines == [b"A?", b"B?", b"C?"]
