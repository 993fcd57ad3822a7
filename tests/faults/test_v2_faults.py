"""Drivers as bad as they come, in V2: real threads, real time, real ptys."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.faults.fault_table import PEACE, V2_ALONE

from duodaq import clock
from duodaq.errors import DeliveryError, InstrumentError, LifecycleError, ReplyTimeoutError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    ParameterEntry,
    PollDefinition,
    PortDefinition,
    Recover,
    RuntimeStatus,
)
from duodaq.ports import Broker
from duodaq.testing._scripted_port import ScriptedCodec, ScriptedTransport
from duodaq.v2 import DataDistributor, RestartInstrument, V2Runtime


class NoParameters:
    def put(self, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        return ParameterEntry(instrument, name, value, unit, 0, 0, owner)

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        return None

    def mark_stale(self, owner: Any, instrument: str) -> None: ...


LET_GO = threading.Event()
"""Ends every sleeper at the end of a test: a thread cannot be killed, and the next test must not see it."""


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    LET_GO.clear()
    yield
    LET_GO.set()


class Sleeper:
    """Never returns from `sleep`, nor from anything else it is told to sleep in."""

    def __init__(self, port: Any = None, sleeps_in: str = "") -> None:
        self.port = port
        self.sleeps_in = sleeps_in
        if sleeps_in == "__init__":
            self.sleep()

    def sleep(self) -> None:
        LET_GO.wait(60.0)

    def ask(self) -> bytes:
        self.port.write(b"MUTE?\n")
        return self.port.read(1)

    def spin(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            sum(range(100))

    def well(self) -> str:
        return "well"

    def close(self) -> None:
        if self.sleeps_in == "close":
            self.sleep()
        if self.sleeps_in == "raise":
            raise RuntimeError("cannot close")


def sleeper(name: str = "sleeper", **facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition(name, "v2", Sleeper, **facts)


@asynccontextmanager
async def hosted(*definitions: InstrumentDefinition, start_s: float = 5.0) -> AsyncIterator[V2Runtime]:
    broker = Broker()
    await broker.add(
        PortDefinition("line", serial={"path": "x"}, timeout_s=30.0), ScriptedCodec(), ScriptedTransport(lambda _: None)
    )
    await broker.open("line")
    runtime = V2Runtime(broker, NoParameters(), DataDistributor())
    for definition in definitions:
        await runtime.add(definition)
    await runtime.start(start_s)
    try:
        yield runtime
    finally:
        LET_GO.set()
        await runtime.stop(2.0)
        await broker.aclose()


async def until(condition: Any, limit_s: float = 5.0) -> None:
    ends = clock.Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await clock.pause(0.005)


def status_of(runtime: V2Runtime, name: str = "sleeper") -> Any:
    return next(status for status in runtime.instruments() if status.id == name)


@pytest.mark.alone("0.1 s are left to a budget for stopping")
@pytest.mark.fault("leaked", by=V2_ALONE)
async def test_three_drivers_that_never_return_cost_no_more_than_the_budget_and_are_named() -> None:
    names = ("a", "b", "c")
    async with hosted(*(sleeper(name) for name in names), sleeper("good")) as runtime:
        calls = [asyncio.create_task(runtime.command(name, Execute("sleep"), 60.0)) for name in names]
        await until(lambda: all(runtime.metrics()["instruments"][name]["in_hand"] for name in names))
        begun_s = clock.monotonic_s()
        reports = {report.component: report for report in await runtime.stop(1.0)}
        assert clock.monotonic_s() - begun_s < 1.1
        assert [reports[f"v2.{name}"].outcome for name in names] == [Outcome.LEAKED] * 3
        assert reports["v2.good"].outcome is Outcome.CLEAN
        assert all(name in reports["v2"].why for name in names)
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, DeliveryError)
            assert error.fate == "unknown"


@pytest.mark.alone("0.1 s are left to a budget for stopping")
@pytest.mark.fault("forced", by=V2_ALONE)
async def test_a_driver_blocked_on_its_shared_port_is_freed_by_revocation_and_ends_forced() -> None:
    async with hosted(sleeper(port="line")) as runtime:
        asking = asyncio.create_task(runtime.command("sleeper", Execute("ask"), 60.0))
        await until(lambda: runtime.metrics()["instruments"]["sleeper"]["in_hand"] == "ask")
        begun_s = clock.monotonic_s()
        reports = {report.component: report for report in await runtime.stop(0.6)}
        assert clock.monotonic_s() - begun_s < 0.58  # the last fifth of the time is for the driver to leave
        assert reports["v2.sleeper"].outcome is Outcome.FORCED
        assert "ask" in reports["v2.sleeper"].why
        (error,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(error, DeliveryError)


@pytest.mark.fault("overdue", "hangs")
async def test_a_driver_hung_on_its_shared_port_recovers_by_itself() -> None:
    async with hosted(sleeper(port="line", deadline_s=0.1, kill_after_s=0.1)) as runtime:
        with pytest.raises(ReplyTimeoutError):
            await runtime.command("sleeper", Execute("ask"))
        await until(lambda: status_of(runtime).restarts == 1)
        assert status_of(runtime).state is InstrumentState.READY
        assert await runtime.command("sleeper", Execute("well")) == "well"


@pytest.mark.fault("hangs")
async def test_a_constructor_that_never_returns_degrades_the_start_and_nobody_else() -> None:
    hung = sleeper(args={"sleeps_in": "__init__"}, method_deadline_s={"connect": 0.1}, kill_after_s=0.1)
    begun_s = clock.monotonic_s()
    async with hosted(hung, sleeper("good"), start_s=3.0) as runtime:
        assert clock.monotonic_s() - begun_s < 2.0
        assert runtime.status is RuntimeStatus.DEGRADED
        assert await runtime.command("good", Execute("well")) == "well"
        await until(lambda: status_of(runtime).state is InstrumentState.HUNG)


@pytest.mark.fault(by=PEACE)
async def test_a_start_does_not_wait_longer_than_it_may() -> None:
    begun_s = clock.monotonic_s()
    async with hosted(sleeper(args={"sleeps_in": "__init__"}), start_s=0.3) as runtime:
        assert clock.monotonic_s() - begun_s < 1.0
        assert status_of(runtime).state is InstrumentState.CONNECTING


@pytest.mark.alone("0.1 s are left to a budget for stopping")
@pytest.mark.parametrize(("where", "outcome"), [("close", Outcome.LEAKED), ("raise", Outcome.CLEAN)])
@pytest.mark.fault("leaked", by=V2_ALONE)
async def test_a_driver_that_does_not_close_holds_up_nobody(where: str, outcome: Outcome) -> None:
    async with hosted(sleeper(args={"sleeps_in": where})) as runtime:
        begun_s = clock.monotonic_s()
        reports = {report.component: report.outcome for report in await runtime.stop(0.5)}
        assert clock.monotonic_s() - begun_s < 0.6
        assert reports["v2.sleeper"] is outcome


@pytest.mark.fault(by=PEACE)
async def test_a_busy_driver_delays_others_but_stops_nobody() -> None:
    async with hosted(sleeper(), sleeper("good")) as runtime:
        spinning = asyncio.create_task(runtime.command("sleeper", Execute("spin", (0.5,))))
        await clock.pause(0.05)
        for _ in range(5):
            assert await runtime.command("good", Execute("well")) == "well"
        await spinning


@pytest.mark.fault("hangs")
async def test_a_hung_poll_makes_the_instrument_hung_and_its_numbers_go_on_afterwards() -> None:
    class Flaky:
        sleeping = False
        gate = threading.Event()

        def read(self) -> float:
            if type(self).sleeping:
                type(self).gate.wait(30.0)
            return 1.0

    definition = InstrumentDefinition(
        "flaky", "v2", Flaky, deadline_s=0.1, kill_after_s=0.1, polls=(PollDefinition("x", 0.02, call="read"),)
    )
    broker, hub = Broker(), DataDistributor()
    runtime = V2Runtime(broker, NoParameters(), hub)
    readings = hub.subscribe("test", capacity=100000)
    await runtime.add(definition)
    await runtime.start(5.0)
    try:
        await readings.get(5.0)
        Flaky.sleeping = True
        await until(lambda: status_of(runtime, "flaky").state is InstrumentState.HUNG)
        Flaky.sleeping = False
        Flaky.gate.set()
        await until(lambda: status_of(runtime, "flaky").state is InstrumentState.ACQUIRING)
        before = len(await readings.get_many(100000, 0.1))
        numbers = [(await readings.get(5.0)).sequence for _ in range(3)]
        assert numbers[0] == before + 1
        assert runtime.metrics()["instruments"]["flaky"]["polls"]["x"]["skipped"] > 0
    finally:
        await runtime.stop(2.0)


class PtyDevice:
    """A device of its own on a pty, which its driver opens itself."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)
        self.link = ""
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while data := os.read(self.master, 100):
            if b"QUIT" in data:
                return
            if b"?" in data:
                os.write(self.master, b"4.5\n")

    def close(self) -> None:
        os.write(self.slave, b"QUIT")
        self.thread.join()
        os.close(self.master)
        os.close(self.slave)


class OwnSerial:
    """A home-made class that opens its device itself, as most do."""

    def __init__(self, device: str) -> None:
        import serial

        self.serial = serial.Serial(device, 9600, timeout=0.5)

    def get_rate(self) -> float:
        self.serial.write(b"RATE?\n")
        return float(self.serial.readline())

    def close(self) -> None:
        self.serial.close()


@pytest.mark.serial
@pytest.mark.fault("own device unplugged")
async def test_a_private_device_that_is_unplugged_is_lost_and_found_again(tmp_path: Any) -> None:
    link, device = tmp_path / "chopper", PtyDevice()
    link.symlink_to(device.path)
    definition = InstrumentDefinition(
        "own", "v2", OwnSerial, args={"device": str(link)}, polls=(PollDefinition("rate", 0.05, "Hz", call="get_rate"),)
    )
    runtime = V2Runtime(Broker(), NoParameters(), DataDistributor())
    await runtime.add(definition)
    await runtime.start(5.0)
    try:
        assert (await runtime.command("own", GetParameter("rate"))).value == 4.5
        device.close()
        link.unlink()
        await until(lambda: status_of(runtime, "own").state is InstrumentState.ERROR)
        device = PtyDevice()
        link.symlink_to(device.path)
        await until(lambda: status_of(runtime, "own").state is InstrumentState.ACQUIRING, 10.0)
        assert (await runtime.command("own", GetParameter("rate"))).value == 4.5
        assert status_of(runtime, "own").restarts >= 1
    finally:
        await runtime.stop(3.0)
        device.close()


@pytest.mark.fault("exception", by=V2_ALONE)
async def test_a_driver_that_raises_in_every_call_costs_its_callers_only() -> None:
    class Wreck:
        def go(self) -> None:
            raise MemoryError("so much")

    async with hosted(InstrumentDefinition("wreck", "v2", Wreck), sleeper("good")) as runtime:
        for _ in range(50):
            with pytest.raises(InstrumentError, match="MemoryError"):
                await runtime.command("wreck", Execute("go"))
        assert await runtime.command("good", Execute("well")) == "well"
        assert runtime.status is RuntimeStatus.RUNNING


@pytest.mark.fault("overdue", "hangs")
async def test_a_restart_asked_while_it_is_hung_says_so_at_once_and_hinders_no_recovery() -> None:
    async with hosted(sleeper(deadline_s=0.1, kill_after_s=0.1)) as runtime:
        with pytest.raises(ReplyTimeoutError):
            await runtime.command("sleeper", Execute("sleep"))
        await until(lambda: status_of(runtime).state is InstrumentState.HUNG)
        begun_s = clock.monotonic_s()
        with pytest.raises(LifecycleError, match=r"hung.* — it recovers by itself when the call returns"):
            await runtime.restart("sleeper")
        with pytest.raises(LifecycleError, match=r"hung.* — it recovers by itself when the call returns"):
            await runtime.command("sleeper", Recover())
        assert clock.monotonic_s() - begun_s < 1.0
        LET_GO.set()
        await until(lambda: status_of(runtime).state is InstrumentState.READY)
        assert await runtime.command("sleeper", Execute("well")) == "well"


@pytest.mark.fault("hangs", by=V2_ALONE)
async def test_a_restart_of_a_driver_that_does_not_return_is_made_up_for_when_it_does() -> None:
    async with hosted(sleeper()) as runtime:
        calling = asyncio.create_task(runtime.command("sleeper", Execute("sleep"), 60.0))
        await until(lambda: runtime.metrics()["instruments"]["sleeper"]["in_hand"] == "sleep")
        with pytest.raises(LifecycleError, match=r"sleep.* — it recovers by itself when the call returns"):
            await runtime.submit(RestartInstrument("sleeper", 0.2))
        await asyncio.gather(calling, return_exceptions=True)
        assert status_of(runtime).state is InstrumentState.HUNG
        with pytest.raises(LifecycleError, match=r"it recovers by itself when the call returns"):
            await runtime.command("sleeper", Recover())
        LET_GO.set()
        await until(lambda: status_of(runtime).state is InstrumentState.READY)
        assert await runtime.command("sleeper", Execute("well")) == "well"


@pytest.mark.fault("hangs", "leaked", by=V2_ALONE)
async def test_a_restart_that_waits_for_its_driver_ends_with_the_runtime_which_names_the_driver() -> None:
    async with hosted(sleeper()) as runtime:
        calling = asyncio.create_task(runtime.command("sleeper", Execute("sleep"), 60.0))
        await until(lambda: runtime.metrics()["instruments"]["sleeper"]["in_hand"] == "sleep")
        with pytest.raises(LifecycleError):
            await runtime.submit(RestartInstrument("sleeper", 0.2))
        await asyncio.gather(calling, return_exceptions=True)
        reports = {report.component: report for report in await runtime.stop(1.0)}
        assert reports["v2.sleeper"].outcome is Outcome.LEAKED
        assert "sleep" in reports["v2.sleeper"].why
        LET_GO.set()
        await clock.pause(0.05)
        assert runtime.status is RuntimeStatus.STOPPED


@pytest.mark.fault(by=PEACE)
async def test_a_call_that_is_not_begun_says_what_the_driver_is_busy_with_and_for_how_long() -> None:
    async with hosted(sleeper()) as runtime:
        calling = asyncio.create_task(runtime.command("sleeper", Execute("sleep"), 60.0))
        await until(lambda: runtime.metrics()["instruments"]["sleeper"]["in_hand"] == "sleep")
        with pytest.raises(
            ReplyTimeoutError, match=r"not begun within 0\.2 s: the driver has been in sleep for 0\.\d s"
        ):
            await runtime.command("sleeper", Execute("well"), 0.2)
        LET_GO.set()
        await calling
