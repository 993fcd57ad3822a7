"""Start and stop: three of the twelve."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

from duodaq.clock import block, monotonic_s, pause
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
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._proof import proves
from duodaq.testing.coexistence._witness import Census, Lives, answers_anybody
from duodaq.v4 import handler
from duodaq.v4.instruments import Esp300, InstrumentActor

POWER, POSITION = b"D?\n", b"1TP\r"
_CUT = (Outcome.FORCED, Outcome.LEAKED)


async def test_dual_runtime_startup_shutdown(bench: Bench) -> None:
    """Both runtimes have live tasks and open devices after the start and none after; V4 stops before V2, ports last."""
    meter_sim, stage_sim = await asyncio.gather(bench.simulator("newport1830c"), bench.simulator("esp300"))
    before, lives = Census(), Lives()
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
        lives.alive == ["thread of v2", "task of v4"],
        "each works in a place of its own",
        alive=lives.alive,
    )

    report = await manager.shutdown(5.0)

    order = [who for who, _ in lives.closed]
    proves("order", order == ["v4", "v2"], "V4 stopped, then V2", closed=lives.closed)
    proves("ports last", all(answers for _, answers in lives.closed), "the lines still answered", closed=lives.closed)
    await until(lambda: not (before.left() or lives.alive), 2.0)
    left = before.left() + lives.alive
    proves("nothing is left", not left, "no task, thread, descriptor or child", left=left)
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
    lives, free = Lives(), threading.Event()
    manager = bench.manager(
        [
            _meter(bench, lives),
            _stage(bench, lives),
            bench.own_class("stuck2", _refusing_class(free), port="meter"),
            bench.own_actor("stuck4", _refusing_actor(free), port="stage"),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    try:
        began_s = monotonic_s()
        report = await manager.shutdown(1.5)
        took_s = monotonic_s() - began_s
    finally:
        free.set()

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
    meeting = Meeting()
    manager = bench.manager(
        [
            bench.own_class("two", _meeting_class(meeting), port="meter"),
            bench.own_actor("four", _meeting_actor(meeting), port="stage"),
        ],
        [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")],
    )
    await manager.start()
    heard = meter_sim.report()["exchanges"], stage_sim.report()["exchanges"]
    callers = (
        outcome(manager.command("two", Execute("meet", ("salt",)), 5.0)),
        outcome(manager.command("four", Execute("meet", ("pepper",)), 5.0)),
    )
    results: list[Any] = list(await asyncio.gather(*callers))
    proves("overlap", meeting.met, "both were inside at once", results=results)
    grew = meter_sim.report()["exchanges"] - heard[0], stage_sim.report()["exchanges"] - heard[1]
    proves("real work", min(grew) > 0, "each asked its own device while inside", grew=grew, results=results)
    proves("own answers", results == ["v2 salt", "v4 pepper"], "each caller got its own answer", results=results)


class Meeting:
    """Two come in, or nobody has met: each waits inside for the other, for a second at most."""

    WAIT_S = 1.0

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._inside: set[str] = set()
        self.complete = threading.Event()

    @property
    def met(self) -> bool:
        """Whether both were inside at the same moment."""
        return self.complete.is_set()

    def enter(self, who: str) -> None:
        with self._guard:
            self._inside.add(who)
            if len(self._inside) == 2:
                self.complete.set()

    def leave(self, who: str) -> None:
        with self._guard:
            self._inside.discard(who)


def _meeting_class(meeting: Meeting) -> type:
    class Meets:
        def __init__(self, serial: Any) -> None:
            self.serial = serial

        def meet(self, token: str) -> str:
            meeting.enter("v2")
            block(Meeting.WAIT_S, meeting.complete)
            self.serial.write(POWER)
            self.serial.readline()
            meeting.leave("v2")
            return f"v2 {token}"

    return Meets


class Meet:
    """Wait in the actor until the other side is inside too."""

    def __init__(self, token: str) -> None:
        self.token = token


def _meeting_actor(meeting: Meeting) -> type[InstrumentActor]:
    class Meets(InstrumentActor):
        operations: ClassVar = {"meet": Meet}

        @handler(Meet)
        async def meet(self, message: Meet) -> str:
            meeting.enter("v4")
            await until(lambda: meeting.met, Meeting.WAIT_S)
            await self.port.exchange(POSITION, holder=self.context.holder)
            meeting.leave("v4")
            return f"v4 {message.token}"

    return Meets


def _meter(bench: Bench, lives: Lives) -> InstrumentDefinition:
    class ClosingMeter:
        """Reads the power over a pyserial-like object, and once more when it is closed."""

        def __init__(self, serial: Any) -> None:
            self.serial = serial
            lives.threads["v2"] = threading.current_thread()

        def power(self) -> float:
            self.serial.write(POWER)
            return float(self.serial.readline())

        def close(self) -> None:
            lives.note_closed("v2", _try(self.power))

    return bench.polled("meter", ClosingMeter, "power", "power", "W", 0.02, port="meter")


def _stage(bench: Bench, lives: Lives) -> InstrumentDefinition:
    class ClosingStage(Esp300):
        """Reads its position ten times a second or more, and once more when it is disconnected."""

        async def connect(self) -> None:
            await super().connect()
            lives.tasks["v4"] = self.run_beside(_for_ever(), "living")

        async def disconnect(self) -> None:
            answered = isinstance(await outcome(self.driver.read_position("x")), float)
            lives.note_closed("v4", answered)

    definition = bench.stage(options={"acquire": True}, args={"rate_hz": 50})
    return InstrumentDefinition(
        "stage",
        "v4",
        ClosingStage,
        port="stage",
        axes=definition.axes,
        args=definition.args,
        options=definition.options,
    )


def _refusing_class(free: threading.Event) -> type:
    class Refusing:
        """Does not come back from its close before it is set free."""

        def __init__(self, serial: Any) -> None:
            self.serial = serial

        def close(self) -> None:
            block(20.0, free)

    return Refusing


def _refusing_actor(free: threading.Event) -> type[InstrumentActor]:
    class Refusing(InstrumentActor):
        """Does not end before it is set free, cancelled or not."""

        async def disconnect(self) -> None:
            while not free.is_set():
                try:
                    await pause(0.02)
                except asyncio.CancelledError:
                    continue

    return Refusing


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _try(read: Any) -> bool:
    try:
        return isinstance(read(), float)
    except Exception:  # noqa: BLE001 - it did not answer: that is what is asked
        return False


def _ended(report: ShutdownReport, component: str) -> Outcome | None:
    found: list[ComponentReport] = [c for c in report.components if c.component == component]
    return found[0].outcome if found else None
