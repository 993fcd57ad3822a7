"""The cable comes out, or the power goes, in the middle of what PyMeasure's own drivers say.

Hosted in V2: the caller gets one typed error or what was asked for; the instrument is in Error and comes back by
itself; and which of its settings are set again is what its stanza says.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from duodaq import clock, drivers
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError
from duodaq.model import (
    Command,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    LabDefinition,
    ParameterEntry,
    PortDefinition,
    RuntimeDefinition,
    SetParameter,
)
from duodaq.ports import Broker, PortState
from duodaq.sim import Faults, LocalTable, PtyEndpoint, SimServer, TcpEndpoint, make_simulator
from duodaq.v2 import DataDistributor, V2Runtime

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial

DMM = "pymeasure.instruments.hp:HP34401A"
STAGE = "pymeasure.instruments.newport:ESP300"
CODECS = {"scpi-dmm": "scpi", "esp300": "esp300"}
WHO = {"scpi-dmm": b"*IDN?\n", "esp300": b"VE?\r"}
BOOT_S = 0.1
LIMIT_S = 20.0
SERIAL = itertools.count()


class NoParameters:
    def put(self, owner: Any, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        return ParameterEntry(instrument, name, value, unit, 0, 0, owner)

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        return None

    def mark_stale(self, owner: Any, instrument: str) -> None: ...


@dataclass
class Lab:
    """A driver in V2 on a port, and the simulator behind it."""

    server: SimServer
    broker: Broker
    runtime: V2Runtime

    @property
    def state(self) -> InstrumentState:
        return self.runtime.instruments()[0].state

    @property
    def struck(self) -> Counter[str]:
        return Counter(self.server.report()["faults_done"])

    async def do(self, command: Command) -> Any:
        return await self.runtime.command("it", command, LIMIT_S)

    async def told(self, query: bytes) -> bytes:
        return (await self.broker.port("p").exchange(query, holder="test", timeout_s=LIMIT_S)).strip()

    async def until(self, *states: InstrumentState, restarts: int = 0) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.state not in states or self.runtime.instruments()[0].restarts < restarts:
                await clock.pause(0.005)

    async def until_port(self, state: PortState) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.broker.status()[0].state is not state:
                await clock.pause(0.005)


@asynccontextmanager
async def lab(name: str, driver: str, folder: Path, *, tcp: bool = False, **facts: Any) -> AsyncIterator[Lab]:
    table = LocalTable(1)
    endpoint = TcpEndpoint() if tcp else PtyEndpoint(str(folder / f"line{next(SERIAL)}"))
    server = SimServer(make_simulator(name, table=table, seed=1), endpoint, table=table, paced=False)
    server.start()
    where: dict[str, Any] = {"tcp": server.address} if tcp else {"serial": {"path": server.address}}
    options = {"reconnect_first_s": 0.005, "quiet_s": 0.03}
    codec, broker = drivers.codec(CODECS[name]), Broker()
    codec.longest_reply_s = 0.3
    await broker.add(PortDefinition("p", codec=CODECS[name], timeout_s=0.3, options=options, **where), codec)
    runtime, hub = V2Runtime(broker, NoParameters(), hub := DataDistributor()), hub
    try:
        await broker.open("p")
        await runtime.add(InstrumentDefinition("it", "v2", driver, port="p", **facts))
        await runtime.start(15.0)
        yield Lab(server, broker, runtime)
    finally:
        await runtime.stop(5.0)
        await broker.aclose()
        hub.close()
        server.close()


async def suffer(made: Lab, command: Command, blow: dict[str, int]) -> Any:
    """The command with the blow in it; what became of it. The line is back afterwards, and the driver on it."""
    restarts, before = made.runtime.instruments()[0].restarts, made.struck
    made.server.set_faults(Faults(boot_s=BOOT_S, **blow))
    try:
        result = await made.do(command)
    except DuodaqError as error:
        result = error
    assert isinstance(result, float | str | None) or result.instrument == "it"
    await clock.pause(0.02)
    struck = made.struck - before
    made.server.set_faults(Faults())
    if struck["cut"]:
        await made.until_port(PortState.LOST)
        await made.until(InstrumentState.ERROR)
        assert made.runtime.instruments()[0].recoverable
        made.server.replug()
        await made.until(InstrumentState.READY, restarts=restarts + 1)
        await made.until_port(PortState.OPEN)  # a driver that asks nothing when it is made is there before its line
    elif struck["cycle"]:
        await clock.pause(BOOT_S * 1.5)
    return result


def blows(fault: str, sizes: tuple[int, ...]) -> list[dict[str, int]]:
    return [{f"{fault}_{way}": after} for way in ("in", "out") for after in sizes]


@pytest.mark.parametrize("tcp", [False, True], ids=["pty", "tcp"])
async def test_a_multimeter_whose_cable_comes_out_is_typed_and_back(tcp: bool, tmp_path: Path) -> None:
    async with lab("scpi-dmm", DMM, tmp_path, tcp=tcp, settings={"nplc": 0.2}) as made:
        await made.do(GetParameter("id"))
        for command in (GetParameter("reading"), SetParameter("nplc", 0.2)):
            for blow in blows("cut", (0, 1, 5)):
                result = await suffer(made, command, blow)
                assert isinstance(result, float | DuodaqError), (command, blow, result)
                assert isinstance(await made.do(GetParameter("reading")), float)
                assert await made.do(GetParameter("nplc")) == 0.2


async def test_a_stage_whose_cable_comes_out_is_typed_and_back(tmp_path: Path) -> None:
    async with lab("esp300", STAGE, tmp_path) as made:
        await made.do(Execute("x.enable"))
        for command in (GetParameter("x.position"), SetParameter("x.position", 0.05)):
            for blow in blows("cut", (0, 2, 5)):
                result = await suffer(made, command, blow)
                assert isinstance(result, float | DuodaqError), (command, blow, result)
                assert await made.told(b"1PA?\r") in (b"0", b"0.05")
                assert isinstance(await made.do(GetParameter("x.position")), float)


POLICIES = {"passive": (b"0.2", b"1"), "reapply": (b"0.2", b"3"), "withhold": (b"10", b"1"), "ask": (b"10", b"1")}


async def settings_of(made: Lab) -> tuple[float, int]:
    return float(await made.told(b"VOLT:NPLC?\n")), int(float(await made.told(b"SAMP:COUN?\n")))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("idle", [True, False], ids=["idle", "in mid-exchange"])
async def test_after_the_power_was_away_settings_follow_the_policy(policy: str, idle: bool, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"settings": {"nplc": 0.2}, "options": {"on_reconnect": policy}}
    async with lab("scpi-dmm", DMM, tmp_path, tcp=True, **facts) as made:
        await made.do(SetParameter("sample_count", 3))
        assert await settings_of(made) == (0.2, 3)
        if idle:
            made.server.power_cycle(BOOT_S)
        else:
            await suffer(made, GetParameter("id"), {"cycle_out": 4})
        await made.until(InstrumentState.READY, restarts=1)
        nplc, count = POLICIES[policy]
        assert await settings_of(made) == (float(nplc), int(count))


@pytest.mark.parametrize("worker", ["thread", "process"])
async def test_an_idle_driver_in_any_worker_is_connected_anew_when_its_line_was_lost(
    worker: Literal["thread", "process"], tmp_path: Path
) -> None:
    table = LocalTable(1)
    server = SimServer(make_simulator("scpi-dmm", table=table, seed=1), TcpEndpoint(), table=table, paced=False)
    server.start()
    port = PortDefinition("p", tcp=server.address, codec="scpi", options={"reconnect_first_s": 0.005})
    dmm = InstrumentDefinition("dmm", "v2", DMM, port="p", settings={"nplc": 0.2})
    manager = DualRuntimeManager(LabDefinition("idle", (port,), (dmm,), v2=RuntimeDefinition("v2", worker)))
    await manager.start()
    try:
        server.power_cycle(BOOT_S)
        async with asyncio.timeout(LIMIT_S):
            while (manager.instruments()[0].restarts, manager.instruments()[0].state) != (1, InstrumentState.READY):
                await clock.pause(0.02)
        assert await manager.broker.port("p").exchange(b"VOLT:NPLC?\n", holder="test") == b"+2.00000000E-01\n"
    finally:
        await manager.shutdown(5.0)
        server.close()
