"""What an event of a Bluesky plan costs on instruments of a lab, beside ophyd's simulated devices in the same run.

The same RunEngine counts and scans with ophyd.sim's ``motor`` and ``det`` and with devices of a lab of both runtimes
(a class of one's own in V2, an actor in V4, both without hardware, as ophyd's are), in turns. Printed are the medians
of the turns. V2 and V4 live in threads here; what a process costs is in `worker_calls`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import bluesky.plans as bp
from _harness import Goal, parser, report
from bluesky import RunEngine
from ophyd import sim

import duodaq
from duodaq.bluesky import devices

LAB = """
[lab]
name = "bluesky-events"

[runtimes.v2]
worker = "MODE"

[runtimes.v4]
worker = "MODE"

[instruments.old]
runtime = "v2"
driver = "./instruments.py:Old"
passive = true
poll.power = { call = "read_power", unit = "W", every = "1 h" }

[instruments.new]
runtime = "v4"
driver = "./instruments.py:New"
"""

INSTRUMENTS = """
from duodaq.model import PollDefinition
from duodaq.v4.instruments import InstrumentActor, Parameter


class Old:
    position = 0.0

    def read_power(self):
        return 1.5


async def read(actor):
    return actor.position


async def write(actor, value):
    actor.position = float(value)
    return actor.position


class New(InstrumentActor):
    parameters = {"position": Parameter(read, write, unit="mm")}
    channels = (PollDefinition("signal", every_s=3600.0, unit="V", read="position"),)

    async def connect(self):
        self.position = 0.0
"""


def per_event_ms(engine: RunEngine, plan: Any, events: int) -> float:
    """Milliseconds for each event of `plan`."""
    begun = time.perf_counter()
    engine(plan)
    return (time.perf_counter() - begun) * 1e3 / events


def measure(engine: RunEngine, mode: str, events: int, turns: int) -> list[Goal]:
    """The figures with both runtimes in `mode`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "instruments.py").write_text(INSTRUMENTS)
        file = Path(folder) / "lab.toml"
        file.write_text(LAB.replace("MODE", mode))
        with duodaq.open(file) as lab:
            d = devices(lab)
            plans = {
                "count, ophyd": lambda: bp.count([sim.det], events),
                "count, V2": lambda: bp.count([d.old], events),
                "count, V4": lambda: bp.count([d.new], events),
                "scan, ophyd": lambda: bp.scan([sim.det], sim.motor, 0, 1, events),
                "scan, V2": lambda: bp.scan([d.old], d.old.settable("position"), 0, 1, events),
                "scan, V4": lambda: bp.scan([d.new], d.new.settable("position"), 0, 1, events),
            }
            took: dict[str, list[float]] = {name: [] for name in plans}
            for turn in range(turns + 1):
                for name, plan in plans.items():
                    one = per_event_ms(engine, plan(), events)
                    if turn:  # the first turn warms up
                        took[name].append(one)
    medians = {name: statistics.median(all_turns) for name, all_turns in took.items()}
    goals: list[Goal] = []
    for plan in ("count", "scan"):
        peer = medians[f"{plan}, ophyd"]
        goals.append(Goal(f"bp.{plan}, an event, ophyd.sim (beside {mode})", peer, unit="ms"))
        for runtime in ("V2", "V4"):
            ratio = medians[f"{plan}, {runtime}"] / peer
            goals.append(Goal(f"bp.{plan}, an event, {runtime} in a {mode} / ophyd.sim", ratio, "≤", 1.2))
    return goals


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    events, turns = (10, 1) if quick else (200, 7)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="bluesky")
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop, context_managers=[])
    try:
        report(measure(engine, "thread", events, turns), quick=quick)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        engine._th.join(5.0)
        loop.close()


if __name__ == "__main__":
    sys.exit(main())
