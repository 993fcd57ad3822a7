"""Both runtimes on one ESP300: PyMeasure's own driver in V2 and ours in V4, on one serial line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from duodaq.dual import DualRuntimeManager
from duodaq.errors import DeliveryError, PortError, StoppedError
from duodaq.model import Execute, GetParameter, SetParameter
from duodaq.testing.coexistence import MODES, Bench, Mode, outcome, until

pytestmark = pytest.mark.serial

READS = 300


@pytest.fixture(params=MODES, ids=str)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    mode: Mode = request.param
    async with Bench(mode) as made:
        yield made


async def shared(bench: Bench, **options: Any) -> tuple[DualRuntimeManager, Any]:
    """A running manager with both drivers on the line of one simulated controller, its motors on."""
    stage_sim = await bench.simulator("esp300", **options)
    port = bench.serial_port("stage", stage_sim, "esp300", timeout_s=5.0)
    manager = bench.manager([bench.esp(deadline_s=15.0), bench.stage(args={"poll_s": 0.01})], [port])
    await manager.start()
    await manager.command("esp", Execute("x.enable"))
    await manager.command("esp", Execute("y.enable"))
    return manager, stage_sim


async def test_hundreds_of_exchanges_of_both_are_never_crossed(bench: Bench) -> None:
    manager, stage_sim = await shared(bench)
    await manager.command("stage", Execute("move", ("x", 4.0)))
    await manager.command("esp", SetParameter("y.position", 9.0))
    await manager.command("esp", Execute("y.wait_for_stop"))
    before = stage_sim.report()["produced"]

    async def read(instrument: str, name: str) -> list[float]:
        return [await manager.command(instrument, GetParameter(name)) for _ in range(READS)]

    of_x, of_y = await asyncio.gather(read("stage", "x.position"), read("esp", "y.position"))
    assert of_x == pytest.approx([4.0] * READS, abs=0.01)
    assert of_y == pytest.approx([9.0] * READS, abs=0.01)
    report = stage_sim.report()
    assert report["interleavings"] == report["misframed"] == 0
    asked = [report["produced"][name] - before.get(name, 0) for name in ("1TP", "2TP")]
    assert asked == [READS, READS]


async def test_replies_in_pieces_after_a_random_time_are_never_crossed(bench: Bench) -> None:
    manager, stage_sim = await shared(bench)
    await manager.command("stage", Execute("move", ("x", 4.0)))
    stage_sim.fault("jitter")

    async def read(instrument: str, name: str) -> list[float]:
        return [await manager.command(instrument, GetParameter(name)) for _ in range(20)]

    of_x, of_y = await asyncio.gather(read("stage", "x.position"), read("esp", "y.position"))
    assert of_x == pytest.approx([4.0] * 20, abs=0.01)
    assert of_y == pytest.approx([0.0] * 20, abs=0.01)
    assert stage_sim.report()["interleavings"] == 0


async def test_either_reads_what_the_other_has_moved(bench: Bench) -> None:
    manager, _ = await shared(bench)
    await manager.command("stage", Execute("move", ("x", 2.5)))
    assert await manager.command("esp", GetParameter("x.position")) == pytest.approx(2.5, abs=0.01)
    await manager.command("esp", SetParameter("x.position", 1.5))
    await manager.command("esp", Execute("x.wait_for_stop"))
    assert await manager.command("stage", GetParameter("x.position")) == pytest.approx(1.5, abs=0.01)
    assert (await bench.table()).state().positions[1] == pytest.approx(1.5, abs=0.01)


async def test_a_stop_of_one_ends_what_the_other_moves(bench: Bench) -> None:
    manager, stage_sim = await shared(bench)
    table = await bench.table()
    move = asyncio.ensure_future(outcome(manager.command("stage", Execute("move", ("x", 20.0)))))
    assert await until(lambda: table.state().moving[1], 5.0)
    await manager.stop("esp")
    assert isinstance(await move, StoppedError | DeliveryError)
    assert await until(lambda: not table.state().moving[1], 1.0)
    assert stage_sim.report()["stops"][0]["moving"] == [1]
    assert table.state().positions[1] < 19.0


async def test_both_come_back_after_the_line_was_pulled_in_the_middle_of_a_move(bench: Bench) -> None:
    manager, stage_sim = await shared(bench)
    table = await bench.table()
    move = asyncio.ensure_future(outcome(manager.command("stage", Execute("move", ("x", 20.0)))))
    assert await until(lambda: table.state().moving[1], 5.0)
    stage_sim.unplug()
    assert isinstance(await move, PortError | DeliveryError)
    assert isinstance(await outcome(manager.command("esp", GetParameter("x.position"))), PortError)
    stage_sim.replug()
    ends: dict[str, Any] = {}
    for instrument in ("stage", "esp"):
        for _ in range(200):
            ends[instrument] = await outcome(manager.command(instrument, GetParameter("x.position"), 1.0))
            if isinstance(ends[instrument], float):
                break
            await until(lambda: False, 0.02)
    assert all(isinstance(position, float) for position in ends.values()), ends
    assert stage_sim.report()["interleavings"] == 0
