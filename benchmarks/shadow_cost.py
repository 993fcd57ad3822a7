"""What a shadow costs the live instrument: its readings with and without a V4 driver beside it, by turns in one run.

The instrument is the power meter of the demo, in V2's own process, on its simulator over a pty: once at the line's
real pace (9600 baud), as a lab has it, and once without any pauses, which no such instrument is. It is polled five
times a second meanwhile and read one time after another, as fast as it answers; so is its V4 driver, in the shadow.
Compared are the blocks of a turn, of which every other begins with the shadow; printed is the median of the turns.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import NamedTuple

from _harness import Goal, parser, report

from duodaq import clock, sim
from duodaq.app._live_shadow import LiveShadow
from duodaq.dual import DualRuntimeManager
from duodaq.migration import Beside, equivalents_between
from duodaq.model import (
    Execute,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
)

POLL = PollDefinition("power", 0.2, "W", call="read_power")
V2 = InstrumentDefinition("meter", "v2", "duodaq.cli.demo.power_meter:PowerMeter", port="meter", polls=(POLL,))
V4 = InstrumentDefinition("meter", "v4", "duodaq:Newport1830C", port="meter", args={"rate_hz": 5})
SAME = equivalents_between(V2, "newport1830c", V4)


class Block(NamedTuple):
    """One block of readings: the median of each alone, and how many there were in a second."""

    median_s: float
    rate: float


async def block(manager: DualRuntimeManager, count: int) -> Block:
    times: list[float] = []
    for _ in range(count):
        begun_s = time.perf_counter()
        await manager.command("meter", Execute("read_power"))
        times.append(time.perf_counter() - begun_s)
    return Block(statistics.median(times), count / sum(times))


async def beside(manager: DualRuntimeManager, port: PortDefinition, count: int) -> Block:
    """A block with a shadow that has found its pace."""
    live = LiveShadow(manager, Beside(V2, V4, port, SAME))
    await live.start()
    try:
        async with asyncio.timeout(20):
            while live.report().values["compared"] < 3:
                await manager.command("meter", Execute("read_power"))
                await clock.pause(0.02)
        return await block(manager, count)
    finally:
        found = await live.end()
        assert found.within, found.to_markdown()


async def measure(*, paced: bool, turns: int, count: int) -> tuple[list[Block], list[Block]]:
    """Blocks without and with a shadow, a pair in each turn."""
    with sim.launch("newport1830c", paced=paced) as meter:
        port = PortDefinition("meter", serial={"path": meter.address, "baud": 9600}, codec="newport1830c")
        sides = RuntimeDefinition("v2", "process"), RuntimeDefinition("v4", "inline")
        manager = DualRuntimeManager(LabDefinition("shadow cost", (port,), (V2,), *sides))
        await manager.start()
        try:
            await block(manager, count)  # nothing is new any more
            alone: list[Block] = []
            shadowed: list[Block] = []
            for turn in range(turns):
                if turn % 2:
                    shadowed.append(await beside(manager, port, count))
                alone.append(await block(manager, count))
                if not turn % 2:
                    shadowed.append(await beside(manager, port, count))
        finally:
            await manager.shutdown()
    return alone, shadowed


def goals(name: str, alone: list[Block], shadowed: list[Block], limit: float | None) -> list[Goal]:
    pairs = [*zip(alone, shadowed, strict=True)]
    slower = statistics.median(with_it.median_s / without.median_s for without, with_it in pairs)
    fewer = statistics.median(without.rate / with_it.rate for without, with_it in pairs)
    usual = statistics.median(one.median_s for one in alone)
    print(f"{name}: {1e3 * usual:.3f} ms a reading, {statistics.median(one.rate for one in alone):,.0f} a second alone")
    relation = "" if limit is None else "≤"
    return [
        Goal(f"{name}: a reading with a shadow, to one without", slower, relation, limit),
        Goal(f"{name}: readings a second without, to those with a shadow", fewer, relation, limit),
    ]


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    found: list[Goal] = []
    for name, paced, turns, count, limit in (
        ("at the line's pace", True, 12, 30, 1.05),
        ("without any pauses", False, 12, 1000, None),
    ):
        turns, count = (1, 10) if quick else (turns, count)
        with asyncio.Runner(loop_factory=clock.new_loop) as runner:  # as `duodaq run` does
            found += goals(name, *runner.run(measure(paced=paced, turns=turns, count=count)), limit)
    report(found, quick=quick)


if __name__ == "__main__":
    main()
