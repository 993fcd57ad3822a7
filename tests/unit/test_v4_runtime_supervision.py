"""What becomes of an instrument whose actor fails, and of the others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import msgspec
import pytest

from duodaq.clock import pause
from duodaq.drivers import codec
from duodaq.errors import DeliveryError, LifecycleError, OutOfRangeError, ReplyTimeoutError, StoppedError
from duodaq.model import (
    Cause,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    Parameters,
    PortDefinition,
    Recover,
    RuntimeStatus,
    SafeAction,
    SetParameter,
    StartAcquisition,
)
from duodaq.model import ParameterEntry as Entry
from duodaq.ports import Broker
from duodaq.testing import virtual_time
from duodaq.testing._scripted_port import ScriptedTransport
from duodaq.v4 import DataPublisher, StopReason, V4Runtime, handler
from duodaq.v4.instruments import InstrumentActor, Parameter


class Crash(msgspec.Struct):
    pass


class Glide(msgspec.Struct):
    seconds: float = 1.0


class Table:
    """The parameter table, as far as an instrument needs one."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Any] = {}
        self.stale: list[str] = []

    def put(self, owner: str, instrument: str, name: str, value: Any, unit: str = "") -> Entry:
        self.entries[instrument, name] = value
        return Entry(instrument, name, value, unit, 0, 1, "v4")

    def get(self, instrument: str, name: str) -> Entry | None:
        return None

    def mark_stale(self, owner: str, instrument: str) -> None:
        self.stale.append(instrument)


async def _level(actor: Toy) -> float:
    return actor.device["level"]


async def _set_level(actor: Toy, value: float) -> float:
    actor.device["level"] = round(value)
    return actor.device["level"]


class Toy(InstrumentActor):
    """An instrument whose device is a dictionary that all of them share."""

    device: ClassVar[dict[str, Any]] = {}
    operations: ClassVar[dict[str, type]] = {"glide": Glide}
    parameters: ClassVar[dict[str, Parameter]] = {"level": Parameter(_level, _set_level, "V")}

    async def connect(self) -> None:
        if self.device.get("dead", "") == self.name:
            raise OSError("dead")
        self.device["connects"] = self.device.get("connects", 0) + 1

    async def disconnect(self) -> None:
        if self.device.get("stuck"):
            await pause(1000)

    @handler(StartAcquisition)
    async def start_acquisition(self, message: StartAcquisition) -> None:
        self.run_beside(self._fail())

    async def _fail(self) -> None:
        raise RuntimeError("a bug")

    @handler(Glide, moves=True, operation=True)
    async def glide(self, message: Glide) -> str:
        try:
            await pause(message.seconds)
        except asyncio.CancelledError:
            self.device["cut"] = True
            raise
        return "there"

    async def on_stop(self, reason: StopReason) -> None:
        self.device.setdefault("reasons", []).append(reason)
        await super().on_stop(reason)


@pytest.fixture(autouse=True)
def fresh_device():
    Toy.device.clear()
    Toy.device["level"] = 1.0


def toy(name: str, **options: Any) -> InstrumentDefinition:
    fields = {key: options.pop(key) for key in ("required", "safe", "port", "settings") if key in options}
    return InstrumentDefinition(name, "v4", Toy, options=options, **fields)


async def running(*definitions: InstrumentDefinition, broker: Broker | None = None) -> tuple[V4Runtime, Table]:
    table = Table()
    keeper: Parameters = table
    runtime = V4Runtime(broker or Broker(), keeper, DataPublisher())
    for definition in definitions:
        await runtime.add(definition)
    await runtime.start(10)
    return runtime, table


def state(runtime: V4Runtime, name: str) -> InstrumentState:
    return next(status.state for status in runtime.instruments() if status.id == name)


@virtual_time
async def test_a_crashed_actor_is_restarted_and_its_settings_are_applied_again() -> None:
    runtime, table = await running(toy("a", settings={"level": 3.0}))
    assert await runtime.command("a", GetParameter("level")) == 3
    assert await runtime.command("a", SetParameter("level", 5.2)) == 5
    Toy.device["level"] = 0.0
    await runtime.command("a", StartAcquisition())
    runtime._residents["a"]._memory.pop("acquiring")
    await pause(0.5)
    assert state(runtime, "a") is InstrumentState.READY
    assert runtime.instruments()[0].restarts == 1
    assert await runtime.command("a", GetParameter("level")) == 5
    assert table.entries["a", "level"] == 5
    await runtime.stop(5)


@virtual_time
async def test_an_instrument_that_is_ready_takes_commands() -> None:
    runtime = V4Runtime(Broker(), Table(), DataPublisher())
    await runtime.add(toy("a"))
    starting = asyncio.create_task(runtime.start(10))
    while state(runtime, "a") is not InstrumentState.READY:
        await pause(0)
    assert await runtime.command("a", GetParameter("level")) == 1
    await starting
    await runtime.stop(5)


@virtual_time
async def test_beyond_the_restart_limit_one_instrument_is_in_error_and_the_others_go_on() -> None:
    runtime, _ = await running(toy("a", restart_limit=2), toy("b"))
    await runtime.command("a", StartAcquisition())
    await pause(30)
    status = runtime.instruments()[0]
    assert status.state is InstrumentState.ERROR
    assert "gave up" in status.message
    assert runtime.status is RuntimeStatus.DEGRADED
    assert await runtime.command("b", GetParameter("level")) == 1
    with pytest.raises(LifecycleError, match=r"a\.level: it is not running"):
        await runtime.command("a", GetParameter("level"))
    assert Toy.device["connects"] == 4
    runtime._residents["a"]._memory.pop("acquiring")
    await runtime.command("a", Recover())
    assert runtime.status is RuntimeStatus.RUNNING
    await runtime.stop(5)


@virtual_time
async def test_an_instrument_that_gave_up_is_brought_to_its_safe_state_by_bytes() -> None:
    line = ScriptedTransport(lambda _: None, terminator=b"\r")
    broker = Broker()
    await broker.add(PortDefinition("line"), codec("esp300"), line)
    await broker.open("line")
    safe = {Cause.CRASH: SafeAction("stop")}
    runtime, _ = await running(toy("a", restart="never", port="line", safe=safe), broker=broker)
    await runtime.command("a", StartAcquisition())
    await pause(1)
    assert line.lines == [b"ST"]
    await runtime.stop(5)
    await broker.aclose()


@virtual_time
async def test_a_required_instrument_that_does_not_start_fails_the_runtime_and_stops_the_rest() -> None:
    Toy.device["dead"] = "a"
    runtime = V4Runtime(Broker(), Table(), DataPublisher())
    await runtime.add(toy("a", required=True, restart="never"))
    await runtime.add(toy("b"))
    with pytest.raises(LifecycleError, match="dead"):
        await runtime.start(10)
    assert runtime.status is RuntimeStatus.FAILED
    assert state(runtime, "b") is InstrumentState.DISCONNECTED
    assert StopReason.STOPPED in Toy.device["reasons"]


@virtual_time
async def test_one_that_is_not_required_degrades_it_and_can_be_recovered() -> None:
    Toy.device["dead"] = "a"
    runtime, _ = await running(toy("a", restart="never"), toy("b"))
    assert runtime.status is RuntimeStatus.DEGRADED
    Toy.device["dead"] = ""
    await runtime.command("a", Recover())
    assert runtime.status is RuntimeStatus.RUNNING
    await runtime.stop(5)


@virtual_time
async def test_an_actor_that_fails_to_start_says_what_was_raised_and_on_which_line_of_it() -> None:
    Toy.device["dead"] = "a"
    runtime, _ = await running(toy("a", restart="never"))
    line = Toy.connect.__code__.co_firstlineno + 2
    (status,) = runtime.instruments()
    assert status.message == f"OSError: dead, at {__file__}:{line}"
    await runtime.stop(5)


@virtual_time
async def test_an_operation_ends_with_its_asker_and_with_its_deadline() -> None:
    runtime, _ = await running(toy("a"))
    assert await runtime.command("a", Execute("glide", (20.0,))) == "there"
    with pytest.raises(ReplyTimeoutError) as caught:
        await runtime.command("a", Execute("glide", (20.0,)), 1.0)
    assert caught.value.fate == "unknown"
    assert Toy.device.pop("cut")
    gliding = asyncio.ensure_future(runtime.command("a", Execute("glide", (20.0,))))
    await pause(1)
    gliding.cancel()
    await pause(0.1)
    assert Toy.device["cut"]
    await runtime.stop(5)


@virtual_time
async def test_waiting_moves_end_not_done_when_moving_is_ended() -> None:
    runtime, _ = await running(toy("a"))
    first = asyncio.ensure_future(runtime.command("a", SetParameter("level", 2.0)))
    waiting = asyncio.ensure_future(runtime.command("a", Execute("glide")))
    await pause(0)
    await pause(0)
    ended = runtime.end_moving("stop-all")
    outcomes = await asyncio.gather(first, waiting, return_exceptions=True)
    stopped = [outcome for outcome in outcomes if isinstance(outcome, StoppedError)]
    assert len(stopped) == ended
    assert all(error.fate == "not done" and error.instrument == "a" for error in stopped)
    await runtime.stop(5)


@virtual_time
async def test_wrong_operations_arguments_and_names_are_refused_before_anything_is_sent() -> None:
    runtime, _ = await running(toy("a"))
    for command in (Execute("fly"), Execute("glide", (1, 2, 3)), GetParameter("colour"), SetParameter("colour", 1)):
        with pytest.raises(OutOfRangeError, match=r"^a\."):
            await runtime.command("a", command)
    with pytest.raises(LifecycleError, match="no such instrument"):
        await runtime.command("zebra", GetParameter("level"))
    await runtime.stop(5)


@virtual_time
async def test_stop_keeps_its_budget_and_names_what_it_forced() -> None:
    Toy.device["stuck"] = True
    runtime, _ = await running(toy("a"), toy("b"))
    began_s = asyncio.get_running_loop().time()
    reports = await runtime.stop(2.0)
    assert asyncio.get_running_loop().time() - began_s <= 2.1
    assert {report.component for report in reports} == {"v4.a", "v4.b"}
    assert all(report.outcome is not Outcome.CLEAN and report.why for report in reports)
    assert await runtime.stop(2.0) == ()
    with pytest.raises(LifecycleError):
        await runtime.command("a", GetParameter("level"))


@virtual_time
async def test_a_runtime_starts_again_after_it_was_stopped() -> None:
    runtime, table = await running(toy("a"))
    await runtime.stop(5)
    assert table.stale == ["a"]
    await runtime.start(5)
    assert runtime.status is RuntimeStatus.RUNNING
    with pytest.raises(LifecycleError, match="already"):
        await runtime.start(5)
    await runtime.stop(5)


async def test_it_runs_on_a_loop_of_its_own_beside_the_brokers() -> None:
    def answer(line: bytes) -> bytes | None:
        return {b"*IDN?": b"A,B,0,1\n", b"VOLT?": b"1.5\n"}.get(line)

    broker = Broker()
    await broker.add(PortDefinition("line"), codec("scpi"), ScriptedTransport(answer))
    await broker.open("line")
    seen: list[Any] = []

    async def elsewhere() -> None:
        runtime = V4Runtime(broker, Table(), DataPublisher())
        await runtime.add(InstrumentDefinition("dmm", "v4", "duodaq:ScpiActor", port="line"))
        await runtime.start(10)
        seen.append(await runtime.command("dmm", Execute("query", ("VOLT?",))))
        seen.append(runtime.status)
        await runtime.stop(5)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    while thread.is_alive():
        await pause(0.01)
    thread.join()
    await broker.aclose()
    assert seen == ["1.5", RuntimeStatus.RUNNING]


@virtual_time
async def test_a_command_in_hand_when_the_actor_crashes_is_unknown_and_never_done_twice() -> None:
    runtime, _ = await running(toy("a"))
    gliding = asyncio.ensure_future(runtime.command("a", Execute("glide", (20.0,))))
    await pause(1)
    await runtime.command("a", StartAcquisition())
    runtime._residents["a"]._memory.pop("acquiring", None)
    with pytest.raises(DeliveryError) as caught:
        await gliding
    assert caught.value.fate == "unknown"
    await pause(1)
    assert state(runtime, "a") is InstrumentState.READY
    await runtime.stop(5)
