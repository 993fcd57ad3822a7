"""Start and stop: three of the twelve."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from duodaq.clock import monotonic_s, pause
from duodaq.model import (
    ComponentReport,
    Execute,
    GetParameter,
    InstrumentDefinition,
    ManagerState,
    Outcome,
    ReadChannel,
    ShutdownReport,
)
from duodaq.sim import SimProcess
from duodaq.testing.coexistence._bench import Bench, Mode, outcome, until
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.testing.coexistence._meeting import POSITION, POWER, Meeting, MeetingActor, MeetingDriver
from duodaq.testing.coexistence._proof import proves
from duodaq.testing.coexistence._witness import Census, Lives, answers_anybody
from duodaq.v4.instruments import Esp300, InstrumentActor

_CUT = (Outcome.FORCED, Outcome.LEAKED)


async def test_dual_runtime_startup_shutdown(bench: Bench) -> None:
    """Both runtimes have live tasks and open devices after the start and none after; V4 stops before V2, ports last."""
    meter_sim, stage_sim = await asyncio.gather(bench.simulator("newport1830c"), bench.simulator("esp300"))
    before, lives = Census(), Lives(bench.evidence("lives"))
    manager = bench.manager(
        [_meter(bench, lives), _stage(bench, lives)],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()

    proves("open devices", len(before.new_lines()) == 2, "both lines are open", lines=before.new_lines())
    heard = meter_sim.report()["exchanges"]
    power = await outcome(manager.command("meter", ReadChannel("power"), 3.0))
    grew = await until(lambda: meter_sim.report()["exchanges"] >= heard + 3, 3.0)
    proves("v2 is live", grew, "its instrument asks its device, when told to and by itself", got=power)
    heard = stage_sim.report()["exchanges"]
    position = await outcome(manager.command("stage", GetParameter("x.position"), 3.0))
    grew = await until(lambda: stage_sim.report()["exchanges"] >= heard + 3, 3.0)
    proves("v4 is live", grew, "its instrument asks its device, when told to and by itself", got=position)
    proves(
        "live tasks",
        lives.alive == ["task of v4", "thread of v2"] and lives.places() == _expected_places(bench.mode),
        "each works in a place of its own",
        alive=lives.alive,
        places=lives.places(),
    )

    report = await manager.shutdown(5.0)

    order = [who for who, _ in lives.closed]
    proves("order", order == ["v4", "v2"], "V4 stopped, then V2", closed=lives.closed)
    proves("ports last", all(answers for _, answers in lives.closed), "the lines still answered", closed=lives.closed)
    await until(lambda: not (before.left() or lives.alive or lives.processes), 2.0)
    left = [*before.left(), *lives.alive, *(f"process {pid}" for pid in lives.processes)]
    proves("nothing is left", not left, "no task, thread, descriptor, child or worker", left=left)
    asked = meter_sim.report()["exchanges"], stage_sim.report()["exchanges"]
    await pause(0.1)
    silent = asked == (meter_sim.report()["exchanges"], stage_sim.report()["exchanges"])
    proves("silence", silent, "nobody asks the devices any more", asked=asked)
    free = answers_anybody(meter_sim, POWER), answers_anybody(stage_sim, POSITION)
    proves("ports released", all(free), "a stranger may lock both lines and is answered", free=free)
    proves("stopped", manager.state is ManagerState.STOPPED and report.clean, "Stopped, and clean", report=report)


async def test_shutdown_timeout_enforcement(bench: Bench) -> None:
    """One instrument of each runtime refuses to stop: the budget holds, the report names both, all else is clean."""
    meter_sim, stage_sim = await asyncio.gather(bench.simulator("newport1830c"), bench.simulator("esp300"))
    lives, free = Lives(bench.evidence("lives")), bench.gate("free")
    manager = bench.manager(
        [
            _meter(bench, lives),
            _stage(bench, lives),
            bench.own_class("stuck2", RefusingDriver, port="meter", args={"free": free.path}),
            bench.own_actor("stuck4", RefusingActor, port="stage", args={"free": free.path}),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    try:
        began_s = monotonic_s()
        report = await manager.shutdown(1.5)
        took_s = monotonic_s() - began_s
    finally:
        free.open()

    bench.figures.note("shutdown against two that refuse", 1e3 * took_s, "ms", limit="1600 ms")
    proves("budget", took_s <= 1.6, "shutdown kept to its 1.5 s + 100 ms", took_s=took_s)
    proves("names v2", _ended(report, "v2.stuck2") in _CUT, "the report names V2's", report=report)
    proves("names v4", _ended(report, "v4.stuck4") in _CUT, "the report names V4's", report=report)
    others = sorted(who for who, answers in lives.closed if answers)
    proves("others are clean", others == ["v2", "v4"], "the others closed, their lines answering", closed=lives.closed)
    clean = [_ended(report, name) for name in ("v2.meter", "v4.stage")]
    proves("others are clean", clean == [Outcome.CLEAN] * 2, "the others are reported clean", report=report)
    released = answers_anybody(meter_sim, POWER), answers_anybody(stage_sim, POSITION)
    proves("ports are free", all(released), "a stranger may lock both lines and is answered", free=released)
    proves("stopped", manager.state is ManagerState.STOPPED, "it ended in Stopped", state=manager.state)


async def test_v2_and_v4_actors_concurrent(bench: Bench) -> None:
    """A barrier that a V2 driver and a V4 actor must both reach while the other is still inside its own method."""
    meter_sim, stage_sim = await asyncio.gather(bench.simulator("newport1830c"), bench.simulator("esp300"))
    meeting = Meeting(bench.room("meeting"))
    args = {"meeting": bench.room("meeting")}
    manager = bench.manager(
        [
            bench.own_class("two", MeetingDriver, port="meter", args=args),
            bench.own_actor("four", MeetingActor, port="stage", args=args),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    heard = _asked(meter_sim, POWER), _asked(stage_sim, POSITION)
    callers = (
        outcome(manager.command("two", Execute("meet", ("salt",)), 5.0)),
        outcome(manager.command("four", Execute("meet", ("pepper",)), 5.0)),
    )
    results: list[Any] = list(await asyncio.gather(*callers))
    proves("overlap", meeting.met, "both were inside at once", results=results)
    _check_overlap(meeting)
    grew = _asked(meter_sim, POWER) - heard[0], _asked(stage_sim, POSITION) - heard[1]
    proves("real work", min(grew) > 0, "each asked its own device while inside", grew=grew, results=results)
    proves("own answers", results == ["v2 salt", "v4 pepper"], "each caller got its own answer", results=results)


def _asked(device: SimProcess, question: bytes) -> int:
    """How often a device was asked this; who they are they are asked as well, in the background."""
    return int(device.report()["produced"].get(question.decode().rstrip("?\r\n"), 0))


def _check_overlap(meeting: Meeting) -> None:
    """By their own notes: each came in before the other went out, in a thread of control of its own."""
    inside = {note["who"]: note for note in meeting.evidence.read("inside")}
    outside = {note["who"]: note for note in meeting.evidence.read("outside")}
    complete = set(inside) == set(outside) == {"v2", "v4"}
    proves("overlap", complete, "both came in and went out again", inside=inside, outside=outside)
    overlap_ns = min(note.t_ns for note in outside.values()) - max(note.t_ns for note in inside.values())
    threads = {(note.pid, note.thread) for note in inside.values()}
    proves("overlap", overlap_ns > 0 and len(threads) == 2, "two at once", overlap_ns=overlap_ns, threads=threads)


def _expected_places(mode: Mode) -> dict[str, str]:
    """Where the instruments live in this mode; a blocking driver never does on the thread of a loop."""
    return {"v2": "process" if mode.v2 == "process" else "thread", "v4": mode.v4}


class ClosingMeter:
    """Reads the power over a pyserial-like object, and once more when it is closed."""

    def __init__(self, serial: Any, evidence: str) -> None:
        self.serial = serial
        self.lives = Lives(Evidence(evidence))
        self.lives.note_thread("v2")

    def power(self) -> float:
        """The power in W."""
        self.serial.write(POWER)
        return float(self.serial.readline())

    def close(self) -> None:
        """Read once more, and note whether the line answered."""
        self.lives.note_closed("v2", _try(self.power))


class ClosingStage(Esp300):
    """Reads its position ten times a second or more, and once more when it is disconnected."""

    async def connect(self) -> None:
        """As every stage; and live in a task."""
        await super().connect()
        self.lives = Lives(Evidence(self.definition.options["evidence"]))
        self.run_beside(self._live(), "living")

    async def disconnect(self) -> None:
        """Read once more, and note whether the line answered."""
        answered = isinstance(await outcome(self.driver.read_position("x")), float)
        self.lives.note_closed("v4", answered)

    async def _live(self) -> None:
        with self.lives.noting_task("v4"):
            await asyncio.get_running_loop().create_future()


def _meter(bench: Bench, lives: Lives) -> InstrumentDefinition:
    args = {"evidence": lives.evidence.path}
    return bench.polled("meter", ClosingMeter, "power", "power", "W", 0.02, port="meter", args=args)


def _stage(bench: Bench, lives: Lives) -> InstrumentDefinition:
    options = {"acquire": True, "evidence": lives.evidence.path}
    return replace(bench.stage(options=options, args={"rate_hz": 50}), driver=ClosingStage)


class RefusingDriver:
    """Does not come back from its close before it is set free."""

    def __init__(self, serial: Any, free: str) -> None:
        self.serial = serial
        self.free = Gate(free)

    def close(self) -> None:
        """Come back in twenty seconds, or once it is free."""
        self.free.wait(20.0)


class RefusingActor(InstrumentActor):
    """Does not end before it is set free, cancelled or not."""

    async def disconnect(self) -> None:
        """Come back once it is free."""
        free = Gate(self.definition.args["free"])
        while not free.is_open:
            try:
                await free.reached()
            except asyncio.CancelledError:
                continue


def _try(read: Any) -> bool:
    try:
        return isinstance(read(), float)
    except Exception:  # noqa: BLE001 - it did not answer: that is what is asked
        return False


def _ended(report: ShutdownReport, component: str) -> Outcome | None:
    found: list[ComponentReport] = [c for c in report.components if c.component == component]
    return found[0].outcome if found else None
