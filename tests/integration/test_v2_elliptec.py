"""thorlabs-elliptec, unmodified, with three devices on one shared line, hosted in V2, also beside our own actor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from duodaq import sim
from duodaq.dual import DualRuntimeManager
from duodaq.errors import ConfigError, StoppedError
from duodaq.model import (
    AxisDefinition,
    Execute,
    InstrumentDefinition,
    PollDefinition,
)
from duodaq.sim.ell14 import TABLE_AXIS
from duodaq.testing.coexistence import Bench, Mode, until

pytest.importorskip("thorlabs_elliptec")
pytestmark = pytest.mark.serial

IN_PROCESS = Mode("process", "process", "inline")
POLL = (PollDefinition("angle", 0.1, "deg", call="get_position"),)


def device(number: int, **options: object) -> InstrumentDefinition:
    """One of the three, as a stanza of a lab file makes it."""
    return InstrumentDefinition(
        f"plate{number}",
        "v2",
        "thorlabs_elliptec:ELLx",
        port="line",
        args={"device_id": number},
        polls=POLL,
        method_deadline_s={"move_absolute": 12.0, "home": 12.0},
        **options,
    )


@asynccontextmanager
async def three(mode: Mode) -> AsyncIterator[tuple[DualRuntimeManager, sim.TableProcess, sim.SimProcess]]:
    async with Bench(mode) as bench:
        rotators = await bench.simulator("ell14")
        port = bench.serial_port("line", rotators, "ell14", timeout_s=2.0)
        manager = bench.manager([device(0), device(1), device(2)], [port])
        await manager.start()
        yield manager, await bench.table(), rotators


async def move(manager: DualRuntimeManager, number: int, angle: float) -> None:
    await manager.command(f"plate{number}", Execute("move_absolute", (angle,), {"blocking": True}))


@pytest.mark.parametrize("mode", [IN_PROCESS, Mode("thread", "thread", "thread")], ids=str)
async def test_three_devices_on_one_line_turn_at_once(mode: Mode) -> None:
    async with three(mode) as (manager, table, rotators):
        await asyncio.gather(move(manager, 0, 90.0), move(manager, 1, 45.0), move(manager, 2, 200.0))
        positions = table.state().positions
        assert [positions[TABLE_AXIS + number] for number in range(3)] == pytest.approx([90, 45, 200], abs=0.01)
        assert await manager.command("plate1", Execute("get_position")) == pytest.approx(45, abs=0.01)
        report = rotators.report()
        assert (report["interleavings"], report["misframed"]) == (0, 0)


@pytest.mark.parametrize("mode", [IN_PROCESS, Mode("processes", "process", "process")], ids=str)
async def test_it_shares_the_line_with_our_own_actor_and_no_reply_is_crossed(mode: Mode) -> None:
    axis = AxisDefinition("half", 2, "deg", (0.0, 360.0))
    ours = InstrumentDefinition("ours", "v4", "duodaq:Elliptec", port="line", axes=(axis,), args={"poll_s": 0.05})
    async with Bench(mode) as bench:
        rotators = await bench.simulator("ell14", faults=["jitter=1-10"])
        manager = bench.manager(
            [device(0), device(1), ours], [bench.serial_port("line", rotators, "ell14", timeout_s=2.0)]
        )
        await manager.start()
        for angle in (30.0, 300.0, 10.0):
            await asyncio.gather(
                move(manager, 0, angle),
                move(manager, 1, angle / 2),
                manager.command("ours", Execute("move", ("half", angle))),
            )
            positions = (await bench.table()).state().positions
            assert [positions[TABLE_AXIS + number] for number in range(3)] == pytest.approx(
                [angle, angle / 2, angle], abs=0.01
            )
        assert rotators.report()["interleavings"] == 0
        assert manager.broker.status()[0].resyncs == 0


async def test_a_motion_that_takes_longer_than_the_port_s_timeout_is_waited_for() -> None:
    async with Bench(Mode("thread", "thread", "thread")) as bench:
        rotators = await bench.simulator("ell14")
        manager = bench.manager([device(0)], [bench.serial_port("line", rotators, "ell14", timeout_s=0.5)])
        await manager.start()
        await manager.broker.port("line").exchange(b"0sv32", holder="test")
        await move(manager, 0, 300.0)
        assert (await bench.table()).state().positions[TABLE_AXIS] == pytest.approx(300, abs=0.01)


async def test_its_stop_bytes_stop_it_beside_a_driver_that_waits() -> None:
    async with Bench(IN_PROCESS) as bench:
        rotators = await bench.simulator("ell14")
        port = bench.serial_port("line", rotators, "ell14", timeout_s=2.0)
        manager = bench.manager([device(0, stop=b"0st")], [port])
        await manager.start()
        table = await bench.table()
        moving = asyncio.ensure_future(move(manager, 0, 350.0))
        assert await until(lambda: table.state().moving.get(TABLE_AXIS, False), 5)
        await manager.stop("plate0")
        assert await until(lambda: not table.state().moving[TABLE_AXIS], 1)
        assert table.state().positions[TABLE_AXIS] < 340
        await asyncio.gather(moving, return_exceptions=True)


async def test_stopping_an_instrument_leaves_the_others_on_the_line_alone() -> None:
    axis = AxisDefinition("half", 2, "deg", (0.0, 360.0))
    ours = InstrumentDefinition("ours", "v4", "duodaq:Elliptec", port="line", axes=(axis,), args={"poll_s": 0.05})
    async with Bench(IN_PROCESS) as bench:
        rotators = await bench.simulator("ell14")
        port = bench.serial_port("line", rotators, "ell14", timeout_s=2.0)
        manager = bench.manager([device(0), ours], [port])
        await manager.start()
        table = await bench.table()
        await manager.command("ours", Execute("configure", ("half",), {"velocity": 25.0}))
        others = asyncio.ensure_future(move(manager, 0, 350.0))
        mine = asyncio.ensure_future(manager.command("ours", Execute("move", ("half", 350.0))))
        axes = (TABLE_AXIS, TABLE_AXIS + 2)
        assert await until(lambda: all(table.state().moving.get(number, False) for number in axes), 5, 0.002)
        await manager.stop("ours")
        with pytest.raises(StoppedError):
            await mine
        await others
        assert table.state().positions[TABLE_AXIS] == pytest.approx(350, abs=0.01)
        assert table.state().positions[TABLE_AXIS + 2] < 340


async def test_a_port_in_its_arguments_and_one_in_its_stanza_is_a_mistake() -> None:
    async with Bench(Mode("thread", "thread", "thread")) as bench:
        rotators = await bench.simulator("ell14")
        twice = replace(device(0), args={"device_id": 0, "serial_port": "/dev/ttyUSB0"}, required=True)
        manager = bench.manager([twice], [bench.serial_port("line", rotators, "ell14")])
        with pytest.raises(ConfigError, match="Leave one of them out"):
            await manager.start()
