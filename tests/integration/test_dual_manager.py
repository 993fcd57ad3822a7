"""DualRuntimeManager on real simulators: what the twelve coexistence tests do not cover."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.integration.managed_drivers import (
    LET_GO,
    FailingActor,
    HangingActor,
    Meter,
    NeverReturns,
    Shutter,
    SlowActor,
)

from duodaq.clock import monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import (
    ConfigError,
    DeliveryError,
    DuodaqError,
    LifecycleError,
    PortOpenError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import (
    Cause,
    Execute,
    GetParameter,
    ManagerState,
    Outcome,
    PortDefinition,
    ReadChannel,
    RuntimeStatus,
    SafeAction,
    SetParameter,
)
from duodaq.testing.coexistence import MODES, Bench, Mode, outcome, until
from duodaq.v4.instruments import InstrumentActor

HOME_AFTER_S = 0.3
ON_THE_WIRE_S = 0.05


@pytest.fixture(params=MODES, ids=str)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    mode: Mode = request.param
    async with Bench(mode) as made:
        yield made


@pytest.fixture(autouse=True)
def _let_go() -> Any:
    LET_GO.clear()
    yield
    LET_GO.set()


def meter(bench: Bench, **options: Any) -> Any:
    return bench.polled("meter", Meter, "power", "power", "W", 0.02, port="meter", **options)


async def meter_and_stage(bench: Bench, **options: Any) -> tuple[DualRuntimeManager, Any, Any]:
    """A running manager with a V2 meter and a V4 stage, and their simulators."""
    meter_sim, stage_sim = await asyncio.gather(bench.simulator("newport1830c"), bench.simulator("esp300"))
    ports = [bench.serial_port("meter", meter_sim, "newport1830c"), bench.serial_port("stage", stage_sim, "esp300")]
    manager = bench.manager([meter(bench), bench.stage(**options)], ports)
    await manager.start()
    return manager, meter_sim, stage_sim


async def shared_stage(bench: Bench) -> tuple[DualRuntimeManager, Any]:
    """A running manager with PyMeasure's ESP300 in V2 and ours in V4, on one line."""
    stage_sim = await bench.simulator("esp300")
    port = bench.serial_port("stage", stage_sim, "esp300", timeout_s=10.0)
    esp = bench.esp(deadline_s=20.0)
    manager = bench.manager([esp, bench.stage(args={"poll_s": 0.01})], [port])
    await manager.start()
    for axis in (1, 2):
        await manager.broker.port("stage").write(b"%dMO\r" % axis, holder="test")
    return manager, stage_sim


async def stands(bench: Bench, axis: int) -> bool:
    """Whether `axis` has come to rest, once it had the time to slow down: read back from the table."""
    table = await bench.table()
    return await until(lambda: not table.state().moving[axis], 1.0)


# ── start ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_start_rolls_back_and_ends_stopped_with_the_cause(bench: Bench) -> None:
    meter_sim = await bench.simulator("newport1830c")
    broken = bench.own_actor("broken", FailingActor, required=True)
    manager = bench.manager([meter(bench), broken], [bench.serial_port("meter", meter_sim, "newport1830c")])
    with pytest.raises(DuodaqError, match="nobody is there"):
        await manager.start()
    assert manager.state is ManagerState.STOPPED
    assert "nobody is there" in manager.cause
    assert manager.health().cause == manager.cause
    asked = meter_sim.report()["exchanges"]
    await pause(0.1)
    assert meter_sim.report()["exchanges"] == asked
    with pytest.raises(LifecycleError):
        await manager.start()


async def test_a_port_that_cannot_be_opened_fails_the_start(bench: Bench) -> None:
    manager = bench.manager([meter(bench)], [PortDefinition("meter", serial={"path": "/dev/duodaq-is-not-there"})])
    with pytest.raises(PortOpenError):
        await manager.start()
    assert manager.state is ManagerState.STOPPED
    assert "/dev/duodaq-is-not-there" in manager.cause


async def test_an_instrument_that_is_not_required_degrades_its_own_runtime_alone(bench: Bench) -> None:
    meter_sim = await bench.simulator("newport1830c")
    broken = bench.own_actor("broken", FailingActor)
    manager = bench.manager([meter(bench), broken], [bench.serial_port("meter", meter_sim, "newport1830c")])
    await manager.start()
    assert manager.state is ManagerState.RUNNING
    assert manager.runtime_status("v4") is RuntimeStatus.DEGRADED
    assert manager.runtime_status("v2") is RuntimeStatus.RUNNING
    assert (await manager.command("meter", ReadChannel("power"))).unit == "W"


# ── shutdown ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_manager_that_was_never_started_can_be_shut_down(bench: Bench) -> None:
    manager = bench.manager([])
    report = await manager.shutdown(1.0)
    assert report.clean
    assert manager.state is ManagerState.STOPPED
    assert await manager.shutdown(9.0) is report


async def test_all_who_shut_down_get_the_one_report(bench: Bench) -> None:
    manager, _, _ = await meter_and_stage(bench)
    first, second = await asyncio.gather(manager.shutdown(3.0), manager.shutdown(1.0))
    assert first is second
    assert await manager.shutdown() is first
    assert first.clean, first
    assert first.to_dict()["clean"] is True


@pytest.mark.alone("0.1 s are left to a budget for stopping")
async def test_a_shutdown_during_the_start_ends_it(bench: Bench) -> None:
    meter_sim = await bench.simulator("newport1830c")
    slow = bench.own_actor("slow", SlowActor)
    manager = bench.manager([meter(bench), slow], [bench.serial_port("meter", meter_sim, "newport1830c")])
    starting = asyncio.ensure_future(manager.start())
    assert await until(lambda: meter_sim.report()["exchanges"] > 0, 5.0)
    began_s = monotonic_s()
    await manager.shutdown(2.0)
    assert monotonic_s() - began_s < 2.1
    with pytest.raises(LifecycleError):
        await starting
    assert manager.state is ManagerState.STOPPED


async def test_a_cancelled_start_leaves_nothing_running(bench: Bench) -> None:
    manager = bench.manager([bench.own_actor("slow", SlowActor)])
    starting = asyncio.ensure_future(manager.start())
    await until(lambda: manager.state is ManagerState.STARTING, 1.0)
    await pause(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert manager.state is ManagerState.STOPPED


@pytest.mark.alone("0.1 s are left to a budget for stopping")
async def test_a_shutdown_with_three_drivers_that_never_return_keeps_its_budget_and_names_them(bench: Bench) -> None:
    in_v4 = bench.mode.v4 == "thread"
    third = bench.own_actor("third", HangingActor) if in_v4 else bench.own_class("third", NeverReturns)
    stuck = [bench.own_class("first", NeverReturns), bench.own_class("second", NeverReturns), third]
    manager = bench.manager([*stuck, bench.own_class("good", Shutter, args={"serial": None})])
    await manager.start()
    calls = [asyncio.ensure_future(outcome(manager.command(d.id, Execute("hang"), 30.0))) for d in stuck]
    await pause(0.1)
    began_s = monotonic_s()
    report = await manager.shutdown(1.0)
    assert monotonic_s() - began_s <= 1.1
    assert manager.state is ManagerState.STOPPED
    ended = {c.component: c.outcome for c in report.components}
    unclean = {name for name, how in ended.items() if how is not Outcome.CLEAN}
    assert {"v2.first", "v2.second", "v4.third" if in_v4 else "v2.third"} <= unclean, report
    assert ended["v2.good"] is Outcome.CLEAN, report
    for error in await asyncio.gather(*calls):
        assert isinstance(error, DeliveryError), error
        assert error.fate == "unknown"
    LET_GO.set()


async def test_new_work_is_refused_while_work_in_hand_completes(bench: Bench) -> None:
    manager, _, _ = await meter_and_stage(bench, args={"poll_s": 0.01})
    move = asyncio.ensure_future(manager.command("stage", Execute("move", ("x", 2.0))))
    await pause(0.1)
    ending = asyncio.ensure_future(manager.shutdown(6.0))
    await until(lambda: manager.state is ManagerState.STOPPING, 1.0)
    with pytest.raises(LifecycleError, match="stopping"):
        await manager.command("stage", GetParameter("x.position"))
    await move
    assert (await ending).clean
    assert (await bench.table()).state().positions[1] == pytest.approx(2.0, abs=0.01)


# ── stop ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.alone("a stop must be on the wire within 50 ms")
async def test_stop_is_on_the_wire_within_50_ms_while_v4_homes(bench: Bench) -> None:
    manager, stage_sim = await shared_stage(bench)
    await manager.command("stage", Execute("move", ("x", 8.0)))  # from there it searches its home for 1.6 s
    homing = asyncio.ensure_future(outcome(manager.command("stage", Execute("home", ("x",)))))
    assert await until(lambda: (stage_sim.report()["moves"] or [{}])[-1].get("word") == "OR", 5.0)
    await pause(HOME_AFTER_S)
    assert not homing.done()
    asked_s = monotonic_s()
    await manager.stop("stage")
    assert await until(lambda: stage_sim.report()["stops"], 1.0)
    stop = stage_sim.report()["stops"][0]
    assert 0 <= stop["t_s"] - asked_s <= ON_THE_WIRE_S
    assert stop["moving"] == [1]
    assert isinstance(await homing, DeliveryError)
    assert await stands(bench, 1)


@pytest.mark.alone("a stop must be on the wire within 50 ms")
async def test_stop_is_on_the_wire_within_50_ms_beside_a_driver_inside_wait_for_stop(bench: Bench) -> None:
    manager, stage_sim = await shared_stage(bench)
    await manager.command("esp", SetParameter("y.position", 20.0))
    waiting = asyncio.ensure_future(outcome(manager.command("esp", Execute("y.wait_for_stop"), 20.0)))
    await pause(HOME_AFTER_S)
    assert not waiting.done()
    asked_s = monotonic_s()
    await manager.stop("stage")
    assert await until(lambda: stage_sim.report()["stops"], 1.0)
    stop = stage_sim.report()["stops"][0]
    assert 0 <= stop["t_s"] - asked_s <= ON_THE_WIRE_S
    assert stop["moving"] == [2]
    await waiting
    assert await stands(bench, 2)


@pytest.mark.alone("a stop must be on the wire within 50 ms")
async def test_after_stop_all_no_queued_move_runs_and_moves_are_refused_until_reset(bench: Bench) -> None:
    manager, stage_sim = await shared_stage(bench)
    moves = [asyncio.ensure_future(outcome(manager.command("stage", Execute("move", ("x", 20.0)))))]
    assert await until(lambda: [m["axis"] for m in stage_sim.report()["moves"]] == [1], 5.0)
    moves += [
        asyncio.ensure_future(outcome(manager.command("esp", work, 20.0)))
        for work in (
            SetParameter("y.position", 20.0),
            Execute("y.wait_for_stop"),
            SetParameter("y.position", -5.0),
            SetParameter("y.position", 5.0),
        )
    ]
    assert await until(lambda: [m["axis"] for m in stage_sim.report()["moves"]] == [1, 2], 5.0)
    asked_s = monotonic_s()
    report = await manager.stop_all()
    assert await until(lambda: stage_sim.report()["stops"], 1.0)
    before = stage_sim.report()
    assert before["stops"][0]["t_s"] - asked_s <= ON_THE_WIRE_S
    assert not report.failures
    ends = await asyncio.gather(*moves)
    for error in (ends[0], ends[3], ends[4]):  # the other two had done their work: one wrote, one waited for a stop
        assert isinstance(error, DeliveryError | UnsafeStateError), ends
    await pause(0.2)
    assert stage_sim.report()["moves"] == before["moves"]
    assert await stands(bench, 1)
    assert await stands(bench, 2)

    assert manager.health().latched
    for instrument, work in (("stage", Execute("move", ("x", 1.0))), ("esp", SetParameter("y.position", 1.0))):
        with pytest.raises(UnsafeStateError):
            await manager.command(instrument, work)
    assert isinstance(await manager.command("stage", GetParameter("x.position")), float)
    manager.reset_stop("a person")
    await manager.command("stage", Execute("move_relative", ("x", 0.5)))
    assert len(stage_sim.report()["moves"]) == len(before["moves"]) + 1


# ── one runtime, one instrument ─────────────────────────────────────────────────────────────────────────────────────


async def test_one_runtime_stops_and_starts_while_the_other_goes_on(bench: Bench) -> None:
    manager, meter_sim, _ = await meter_and_stage(bench)
    reports = await manager.stop_runtime("v4")
    assert {r.component: r.outcome for r in reports}["v4.stage"] is Outcome.CLEAN
    assert manager.runtime_status("v4") is RuntimeStatus.STOPPED
    assert manager.state is ManagerState.RUNNING
    with pytest.raises(LifecycleError):
        await manager.command("stage", GetParameter("x.position"))
    asked = meter_sim.report()["exchanges"]
    assert await until(lambda: meter_sim.report()["exchanges"] > asked + 2, 2.0)
    await manager.start_runtime("v4")
    assert manager.runtime_status("v4") is RuntimeStatus.RUNNING
    assert isinstance(await manager.command("stage", GetParameter("x.position")), float)


async def test_a_restarted_runtime_works_and_its_channels_count_on(bench: Bench) -> None:
    manager, _, _ = await meter_and_stage(bench)
    last = await manager.command("meter", ReadChannel("power"))
    reports = await manager.restart_runtime("v2")
    assert {r.component: r.outcome for r in reports}["v2.meter"] is Outcome.CLEAN
    following = await manager.command("meter", ReadChannel("power"))
    assert following.t_ns > last.t_ns
    assert manager.runtime_status("v2") is RuntimeStatus.RUNNING


async def test_an_instrument_is_restarted_alone(bench: Bench) -> None:
    manager, _, stage_sim = await meter_and_stage(bench)
    await manager.command("meter", ReadChannel("power"))
    assert await until(lambda: "VE" in stage_sim.report()["produced"], 2.0), "its identity is asked after the start"
    asked = stage_sim.report()["exchanges"]
    await manager.restart_instrument("meter")
    assert stage_sim.report()["exchanges"] == asked
    assert (await manager.command("meter", ReadChannel("power"))).unit == "W"


async def test_instruments_come_and_go_on_a_running_lab(bench: Bench) -> None:
    manager, meter_sim, _ = await meter_and_stage(bench)
    second = replace(meter(bench), id="second")
    await manager.add(second)
    assert manager.counts() == {"v2": 2, "v4": 1}
    assert isinstance((await manager.command("second", ReadChannel("power"))).value, float)
    with pytest.raises(ConfigError):
        await manager.add(second)
    assert (await manager.remove("second")).outcome is Outcome.CLEAN
    with pytest.raises(LifecycleError):
        await manager.command("second", ReadChannel("power"))
    assert manager.counts() == {"v2": 1, "v4": 1}
    await manager.add(second)
    assert meter_sim.report()["interleavings"] == 0


async def test_an_instrument_that_fails_to_start_is_not_added(bench: Bench) -> None:
    manager = bench.manager([])
    await manager.start()
    with pytest.raises(DuodaqError, match="nobody is there"):
        await manager.add(bench.own_actor("broken", FailingActor))
    assert manager.counts() == {"v2": 0, "v4": 0}
    await manager.add(bench.own_actor("broken", InstrumentActor))


# ── safe state, read back from the table ────────────────────────────────────────────────────────────────────────────

SHUT = SafeAction("bytes", data=b"SHUT 0\n")


async def open_shutter(bench: Bench, **options: Any) -> tuple[DualRuntimeManager, Any]:
    """A running manager with an open shutter in V2, and the optical table."""
    shutter_sim = await bench.simulator("shutter")
    port = PortDefinition("shutter", serial={"path": shutter_sim.address}, idle_ms=20.0)
    manager = bench.manager([bench.own_class("shutter", Shutter, port="shutter", **options)], [port])
    await manager.start()
    await manager.command("shutter", Execute("open"))
    table = await bench.table()
    assert await until(lambda: table.state().shutter_open, 1.0)
    return manager, table


@pytest.mark.parametrize("action", [SHUT, SafeAction("call", call="shut")], ids=["bytes", "call"])
async def test_a_shutdown_shuts_the_shutter(bench: Bench, action: SafeAction) -> None:
    manager, table = await open_shutter(bench, safe={Cause.SHUTDOWN: action})
    report = await manager.shutdown(3.0)
    assert report.clean, report
    assert await until(lambda: not table.state().shutter_open, 1.0)  # it was sent; the device needs its moment


async def test_a_shutdown_without_a_safe_action_leaves_the_shutter_as_it_is(bench: Bench) -> None:
    manager, table = await open_shutter(bench)
    await manager.shutdown(3.0)
    assert table.state().shutter_open


@pytest.mark.parametrize("action", [SHUT, SafeAction("call", call="shut")], ids=["bytes", "call"])
async def test_a_stop_all_shuts_the_shutter_which_then_stays_shut(bench: Bench, action: SafeAction) -> None:
    manager, table = await open_shutter(bench, safe={Cause.STOP_ALL: action})
    report = await manager.stop_all()
    assert not report.failures
    assert await until(lambda: not table.state().shutter_open, 1.0)
    with pytest.raises(UnsafeStateError):
        await manager.command("shutter", Execute("open"))
    assert not table.state().shutter_open
    manager.reset_stop("a person")
    assert not table.state().shutter_open


async def test_a_hung_driver_is_made_safe_beside_its_call(bench: Bench) -> None:
    manager, table = await open_shutter(bench, safe={Cause.CRASH: SHUT}, kill_after_s=0.1)
    hanging = await outcome(manager.command("shutter", Execute("hang"), 0.1))
    assert isinstance(hanging, DeliveryError)
    assert await until(lambda: not table.state().shutter_open, 2.0)
    LET_GO.set()


async def test_a_shutdown_stops_a_moving_axis(bench: Bench) -> None:
    safe = {Cause.SHUTDOWN: SafeAction("stop")}
    manager, _, _ = await meter_and_stage(bench, safe=safe, args={"poll_s": 0.01})
    table = await bench.table()
    move = asyncio.ensure_future(outcome(manager.command("stage", Execute("move", ("x", 24.0)))))
    assert await until(lambda: table.state().moving[1], 2.0)
    await manager.shutdown(1.0)
    assert await stands(bench, 1)
    assert table.state().positions[1] < 23.0
    assert isinstance(await move, StoppedError | DeliveryError)
