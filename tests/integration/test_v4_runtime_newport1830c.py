from contextlib import asynccontextmanager

import pytest

from duodaq import sim
from duodaq.bridge import ParameterTable
from duodaq.clock import block, pause
from duodaq.drivers import codec
from duodaq.errors import OutOfRangeError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    PortDefinition,
    ReadChannel,
    SetParameter,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.schema import scalars_of
from duodaq.sim.table import KNIFE_AXIS, rest
from duodaq.testing.coexistence._bench import until
from duodaq.v4 import DataPublisher, V4Runtime

pytestmark = pytest.mark.serial

METER = InstrumentDefinition("meter", "v4", "duodaq:Newport1830C", port="meter")


@pytest.fixture(scope="module")
def power_meter():
    with sim.launch_table(3, shutter_open=True) as table, sim.launch("newport1830c", table=table) as process:
        with table.client() as client:
            client.set_laser(True)
            client.set_motion(KNIFE_AXIS, rest(20.0))  # the knife edge out of the beam
        block(1.5)  # the meter averages what it sees
        yield process


@asynccontextmanager
async def lab(address: str, timeout_s: float = 1.0):
    broker, table, publisher = Broker(), ParameterTable(), DataPublisher()
    port = PortDefinition("meter", serial={"path": address, "baud": 9600}, codec="newport1830c", timeout_s=timeout_s)
    await broker.add(port, codec("newport1830c"))
    await broker.open("meter")
    runtime = V4Runtime(broker, table, publisher)
    await runtime.add(METER)
    try:
        await runtime.start(20)
        yield runtime, broker, table, publisher
    finally:
        await runtime.stop(5)
        await broker.aclose()


async def test_power_is_read_with_unit_and_wavelength(power_meter) -> None:
    async with lab(power_meter.address) as (runtime, _, table, _):
        reading = await runtime.command("meter", Execute("read_power"))
        assert reading.value > 0
        assert reading.unit == "W"
        assert await runtime.command("meter", SetParameter("wavelength_nm", 800)) == 800
        assert (await runtime.command("meter", Execute("read_power"))).wavelength_nm == 800
        entry = table.get("meter", "wavelength_nm")
        assert entry is not None
        assert (entry.value, entry.unit) == (800, "nm")


async def test_units_and_range_are_set_and_read_back(power_meter) -> None:
    async with lab(power_meter.address) as (runtime, _, _, _):
        assert await runtime.command("meter", Execute("set_unit", ("dBm",))) == "dBm"
        assert (await runtime.command("meter", Execute("read_power"))).unit == "dBm"
        assert await runtime.command("meter", SetParameter("unit", "W")) == "W"
        assert await runtime.command("meter", SetParameter("filter", 3)) == 3
        with pytest.raises(OutOfRangeError):
            await runtime.command("meter", SetParameter("range", 9))


async def test_a_range_too_small_for_the_power_is_said_and_not_retried(power_meter) -> None:
    async with lab(power_meter.address) as (runtime, broker, _, _):
        await runtime.command("meter", SetParameter("range", 1))
        await pause(0.5)
        before = sum(record.data == b"D?\n" for record in broker.log("meter"))
        with pytest.raises(OutOfRangeError, match=r"saturated|over range"):
            await runtime.command("meter", Execute("read_power"))
        assert sum(record.data == b"D?\n" for record in broker.log("meter")) == before + 1
        await runtime.command("meter", SetParameter("range", 0))
        await pause(1.0)
        assert (await runtime.command("meter", Execute("read_power"))).value > 0


async def test_the_power_streams_at_a_rate(power_meter) -> None:
    async with lab(power_meter.address) as (runtime, _, _, publisher):
        rows = publisher.subscribe("test", streams=["meter.power"])
        await runtime.command("meter", StartAcquisition({"rate_hz": 20.0}))
        assert await until(lambda: rows.occupancy >= 4, 10.0)
        await runtime.command("meter", StopAcquisition())
        before = rows.occupancy
        one = await runtime.command("meter", ReadChannel("power"))
        assert await until(lambda: rows.occupancy > before, 5.0)
        scalars = [s for _ in range(rows.occupancy) for s in scalars_of(rows.get_nowait())]
        rows.close()
        assert [s.sequence for s in scalars] == list(range(len(scalars)))
        assert len(scalars) >= 4
        assert scalars[-1].value == one.value
        assert one.unit == "W"


@pytest.mark.parametrize("fault", ["drop_next=1", "garble_next=1"])
async def test_a_reading_that_fails_once_is_asked_for_again_and_the_caller_does_not_notice(power_meter, fault) -> None:
    async with lab(power_meter.address, timeout_s=0.3) as (runtime, broker, _, _):
        await runtime.command("meter", GetParameter("power"))
        before = sum(record.data == b"D?\n" for record in broker.log("meter"))
        power_meter.fault(fault)
        reading = await runtime.command("meter", Execute("read_power"))
        assert reading.value > 0
        assert sum(record.data == b"D?\n" for record in broker.log("meter")) == before + 2
