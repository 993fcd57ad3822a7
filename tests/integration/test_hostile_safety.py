"""Hostile programs against the promises of stopping and of life cycles, in every mode.

Drivers and actors live where the mode puts them; what they did is known by what they noted (`incarnations`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from duodaq.clock import block, monotonic_s, pause
from duodaq.errors import DuodaqError, LifecycleError, StoppedError, UnsafeStateError
from duodaq.model import (
    Cause,
    Execute,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    ManagerState,
    ReadChannel,
    SafeAction,
    SetParameter,
    Stop,
)
from duodaq.testing.coexistence import MODES, Bench, Mode, outcome, until
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

CLOSING_S = 0.03


@pytest.fixture(params=MODES, ids=str)
async def lab(request: pytest.FixtureRequest) -> Any:
    mode: Mode = request.param
    async with Bench(mode) as made:
        yield made
        let_go(made)


def own_class(lab: Bench, instrument: str, driver: type[Any], **options: Any) -> InstrumentDefinition:
    """A driver of this file in V2, which notes what it does."""
    return lab.own_class(instrument, driver, args=notes_of(lab), **options)


def own_actor(lab: Bench, instrument: str, actor: type[InstrumentActor], **options: Any) -> InstrumentDefinition:
    """An actor of this file in V4, which notes what it does."""
    return lab.own_actor(instrument, actor, args=notes_of(lab), **options)


def notes_of(lab: Bench) -> dict[str, str]:
    return {"evidence": lab.evidence("made").path, "gate": lab.gate("let go").path}


def let_go(lab: Bench) -> None:
    """Let every driver and actor go on that waits for it, wherever it lives."""
    lab.gate("let go").open()


@dataclass
class Incarnation:
    """One driver or actor that was made, as far as it noted what became of it."""

    of: str
    is_open: bool = True
    connected: bool = True
    moved: int = 0
    position: float = 0.0


def incarnations(lab: Bench) -> list[Incarnation]:
    """Every driver and actor incarnation that the test made, in the order of making."""
    made: dict[Any, Incarnation] = {}
    for note in lab.evidence("made").read():
        who = (note.pid, note["serial"])
        match note.kind:
            case "made":
                made[who] = Incarnation(note["of"])
            case "moved":
                made[who].moved += 1
            case "shut":
                made[who].is_open = False
            case "position":
                made[who].position = note["value"]
            case "closed":
                made[who].connected = False
            case _:
                raise AssertionError(note)
    return list(made.values())


def connected(lab: Bench) -> int:
    """How many of them have not closed what they own."""
    return sum(one.connected for one in incarnations(lab))


class Diary:
    """What one incarnation notes."""

    _serial = itertools.count()

    def __init__(self, owner: object, evidence: str) -> None:
        self._evidence, self._number = Evidence(evidence), next(Diary._serial)
        self.note("made", of=type(owner).__name__)

    def note(self, what: str, **facts: Any) -> None:
        self._evidence.note(what, serial=self._number, **facts)


class Shutter:
    """A home-made driver that owns its device privately."""

    def __init__(self, evidence: str, gate: str) -> None:
        self.diary, self.gate, self._position = Diary(self, evidence), Gate(gate), 0.0

    @property
    def position(self) -> float:
        return self._position

    @position.setter
    def position(self, value: float) -> None:
        self._position = value
        self.diary.note("position", value=value)

    def move(self) -> None:
        self.diary.note("moved")

    def shut(self) -> None:
        self.diary.note("shut")

    def hang(self) -> None:
        self.gate.wait(20.0)

    def close(self) -> None:
        block(CLOSING_S)
        self.diary.note("closed")


class Go:
    """Moves."""


class Shut:
    """Makes safe, and moves for it."""


class Mover(InstrumentActor):
    """An actor that owns its device privately."""

    operations: ClassVar = {"go": Go, "shut": Shut}

    async def connect(self) -> None:
        self.diary = Diary(self, self.definition.args["evidence"])

    async def disconnect(self) -> None:
        await pause(CLOSING_S)
        self.diary.note("closed")

    @handler(Go, moves=True)
    async def go(self, message: Go) -> None:
        self.diary.note("moved")

    @handler(Shut, moves=True)
    async def shut(self, message: Shut) -> None:
        self.diary.note("shut")


class Awkward(InstrumentActor):
    """An actor whose handlers raise what nobody expects."""

    operations: ClassVar = {"go": Go}

    @handler(Go, moves=True)
    async def go(self, message: Go) -> None:
        raise ValueError("awkward")


class Sender(InstrumentActor):
    """An actor that sends another one a move, and notes what it got and how often that one was restarted."""

    async def connect(self) -> None:
        mover = self.system.registry.lookup("mover")
        await mover.tell(Go())
        refused = await outcome(mover.ask(Go()))
        kept = Evidence(self.definition.args["kept"])
        kept.note("got", error=type(refused).__name__, restarts=mover.metrics.restarts)


SHUT = SafeAction("call", call="shut")

# ── stop-all ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_stop_all_latches_and_tells_drivers_in_a_lab_without_any_port(lab: Bench) -> None:
    safe = {Cause.STOP_ALL: SHUT}
    manager = lab.manager([own_class(lab, "shutter", Shutter, safe=safe), own_actor(lab, "mover", Mover, safe=safe)])
    await manager.start()
    report = await manager.stop_all()
    assert manager.health().latched
    assert not report.failures
    assert [device.is_open for device in incarnations(lab)] == [False, False]
    for instrument, work in (("shutter", "move"), ("mover", "go")):
        with pytest.raises(UnsafeStateError):
            await manager.command(instrument, Execute(work))


async def test_stop_all_before_the_start_latches_and_says_what_it_could_not_reach(lab: Bench) -> None:
    stage_sim = await lab.simulator("esp300")
    manager = lab.manager([lab.stage()], [lab.serial_port("stage", stage_sim, "esp300")])
    report = await manager.stop_all()
    assert manager.health().latched
    assert "stage" in report.failures
    assert report.no_fail_safe == ("stage",)
    await manager.start()
    with pytest.raises(UnsafeStateError):
        await manager.command("stage", Execute("move", ("x", 1.0)))
    assert stage_sim.report()["moves"] == []


async def test_an_instrument_without_its_port_does_not_keep_stop_all_from_the_others(lab: Bench) -> None:
    stage_sim = await lab.simulator("esp300")
    lost = own_class(lab, "lost", Shutter, port="nowhere")
    manager = lab.manager([lost, lab.stage()], [lab.serial_port("stage", stage_sim, "esp300")])
    await manager.start()
    report = await manager.stop_all()
    assert manager.health().latched
    assert set(report.on_wire_ns) == {"stage"}
    assert set(report.failures) == {"lost"}
    assert await until(lambda: stage_sim.report()["stops"], 1.0)


async def test_a_driver_that_raises_anything_is_named_by_stop_all_and_keeps_nobody_from_it(lab: Bench) -> None:
    safe = {Cause.STOP_ALL: SafeAction("call", call="go")}
    awkward, shutter = (
        lab.own_actor("awkward", Awkward, safe=safe),
        own_class(lab, "shutter", Shutter, safe={Cause.STOP_ALL: SHUT}),
    )
    manager = lab.manager([awkward, shutter])
    await manager.start()
    report = await manager.stop_all()
    assert "awkward" in report.failures["awkward"]
    assert not incarnations(lab)[0].is_open


async def test_a_move_sent_straight_to_an_actor_is_refused_while_a_stop_all_is_latched(lab: Bench) -> None:
    manager = lab.manager([own_actor(lab, "mover", Mover)])
    await manager.start()
    await manager.stop_all()
    kept = lab.evidence("kept")
    await manager.add(lab.own_actor("sender", Sender, args={"kept": kept.path}))
    (got,) = kept.read("got")
    assert (got["error"], got["restarts"]) == (UnsafeStateError.__name__, 0)
    assert incarnations(lab)[0].moved == 0
    manager.reset_stop("a person")
    await manager.command("mover", Execute("go"))
    assert incarnations(lab)[0].moved == 1


async def test_what_restarts_while_a_stop_all_is_latched_sets_nothing_that_may_move(lab: Bench) -> None:
    manager = lab.manager([own_class(lab, "shutter", Shutter, settings={"position": 5.0})])
    await manager.start()
    assert incarnations(lab)[-1].position == 5.0
    await manager.stop_all()
    await manager.restart_instrument("shutter")
    await manager.restart_runtime("v2")
    assert [device.position for device in incarnations(lab)] == [5.0, 0.0, 0.0]
    assert manager.health().latched
    manager.reset_stop("a person")
    await manager.restart_instrument("shutter")
    assert incarnations(lab)[-1].position == 5.0


async def test_a_stop_ends_the_motions_that_wait_in_a_stages_mailbox(lab: Bench) -> None:
    stage_sim = await lab.simulator("esp300")
    manager = lab.manager([lab.stage()], [lab.serial_port("stage", stage_sim, "esp300")])
    await manager.start()
    moves = [
        asyncio.ensure_future(outcome(manager.command("stage", SetParameter("x.position", target), 20.0)))
        for target in (20.0, -5.0, 10.0)
    ]
    assert await until(lambda: stage_sim.report()["moves"], 5.0)
    await manager.command("stage", Stop())
    ends = await asyncio.gather(*moves)
    assert all(isinstance(end, StoppedError) for end in ends), ends
    assert [end.fate for end in ends[1:]] == ["not done", "not done"]
    assert len(stage_sim.report()["moves"]) == 1


# ── life cycles that cross ──────────────────────────────────────────────────────────────────────────────────────────


def crossing(first: Callable[[], Awaitable[Any]], second: Callable[[], Awaitable[Any]], after_s: float) -> Any:
    async def run() -> tuple[Any, Any]:
        begun = asyncio.ensure_future(outcome(first()))
        await pause(after_s)
        return await outcome(second()), await begun

    return run()


@pytest.mark.parametrize("after_s", [0.0, 0.5 * CLOSING_S, CLOSING_S, 1.2 * CLOSING_S])
async def test_a_shutdown_during_a_restart_leaves_no_driver_connected(lab: Bench, after_s: float) -> None:
    manager = lab.manager([own_class(lab, "shutter", Shutter), own_actor(lab, "mover", Mover)])
    await manager.start()
    other = asyncio.ensure_future(outcome(manager.restart_instrument("mover")))
    await crossing(lambda: manager.restart_instrument("shutter"), lambda: manager.shutdown(3.0), after_s)
    await other
    assert manager.state is ManagerState.STOPPED
    assert connected(lab) == 0


@pytest.mark.parametrize("after_s", [0.0, 0.5 * CLOSING_S, CLOSING_S, 1.2 * CLOSING_S])
@pytest.mark.parametrize("runtime", ["v2", "v4"])
async def test_what_is_removed_during_its_restart_does_not_come_back(lab: Bench, runtime: str, after_s: float) -> None:
    one = own_class(lab, "one", Shutter) if runtime == "v2" else own_actor(lab, "one", Mover)
    manager = lab.manager([one])
    await manager.start()
    await crossing(lambda: manager.restart_instrument("one"), lambda: manager.remove("one"), after_s)
    assert manager.counts()[runtime] == 0
    assert connected(lab) == 0
    await manager.add(one)
    await crossing(lambda: manager.remove("one"), lambda: manager.restart_instrument("one"), after_s)
    assert connected(lab) == 0


@pytest.mark.parametrize("runtime", ["v2", "v4"])
async def test_two_who_remove_or_restart_one_instrument_get_answers_of_ours(lab: Bench, runtime: str) -> None:
    one = own_class(lab, "one", Shutter) if runtime == "v2" else own_actor(lab, "one", Mover)
    manager = lab.manager([one])
    await manager.start()
    ends = await asyncio.gather(*(outcome(manager.restart_instrument("one")) for _ in range(3)))
    assert all(end is None or isinstance(end, DuodaqError) for end in ends), ends
    assert connected(lab) == 1
    ends = await asyncio.gather(*(outcome(manager.remove("one")) for _ in range(2)))
    assert all(not isinstance(end, Exception) or isinstance(end, LifecycleError) for end in ends), ends
    assert connected(lab) == 0


async def test_the_watch_outlives_a_safe_action_that_raises_and_an_instrument_that_is_gone(lab: Bench) -> None:
    safe = {Cause.CRASH: SafeAction("call", call="go")}
    hanging = own_class(lab, "hanging", Shutter, deadline_s=0.05, kill_after_s=0.05)
    manager = lab.manager([lab.own_actor("awkward", Awkward, safe=safe), hanging])
    await manager.start()
    for gone in ("awkward", "removed"):
        status = InstrumentStatus(gone, "v4", InstrumentState.ERROR)
        await manager._watch._on_crash(manager._sides["v4"], status)


async def test_channels_count_on_when_their_instrument_or_their_runtime_is_restarted_or_comes_back(lab: Bench) -> None:
    stage_sim = await lab.simulator("esp300")
    own = lab.polled("own", Counter, "count", "count", "", 1000.0, options={"acquire": False})
    manager = lab.manager([own, lab.stage()], [lab.serial_port("stage", stage_sim, "esp300")])
    await manager.start()

    async def numbers() -> tuple[int, int]:
        readings = [await manager.command(*one) for one in (("own", ReadChannel("count")), ("stage", ReadChannel("x")))]
        return readings[0].sequence, readings[1].sequence

    seen = [await numbers()]
    for instrument in ("own", "stage"):
        await manager.restart_instrument(instrument)
    seen.append(await numbers())
    for runtime in ("v2", "v4"):
        await manager.restart_runtime(runtime)
    seen.append(await numbers())
    for instrument in ("own", "stage"):
        definition = manager.definition(instrument)
        await manager.remove(instrument)
        await manager.add(definition)
    seen.append(await numbers())
    assert seen == [(n, n) for n in range(4)]


class Counter:
    """Counts."""

    def count(self) -> float:
        return 1.0


@pytest.mark.alone("0.2 s are left to the 2 s of a hurried stop")
async def test_a_hurried_shutdown_is_quick_in_whichever_step_it_is_and_names_who_hung(lab: Bench) -> None:
    manager = lab.manager([own_class(lab, "hung", Shutter), own_class(lab, "good", Shutter)])
    await manager.start()
    calling = asyncio.ensure_future(outcome(manager.command("hung", Execute("hang"), 30.0)))
    await pause(0.05)
    calling.cancel()  # so there is nothing to settle, and the time goes to stopping V2
    ending = asyncio.ensure_future(manager.shutdown(30.0))
    await pause(0.3)
    manager.hurry()
    hurried_s = monotonic_s()
    report = await ending
    assert monotonic_s() - hurried_s < 2.2
    assert manager.state is ManagerState.STOPPED
    unclean = {c.component for c in report.components if c.outcome != "clean"}
    assert "v2.hung" in unclean, report
    assert "v2.good" not in unclean, report
    let_go(lab)


# ── calls in hand when a stop comes ─────────────────────────────────────────────────────────────────────────────────


class RawStage:
    """A home-made driver of the stage, on a port whose bytes nobody understands."""

    def __init__(self, serial: Any, evidence: str, gate: str) -> None:
        self.serial = serial
        self.inside, self.gate = Gate(gate + ".in"), Gate(gate)
        serial.write(b"1MO\r")

    def late(self) -> None:
        self._linger()
        self.serial.write(b"1PA20\r")

    def twice(self) -> None:
        self.serial.write(b"1PA20\r")
        self._linger()
        self.serial.write(b"1PA-5\r")

    def _linger(self) -> None:
        self.inside.open()
        self.gate.wait(10.0)

    def where(self) -> float:
        self.serial.write(b"1TP\r")
        return float(self.serial.readline())


async def raw_stage(lab: Bench) -> tuple[Any, Any]:
    stage_sim = await lab.simulator("esp300")
    raw = own_class(lab, "raw", RawStage, port="stage", stop=b"ST\r", passive=frozenset({"where"}))
    manager = lab.manager([raw], [lab.serial_port("stage", stage_sim, None, idle_ms=200)])
    await manager.start()
    return manager, stage_sim


@pytest.mark.parametrize("all_of_them", [True, False], ids=["stop-all", "stop"])
@pytest.mark.parametrize(("call", "moves", "fate"), [("late", 0, "not done"), ("twice", 1, "unknown")])
async def test_a_call_in_hand_at_a_stop_sends_nothing_more_where_no_codec_knows_what_moves(
    lab: Bench, all_of_them: bool, call: str, moves: int, fate: str
) -> None:
    manager, stage_sim = await raw_stage(lab)
    calling = asyncio.ensure_future(outcome(manager.command("raw", Execute(call))))
    inside = Gate(notes_of(lab)["gate"] + ".in")
    assert await until(lambda: inside.is_open, 5.0)
    stopping = asyncio.ensure_future(manager.stop_all() if all_of_them else manager.stop("raw"))
    assert await until(lambda: stage_sim.report()["stops"], 5.0)
    let_go(lab)
    await stopping
    end = await calling
    assert isinstance(end, StoppedError | UnsafeStateError), end
    assert getattr(end, "fate", "not done") == fate
    assert len(stage_sim.report()["moves"]) == moves
    table = await lab.table()
    assert await until(lambda: not table.state().moving[1], 1.0)
    assert isinstance(await manager.command("raw", Execute("where")), float)


class Quit:
    """Raises SystemExit."""


class Quitter(Mover):
    """An actor whose handlers, and whose end, would end the whole program."""

    operations: ClassVar = {"quit": Quit, "later": Go}

    @handler(Quit)
    async def quit(self, message: Quit) -> None:
        raise SystemExit(3)

    @handler(Go, operation=True)
    async def later(self, message: Go) -> None:
        raise SystemExit(4)

    async def disconnect(self) -> None:
        self.diary.note("closed")
        raise SystemExit(5)


async def test_an_actor_that_calls_exit_crashes_alone_and_is_restarted(lab: Bench) -> None:
    manager = lab.manager([own_actor(lab, "quitter", Quitter), own_class(lab, "shutter", Shutter)])
    await manager.start()
    for call in ("quit", "later"):
        end = await outcome(manager.command("quitter", Execute(call), 2.0))
        assert isinstance(end, DuodaqError), end
    assert await until(lambda: sum(one.of == "Quitter" for one in incarnations(lab)) == 2, 2.0)
    await manager.command("shutter", Execute("move"))
    await manager.shutdown(2.0)
    assert connected(lab) == 0


class Busy(Mover):
    """An actor that is in something long, and does not end when cancelled."""

    operations: ClassVar = {"go": Go}

    @handler(Go)
    async def go(self, message: Go) -> None:
        gate = Gate(self.definition.args["gate"])
        Gate(self.definition.args["gate"] + ".in").open()
        while not gate.is_open:
            try:
                await pause(0.05)
            except asyncio.CancelledError:
                continue


@pytest.mark.alone("0.1 s are left to a budget for stopping")
async def test_a_shutdown_hurries_a_removal_under_way_and_names_only_who_does_not_end(lab: Bench) -> None:
    manager = lab.manager([own_actor(lab, "busy", Busy), own_actor(lab, "good", Mover)])
    await manager.start()
    calling = asyncio.ensure_future(outcome(manager.command("busy", Execute("go"), 60.0)))
    inside = Gate(notes_of(lab)["gate"] + ".in")
    assert await until(lambda: inside.is_open, 5.0)
    removing = asyncio.ensure_future(outcome(manager.remove("busy")))
    await pause(0.05)
    began_s = monotonic_s()
    report = await manager.shutdown(1.0)
    assert monotonic_s() - began_s < 1.1
    unclean = {c.component for c in report.components if c.outcome != "clean"}
    assert "v4.busy" in unclean, report
    assert "v4.good" not in unclean, report
    end = await asyncio.wait_for(calling, 0.5)
    assert isinstance(end, DuodaqError)
    let_go(lab)
    await removing
    await pause(0.1)


@pytest.mark.parametrize("after_s", [0.0, 0.0005, 0.002, 0.01])
async def test_a_shutdown_during_the_addition_of_a_worker_leaves_nothing_of_it(lab: Bench, after_s: float) -> None:
    manager = lab.manager([])
    await manager.start()
    adding = [
        asyncio.ensure_future(outcome(manager.add(own)))
        for own in (
            own_class(lab, "own", Shutter, worker="own"),
            own_actor(lab, "its", Mover, worker="own"),
        )
    ]
    await pause(after_s)
    await manager.shutdown(2.0)
    for end in await asyncio.gather(*adding):
        assert end is None or isinstance(end, DuodaqError), end
    assert connected(lab) == 0


async def test_a_stop_all_beside_a_lost_line_is_sent_first_when_the_line_is_back(lab: Bench) -> None:
    controller = await lab.simulator("esp300")
    manager = lab.manager([lab.stage()], [lab.serial_port("stage", controller, "esp300")])
    await manager.start()
    table = await lab.table()
    await manager.command("stage", Execute("configure", ("x", 0.5)))
    moving = asyncio.ensure_future(outcome(manager.command("stage", Execute("move", ("x", 20.0)), 60.0)))
    assert await until(lambda: table.state().moving[1], 5.0)
    await asyncio.to_thread(controller.unplug)
    assert await until(lambda: str(manager.health().ports[0].state) != "open", 5.0)
    report = await manager.stop_all()
    assert "stage" in report.failures
    assert table.state().moving[1]
    await asyncio.to_thread(controller.replug)
    assert await until(lambda: not table.state().moving[1], 10.0)
    await moving
