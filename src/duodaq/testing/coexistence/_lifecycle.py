"""Start and stop: three of the twelve."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from duodaq.clock import block, monotonic_s, pause
from duodaq.model import ComponentReport, Execute, GetParameter, ManagerState, Outcome, ReadChannel, ShutdownReport
from duodaq.ports import Lane
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._proof import proves
from duodaq.v4 import StopReason
from duodaq.v4.instruments import Esp300


class Order:
    """What ended when, and what its line answered at that moment."""

    def __init__(self) -> None:
        self.events: list[tuple[str, bool]] = []

    def note(self, who: str, line_answers: bool) -> None:
        self.events.append((who, line_answers))

    @property
    def names(self) -> list[str]:
        return [who for who, _ in self.events]


class Census:
    """The tasks, threads and open descriptors of this process."""

    def __init__(self) -> None:
        self.tasks = {id(task) for task in asyncio.all_tasks()}
        self.threads = {t.ident for t in threading.enumerate()}
        self.terminals = _terminals()

    def left_since(self, before: Census) -> dict[str, Any]:
        """What is there now that was not there `before`; empty if nothing is."""
        left = {
            "tasks": sorted(t.get_name() for t in asyncio.all_tasks() if id(t) not in before.tasks),
            "threads": sorted(t.name for t in threading.enumerate() if t.ident not in before.threads),
            "lines": sorted(set(_terminals()) - set(before.terminals)),
        }
        return {kind: found for kind, found in left.items() if found}


async def test_dual_runtime_startup_shutdown(bench: Bench) -> None:
    """Both runtimes have live tasks and open devices after the start and none after; V4 stops before V2, ports last."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    order = Order()
    before = Census()
    manager = bench.manager(
        [_closing_meter(bench, order), _closing_stage(bench, order)],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()

    proves("open devices", len(set(_terminals()) - set(before.terminals)) == 2, "both lines are open", seen=_terminals())
    heard = meter_sim.report()["exchanges"], stage_sim.report()["exchanges"]
    power = await outcome(manager.command("meter", ReadChannel("power")))
    proves("v2 is live", meter_sim.report()["exchanges"] > heard[0], "V2's instrument asked its device", got=power)
    position = await outcome(manager.command("stage", GetParameter("x.position")))
    proves("v4 is live", stage_sim.report()["exchanges"] > heard[1], "V4's instrument asked its device", got=position)
    alive = Census().left_since(before)
    proves("live tasks", bool(alive.get("threads") and alive.get("tasks")), "both have tasks or threads", seen=alive)

    report = await manager.shutdown(5.0)

    proves("order", order.names == ["v4", "v2"], "V4 stopped, then V2", seen=order.events)
    proves("ports last", all(answers for _, answers in order.events), "the lines still answered", seen=order.events)
    ended = [c.component for c in report.components if c.component.startswith("port.")]
    proves("ports released", len(ended) == 2, "both ports are in the report", seen=report.components)
    await until(lambda: not Census().left_since(before), 1.0)
    proves("nothing is left", not Census().left_since(before), "no task, thread or line", left=Census().left_since(before))
    proves("stopped", manager.state is ManagerState.STOPPED and report.clean, "Stopped, and clean", report=report)


async def test_shutdown_timeout_enforcement(bench: Bench) -> None:
    """One instrument of each runtime refuses to stop: the budget holds, the report names both, all else is clean."""
    meter_sim, stage_sim = await bench.simulator("newport1830c"), await bench.simulator("esp300")
    order, free = Order(), threading.Event()
    manager = bench.manager(
        [
            _closing_meter(bench, order),
            _closing_stage(bench, order),
            bench.polled("stuck2", _refusing_class(free), "n", "read", "", 10.0, autostart=True),
            bench.own_actor("stuck4", _refusing_actor(free)),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    held = [asyncio.ensure_future(outcome(manager.command("stuck2", Execute("hang"), None)))]
    await until(lambda: stuck_begun(free), 2.0)

    began = monotonic_s()
    report = await manager.shutdown(1.5)
    took_s = monotonic_s() - began
    free.set()
    await asyncio.wait(held, timeout=2.0)

    proves("budget", took_s <= 1.6, "shutdown kept to its 1.5 s + 100 ms", took_s=took_s)
    proves("names v2", _ended(report, "v2.stuck2") in (Outcome.FORCED, Outcome.LEAKED), "it names V2's", report=report)
    proves("names v4", _ended(report, "v4.stuck4") in (Outcome.FORCED, Outcome.LEAKED), "it names V4's", report=report)
    proves("others are clean", {"v4", "v2"} <= set(order.names), "the others were closed in order", seen=order.events)
    proves("others are clean", _ended(report, "v2.meter") is Outcome.CLEAN, "V2's other one ended clean", report=report)
    proves("others are clean", _ended(report, "v4.stage") is Outcome.CLEAN, "V4's other one ended clean", report=report)
    free_now = [path for path in (meter_sim.address, stage_sim.address) if _is_free(path)]
    proves("ports are free", len(free_now) == 2, "anybody may open both lines", free=free_now)
    proves("stopped", manager.state is ManagerState.STOPPED, "it ended in Stopped", state=manager.state)


async def test_v2_and_v4_actors_concurrent(bench: Bench) -> None:
    """A barrier that a V2 driver and a V4 actor must both reach while the other is still inside its own handler."""
    meter_sim = await bench.simulator("newport1830c")
    stage_sim = await bench.simulator("esp300")
    meeting = Meeting()
    manager = bench.manager(
        [
            bench.polled("v2side", _meeting_class(meeting), "power", "read", "W", 60.0, port="meter", autostart=False),
            bench.own_actor("v4side", _meeting_actor(meeting), port="stage"),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    heard = meter_sim.report()["exchanges"], stage_sim.report()["exchanges"]
    results = await asyncio.gather(
        outcome(manager.command("v2side", Execute("meet"), 5.0)),
        outcome(manager.command("v4side", Execute("meet"), 5.0)),
    )
    proves("overlap", meeting.met, "both were inside at once", results=results)
    grew = meter_sim.report()["exchanges"] - heard[0], stage_sim.report()["exchanges"] - heard[1]
    proves("real work", min(grew) > 0, "each asked its own device meanwhile", grew=grew, results=results)
    proves("both answered", results == ["v2 met", "v4 met"], "each caller got its own answer", results=results)


class Meeting:
    """Two come in, or nobody has met: each waits inside for the other."""

    def __init__(self) -> None:
        self._inside = {"v2": threading.Event(), "v4": threading.Event()}
        self.met = False

    def enter(self, who: str) -> None:
        self._inside[who].set()
        self.met = all(event.is_set() for event in self._inside.values())

    def other_is_inside(self, who: str) -> threading.Event:
        return self._inside["v4" if who == "v2" else "v2"]

    def leave(self, who: str) -> None:
        self._inside[who].clear()


def _meeting_class(meeting: Meeting) -> type:
    class Meets:
        def __init__(self, serial: Any) -> None:
            self.serial = serial

        def read(self) -> float:
            self.serial.write(b"D?\n")
            return float(self.serial.readline())

        def meet(self) -> str:
            meeting.enter("v2")
            seen = block(3.0, meeting.other_is_inside("v2"))
            self.read()
            meeting.leave("v2")
            return "v2 met" if seen else "v2 alone"

    return Meets
