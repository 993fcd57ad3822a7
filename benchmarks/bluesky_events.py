"""What an event of a Bluesky plan costs on instruments of a lab, beside ophyd's simulated devices in the same run.

The same RunEngine counts and scans with ophyd.sim's ``motor`` and ``det`` and with devices of a lab of both runtimes
(a class of one's own in V2, an actor in V4, both without hardware, as ophyd's are), in turns. Printed are the medians
of the turns: with both runtimes in this process, as ophyd's devices are; then with each in a thread, and in a process
of its own, as V2 is unless the lab file says otherwise.

The floor is a device that asks a bare event loop in another thread, or a bare one in another process (`_call_floor`),
for its number: nothing of a lab, but the same ways between the threads and processes.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import bluesky.plans as bp
from _call_floor import far_end, framed
from _harness import Goal, parser, report
from bluesky import RunEngine
from ophyd import sim

import duodaq
from duodaq.bluesky import devices
from duodaq.bluesky._status import FutureStatus
from duodaq.clock import new_loop

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


MODES = ("inline", "thread", "process")


class Bare:
    """A device of which a number is asked by `ask`, with nothing behind it that a lab has."""

    parent = None
    hints: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str, ask: Callable[[], Future[Any]]) -> None:
        self.name = name
        self._ask = ask
        self._value = 0.0

    def trigger(self) -> FutureStatus:
        asked = self._ask()
        asked.add_done_callback(lambda answered: setattr(self, "_value", float(answered.result())))
        return FutureStatus([asked])

    def read(self) -> dict[str, Any]:
        return {self.name: {"value": self._value, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        return {self.name: {"source": "bare", "dtype": "number", "shape": [], "units": ""}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    describe_configuration = read_configuration


@contextmanager
def bare_devices() -> Iterator[dict[str, Bare]]:
    """One whose number is in another thread, and one whose number is in another process."""
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    waiting: list[Future[Any]] = []

    def ask_thread() -> Future[Any]:
        asked: Future[Any] = Future()
        loop.call_soon_threadsafe(asked.set_result, 1.0)
        return asked

    with far_end("task") as (_, ours):
        ours.setblocking(False)

        def readable() -> None:
            ours.recv(65536)
            waiting.pop().set_result(1.0)

        def ask_process() -> Future[Any]:
            asked: Future[Any] = Future()
            waiting.append(asked)
            loop.call_soon_threadsafe(ours.send, framed(1))
            return asked

        loop.call_soon_threadsafe(loop.add_reader, ours, readable)
        try:
            yield {"thread": Bare("bare_thread", ask_thread), "process": Bare("bare_process", ask_process)}
        finally:
            loop.call_soon_threadsafe(loop.remove_reader, ours)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5.0)
            loop.close()


def per_event_ms(engine: RunEngine, plan: Any, events: int) -> float:
    """Milliseconds for each event of `plan`."""
    begun = time.perf_counter()
    engine(plan)
    return (time.perf_counter() - begun) * 1e3 / events


def measure(engine: RunEngine, mode: str, events: int, turns: int, bare: Bare | None) -> list[Goal]:
    """The figures with both runtimes in `mode`, and those of the floor."""
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
            if bare is not None:
                plans["count, bare"] = lambda: bp.count([bare], events)
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
            what = f"bp.{plan}, an event, {runtime}, {mode} / ophyd.sim"
            goals.append(Goal(what, ratio, "≤", 1.2) if mode == "inline" else Goal(what, ratio))
    if bare is not None:
        floor = medians["count, bare"] / medians["count, ophyd"]
        goals.append(Goal(f"bp.count, an event, a bare {mode} / ophyd.sim (floor)", floor))
    return goals


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    events, turns = (10, 1) if quick else (200, 7)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="bluesky")
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop, context_managers=[])
    try:
        with bare_devices() as bare:
            goals = [goal for mode in MODES for goal in measure(engine, mode, events, turns, bare.get(mode))]
        report(goals, quick=quick)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        engine._th.join(5.0)
        loop.close()


if __name__ == "__main__":
    sys.exit(main())
