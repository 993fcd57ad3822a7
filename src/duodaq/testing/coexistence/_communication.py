"""Both directions at once, from the device under one runtime to an end point in the other."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pyarrow as pa

from duodaq.bridge import Bridge
from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dataplane import Ledger, Policy, Subscription
from duodaq.dual import DualRuntimeManager
from duodaq.model import ReadChannel
from duodaq.sim import SimProcess
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._endpoints import Chart, Heard, meter
from duodaq.testing.coexistence._proof import proves
from duodaq.testing.coexistence._relay import carried_to_v2, carried_to_v4, listener

READINGS = 400
_ROOM = 4
_SLOW = 8


async def test_bidirectional_communication_channel(bench: Bench) -> None:
    """Real end points, both directions at once; a lossless reader slows the device; what is dropped is counted."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    (await bench.table()).set_shutter(True)
    v2_heard, v4_heard = (Heard(bench.evidence(name), bench.gate(name)) for name in ("chart", "listener"))
    manager = bench.manager(
        [
            meter(bench.evidence("meter")),
            bench.stage(),
            bench.own_class("chart", Chart, args=v2_heard.args),
            listener(bench, v4_heard, "meter.power", capacity=_ROOM, policy=Policy.BLOCK),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    lossless: dict[str, Any] = {"capacity": 2 * _ROOM, "policy": Policy.BLOCK, "rows": _ROOM}
    manager.bridge = Bridge(manager.v2_data, manager.v4_data, **lossless)
    async with (
        carried_to_v2(bench, manager, v2_heard, capacity=_ROOM, policy=Policy.BLOCK),
        carried_to_v4(bench, manager, v4_heard, "meter.power", capacity=_ROOM, policy=Policy.BLOCK),
    ):
        await manager.start()
        devices = Devices(meter_sim, stage_sim)
        slow_v2 = manager.v2_data.subscribe("slow", capacity=_SLOW, accepts=lambda m: m.instrument == "meter")
        slow_v4 = manager.v4_data.subscribe("slow", capacity=_SLOW, streams=["stage.x"])
        told = await _pump_both(manager, devices, v2_heard, v4_heard)

    counts = devices.counts()
    positions = v2_heard.of("stage.x.position")
    _check_simultaneous(v2_heard, v4_heard)
    _check_arrival("V4", v4_heard.items, told[0], counts[0])
    _check_arrival("V2", positions, told[1], counts[1])
    _check_drops("meter.power", slow_v2, manager.v2_data.ledger(), [m.sequence for m in v4_heard.items], counts[0])
    _check_drops("stage.x", slow_v4, manager.v4_data.ledger(), [m.sequence for m in positions], counts[1])
    proves("no loss", v2_heard.missed == v4_heard.missed == 0, "the end points were told of no loss")


class Devices:
    """How many readings the devices have produced since this was made, by their own count."""

    def __init__(self, meter_sim: SimProcess, stage_sim: SimProcess) -> None:
        self._sims = ((meter_sim, "D"), (stage_sim, "1TP"))
        self._before = self._now()

    def counts(self) -> tuple[int, int]:
        """Powers and positions."""
        now = self._now()
        return now[0] - self._before[0], now[1] - self._before[1]

    def _now(self) -> tuple[int, int]:
        powers, positions = (int(sim.report()["produced"].get(word, 0)) for sim, word in self._sims)
        return powers, positions


async def _pump_both(
    manager: DualRuntimeManager, devices: Devices, v2_heard: Heard, v4_heard: Heard
) -> list[list[Any]]:
    """Readings on both sides at once, until all have arrived; what the callers of each side were given."""
    pumping = [
        asyncio.ensure_future(_pump(manager, *source)) for source in (("meter", "power"), ("stage", "x.position"))
    ]
    await _check_back_pressure(devices, v2_heard, v4_heard)
    await asyncio.wait(pumping, timeout=20.0)
    await until(lambda: len(v4_heard) >= READINGS and len(v2_heard) >= 2 * READINGS, 2.0)
    return [task.result() if task.done() else [] for task in pumping]


async def _pump(manager: DualRuntimeManager, instrument: str, channel: str) -> list[Any]:
    """One reading after the other; what each caller was given."""
    return [await outcome(manager.command(instrument, ReadChannel(channel), 20.0)) for _ in range(READINGS)]


async def _check_back_pressure(devices: Devices, v2_heard: Heard, v4_heard: Heard) -> None:
    """As long as the end points take nothing the devices are soon asked nothing; then both are let go."""
    limit, counts, since_s = Deadline(10.0), devices.counts(), monotonic_s()
    while not limit.passed and monotonic_s() - since_s < 0.25:
        await pause(0.02)
        now = devices.counts()
        if now != counts:
            counts, since_s = now, monotonic_s()
    resting = monotonic_s() - since_s >= 0.25
    v2_heard.opened.open()
    v4_heard.opened.open()
    held = all(0 < count < READINGS // 2 for count in counts)
    proves("back-pressure", resting and held, "full end points slow the devices", asked=counts, of=READINGS)


def _check_simultaneous(v2_heard: Heard, v4_heard: Heard) -> None:
    """Arrivals on either side alternate many times."""
    arrivals = sorted([(t, "v2") for t in v2_heard.arrived_ns] + [(t, "v4") for t in v4_heard.arrived_ns])
    changes = sum(one[1] != other[1] for one, other in pairwise(arrivals))
    proves("both at once", changes >= 20, "both directions carry at the same time", changes=changes, of=len(arrivals))


def _check_arrival(side: str, arrived: list[Any], told: list[Any], produced: int) -> None:
    proves("no loss", len(arrived) == produced == READINGS, f"{side} has all", got=len(arrived), produced=produced)
    fields = ("channel", "unit", "t_ns", "sequence", "value")
    facts = [[tuple(getattr(m, field, None) for field in fields) for m in rows] for rows in (arrived, told)]
    proves(
        "unchanged", facts[0] == facts[1], f"{side} has what was read, in order", got=facts[0][:2], read=facts[1][:2]
    )


def _check_drops(stream: str, slow: Subscription[Any], ledger: Ledger, sequences: list[int], produced: int) -> None:
    """A reader that never reads has the newest, is told exactly how many it missed, and the books say the same."""
    missed, losses = slow.take_missed(), ledger.row(stream, "slow").lost
    kept = [_sequence(slow.get_nowait()) for _ in range(slow.occupancy)]
    slow.close()
    exact = missed == losses == produced - _SLOW
    proves("exact drops", exact, "produced = dropped + kept", told=missed, books=losses, kept=len(kept), of=produced)
    proves("exact drops", kept == sequences[-_SLOW:], "the newest are kept", kept=kept)


def _sequence(item: Any) -> int:
    return item.column("sequence")[0].as_py() if isinstance(item, pa.RecordBatch) else item.sequence
