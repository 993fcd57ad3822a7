"""V2 keeps the promise of a host wherever it runs: inline, on a thread's loop, or in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from duodaq import clock
from duodaq.bridge import ParameterTable
from duodaq.drivers import codec
from duodaq.errors import LifecycleError, RefusedError, ReplyTimeoutError, StoppedError, UnsafeStateError
from duodaq.model import (
    AxisDefinition,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    Outcome,
    PollDefinition,
    PortDefinition,
    Recover,
    Runtime,
    RuntimeStatus,
    SetParameter,
    StartAcquisition,
    Stop,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.testing._scripted_port import ScriptedTransport
from duodaq.v2 import DataDistributor
from duodaq.v4 import DataPublisher
from duodaq.workers import (
    Factories,
    FeedBooks,
    Host,
    Hosted,
    Nursery,
    ProcessGroup,
    ProcessHosted,
    RuntimeParts,
    SharedPage,
    Surroundings,
    Switchboard,
    make_worker,
)
from duodaq.workers._starter import CAN_FORK

KINDS = ["inline", "thread", *(["process"] if CAN_FORK else [])]


class FileGate:
    """Opened by a file: also from another process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self) -> None:
        self.path.touch()

    def wait(self, limit_s: float) -> None:
        ends = clock.Deadline(limit_s)
        while not self.path.exists() and not ends.passed:
            clock.block(0.005)


class Chopper:
    """A home-made class on a shared line."""

    def __init__(self, port: Any, gate: Path | None = None) -> None:
        self.port = port
        self.gate = gate and FileGate(gate)

    def get_rate(self) -> float:
        self.port.write(b"RATE?\n")
        return float(self.port.readline())

    def block(self) -> str:
        assert self.gate
        self.gate.wait(30.0)
        return "came back"


class Source:
    """A home-made class with two settings, of which one emits."""

    def __init__(self, port: Any) -> None:
        self.port = port
        self.__dict__.update(level=0, filter=0)

    def __setattr__(self, name: str, value: Any) -> None:
        if "level" in self.__dict__:
            self.port.write(f"{name.upper()} {value}\n".encode())
        super().__setattr__(name, value)


class Bath:
    """A home-made class whose axis moves by a setting."""

    def __init__(self, port: Any) -> None:
        self.port = port

    @property
    def level(self) -> float:
        self.port.write(b"LEVEL?\n")
        return float(self.port.readline())

    @level.setter
    def level(self, value: float) -> None:
        self.port.write(f"LEVEL {value}\n".encode())

    def move(self, axis: str, position: float) -> None:
        self.level = position

    def calibrate(self) -> None:
        self.port.write(b"CAL\n")


class Level:
    """What a bath answers: the level that was set last, unless it lost its power."""

    def __init__(self) -> None:
        self.value = b"0"

    def __call__(self, line: bytes) -> bytes | None:
        name, _, value = line.partition(b" ")
        self.value = value if name == b"LEVEL" else self.value
        if name == b"*IDN?":
            return b"A,bath,1,2\n"
        return self.value + b"\n" if name == b"LEVEL?" else None


class Bench:
    def __init__(self, kind: str, gate: Path) -> None:
        self.gate = FileGate(gate)
        self.kind = kind
        self.broker = Broker()
        self.line = ScriptedTransport({b"RATE?": b"12.5\n", b"*IDN?": b"A,chopper,1,2\n"}.get)
        self.hub = DataDistributor()
        self.table = ParameterTable()
        self.nursery = Nursery()
        self.page: SharedPage | None = None
        self.crashes: list[str] = []
        self.v2: Host = self._in_a_process() if kind == "process" else Hosted("v2", self._make, make_worker(kind, "v2"))

    def _make(self) -> Runtime:
        return Factories().v2(RuntimeParts(self.broker, self.table, self.hub, DataPublisher()))

    def _in_a_process(self) -> ProcessHosted:
        around = Surroundings(
            self.broker,
            self.table,
            self.hub,
            DataPublisher(),
            self.table.snapshot,
            self.table.watch,
            lambda pid, fd: None,
            lambda pid: None,
            Switchboard(self._ask_across),
        )
        self.page = SharedPage()
        books = FeedBooks("worker v2", self.hub.name)
        group = ProcessGroup("v2", "v2", Factories().v2, self.nursery, around, self.page, books, self._note_crash)
        return ProcessHosted(group)

    async def _ask_across(self, *_: Any) -> Any:
        raise AssertionError("nobody here asks another instrument")

    async def _note_crash(self, instruments: Any, cause: str) -> None:
        self.crashes.append(cause)

    async def start(self, *definitions: InstrumentDefinition) -> None:
        await self.broker.add(
            PortDefinition("line", serial={"path": "scripted"}, codec="scpi"), codec("scpi"), self.line
        )
        await self.broker.open("line")
        for definition in definitions:
            await self.v2.add(definition)
        await self.v2.start(20.0)

    def chopper(self, **facts: Any) -> InstrumentDefinition:
        facts.setdefault("args", {"gate": self.gate.path})
        return InstrumentDefinition("chopper", "v2", Chopper, port="line", stop=b"ST\n", **facts)

    @property
    def lines(self) -> list[bytes]:
        """What was written to the device, but for the question who it is."""
        return [line for line in self.line.lines if line != b"*IDN?"]

    def figures(self, instrument: str = "chopper") -> Any:
        return self.v2.metrics().get("instruments", {}).get(instrument)

    async def stop(self) -> None:
        await self.v2.stop(5.0)
        await self.nursery.aclose()
        await self.broker.aclose()
        if self.page is not None:
            self.page.close()


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(request.param, tmp_path / "open")
    yield made
    made.gate.set()
    await made.stop()


async def until(condition: Any, limit_s: float = 5.0) -> None:
    ends = clock.Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await clock.pause(0.005)


def state(bench: Bench) -> InstrumentState:
    return bench.v2.instruments()[0].state


async def test_a_command_is_done_when_it_is_answered(bench: Bench) -> None:
    await bench.start(bench.chopper())
    assert await bench.v2.command("chopper", Execute("get_rate")) == 12.5
    assert bench.lines == [b"RATE?"]
    assert bench.v2.status is RuntimeStatus.RUNNING


async def test_what_a_command_changed_is_known_with_its_answer(bench: Bench) -> None:
    await bench.start(
        bench.chopper(polls=(PollDefinition("rate", 60.0, "Hz", call="get_rate"),), options={"acquire": False})
    )
    for _ in range(5):
        await bench.v2.command("chopper", StartAcquisition())
        assert state(bench) is InstrumentState.ACQUIRING
        await bench.v2.command("chopper", StopAcquisition())
        assert state(bench) is InstrumentState.READY


async def test_readings_reach_a_subscriber_on_the_managers_loop(bench: Bench) -> None:
    await bench.start(bench.chopper(polls=(PollDefinition("rate", 0.02, "Hz", call="get_rate"),)))
    readings = bench.hub.subscribe("test")
    numbers = [(await readings.get(5.0)).sequence for _ in range(5)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert [c.channel for c in bench.v2.channels()] == ["rate"]


async def test_errors_come_back_typed(bench: Bench) -> None:
    await bench.start(bench.chopper())
    with pytest.raises(RefusedError, match="no 'spin'"):
        await bench.v2.command("chopper", Execute("spin"))


async def test_a_blocked_call_frees_its_caller_and_disturbs_nobody(bench: Bench) -> None:
    other = InstrumentDefinition("other", "v2", Chopper, port="line")
    await bench.start(bench.chopper(deadline_s=0.1, kill_after_s=0.1), other)
    with pytest.raises(ReplyTimeoutError):
        await bench.v2.command("chopper", Execute("block"), 0.1)
    assert await bench.v2.command("other", Execute("get_rate")) == 12.5
    await until(lambda: state(bench) is InstrumentState.HUNG)
    bench.gate.set()
    await until(lambda: state(bench) is InstrumentState.READY)
    assert await bench.v2.command("chopper", Execute("get_rate"), 5.0) == 12.5


async def test_stop_crosses_to_the_brokers_loop(bench: Bench) -> None:
    await bench.start(bench.chopper())
    t_ns = await bench.v2.command("chopper", Stop())
    assert bench.lines == [b"ST"]
    assert abs(clock.utc_ns() - t_ns) < 5e9


async def test_end_moving_ends_what_waits(bench: Bench) -> None:
    await bench.start(bench.chopper(passive=frozenset({"block"})))
    blocking = asyncio.create_task(bench.v2.command("chopper", Execute("block")))
    await until(lambda: (seen := bench.figures()) and seen["in_hand"] == "block")
    setting = asyncio.create_task(bench.v2.command("chopper", SetParameter("gate", None)))
    await until(lambda: bench.figures()["queue"]["waiting"] == 1)
    assert await bench.v2.end_moving("a test") == 1
    bench.gate.set()
    with pytest.raises(StoppedError):
        await setting
    assert await blocking == "came back"


async def test_stop_reports_every_instrument_and_leaves_nothing(bench: Bench) -> None:
    await bench.start(bench.chopper())
    reports = {report.component: report.outcome for report in await bench.v2.stop(5.0)}
    assert reports["v2.chopper"] is Outcome.CLEAN
    assert set(reports.values()) == {Outcome.CLEAN}
    with pytest.raises(LifecycleError):
        await bench.v2.command("chopper", Execute("get_rate"))


async def test_restart_and_remove(bench: Bench) -> None:
    await bench.start(bench.chopper())
    await bench.v2.restart("chopper")
    assert await bench.v2.command("chopper", Execute("get_rate")) == 12.5
    assert (await bench.v2.remove("chopper")).outcome is Outcome.CLEAN
    assert bench.v2.instruments() == ()


async def test_a_class_from_a_file_on_no_path_is_hosted(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "chopper_on_no_path.py"
    file.write_text("class Plain:\n    def __init__(self, port): ...\n    def get_rate(self): return 7.5\n")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        await bench.start(InstrumentDefinition("plain", "v2", module.Plain, port="line"))
        assert await bench.v2.command("plain", Execute("get_rate")) == 7.5
    finally:
        del sys.modules[file.stem]


@pytest.mark.parametrize("policy", ["ask", "withhold", "passive"])
async def test_after_a_lost_line_what_waits_for_somebody_is_set_when_he_says_recover(bench: Bench, policy: str) -> None:
    await bench.start(
        InstrumentDefinition(
            "source",
            "v2",
            Source,
            port="line",
            settings={"filter": 3},
            passive=frozenset({"filter"}),
            options={"on_reconnect": policy},
        )
    )
    await bench.v2.command("source", SetParameter("level", 7))
    bench.line.unplug()
    bench.line.replug()
    await until(lambda: status_of(bench, "source").restarts == 1 and status_of(bench, "source").state == "ready")
    by_itself = [b"FILTER 3"] if policy == "passive" else []
    assert bench.lines == [b"FILTER 3", b"LEVEL 7", *by_itself]
    await bench.v2.command("source", Recover())
    when_asked = [b"FILTER 3", b"LEVEL 7"] if policy == "ask" else []
    assert bench.lines == [b"FILTER 3", b"LEVEL 7", *by_itself, *when_asked]
    await bench.v2.command("source", Recover())  # once
    assert bench.lines == [b"FILTER 3", b"LEVEL 7", *by_itself, *when_asked]


@pytest.mark.parametrize("policy", ["ask", "passive"])
async def test_what_was_not_set_again_after_a_lost_line_is_in_its_message_until_somebody_sets_it(
    bench: Bench, policy: str
) -> None:
    options = {"on_reconnect": policy}
    await bench.start(InstrumentDefinition("source", "v2", Source, port="line", options=options))
    await bench.v2.command("source", SetParameter("level", 7))
    await bench.v2.command("source", SetParameter("filter", 2))
    assert status_of(bench, "source").message == ""
    bench.line.unplug()
    bench.line.replug()
    withheld = "not set again after the reconnection: level, filter; "
    await until(lambda: status_of(bench, "source").message.startswith(withheld))
    assert status_of(bench, "source").state == "ready"
    assert ("Recover" in status_of(bench, "source").message) is (policy == "ask")
    await bench.v2.command("source", SetParameter("level", 7))
    await until(lambda: "reconnection: filter; " in status_of(bench, "source").message)
    await bench.v2.command("source", Recover() if policy == "ask" else SetParameter("filter", 2))
    await until(lambda: status_of(bench, "source").message == "")


@pytest.mark.parametrize("kept", [True, False], ids=["kept its level", "lost its power"])
async def test_a_move_that_sets_what_was_withheld_ends_its_message(bench: Bench, kept: bool) -> None:
    level = Level()
    bench.line = ScriptedTransport(level)
    options = {"on_reconnect": "withhold"}
    axis = AxisDefinition("bath", 1)
    bath = InstrumentDefinition("bath", "v2", Bath, port="line", watched=("level",), axes=(axis,), options=options)
    await bench.start(bath)
    await bench.v2.command("bath", Execute("move", ("bath", 3)))
    await bench.v2.command("bath", SetParameter("level", 7))
    bench.line.unplug()
    level.value = b"7" if kept else b"0"
    bench.line.replug()
    withheld = "not set again after the reconnection: level; said until it is set"
    await until(lambda: status_of(bench, "bath").message == withheld)
    if not kept:
        await bench.v2.command("bath", Execute("calibrate"))
        await bench.v2.command("bath", Execute("calibrate"))
        assert status_of(bench, "bath").message == withheld, "a call that leaves it alone"
    await bench.v2.command("bath", Execute("move", ("bath", 7 if kept else 3)))
    await until(lambda: status_of(bench, "bath").message == "")


async def test_what_only_reads_otherwise_is_still_not_set(bench: Bench) -> None:
    level, options = Level(), {"on_reconnect": "withhold"}
    bench.line = ScriptedTransport(level)
    axis, passive = AxisDefinition("bath", 1), frozenset({"calibrate"})
    bath = InstrumentDefinition(
        "bath", "v2", Bath, port="line", watched=("level",), axes=(axis,), options=options, passive=passive
    )
    await bench.start(bath)
    await bench.v2.command("bath", SetParameter("level", 7))
    bench.line.unplug()
    level.value = b"0"
    bench.line.replug()
    withheld = "not set again after the reconnection: level; said until it is set"
    await until(lambda: status_of(bench, "bath").message == withheld)
    level.value = b"0.01"  # as what is measured does
    await bench.v2.command("bath", Execute("calibrate"))
    assert await bench.v2.command("bath", GetParameter("level")) == 0.01
    await bench.v2.command("bath", Execute("calibrate"))
    assert status_of(bench, "bath").message == withheld


async def test_what_a_start_under_a_stop_did_not_set_is_in_its_message_and_set_when_somebody_says_so(
    bench: Bench,
) -> None:
    bench.broker.latch("the test")
    await bench.start(InstrumentDefinition("source", "v2", Source, port="line", settings={"level": 7}))
    withheld = "not set at its start, for a stop was latched: level; "
    await until(lambda: status_of(bench, "source").message.startswith(withheld))
    assert bench.lines == []
    bench.broker.reset_latch("the test")
    bench.line.unplug()
    bench.line.replug()
    await until(lambda: status_of(bench, "source").restarts == 1 and status_of(bench, "source").state == "ready")
    assert bench.lines == []  # nor does a cable
    await bench.v2.command("source", Recover())
    assert bench.lines == [b"LEVEL 7"]
    await until(lambda: status_of(bench, "source").message == "")


async def test_a_recover_while_a_stop_is_latched_sets_nothing_that_emits_and_after_its_reset_it_does(
    bench: Bench,
) -> None:
    options = {"on_reconnect": "ask"}
    await bench.start(InstrumentDefinition("source", "v2", Source, port="line", options=options))
    await bench.v2.command("source", SetParameter("level", 7))
    bench.broker.latch("the test")
    bench.line.unplug()
    bench.line.replug()
    await until(lambda: status_of(bench, "source").restarts == 1 and status_of(bench, "source").state == "ready")
    with pytest.raises(UnsafeStateError):
        await bench.v2.command("source", Recover())
    assert bench.lines == [b"LEVEL 7"]
    bench.broker.reset_latch("the test")
    await bench.v2.command("source", Recover())
    assert bench.lines == [b"LEVEL 7", b"LEVEL 7"]


def status_of(bench: Bench, instrument: str) -> InstrumentStatus:
    return next(status for status in bench.v2.instruments() if status.id == instrument)


@pytest.mark.skipif(not CAN_FORK, reason="needs a process")
@pytest.mark.parametrize("moment", ["before it is ended", "while what is under way ends"])
async def test_a_worker_that_dies_as_it_is_ended_is_buried_and_not_replaced(tmp_path: Path, moment: str) -> None:
    bench = Bench("process", tmp_path / "open")
    bench.gate.set()
    try:
        await bench.start(bench.chopper())
        group = bench.v2.group
        worker = group.current

        def die() -> None:
            os.kill(worker.child.pid, signal.SIGKILL)
            group._lost(worker, "killed")

        async def slow_to_end() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                die()

        if moment == "before it is ended":
            die()  # its recovery is ended before it has begun
        else:
            group._beside.append(asyncio.create_task(slow_to_end()))
            await clock.pause(0)
        await group.end(5.0)
        assert not group._recovery_runs
        assert not group._burials
        assert group.current is None
        with pytest.raises(ProcessLookupError):
            os.kill(worker.child.pid, 0)
    finally:
        await bench.stop()
