import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from duodaq import sim
from duodaq.bridge import ParameterTable
from duodaq.clock import Deadline, pause
from duodaq.drivers import codec
from duodaq.errors import (
    DuodaqError,
    LifecycleError,
    OutOfRangeError,
    RefusedError,
    ReplyTimeoutError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import (
    AxisDefinition,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    PortDefinition,
    ReadChannel,
    RuntimeStatus,
    SetParameter,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.schema import schema_name, stage_scalars
from duodaq.testing.coexistence._bench import until
from duodaq.v4 import DataPublisher, V4Runtime
from duodaq.v4.instruments import InstrumentActor

pytestmark = pytest.mark.serial

X = AxisDefinition("x", 1, "mm", (0.0, 25.0))
STAGE = InstrumentDefinition("stage", "v4", "duodaq:Esp300", port="stage", axes=(X,), args={"poll_s": 0.01})


@pytest.fixture(scope="module")
def controller():
    with sim.launch("esp300") as process:
        yield process


@asynccontextmanager
async def stage_at(address: str, definition: InstrumentDefinition = STAGE, keep: Any = None):
    """The runtime with the stage in it, its broker, its parameter table and its data."""
    broker, table, publisher = Broker(), ParameterTable(), DataPublisher()
    port = PortDefinition("stage", serial={"path": address, "baud": 19200}, codec="esp300", timeout_s=5.0)
    await broker.add(port, codec("esp300"))
    await broker.open("stage")
    runtime = V4Runtime(broker, table, publisher, keep=keep)
    await runtime.add(definition)
    try:
        await runtime.start(20)
        yield runtime, broker, table, publisher
    finally:
        await runtime.stop(5)
        broker.reset_latch("test")
        await broker.aclose()


async def begun(broker: Broker, word: bytes) -> None:
    """Wait until a motion is on the wire: a busy machine takes its time."""
    assert await until(lambda: any(word in data for data in written(broker)), 10.0), written(broker)


async def stands(runtime: V4Runtime) -> bool:
    """Whether the axis comes to a stand, soon after it was told to."""
    limit = Deadline(5.0)
    while moving := await runtime.command("stage", GetParameter("x.moving")):
        if limit.passed:
            break
        await pause(0.01)
    return not moving


def written(broker: Broker) -> list[bytes]:
    return [record.data for record in broker.log("stage") if record.direction == ">"]


async def test_a_move_ends_where_it_was_sent(controller) -> None:
    async with stage_at(controller.address) as (runtime, _, table, _):
        await runtime.command("stage", Execute("move", ("x", 3.5)))
        assert await runtime.command("stage", GetParameter("x.position")) == pytest.approx(3.5, abs=0.01)
        assert await runtime.command("stage", Execute("move_relative", ("x", -0.5))) == pytest.approx(3.0, abs=0.01)
        entry = table.get("stage", "x.position")
        assert entry is not None
        assert entry.value == pytest.approx(3.0, abs=0.01)
        assert entry.owner == "v4"


async def test_what_moves_is_said_to_move_and_what_finds_its_line_lost_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    note, said = InstrumentActor.note, list[bool]()

    def noted(self: InstrumentActor, name: str, value: Any, unit: str = "") -> None:
        if name == "x.moving":
            said.append(value)
        note(self, name, value, unit)

    monkeypatch.setattr(InstrumentActor, "note", noted)
    with sim.launch("esp300") as own:
        async with stage_at(own.address) as (runtime, broker, _, _):
            await runtime.command("stage", Execute("move", ("x", 1.0)))
            assert (said.count(True), said[-1]) == (1, False)
            own.unplug()
            assert await until(lambda: broker.status()[0].state == "lost", 10.0)
            with pytest.raises(DuodaqError):
                await runtime.command("stage", Execute("move", ("x", 3.0)))
            assert said.count(True) == 1


async def test_a_target_beyond_the_limits_is_refused_and_nothing_is_written(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, _, _):
        before = len(written(broker))
        for target in (25.001, -1.0, float("nan"), float("inf")):
            with pytest.raises(OutOfRangeError, match=r"stage\.move"):
                await runtime.command("stage", Execute("move", ("x", target)))
        assert len(written(broker)) == before


async def test_a_relative_move_beyond_the_limits_moves_nothing(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, _, _):
        with pytest.raises(OutOfRangeError):
            await runtime.command("stage", Execute("move_relative", ("x", 30.0)))
        assert not [data for data in written(broker) if b"PA" in data or b"PR" in data]


async def test_a_refused_move_raises_the_controllers_own_code_and_text(controller) -> None:
    missing = replace(STAGE, axes=(replace(X, number=1), AxisDefinition("far", 1, "mm", None)))
    async with stage_at(controller.address, missing) as (runtime, _, _, _):
        with pytest.raises(RefusedError) as caught:
            await runtime.command("stage", Execute("configure", ("far",), {"velocity": 1e6}))
        assert caught.value.code == 110
        assert caught.value.text
        assert caught.value.instrument == "stage"
        assert caught.value.port == "stage"


async def test_a_stop_is_on_the_wire_and_the_move_in_hand_says_where_it_stands(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, _, _):
        await runtime.command("stage", Execute("move", ("x", 0.0)))
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 1.0}))
        move = asyncio.ensure_future(runtime.command("stage", Execute("move", ("x", 20.0))))
        await begun(broker, b"1PA20")
        while await runtime.command("stage", GetParameter("x.position")) <= 0:
            await pause(0.01)
        await runtime.command("stage", Stop())
        with pytest.raises(StoppedError, match="stands at"):
            await move
        assert written(broker)[-1] != b"ST\r"
        assert b"ST\r" in written(broker)
        assert 0 < await runtime.command("stage", GetParameter("x.position")) < 10


async def test_a_stop_by_the_broker_alone_ends_a_home_search(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, _, _):
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 10.0}))
        await runtime.command("stage", Execute("move", ("x", 20.0)))
        home = asyncio.ensure_future(runtime.command("stage", Execute("home", ("x",))))
        await begun(broker, b"1OR")
        assert await runtime.command("stage", GetParameter("x.state")) == "homing"
        await broker.stop("stage")
        with pytest.raises(StoppedError):
            await home


async def test_cancelling_whoever_asked_for_a_move_stops_the_axis(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, _, _):
        await runtime.command("stage", Execute("move", ("x", 0.0)))
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 1.0}))
        move = asyncio.ensure_future(runtime.command("stage", Execute("move", ("x", 20.0))))
        await begun(broker, b"1PA20")
        move.cancel()
        with pytest.raises(asyncio.CancelledError):
            await move
        assert await stands(runtime)
        assert b"1ST\r" in written(broker)


async def test_a_move_past_its_deadline_is_stopped_and_its_fate_unknown(controller) -> None:
    async with stage_at(controller.address) as (runtime, _, _, _):
        await runtime.command("stage", Execute("move", ("x", 0.0)))
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 1.0}))
        with pytest.raises(ReplyTimeoutError) as caught:
            await runtime.command("stage", Execute("move", ("x", 20.0)), 0.3)
        assert caught.value.fate == "unknown"
        assert await stands(runtime)


async def test_after_stop_all_no_move_goes_to_the_wire_until_a_person_resets_it(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, _, _):
        await broker.stop_all({"stage": None})
        runtime.end_moving("stop-all")
        with pytest.raises(UnsafeStateError):
            await runtime.command("stage", Execute("move", ("x", 5.0)))
        assert not [data for data in written(broker) if b"PA" in data]
        broker.reset_latch("a person")
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 20.0}))
        await runtime.command("stage", Execute("move", ("x", 5.0)))


async def test_reading_goes_on_while_an_axis_moves(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, _, _):
        await runtime.command("stage", Execute("move", ("x", 0.0)))
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 2.0}))
        move = asyncio.ensure_future(runtime.command("stage", Execute("move", ("x", 4.0))))
        await begun(broker, b"1PA4")
        while await runtime.command("stage", GetParameter("x.position")) <= 0:
            await pause(0.01)
        positions = [await runtime.command("stage", GetParameter("x.position")) for _ in range(5)]
        assert positions == sorted(positions)
        assert 0 < positions[0] < 4
        with pytest.raises(LifecycleError, match="busy"):
            await runtime.command("stage", Execute("move", ("x", 1.0)))
        await move


async def test_the_position_stream_has_sequences_without_gaps_across_a_restart(controller) -> None:
    async with stage_at(controller.address) as (runtime, _, _, publisher):
        rows = publisher.subscribe("test", capacity=4096)
        await runtime.command("stage", StartAcquisition({"rate_hz": 50.0}))
        assert await until(lambda: rows.occupancy > 5, 10.0)
        await runtime.restart("stage")
        before = rows.occupancy
        assert await until(lambda: rows.occupancy > before + 5, 10.0)
        assert runtime.instruments()[0].state is InstrumentState.ACQUIRING
        await runtime.command("stage", StopAcquisition())
        one = await runtime.command("stage", ReadChannel("x.position"))
        batches = [rows.get_nowait() for _ in range(rows.occupancy)]
        rows.close()
        assert {schema_name(batch.schema) for batch in batches} == {"stage/1"}
        sequences = [batch.column("sequence")[0].as_py() for batch in batches]
        assert sequences == list(range(len(sequences)))
        assert len(sequences) > 10
        last = stage_scalars(batches[-1])[0]
        assert (last.channel, last.sequence, last.value, last.t_ns) == (one.channel, one.sequence, one.value, one.t_ns)


async def test_motion_settings_survive_a_restart_and_limits_only_narrow(controller) -> None:
    async with stage_at(controller.address) as (runtime, _, _, _):
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 7.0, "limits": (1.0, 9.0)}))
        with pytest.raises(OutOfRangeError):
            await runtime.command("stage", SetParameter("x.limits", (0.0, 100.0)))
        await runtime.restart("stage")
        assert await runtime.command("stage", GetParameter("x.velocity")) == pytest.approx(7.0)
        with pytest.raises(OutOfRangeError):
            await runtime.command("stage", Execute("move", ("x", 9.5)))


async def test_accelerations_can_be_read_and_set_and_are_kept_for_a_replacement(controller) -> None:
    kept: dict[str, Any] = {}
    async with stage_at(controller.address, keep=lambda _, name, value: kept.update({name: value})) as made:
        runtime = made[0]
        await runtime.command("stage", Execute("configure", ("x",), {"acceleration": 6.0, "deceleration": 7.0}))
        assert kept == {"x.acceleration": 6.0, "x.deceleration": 7.0}
        assert await runtime.command("stage", SetParameter("x.acceleration", 5.0)) == pytest.approx(5.0)
        assert await runtime.command("stage", GetParameter("x.deceleration")) == pytest.approx(7.0)
    async with stage_at(controller.address, replace(STAGE, settings={**kept, "x.deceleration": 8.0})) as made:
        runtime, broker = made[:2]
        assert await runtime.command("stage", GetParameter("x.acceleration")) == pytest.approx(5.0)
        assert {b"1AC5\r", b"1AG8\r"} <= set(written(broker))


async def test_an_axis_may_have_another_unit_than_the_controller(controller) -> None:
    micro = replace(STAGE, axes=(AxisDefinition("x", 1, "µm", (0.0, 25000.0)),))
    async with stage_at(controller.address, micro) as (runtime, broker, _, _):
        await runtime.command("stage", Execute("move", ("x", 1250.0)))
        assert b"1PA1.25\r" in written(broker)
        position = await runtime.command("stage", GetParameter("x.position"))
        assert position == pytest.approx(1250, abs=10)


async def test_which_commands_move_is_known_without_asking_the_device(controller) -> None:
    async with stage_at(controller.address) as (runtime, _, _, _):
        moving = [
            Execute("move", ("x", 1.0)),
            Execute("home", ("x",)),
            SetParameter("x.position", 1.0),
            Execute("what"),
        ]
        still = [GetParameter("x.position"), Execute("read_position", ("x",)), SetParameter("x.velocity", 1.0), Stop()]
        assert [runtime.moves("stage", command) for command in moving] == [True] * 4
        assert [runtime.moves("stage", command) for command in still] == [False] * 4


async def test_an_instrument_that_does_not_start_degrades_the_runtime_and_recovers_by_restart(controller) -> None:
    async with stage_at(controller.address) as (runtime, _, _, _):
        broken = replace(STAGE, id="other", axes=(AxisDefinition("x", 1, "deg"),))
        with pytest.raises(Exception, match="counts in mm"):
            await runtime.add(broken)
        assert runtime.status is RuntimeStatus.DEGRADED
        assert runtime.instruments()[1].state is InstrumentState.ERROR
        await runtime.command("stage", GetParameter("x.position"))
        await runtime.remove("other")
        assert runtime.status is RuntimeStatus.RUNNING


async def test_stopping_the_runtime_stops_a_move_and_reports_every_instrument(controller) -> None:
    async with stage_at(controller.address) as (runtime, broker, table, _):
        await runtime.command("stage", Execute("move", ("x", 0.0)))
        await runtime.command("stage", Execute("configure", ("x",), {"velocity": 1.0}))
        move = asyncio.ensure_future(runtime.command("stage", Execute("move", ("x", 20.0))))
        await begun(broker, b"1PA20")
        reports = await runtime.stop(1.0)
        assert [report.component for report in reports] == ["v4.stage"]
        assert reports[0].outcome in (Outcome.CLEAN, Outcome.FORCED)
        with pytest.raises(Exception, match="stage"):
            await move
        assert b"1ST\r" in written(broker)
        assert runtime.status is RuntimeStatus.STOPPED
        assert runtime.instruments()[0].state is InstrumentState.DISCONNECTED
        entry = table.get("stage", "x.position")
        assert entry is not None
        assert entry.stale
