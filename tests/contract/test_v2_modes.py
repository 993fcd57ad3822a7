"""V2 keeps the Runtime promise wherever its worker runs: inline, or on a thread's loop with the broker on another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from duodaq import clock
from duodaq.errors import LifecycleError, RefusedError, ReplyTimeoutError, StoppedError
from duodaq.model import (
    Execute,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    ParameterEntry,
    PollDefinition,
    PortDefinition,
    Runtime,
    RuntimeStatus,
    SetParameter,
    Stop,
)
from duodaq.ports import Broker
from duodaq.testing._scripted_port import ScriptedCodec, ScriptedTransport
from duodaq.v2 import DataDistributor, V2Runtime
from duodaq.workers import Hosted, make_worker


class NoParameters:
    def put(self, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        return ParameterEntry(instrument, name, value, unit, 0, 0, owner)

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        return None

    def mark_stale(self, owner: Any, instrument: str) -> None: ...


class Chopper:
    """A home-made class on a shared line."""

    def __init__(self, port: Any) -> None:
        self.port = port
        self.gate = threading.Event()

    def get_rate(self) -> float:
        self.port.write(b"RATE?\n")
        return float(self.port.readline())

    def its_gate(self) -> threading.Event:
        return self.gate

    def block(self) -> str:
        self.gate.wait(30.0)
        return "came back"


class Bench:
    def __init__(self, kind: str) -> None:
        self.broker = Broker()
        self.line = ScriptedTransport(lambda line: b"12.5\n" if line == b"RATE?" else None)
        self.hub = DataDistributor()
        self.v2 = Hosted("v2", self._make, make_worker(kind, "v2"))

    def _make(self) -> Runtime:
        self.runtime = V2Runtime(self.broker, NoParameters(), self.hub)
        return self.runtime

    async def start(self, *definitions: InstrumentDefinition) -> None:
        await self.broker.add(PortDefinition("line", serial={"path": "scripted"}), ScriptedCodec(), self.line)
        await self.broker.open("line")
        for definition in definitions:
            await self.v2.add(definition)
        await self.v2.start(10.0)

    async def stop(self) -> None:
        await self.v2.stop(5.0)
        await self.broker.aclose()


@pytest.fixture(params=["inline", "thread"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    made = Bench(request.param)
    yield made
    await made.stop()


def chopper(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("chopper", "v2", Chopper, port="line", **facts)


async def until(condition: Any, limit_s: float = 5.0) -> None:
    ends = clock.Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await clock.pause(0.005)


def state(bench: Bench) -> InstrumentState:
    return bench.v2.instruments()[0].state


async def test_a_command_is_done_when_it_is_answered(bench: Bench) -> None:
    await bench.start(chopper())
    assert await bench.v2.command("chopper", Execute("get_rate")) == 12.5
    assert bench.line.lines == [b"RATE?"]
    assert bench.v2.status is RuntimeStatus.RUNNING


async def test_readings_reach_a_subscriber_on_the_managers_loop(bench: Bench) -> None:
    await bench.start(chopper(polls=(PollDefinition("rate", 0.02, "Hz", call="get_rate"),)))
    readings = bench.hub.subscribe("test")
    numbers = [(await readings.get(5.0)).sequence for _ in range(5)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert [c.channel for c in bench.v2.channels()] == ["rate"]


async def test_errors_come_back_typed(bench: Bench) -> None:
    await bench.start(chopper())
    with pytest.raises(RefusedError, match="no 'spin'"):
        await bench.v2.command("chopper", Execute("spin"))


async def test_a_blocked_call_frees_its_caller_and_disturbs_nobody(bench: Bench) -> None:
    other = InstrumentDefinition("other", "v2", Chopper, port="line")
    await bench.start(chopper(deadline_s=0.1, kill_after_s=0.1), other)
    gate: threading.Event = await bench.v2.command("chopper", Execute("its_gate"))
    with pytest.raises(ReplyTimeoutError):
        await bench.v2.command("chopper", Execute("block"), 0.1)
    assert await bench.v2.command("other", Execute("get_rate")) == 12.5
    await until(lambda: state(bench) is InstrumentState.HUNG)
    gate.set()
    await until(lambda: state(bench) is InstrumentState.READY)
    assert await bench.v2.command("chopper", Execute("get_rate"), 5.0) == 12.5


async def test_stop_crosses_to_the_brokers_loop(bench: Bench) -> None:
    await bench.start(chopper())
    t_ns = await bench.v2.command("chopper", Stop())
    assert bench.line.lines == [b"ST"]
    assert abs(clock.utc_ns() - t_ns) < 5e9


async def test_end_moving_ends_what_waits(bench: Bench) -> None:
    await bench.start(chopper(passive=frozenset({"block"})))
    gate: threading.Event = await bench.v2.command("chopper", Execute("its_gate"))
    blocking = asyncio.create_task(bench.v2.command("chopper", Execute("block")))
    await until(lambda: bench.runtime.metrics()["instruments"]["chopper"]["in_hand"] == "block")
    setting = asyncio.create_task(bench.v2.command("chopper", SetParameter("gate", gate)))
    await until(lambda: bench.runtime.metrics()["instruments"]["chopper"]["queue"]["waiting"] == 1)
    assert await bench.v2.end_moving("a test") == 1
    gate.set()
    with pytest.raises(StoppedError):
        await setting
    assert await blocking == "came back"


async def test_stop_reports_every_instrument_and_leaves_nothing(bench: Bench) -> None:
    await bench.start(chopper())
    reports = {report.component: report.outcome for report in await bench.v2.stop(5.0)}
    assert reports["v2.chopper"] is Outcome.CLEAN
    assert set(reports.values()) == {Outcome.CLEAN}
    with pytest.raises(LifecycleError):
        await bench.v2.command("chopper", Execute("get_rate"))


async def test_restart_and_remove(bench: Bench) -> None:
    await bench.start(chopper())
    await bench.v2.restart("chopper")
    assert await bench.v2.command("chopper", Execute("get_rate")) == 12.5
    assert (await bench.v2.remove("chopper")).outcome is Outcome.CLEAN
    assert bench.v2.instruments() == ()
