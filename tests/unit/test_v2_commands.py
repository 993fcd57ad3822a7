"""What becomes of a command to a V2 instrument, on drivers that block, raise and hang; no port is involved."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from duodaq import clock
from duodaq.errors import (
    ConfigError,
    DuodaqError,
    InstrumentError,
    LifecycleError,
    MailboxFullError,
    RefusedError,
    ReplyTimeoutError,
    StoppedError,
    UnsafeStateError,
)
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    ParameterEntry,
    Recover,
    RuntimeStatus,
    SetParameter,
    Shutdown,
    Stop,
)
from duodaq.ports import Broker
from duodaq.v2 import DataDistributor, GetInstrumentList, GetMetrics, StartRecording, Subscribe, V2Runtime


class FakeParameters:
    """A parameter table of one dictionary."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], ParameterEntry] = {}
        self.stale: list[str] = []

    def put(self, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        entry = ParameterEntry(instrument, name, value, unit, clock.utc_ns(), 0, owner)
        self.entries[instrument, name] = entry
        return entry

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        return self.entries.get((instrument, name))

    def mark_stale(self, owner: Any, instrument: str) -> None:
        self.stale.append(instrument)


class Lamp:
    """A home-made driver: blocks when told to, until it is let go."""

    def __init__(self, gate: threading.Event | None = None, fails: str = "") -> None:
        if fails:
            raise OSError(5, fails)
        self.gate = gate or threading.Event()
        self.begun = threading.Event()
        self.level = 1.0
        self.calls: list[Any] = []
        self.closed = False

    @property
    def serial_number(self) -> str:
        return "L-1"

    def double(self, value: float) -> float:
        self.calls.append(value)
        return 2 * value

    def hold(self) -> str:
        self.begun.set()
        self.gate.wait(30.0)
        return "let go"

    def complain(self, text: str) -> None:
        raise ValueError(text)

    def leave(self) -> None:
        raise SystemExit(3)

    def close(self) -> None:
        self.closed = True

    def itself(self) -> Lamp:
        return self


def stanza(gate: threading.Event | None = None, **facts: Any) -> InstrumentDefinition:
    facts.setdefault("args", {"gate": gate})
    return InstrumentDefinition("lamp", "v2", Lamp, **facts)


@asynccontextmanager
async def running(
    *definitions: InstrumentDefinition, parameters: FakeParameters | None = None, broker: Broker | None = None
) -> AsyncIterator[V2Runtime]:
    runtime = V2Runtime(broker or Broker(), parameters or FakeParameters(), DataDistributor())
    for definition in definitions:
        await runtime.add(definition)
    await runtime.start(5.0)
    try:
        yield runtime
    finally:
        await runtime.stop(2.0)


def state_of(runtime: V2Runtime, instrument: str = "lamp") -> InstrumentState:
    return next(status.state for status in runtime.instruments() if status.id == instrument)


async def until(condition: Any, limit_s: float = 5.0) -> None:
    ends = clock.Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await clock.pause(0.005)


@pytest.fixture
def gate() -> Any:
    event = threading.Event()
    yield event
    event.set()


async def test_a_call_returns_what_the_driver_returned() -> None:
    async with running(stanza()) as runtime:
        assert await runtime.command("lamp", Execute("double", (21.0,))) == 42.0


async def test_setting_returns_what_the_driver_accepted_and_tells_the_parameter_table() -> None:
    parameters = FakeParameters()
    async with running(stanza(watched=("level",)), parameters=parameters) as runtime:
        assert await runtime.command("lamp", SetParameter("level", 3.5)) == 3.5
        assert await runtime.command("lamp", GetParameter("level")) == 3.5
    assert parameters.entries["lamp", "level"].value == 3.5


async def test_settings_of_the_stanza_are_applied_when_it_connects() -> None:
    async with running(stanza(settings={"level": 7.0})) as runtime:
        assert await runtime.command("lamp", GetParameter("level")) == 7.0


async def test_a_misspelt_setting_is_refused_and_the_right_one_named() -> None:
    async with running(stanza()) as runtime:
        with pytest.raises(RefusedError, match="did you mean 'level'"):
            await runtime.command("lamp", SetParameter("levl", 1))


async def test_a_property_without_a_setter_is_refused() -> None:
    async with running(stanza()) as runtime:
        with pytest.raises(RefusedError, match="not set"):
            await runtime.command("lamp", SetParameter("serial_number", "x"))


async def test_what_the_driver_refuses_comes_back_typed_with_instrument_command_and_cause() -> None:
    async with running(stanza()) as runtime:
        with pytest.raises(RefusedError, match="too bright") as caught:
            await runtime.command("lamp", Execute("complain", ("too bright",)))
        assert (caught.value.instrument, caught.value.command) == ("lamp", "complain")
        assert isinstance(caught.value.__cause__, ValueError)
        assert state_of(runtime) is InstrumentState.READY


async def test_a_driver_that_raises_system_exit_ends_nothing_but_its_call() -> None:
    async with running(stanza()) as runtime:
        with pytest.raises(InstrumentError, match="SystemExit"):
            await runtime.command("lamp", Execute("leave"))
        assert await runtime.command("lamp", Execute("double", (1,))) == 2


async def test_an_overdue_call_frees_its_caller_with_fate_unknown(gate: threading.Event) -> None:
    async with running(stanza(gate, deadline_s=0.1)) as runtime:
        with pytest.raises(ReplyTimeoutError) as caught:
            await runtime.command("lamp", Execute("hold"))
        assert (caught.value.instrument, caught.value.command, caught.value.fate) == ("lamp", "hold", "unknown")
        gate.set()
        await until(lambda: runtime.metrics()["instruments"]["lamp"]["late"] == 1)
        assert state_of(runtime) is InstrumentState.READY
        assert await runtime.command("lamp", Execute("double", (2,))) == 4


async def test_a_command_that_waits_behind_a_blocked_driver_ends_not_done(gate: threading.Event) -> None:
    async with running(stanza(gate)) as runtime:
        holding = asyncio.create_task(runtime.command("lamp", Execute("hold")))
        await until(lambda: runtime.metrics()["instruments"]["lamp"]["in_hand"] == "hold")
        with pytest.raises(ReplyTimeoutError) as caught:
            await runtime.command("lamp", Execute("double", (1,)), 0.1)
        assert caught.value.fate == "not done"
        gate.set()
        assert await holding == "let go"
        assert await runtime.command("lamp", GetParameter("calls")) == []


async def test_a_method_has_its_own_deadline_and_never_is_one(gate: threading.Event) -> None:
    async with running(stanza(gate, deadline_s=0.05, method_deadline_s={"hold": None})) as runtime:
        holding = asyncio.create_task(runtime.command("lamp", Execute("hold")))
        await clock.pause(0.3)
        assert not holding.done()
        gate.set()
        assert await holding == "let go"


async def test_a_full_queue_refuses_with_mailbox_full_and_the_manager_serves_on(gate: threading.Event) -> None:
    other = InstrumentDefinition("other", "v2", Lamp)
    async with running(stanza(gate), other) as runtime:
        waiting = [asyncio.create_task(runtime.command("lamp", Execute("hold"), 30.0)) for _ in range(33)]
        await until(lambda: runtime.metrics()["instruments"]["lamp"]["queue"]["waiting"] == 32)
        with pytest.raises(MailboxFullError):
            await runtime.command("lamp", Execute("double", (1,)), 0.1)
        assert await runtime.command("other", Execute("double", (1,))) == 2
        gate.set()
        assert await asyncio.gather(*waiting) == ["let go"] * 33


async def test_commands_of_one_sender_are_carried_out_in_order() -> None:
    async with running(stanza()) as runtime:
        await asyncio.gather(*(runtime.command("lamp", Execute("double", (n,))) for n in range(200)))
        assert await runtime.command("lamp", GetParameter("calls")) == list(range(200))


async def test_a_hung_driver_is_given_up_and_connected_anew_when_it_returns(gate: threading.Event) -> None:
    async with running(stanza(gate, deadline_s=0.05, kill_after_s=0.1)) as runtime:
        with pytest.raises(ReplyTimeoutError):
            await runtime.command("lamp", Execute("hold"))
        await until(lambda: state_of(runtime) is InstrumentState.HUNG)
        assert runtime.status is RuntimeStatus.DEGRADED
        with pytest.raises(LifecycleError, match="hung"):
            await runtime.command("lamp", GetParameter("level"))
        gate.set()
        await until(lambda: state_of(runtime) is InstrumentState.READY)
        assert runtime.instruments()[0].restarts == 1
        assert runtime.status is RuntimeStatus.RUNNING


async def test_a_cancelled_caller_takes_its_waiting_command_with_it(gate: threading.Event) -> None:
    async with running(stanza(gate)) as runtime:
        holding = asyncio.create_task(runtime.command("lamp", Execute("hold")))
        await until(lambda: runtime.metrics()["instruments"]["lamp"]["in_hand"] == "hold")
        waiting = asyncio.create_task(runtime.command("lamp", Execute("double", (1,))))
        await clock.pause(0.01)
        waiting.cancel()
        gate.set()
        await holding
        assert await runtime.command("lamp", GetParameter("calls")) == []
        assert runtime.metrics()["instruments"]["lamp"]["not_done"] == 1


async def test_end_moving_ends_what_waits_to_move_and_nothing_else(gate: threading.Event) -> None:
    async with running(stanza(gate, passive=frozenset({"hold"}))) as runtime:
        holding = asyncio.create_task(runtime.command("lamp", Execute("hold")))
        await until(lambda: runtime.metrics()["instruments"]["lamp"]["in_hand"] == "hold")
        moving = [asyncio.create_task(runtime.command("lamp", Execute("double", (n,)))) for n in range(3)]
        reading = asyncio.create_task(runtime.command("lamp", GetParameter("level")))
        await clock.pause(0.01)
        assert runtime.end_moving("a person pressed stop") == 3
        gate.set()
        assert (await holding, await reading) == ("let go", 1.0)
        for ended in await asyncio.gather(*moving, return_exceptions=True):
            assert isinstance(ended, StoppedError)
            assert ended.fate == "not done"
        assert await runtime.command("lamp", GetParameter("calls")) == []


async def test_end_moving_reaches_a_command_that_is_not_in_the_queue_yet() -> None:
    async with running(stanza()) as runtime:
        moving = asyncio.create_task(runtime.command("lamp", Execute("double", (1,))))
        await clock.pause(0)  # its caller has begun; the manager has not
        assert runtime.end_moving("stop") == 1
        with pytest.raises(StoppedError):
            await moving
        assert await runtime.command("lamp", GetParameter("calls")) == []


async def test_while_a_stop_is_latched_only_passive_commands_are_carried_out() -> None:
    broker = Broker()
    async with running(stanza(passive=frozenset({"complain"})), broker=broker) as runtime:
        broker.latch("a test")
        with pytest.raises(UnsafeStateError):
            await runtime.command("lamp", Execute("double", (1,)))
        assert await runtime.command("lamp", GetParameter("level")) == 1.0
        with pytest.raises(RefusedError):
            await runtime.command("lamp", Execute("complain", ("as usual",)))
        broker.reset_latch("a person")
        assert await runtime.command("lamp", Execute("double", (1,))) == 2


async def test_stop_is_refused_by_a_driver_that_owns_its_device_privately() -> None:
    async with running(stanza()) as runtime:
        with pytest.raises(RefusedError, match="owns the device privately"):
            await runtime.command("lamp", Stop())


async def test_an_instrument_that_cannot_connect_degrades_and_is_tried_again() -> None:
    broken = InstrumentDefinition("lamp", "v2", Lamp, args={"fails": "no such device"})
    async with running(broken) as runtime:
        assert runtime.status is RuntimeStatus.DEGRADED
        assert state_of(runtime) is InstrumentState.ERROR
        with pytest.raises(LifecycleError, match="not connected"):
            await runtime.command("lamp", GetParameter("level"))
        with pytest.raises(LifecycleError, match="could not be recovered"):
            await runtime.command("lamp", Recover())


async def test_a_constructor_that_fails_is_told_with_what_it_raised_and_on_which_line() -> None:
    line = Lamp.__init__.__code__.co_firstlineno + 2
    async with running(stanza(args={"fails": "no light"})) as runtime:
        (status,) = runtime.instruments()
        assert "OSError: [Errno 5] no light" in status.message
        assert status.message.endswith(f", at {__file__}:{line}")


async def test_a_required_instrument_that_cannot_connect_fails_the_start_and_rolls_it_back() -> None:
    runtime = V2Runtime(Broker(), FakeParameters(), DataDistributor())
    await runtime.add(InstrumentDefinition("good", "v2", Lamp))
    await runtime.add(InstrumentDefinition("bad", "v2", Lamp, args={"fails": "gone"}, required=True))
    with pytest.raises(DuodaqError, match="gone"):
        await runtime.start(2.0)
    assert runtime.status is RuntimeStatus.FAILED
    assert not any(thread.name.startswith("v2-") for thread in threading.enumerate())


async def test_a_wrong_stanza_names_its_key_and_is_not_tried_again() -> None:
    async with running(stanza(args={"colour": "red"})) as runtime:
        status = runtime.instruments()[0]
        assert status.state is InstrumentState.ERROR
        assert not status.recoverable
        assert "instruments.lamp.args" in status.message
        with pytest.raises(ConfigError, match="unexpected keyword argument 'colour'"):
            await runtime.restart("lamp")


async def test_a_driver_that_cannot_be_loaded_fails_the_start_and_rolls_it_back() -> None:
    runtime = V2Runtime(Broker(), FakeParameters(), DataDistributor())
    await runtime.add(stanza())
    await runtime.add(InstrumentDefinition("dim", "v2", "nowhere.at_all:Lamp"))
    with pytest.raises(ConfigError, match="there is no module 'nowhere'") as caught:
        await runtime.start(5.0)
    assert caught.value.key == "instruments.dim.driver"
    assert runtime.status is RuntimeStatus.FAILED
    assert {status.state for status in runtime.instruments()} == {InstrumentState.DISCONNECTED}


async def test_a_restart_makes_a_new_driver_and_disturbs_nobody() -> None:
    other = InstrumentDefinition("other", "v2", Lamp)
    async with running(stanza(), other) as runtime:
        await runtime.command("lamp", SetParameter("level", 9.0))
        await runtime.command("other", SetParameter("level", 9.0))
        await runtime.restart("lamp")
        assert await runtime.command("lamp", GetParameter("level")) == 1.0
        assert await runtime.command("other", GetParameter("level")) == 9.0


async def test_a_removed_instrument_is_unknown_and_its_driver_closed() -> None:
    async with running(stanza()) as runtime:
        driver = await runtime.command("lamp", Execute("itself"))
        assert (await runtime.remove("lamp")).outcome is Outcome.CLEAN
        assert driver.closed
        with pytest.raises(LifecycleError, match="no instrument 'lamp'"):
            await runtime.command("lamp", GetParameter("level"))


async def test_v2_ends_in_order_while_one_of_its_instruments_is_being_removed(gate: threading.Event) -> None:
    async with running(stanza(), InstrumentDefinition("other", "v2", Lamp, args={"gate": gate})) as runtime:
        driver = await runtime.command("other", Execute("itself"))
        held = asyncio.ensure_future(runtime.command("other", Execute("hold")))
        await until(driver.begun.is_set)
        removing, stopping = asyncio.ensure_future(runtime.remove("lamp")), asyncio.ensure_future(runtime.stop(5.0))
        assert (await removing).outcome is Outcome.CLEAN
        gate.set()
        assert {one.outcome for one in await stopping} == {Outcome.CLEAN}
        assert await held == "let go"


async def test_shutdown_of_one_instrument_is_accepted_once() -> None:
    async with running(stanza()) as runtime:
        report = await runtime.command("lamp", Shutdown())
        assert report.outcome is Outcome.CLEAN
        with pytest.raises(StoppedError):
            await runtime.command("lamp", GetParameter("level"))


async def test_an_instrument_can_be_added_to_a_running_runtime_and_one_that_fails_is_forgotten() -> None:
    async with running() as runtime:
        await runtime.add(stanza())
        assert await runtime.command("lamp", GetParameter("level")) == 1.0
        with pytest.raises(InstrumentError):
            await runtime.add(InstrumentDefinition("bad", "v2", Lamp, args={"fails": "gone"}))
        assert [status.id for status in runtime.instruments()] == ["lamp"]


async def test_shutdown_lets_short_calls_complete_and_ends_what_waits_as_not_done(gate: threading.Event) -> None:
    async with running(stanza(gate)) as runtime:
        holding = asyncio.create_task(runtime.command("lamp", Execute("hold")))
        await until(lambda: runtime.metrics()["instruments"]["lamp"]["in_hand"] == "hold")
        waiting = asyncio.create_task(runtime.command("lamp", Execute("double", (1,))))
        await clock.pause(0.01)
        stopping = asyncio.create_task(runtime.stop(3.0))
        with pytest.raises(StoppedError) as caught:
            await waiting
        assert caught.value.fate == "not done"
        gate.set()
        assert await holding == "let go"
        assert all(report.outcome is Outcome.CLEAN for report in await stopping)
        assert await runtime.stop(3.0) == await stopping


@pytest.mark.alone("0.1 s are left to a budget for stopping")
async def test_a_call_never_returned_from_is_told_unknown_at_shutdown_and_reported_leaked() -> None:
    gates = [threading.Event() for _ in range(5)]
    lamps = [InstrumentDefinition(f"lamp{n}", "v2", Lamp, args={"gate": gate}) for n, gate in enumerate(gates)]
    async with running(*lamps, InstrumentDefinition("good", "v2", Lamp)) as runtime:
        holding = [asyncio.create_task(runtime.command(lamp.id, Execute("hold"), 30.0)) for lamp in lamps]
        await until(lambda: all(runtime.metrics()["instruments"][lamp.id]["in_hand"] for lamp in lamps))
        begun = clock.monotonic_s()
        reports = {report.component: report for report in await runtime.stop(0.6)}
        assert clock.monotonic_s() - begun < 0.7
        for lamp, call in zip(lamps, holding, strict=True):
            assert reports[f"v2.{lamp.id}"].outcome is Outcome.LEAKED
            assert "hold" in reports[f"v2.{lamp.id}"].why
            error = (await asyncio.gather(call, return_exceptions=True))[0]
            assert isinstance(error, StoppedError)
            assert error.fate == "unknown"
        assert reports["v2.good"].outcome is Outcome.CLEAN
        assert reports["v2"].outcome is Outcome.LEAKED
    for gate in gates:
        gate.set()


async def test_the_manager_answers_for_its_state_and_figures() -> None:
    async with running(stanza()) as runtime:
        assert [status.id for status in await runtime.submit(GetInstrumentList())] == ["lamp"]
        subscription = await runtime.submit(Subscribe("plot"))
        figures = await runtime.submit(GetMetrics())
        assert figures["subscribers"]["plot"]["capacity"] == 1024
        subscription.close()
        with pytest.raises(LifecycleError, match="no recorder"):
            await runtime.submit(StartRecording())


async def test_a_runtime_that_is_stopped_takes_no_commands() -> None:
    async with running(stanza()) as runtime:
        await runtime.stop(1.0)
        assert runtime.status is RuntimeStatus.STOPPED
        with pytest.raises(LifecycleError):
            await runtime.command("lamp", GetParameter("level"))


async def test_members_tell_what_can_be_read_set_and_called() -> None:
    async with running(stanza()) as runtime:
        members = {member.name: member for member in runtime.members("lamp")}
        assert members["double"].callable
        assert members["serial_number"].readable
        assert not members["serial_number"].settable
        assert members["level"].settable
