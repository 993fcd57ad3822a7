import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from duodaq import sim
from duodaq.bridge import ParameterTable
from duodaq.clock import pause
from duodaq.drivers import codec
from duodaq.errors import ConfigError, LifecycleError, OutOfRangeError, StoppedError, UnsafeStateError
from duodaq.model import (
    Cause,
    Execute,
    GetParameter,
    InstrumentDefinition,
    PortDefinition,
    ReadChannel,
    Recover,
    SafeAction,
    SetParameter,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.schema import scalars_of
from duodaq.testing.coexistence import until
from duodaq.v4 import DataPublisher, V4Runtime, handler
from duodaq.v4.instruments import MaiTai, WarmUp

pytestmark = pytest.mark.serial

QUICK = {"poll_s": 0.02, "shutter_lag_s": 0.2}
LASER = InstrumentDefinition("laser", "v4", "duodaq:MaiTai", port="laser", args={**QUICK, "limits_nm": [700, 900]})


@pytest.fixture(scope="module")
def devices():
    with (
        sim.launch_table(3) as table,
        sim.launch("maitai", model="MaiTai HP", table=table) as laser,
        table.client() as client,
    ):
        yield client, laser


@pytest.fixture
def table(devices):
    return devices[0]


@pytest.fixture
def laser(devices):
    """The laser as it is when its power has just come on: cold, off, closed."""
    devices[1].replug()
    devices[1].power_cycle()
    devices[1].fault()
    return devices[1]


class Lab:
    def __init__(self, broker: Broker) -> None:
        self.broker, self.parameters, self.publisher = broker, ParameterTable(), DataPublisher()
        self.runtime = V4Runtime(broker, self.parameters, self.publisher)

    async def do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await self.runtime.command("laser", Execute(name, args, kwargs))

    def written(self) -> list[bytes]:
        return [record.data for record in self.broker.log("laser") if record.direction == ">"]


@asynccontextmanager
async def lab_at(address: str, definition: InstrumentDefinition = LASER) -> AsyncIterator[Lab]:
    broker = Broker()
    port = PortDefinition("laser", serial={"path": address, "xonxoff": True}, codec="maitai", timeout_s=3.0)
    await broker.add(port, codec("maitai"))
    await broker.open("laser")
    lab = Lab(broker)
    await lab.runtime.add(definition)
    try:
        await lab.runtime.start(20)
        yield lab
    finally:
        await lab.runtime.stop(5)
        await broker.aclose()


async def test_it_tunes_within_the_limits_and_waits_until_it_is_there(laser, table) -> None:
    async with lab_at(laser.address) as lab:
        assert await lab.do("set_wavelength", 780) == 780
        assert table.wavelength_nm() == pytest.approx(780, abs=0.5)
        assert await lab.runtime.command("laser", SetParameter("wavelength_nm", 790.2)) == 790
        assert await lab.runtime.command("laser", GetParameter("setpoint_nm")) == 790
        entry = lab.parameters.get("laser", "wavelength_nm")
        assert entry is not None
        assert (entry.value, entry.unit) == (790, "nm")


@pytest.mark.parametrize("wavelength_nm", [699.4, 900.6, float("nan"), float("inf")])
async def test_beyond_the_limits_nothing_is_written(laser, wavelength_nm: float) -> None:
    async with lab_at(laser.address) as lab:
        before = len(lab.written())
        with pytest.raises(OutOfRangeError, match="700 to 900 nm"):
            await lab.do("set_wavelength", wavelength_nm)
        assert not any(b"WAV 8" in data or b"WAV 7" in data for data in lab.written()[before:])


async def test_limits_that_leave_nothing_of_the_laser_s_fail_the_start(laser) -> None:
    definition = replace(LASER, args={**QUICK, "limits_nm": [1100, 1200]}, required=True)
    with pytest.raises(ConfigError, match="690 to 1040 nm"):
        async with lab_at(laser.address, definition) as lab:
            await lab.runtime.restart("laser")


async def test_the_shutter_stays_closed_unless_armed(laser, table) -> None:
    async with lab_at(laser.address) as lab:
        for open_it in (Execute("open_shutter"), SetParameter("shutter", True)):
            with pytest.raises(UnsafeStateError, match="the interlock is open"):
                await lab.runtime.command("laser", open_it)
        assert b"SHUT 1\n" not in lab.written()
        assert not table.state().shutter_open


async def test_armed_it_opens_and_closes_any_number_of_times(laser, table) -> None:
    async with lab_at(laser.address) as lab:
        await lab.do("arm")
        for _ in range(2):
            await lab.do("open_shutter")
            assert table.state().shutter_open
            assert await lab.runtime.command("laser", GetParameter("shutter")) is True
            await lab.do("close_shutter")
            assert not table.state().shutter_open
        assert await lab.runtime.command("laser", GetParameter("armed")) is True


async def stop(lab: Lab, laser: sim.SimProcess) -> None:
    await lab.runtime.command("laser", Stop())


async def disarm(lab: Lab, laser: sim.SimProcess) -> None:
    await lab.do("disarm")


async def stop_all(lab: Lab, laser: sim.SimProcess) -> None:
    await lab.broker.stop_all({"laser": None})
    lab.broker.reset_latch("a person")


async def safe_call(lab: Lab, laser: sim.SimProcess) -> None:
    await lab.do("make_safe")


async def restart(lab: Lab, laser: sim.SimProcess) -> None:
    await lab.runtime.restart("laser")


async def recover(lab: Lab, laser: sim.SimProcess) -> None:
    await lab.runtime.command("laser", Recover())


async def unplug(lab: Lab, laser: sim.SimProcess) -> None:
    laser.unplug()
    assert await until(lambda: lab.broker.status()[0].state == "lost", 5)
    laser.replug()
    assert await until(lambda: lab.broker.status()[0].state == "open", 5)


CLOSES = (stop, disarm, stop_all, safe_call)


@pytest.mark.parametrize("event", [*CLOSES, restart, recover, unplug], ids=lambda event: event.__name__)
async def test_nothing_opens_again_after(event: Callable[..., Awaitable[None]], laser, table) -> None:
    safe = {Cause.SHUTDOWN: SafeAction("call", "make_safe")} if event is safe_call else {}
    async with lab_at(laser.address, replace(LASER, safe=safe)) as lab:
        await lab.do("arm")
        await lab.do("open_shutter")
        assert table.state().shutter_open
        await event(lab, laser)
        if event in CLOSES:
            assert await until(lambda: not table.state().shutter_open, 1)
        before = len(lab.written())
        with pytest.raises(UnsafeStateError, match="arm it first"):
            await lab.do("open_shutter")
        assert b"SHUT 1\n" not in lab.written()[before:]
        await lab.do("arm")
        await lab.do("close_shutter")
        await lab.do("open_shutter")
        assert table.state().shutter_open


async def test_a_stop_ends_an_opening_that_is_under_way(laser, table) -> None:
    async with lab_at(laser.address, replace(LASER, args={**QUICK, "shutter_lag_s": 3.0})) as lab:
        await lab.do("arm")
        opening = asyncio.ensure_future(lab.do("open_shutter"))
        assert await until(lambda: table.state().shutter_open, 2)
        await lab.runtime.command("laser", Stop())
        with pytest.raises(StoppedError, match="open_shutter"):
            await opening
        assert await until(lambda: not table.state().shutter_open, 1)  # on the wire is not yet obeyed


async def test_under_a_latched_stop_closing_is_allowed_and_nothing_else(laser, table) -> None:
    async with lab_at(laser.address) as lab:
        await lab.do("arm")
        lab.broker.latch("test")
        for command in ("arm", "open_shutter", "warm_up", "switch_on"):
            with pytest.raises(UnsafeStateError):
                await lab.do(command)
        with pytest.raises(UnsafeStateError):
            await lab.do("set_wavelength", 800)
        await lab.do("close_shutter")
        assert await lab.runtime.command("laser", SetParameter("shutter", False)) is False


async def test_it_warms_up_with_progress_and_then_switches_on_behind_the_shutter(laser, table) -> None:
    async with lab_at(laser.address) as lab:
        with pytest.raises(LifecycleError, match="0 % warm"):
            await lab.do("switch_on")
        ref = lab.runtime._resident("laser").ref
        assert ref is not None
        operation = ref.operate(WarmUp())
        seen = [update.fraction async for update in operation.updates()]
        await operation
        assert seen == sorted(seen)
        assert len(seen) > 5
        assert not table.state().laser_on
        await lab.do("switch_on")
        state = table.state()
        assert state.laser_on
        assert not state.shutter_open
        await lab.do("switch_off")
        assert not table.state().laser_on


async def test_a_slow_or_garbled_reply_is_waited_for_and_asked_again(laser) -> None:
    async with lab_at(laser.address) as lab:
        laser.fault(delay_s=1.3)
        assert await lab.runtime.command("laser", GetParameter("setpoint_nm")) == 800
        laser.fault(garble_next=1)
        assert await lab.runtime.command("laser", GetParameter("setpoint_nm")) == 800


async def test_wavelength_power_and_shutter_stream(laser) -> None:
    async with lab_at(laser.address) as lab:
        rows = {name: lab.publisher.subscribe(name, streams=[f"laser.{name}"]) for name in ("power_w", "wavelength_nm")}
        await lab.runtime.command("laser", StartAcquisition({"rate_hz": 20.0}))
        assert await until(lambda: rows["wavelength_nm"].occupancy >= 4, 5)
        await lab.runtime.command("laser", StopAcquisition())
        one = await lab.runtime.command("laser", ReadChannel("shutter"))
        scalars = scalars_of(rows["wavelength_nm"].get_nowait())
        assert (scalars[0].value, scalars[0].unit) == (800, "nm")
        assert one.value == 0
        for subscription in rows.values():
            subscription.close()


class Hang:
    """Never comes back."""


class HangingLaser(MaiTai):
    operations: ClassVar = {**MaiTai.operations, "hang": Hang}
    let_go: ClassVar[asyncio.Event]

    @handler(Hang)
    async def hang(self, message: Hang) -> None:
        await self.let_go.wait()


async def test_the_pump_runs_on_while_the_actor_lives_and_stops_when_it_hangs(laser, table) -> None:
    args = {**QUICK, "watchdog_s": 2.0}
    HangingLaser.let_go = asyncio.Event()
    definition = replace(LASER, driver=HangingLaser, args=args, options={"acquire": {"rate_hz": 20.0}})
    async with lab_at(laser.address, definition) as lab:
        await lab.do("warm_up")
        await lab.do("switch_on")
        await pause(2.5)
        assert table.state().laser_on
        hanging = asyncio.ensure_future(lab.do("hang"))
        assert await until(lambda: not table.state().laser_on, 8)
        assert laser.report()["watchdog_fired"] == 1
        HangingLaser.let_go.set()
        await hanging


async def test_a_laser_that_is_given_back_in_order_keeps_its_pump(laser, table) -> None:
    async with lab_at(laser.address, replace(LASER, args={**QUICK, "watchdog_s": 2.0})) as lab:
        await lab.do("warm_up")
        await lab.do("switch_on")
    await pause(2.3)
    assert table.state().laser_on


@pytest.mark.parametrize("cause", [Cause.SHUTDOWN, Cause.STOP_ALL, Cause.CRASH])
async def test_its_stop_bytes_are_its_safe_state_and_leave_the_pump(cause: Cause, laser, table) -> None:
    async with lab_at(laser.address) as lab:
        await lab.do("warm_up")
        await lab.do("switch_on")
        await lab.do("arm")
        await lab.do("open_shutter")
        await lab.broker.stop("laser", holder=f"safe state {cause}")
        assert await until(lambda: not table.state().shutter_open, 1)
        assert table.state().laser_on
