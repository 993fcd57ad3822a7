"""Hostile programs against the promises of stopping and of life cycles, in every mode."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import pytest

from duodaq.clock import block, monotonic_s, pause
from duodaq.errors import DuodaqError, LifecycleError, StoppedError, UnsafeStateError
from duodaq.model import (
    Cause,
    Execute,
    InstrumentState,
    InstrumentStatus,
    ManagerState,
    ReadChannel,
    SafeAction,
    SetParameter,
    Stop,
)
from duodaq.testing.coexistence import MODES, Bench, Mode, outcome, until
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

LET_GO = threading.Event()
CLOSING_S = 0.03


@pytest.fixture(params=MODES, ids=str)
async def lab(request: pytest.FixtureRequest) -> Any:
    mode: Mode = request.param
    async with Bench(mode) as made:
        yield made


@pytest.fixture(autouse=True)
def made() -> Iterator[list[Any]]:
    """Every driver and actor incarnation that the test made."""
    LET_GO.clear()
    MADE.clear()
    yield MADE
    LET_GO.set()
    MADE.clear()


MADE: list[Any] = []


class Shutter:
    """A home-made driver that owns its device privately."""

    position = 0.0

    def __init__(self) -> None:
        self.is_open, self.moved, self.connected = True, 0, True
        MADE.append(self)

    def move(self) -> None:
        self.moved += 1

    def shut(self) -> None:
        self.is_open = False

    def hang(self) -> None:
        block(20.0, LET_GO)

    def close(self) -> None:
        block(CLOSING_S)
        self.connected = False


class Go:
    """Moves."""


class Shut:
    """Makes safe, and moves for it."""


class Mover(InstrumentActor):
    """An actor that owns its device privately."""

    operations: ClassVar = {"go": Go, "shut": Shut}

    async def connect(self) -> None:
        self.moved, self.is_open, self.connected = 0, True, True
        MADE.append(self)

    async def disconnect(self) -> None:
        await pause(CLOSING_S)
        self.connected = False

    @handler(Go, moves=True)
    async def go(self, message: Go) -> None:
        self.moved += 1

    @handler(Shut, moves=True)
    async def shut(self, message: Shut) -> None:
        self.is_open = False


class Awkward(InstrumentActor):
    """An actor whose handlers raise what nobody expects."""

    operations: ClassVar = {"go": Go}

    @handler(Go, moves=True)
    async def go(self, message: Go) -> None:
        raise ValueError("awkward")


SHUT = SafeAction("call", call="shut")

# ── stop-all ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_stop_all_latches_and_tells_drivers_in_a_lab_without_any_port(lab: Bench, made: list[Any]) -> None:
    safe = {Cause.STOP_ALL: SHUT}
    manager = lab.manager([lab.own_class("shutter", Shutter, safe=safe), lab.own_actor("mover", Mover, safe=safe)])
    await manager.start()
    report = await manager.stop_all()
    assert manager.health().latched
    assert not report.failures
    assert [device.is_open for device in made] == [False, False]
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
    lost = lab.own_class("lost", Shutter, port="nowhere")
    manager = lab.manager([lost, lab.stage()], [lab.serial_port("stage", stage_sim, "esp300")])
    await manager.start()
    report = await manager.stop_all()
    assert manager.health().latched
    assert set(report.on_wire_ns) == {"stage"}
    assert set(report.failures) == {"lost"}
    assert await until(lambda: stage_sim.report()["stops"], 1.0)


async def test_a_driver_that_raises_anything_is_named_by_stop_all_and_keeps_nobody_from_it(
    lab: Bench, made: list[Any]
) -> None:
    safe = {Cause.STOP_ALL: SafeAction("call", call="go")}
    awkward, shutter = (
        lab.own_actor("awkward", Awkward, safe=safe),
        lab.own_class("shutter", Shutter, safe={Cause.STOP_ALL: SHUT}),
    )
    manager = lab.manager([awkward, shutter])
    await manager.start()
    report = await manager.stop_all()
    assert "awkward" in report.failures["awkward"]
    assert not made[0].is_open


async def test_a_move_sent_straight_to_an_actor_is_refused_while_a_stop_all_is_latched(
    lab: Bench, made: list[Any]
) -> None:
    manager = lab.manager([lab.own_actor("mover", Mover)])
    await manager.start()
    await manager.stop_all()
    kept: list[Any] = []

    class Sender(InstrumentActor):
        async def connect(self) -> None:
            mover = self.system.registry.lookup("mover")
            await mover.tell(Go())
            kept.append(await outcome(mover.ask(Go())))
            kept.append(mover.metrics.restarts)

    await manager.add(lab.own_actor("sender", Sender))
    assert isinstance(kept[0], UnsafeStateError)
    assert kept[1] == 0
    assert made[0].moved == 0
    manager.reset_stop("a person")
    await manager.command("mover", Execute("go"))
    assert made[0].moved == 1


async def test_what_restarts_while_a_stop_all_is_latched_sets_nothing_that_may_move(
    lab: Bench, made: list[Any]
) -> None:
    manager = lab.manager([lab.own_class("shutter", Shutter, settings={"position": 5.0})])
    await manager.start()
    assert made[-1].position == 5.0
    await manager.stop_all()
    await manager.restart_instrument("shutter")
    await manager.restart_runtime("v2")
    assert len(made) == 3
    assert [device.position for device in made[1:]] == [0.0, 0.0]
    assert manager.health().latched
    manager.reset_stop("a person")
    await manager.restart_instrument("shutter")
    assert made[-1].position == 5.0


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
async def test_a_shutdown_during_a_restart_leaves_no_driver_connected(
    lab: Bench, made: list[Any], after_s: float
) -> None:
    manager = lab.manager([lab.own_class("shutter", Shutter), lab.own_actor("mover", Mover)])
    await manager.start()
    other = asyncio.ensure_future(outcome(manager.restart_instrument("mover")))
    await crossing(lambda: manager.restart_instrument("shutter"), lambda: manager.shutdown(3.0), after_s)
    await other
    assert manager.state is ManagerState.STOPPED
    assert not any(device.connected for device in made)


@pytest.mark.parametrize("after_s", [0.0, 0.5 * CLOSING_S, CLOSING_S, 1.2 * CLOSING_S])
@pytest.mark.parametrize("runtime", ["v2", "v4"])
async def test_what_is_removed_during_its_restart_does_not_come_back(
    lab: Bench, made: list[Any], runtime: str, after_s: float
) -> None:
    one = lab.own_class("one", Shutter) if runtime == "v2" else lab.own_actor("one", Mover)
    manager = lab.manager([one])
    await manager.start()
    await crossing(lambda: manager.restart_instrument("one"), lambda: manager.remove("one"), after_s)
    assert manager.counts()[runtime] == 0
    assert not any(device.connected for device in made)
    await manager.add(one)
    await crossing(lambda: manager.remove("one"), lambda: manager.restart_instrument("one"), after_s)
    assert not any(device.connected for device in made)


@pytest.mark.parametrize("runtime", ["v2", "v4"])
async def test_two_who_remove_or_restart_one_instrument_get_answers_of_ours(
    lab: Bench, made: list[Any], runtime: str
) -> None:
    one = lab.own_class("one", Shutter) if runtime == "v2" else lab.own_actor("one", Mover)
    manager = lab.manager([one])
    await manager.start()
    ends = await asyncio.gather(*(outcome(manager.restart_instrument("one")) for _ in range(3)))
    assert all(end is None or isinstance(end, DuodaqError) for end in ends), ends
    assert sum(device.connected for device in made) == 1
    ends = await asyncio.gather(*(outcome(manager.remove("one")) for _ in range(2)))
    assert all(not isinstance(end, Exception) or isinstance(end, LifecycleError) for end in ends), ends
    assert not any(device.connected for device in made)


async def test_the_watch_outlives_a_safe_action_that_raises_and_an_instrument_that_is_gone(lab: Bench) -> None:
    safe = {Cause.CRASH: SafeAction("call", call="go")}
    hanging = lab.own_class("hanging", Shutter, deadline_s=0.05, kill_after_s=0.05)
    manager = lab.manager([lab.own_actor("awkward", Awkward, safe=safe), hanging])
    await manager.start()
    for gone in ("awkward", "removed"):
        await manager._after_crash(  # what the watch calls
            manager._sides["v4"], InstrumentStatus(gone, "v4", InstrumentState.ERROR)
        )


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


async def test_a_hurried_shutdown_is_quick_in_whichever_step_it_is_and_names_who_hung(lab: Bench) -> None:
    manager = lab.manager([lab.own_class("hung", Shutter), lab.own_class("good", Shutter)])
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
    LET_GO.set()


# ── calls in hand when a stop comes ─────────────────────────────────────────────────────────────────────────────────


class RawStage:
    """A home-made driver of the stage, on a port whose bytes nobody understands."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial
        serial.write(b"1MO\r")

    def late(self) -> None:
        block(0.1)
        self.serial.write(b"1PA20\r")

    def twice(self) -> None:
        self.serial.write(b"1PA20\r")
        block(0.1)
        self.serial.write(b"1PA-5\r")

    def where(self) -> float:
        self.serial.write(b"1TP\r")
        return float(self.serial.readline())


async def raw_stage(lab: Bench) -> tuple[Any, Any]:
    stage_sim = await lab.simulator("esp300")
    raw = lab.own_class("raw", RawStage, port="stage", stop=b"ST\r", passive=frozenset({"where"}))
    manager = lab.manager([raw], [lab.serial_port("stage", stage_sim, None, idle_ms=5)])
    await manager.start()
    return manager, stage_sim


@pytest.mark.parametrize("all_of_them", [True, False], ids=["stop-all", "stop"])
@pytest.mark.parametrize(("call", "moves", "fate"), [("late", 0, "not done"), ("twice", 1, "unknown")])
async def test_a_call_in_hand_at_a_stop_sends_nothing_more_where_no_codec_knows_what_moves(
    lab: Bench, all_of_them: bool, call: str, moves: int, fate: str
) -> None:
    manager, stage_sim = await raw_stage(lab)
    calling = asyncio.ensure_future(outcome(manager.command("raw", Execute(call))))
    await pause(0.04)
    await (manager.stop_all() if all_of_them else manager.stop("raw"))
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
        self.connected = False
        raise SystemExit(5)


async def test_an_actor_that_calls_exit_crashes_alone_and_is_restarted(lab: Bench, made: list[Any]) -> None:
    manager = lab.manager([lab.own_actor("quitter", Quitter), lab.own_class("shutter", Shutter)])
    await manager.start()
    for call in ("quit", "later"):
        end = await outcome(manager.command("quitter", Execute(call), 2.0))
        assert isinstance(end, DuodaqError), end
    assert await until(lambda: len([m for m in made if isinstance(m, Quitter)]) == 2, 2.0)
    await manager.command("shutter", Execute("move"))
    await manager.shutdown(2.0)
    assert not any(device.connected for device in made)


class Busy(Mover):
    """An actor that is in something long, and does not end when cancelled."""

    operations: ClassVar = {"go": Go}

    @handler(Go)
    async def go(self, message: Go) -> None:
        while not LET_GO.is_set():
            try:
                await pause(0.05)
            except asyncio.CancelledError:
                continue


async def test_a_shutdown_hurries_a_removal_under_way_and_names_only_who_does_not_end(lab: Bench) -> None:
    manager = lab.manager([lab.own_actor("busy", Busy), lab.own_actor("good", Mover)])
    await manager.start()
    calling = asyncio.ensure_future(outcome(manager.command("busy", Execute("go"), 60.0)))
    await pause(0.05)
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
    LET_GO.set()
    await removing
    await pause(0.1)


@pytest.mark.parametrize("after_s", [0.0, 0.0005, 0.002, 0.01])
async def test_a_shutdown_during_the_addition_of_a_worker_leaves_nothing_of_it(
    lab: Bench, made: list[Any], after_s: float
) -> None:
    manager = lab.manager([])
    await manager.start()
    for runtime in ("v2", "v4"):
        own = (
            lab.own_class("own", Shutter, worker="own")
            if runtime == "v2"
            else lab.own_actor("its", Mover, worker="own")
        )
        MADE.append(asyncio.ensure_future(outcome(manager.add(own))))
    await pause(after_s)
    await manager.shutdown(2.0)
    adding = [one for one in made if isinstance(one, asyncio.Future)]
    for end in await asyncio.gather(*adding):
        assert end is None or isinstance(end, DuodaqError), end
    assert not any(one.connected for one in made if not isinstance(one, asyncio.Future))


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
