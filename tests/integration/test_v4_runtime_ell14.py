import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from duodaq import sim
from duodaq.bridge import ParameterTable
from duodaq.clock import pause
from duodaq.drivers import codec
from duodaq.errors import ConfigError, OutOfRangeError, StoppedError, UnsafeStateError
from duodaq.model import (
    AxisDefinition,
    Execute,
    GetParameter,
    InstrumentDefinition,
    PortDefinition,
    ReadChannel,
    SetParameter,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.schema import stage_scalars
from duodaq.sim.ell14 import TABLE_AXIS
from duodaq.testing.coexistence import until
from duodaq.v4 import DataPublisher, V4Runtime

pytestmark = pytest.mark.serial

HALF, QUARTER, POLARISER = (
    AxisDefinition(name, number, "deg", (-10.0, 360.0)) for number, name in enumerate(("half", "quarter", "polariser"))
)
TWO = InstrumentDefinition("plates", "v4", "duodaq:Elliptec", port="line", axes=(HALF, QUARTER), args={"poll_s": 0.02})
ONE = replace(TWO, id="polariser", axes=(POLARISER,))


@pytest.fixture(scope="module")
def devices():
    with (
        sim.launch_table(3) as table,
        sim.launch("ell14", model="2xELL14+ELL8", table=table) as rotators,
        table.client() as client,
    ):
        yield client, rotators


@pytest.fixture
def table(devices):
    return devices[0]


@pytest.fixture
def rotators(devices):
    devices[1].replug()
    devices[1].fault()
    devices[1].power_cycle()
    return devices[1]


class Lab:
    def __init__(self, broker: Broker) -> None:
        self.broker, self.parameters, self.publisher = broker, ParameterTable(), DataPublisher()
        self.runtime = V4Runtime(broker, self.parameters, self.publisher)

    async def do(self, name: str, *args: Any, on: str = "plates", **kwargs: Any) -> Any:
        return await self.runtime.command(on, Execute(name, args, kwargs))

    async def at(self, axis: str, on: str = "plates") -> float:
        return await self.runtime.command(on, GetParameter(f"{axis}.position"))

    def written(self) -> list[bytes]:
        return [record.data for record in self.broker.log("line") if record.direction == ">"]

    @property
    def status(self):
        return self.broker.status()[0]


@asynccontextmanager
async def lab_at(address: str, *definitions: InstrumentDefinition) -> AsyncIterator[Lab]:
    broker = Broker()
    await broker.add(PortDefinition("line", serial={"path": address}, codec="ell14", timeout_s=1.0), codec("ell14"))
    await broker.open("line")
    lab = Lab(broker)
    try:
        for definition in definitions or (TWO, ONE):
            await lab.runtime.add(definition)
        await lab.runtime.start(20)
        yield lab
    finally:
        await lab.runtime.stop(5)
        broker.reset_latch("test")
        await broker.aclose()


def angle(table: Any, address: int) -> float:
    return table.state().positions[TABLE_AXIS + address]


async def test_a_move_ends_where_it_was_sent_whatever_the_pulses_of_a_revolution(rotators, table) -> None:
    async with lab_at(rotators.address) as lab:
        start = [angle(table, address) for address in range(3)]
        await lab.do("move", "half", 45.0)
        await lab.do("move", "polariser", 45.0, on="polariser")
        assert angle(table, 0) - start[0] == pytest.approx(45, abs=0.01)
        assert angle(table, 2) - start[2] == pytest.approx(45, abs=0.01)
        assert await lab.do("move_relative", "half", -22.5) == pytest.approx(22.5, abs=0.01)
        assert b"0ma00004600" in lab.written()
        assert b"2ma00008000" in lab.written()


async def test_three_rotators_of_two_instruments_turn_at_once_and_everybody_else_is_answered(rotators, table) -> None:
    async with lab_at(rotators.address) as lab:
        rotators.fault("jitter=1-8")
        moves = [
            asyncio.ensure_future(lab.do("move", "half", 300.0)),
            asyncio.ensure_future(lab.do("move", "quarter", 200.0)),
            asyncio.ensure_future(lab.do("move", "polariser", 100.0, on="polariser")),
        ]
        assert await until(lambda: all(table.state().moving[TABLE_AXIS + number] for number in range(3)), 3, 0.001)
        waits: list[float] = []
        loop = asyncio.get_running_loop()
        while not all(move.done() for move in moves):
            for address in b"012":
                began_s = loop.time()
                reply = await lab.broker.port("line").exchange(bytes((address,)) + b"gs", holder="onlooker")
                waits.append(loop.time() - began_s)
                assert reply[0] == address
        await asyncio.gather(*moves)
        assert max(waits) < 0.5  # no motion holds the line: the longest takes 0.8 s
        assert [await lab.at("half"), await lab.at("quarter")] == pytest.approx([300, 200], abs=0.01)
        assert await lab.at("polariser", "polariser") == pytest.approx(100, abs=0.01)
        assert lab.status.resyncs == 0
        assert rotators.report()["interleavings"] == 0


async def test_a_search_for_home_makes_home_zero(rotators, table) -> None:
    async with lab_at(rotators.address) as lab:
        await lab.do("move", "half", 50.0)
        await lab.do("home", "half")
        assert angle(table, 0) % 360 == pytest.approx(0, abs=0.01)
        assert await lab.at("half") == pytest.approx(0, abs=0.01)
        await lab.do("home", "half", 1)
        with pytest.raises(OutOfRangeError, match="no direction 7"):
            await lab.do("home", "half", 7)


@pytest.mark.parametrize("target", [360.1, -10.1, float("nan"), float("inf")])
async def test_beyond_the_limits_nothing_is_written(rotators, target: float) -> None:
    async with lab_at(rotators.address) as lab:
        before = len(lab.written())
        with pytest.raises(OutOfRangeError):
            await lab.do("move", "half", target)
        assert len(lab.written()) == before
        with pytest.raises(OutOfRangeError):
            await lab.do("move_relative", "half", 400.0)
        assert not any(b"ma" in data for data in lab.written())


async def test_a_stop_stops_the_one_that_it_names_and_the_others_go_on(rotators, table) -> None:
    async with lab_at(rotators.address) as lab:
        await lab.do("configure", "half", velocity=25.0)
        await lab.do("configure", "quarter", velocity=50.0)
        moves = [asyncio.ensure_future(lab.do("move", axis, 300.0)) for axis in ("half", "quarter")]
        assert await until(lambda: table.state().moving[TABLE_AXIS] and table.state().moving[TABLE_AXIS + 1], 3)
        await pause(0.2)
        await lab.runtime.command("plates", Stop("half"))
        with pytest.raises(StoppedError, match="half stands at"):
            await moves[0]
        assert not table.state().moving[TABLE_AXIS]
        await moves[1]
        assert await lab.at("quarter") == pytest.approx(300, abs=0.01)
        await lab.do("configure", "half", velocity=100.0)
        await lab.do("configure", "quarter", velocity=100.0)


async def test_a_stop_all_stops_every_rotator_and_latches(rotators, table) -> None:
    async with lab_at(rotators.address) as lab:
        for axis, on in (("half", "plates"), ("quarter", "plates"), ("polariser", "polariser")):
            await lab.do("configure", axis, on=on, velocity=25.0)
        moves = [asyncio.ensure_future(lab.do("move", axis, 350.0)) for axis in ("half", "quarter")]
        moves.append(asyncio.ensure_future(lab.do("move", "polariser", 350.0, on="polariser")))
        assert await until(lambda: all(table.state().moving[TABLE_AXIS + number] for number in range(3)), 3)
        await lab.broker.stop_all({"line": None})
        assert await until(lambda: not any(table.state().moving.values()), 1)
        ended = await asyncio.gather(*moves, return_exceptions=True)
        assert all(isinstance(one, StoppedError | UnsafeStateError) for one in ended)
        with pytest.raises(UnsafeStateError):
            await lab.do("move", "half", 0.0)


async def test_a_cancelled_move_stops_its_rotator(rotators, table) -> None:
    async with lab_at(rotators.address) as lab:
        start = angle(table, 0)
        move = asyncio.ensure_future(lab.do("move", "half", 350.0))
        assert await until(lambda: table.state().moving[TABLE_AXIS], 3)
        move.cancel()
        await asyncio.wait((move,))
        assert await until(lambda: not table.state().moving[TABLE_AXIS], 1)
        assert angle(table, 0) - start < 340


async def test_a_lost_reply_is_noticed_by_looking_and_the_move_is_done(rotators) -> None:
    async with lab_at(rotators.address, replace(TWO, args={"poll_s": 0.6})) as lab:
        move = asyncio.ensure_future(lab.do("move", "half", 90.0))
        assert await until(lambda: any(b"ma" in data for data in lab.written()), 3)
        rotators.fault(drop_next=1)
        await asyncio.wait_for(move, 4)
        assert await lab.at("half") == pytest.approx(90, abs=0.01)


async def test_velocity_is_in_per_cent_and_kept_by_the_rotator(rotators) -> None:
    async with lab_at(rotators.address) as lab:
        assert await lab.runtime.command("plates", SetParameter("half.velocity", 50.0)) == 50
        entry = lab.parameters.get("plates", "half.velocity")
        assert entry is not None
        assert entry.unit == "%"
        with pytest.raises(OutOfRangeError):
            await lab.do("configure", "half", velocity=101.0)


async def test_positions_stream_in_degrees(rotators) -> None:
    async with lab_at(rotators.address, TWO) as lab:
        rows = lab.publisher.subscribe("test", streams=["plates.half"])
        await lab.runtime.command("plates", StartAcquisition({"rate_hz": 20.0}))
        await lab.do("move", "half", 30.0)
        assert await until(lambda: rows.occupancy >= 3, 3)
        await lab.runtime.command("plates", StopAcquisition())
        assert (await lab.runtime.command("plates", ReadChannel("half"))).unit == "deg"
        assert stage_scalars(rows.get_nowait())
        rows.close()


async def test_an_axis_that_is_no_rotator_is_a_mistake_of_the_lab_file(rotators) -> None:
    with pytest.raises(ConfigError, match="address, 0 to 15"):
        async with lab_at(rotators.address, replace(TWO, axes=(replace(HALF, unit="mm"),))) as lab:
            await lab.runtime.restart("plates")


async def test_unplugged_in_mid_motion_it_is_one_typed_error_and_it_moves_again_afterwards(rotators, table) -> None:
    async with lab_at(rotators.address, TWO) as lab:
        move = asyncio.ensure_future(lab.do("move", "half", 350.0))
        assert await until(lambda: table.state().moving[TABLE_AXIS], 3)
        rotators.unplug()
        (error,) = await asyncio.gather(move, return_exceptions=True)
        assert isinstance(error, OSError | StoppedError)
        rotators.replug()
        assert await until(lambda: lab.status.state == "open", 5)
        assert await until(lambda: not table.state().moving[TABLE_AXIS], 2)
        await lab.do("move", "half", 10.0)
        assert await lab.at("half") == pytest.approx(10, abs=0.01)
