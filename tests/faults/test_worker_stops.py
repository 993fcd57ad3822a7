"""What a stop leaves behind in an instrument whose worker dies afterwards, or is being replaced just then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import LifecycleError, PortLostError, UnsafeStateError
from duodaq.model import (
    Cause,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentStatus,
    LabDefinition,
    PortDefinition,
    Recover,
    RuntimeDefinition,
    SafeAction,
    SetParameter,
    StartAcquisition,
    Stop,
)

SUPPLIES = Path(__file__).with_name("supplies.py")
ID = {b"*IDN?": b"ACME,SUPPLY,1,1", b"VE?": b"ESP300 Version 3.04"}


class Device:
    """Answers on a socket, and keeps what it was told; `mute` to all but the question who it is."""

    def __init__(self) -> None:
        self.identity = dict(ID)
        self.told: list[bytes] = []
        self.mute = False
        self.owed: list[tuple[asyncio.StreamWriter, bytes]] = []
        self.lines: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines.append(writer)
        try:
            heard = b""
            while data := await reader.read(1000):
                *lines, heard = (heard + data).replace(b"\r", b"\n").split(b"\n")
                for line in filter(None, (one.strip() for one in lines)):
                    self._answer(line, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        self.told.append(line)
        if line in self.identity:
            writer.write(self.identity[line] + b"\r\n")
        elif line.startswith(b"SYST:ERR?"):
            writer.write(b'+0,"No error"\n')
        elif line == b"TB?":
            writer.write(b"0, 0, NO ERROR DETECTED\r\n")
        elif line.endswith(b"?"):
            self.owed.append((writer, b"0\r\n"))
            self.answer()

    def answer(self) -> None:
        """Give the answers that are owed, unless it is mute."""
        while self.owed and not self.mute:
            writer, reply = self.owed.pop(0)
            writer.write(reply)

    def hang_up(self) -> None:
        for line in self.lines:
            line.close()


class Output:
    """A driver of V2 with one setting that emits and one that does not."""

    def __init__(self, serial: Any) -> None:
        self._line = serial
        self._output = False
        self._range = 0

    @property
    def output(self) -> bool:
        return self._output

    @output.setter
    def output(self, on: bool) -> None:
        self._output = on
        self._line.write(b"OUTP 1\n" if on else b"OUTP 0\n")

    @property
    def range(self) -> int:
        return self._range

    @range.setter
    def range(self, value: int) -> None:
        self._range = value
        self._line.write(b"RANG %d\n" % value)

    def configure(self, value: int) -> None:
        self._range = value


@asynccontextmanager
async def lab(
    *instruments: InstrumentDefinition, codec: str = "scpi", v2: str = "process"
) -> AsyncIterator[tuple[DualRuntimeManager, Device]]:
    device = Device()
    server = await asyncio.start_server(device.serve, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    where = {"v2": RuntimeDefinition("v2", v2), "v4": RuntimeDefinition("v4", "process")}
    port = PortDefinition("line", tcp=place, codec=codec, timeout_s=5.0)
    manager = DualRuntimeManager(LabDefinition("stops", ports=(port,), instruments=instruments, **where))
    await manager.start()
    try:
        yield manager, device
    finally:
        await manager.shutdown(5.0)
        device.hang_up()
        server.close()
        await server.wait_closed()


def source(**facts: Any) -> InstrumentDefinition:
    settings = {"output": True, "range": 3}
    return InstrumentDefinition(
        "it", "v2", Output, port="line", settings=settings, passive=frozenset({"range"}), stop=b"OUTP OFF\n", **facts
    )


def status(manager: DualRuntimeManager) -> InstrumentStatus:
    return next(one for one in manager.instruments() if one.id == "it")


async def until(condition: Any, manager: DualRuntimeManager, limit_s: float = 8.0) -> None:
    limit = Deadline(limit_s)
    while not condition():
        assert not limit.passed, status(manager)
        await pause(0.005)


def kill(manager: DualRuntimeManager) -> int:
    pid = status(manager).pid
    assert pid is not None
    os.kill(pid, 9)
    return pid


async def die(manager: DualRuntimeManager) -> None:
    """Kill the worker, and wait until another is well in its place."""
    pid = kill(manager)
    await until(
        lambda: status(manager).pid not in (pid, None) and status(manager).state in ("ready", "acquiring"), manager
    )


def outputs(device: Device) -> list[bytes]:
    return [line for line in device.told if line.startswith(b"OUTP")]


async def all_is_heard(manager: DualRuntimeManager) -> None:
    """What has been written to the device is with it: it has answered a question behind that."""
    asked = manager.broker.owner("line").codec
    assert asked is not None
    query = asked.identity()
    assert query is not None
    await manager.broker.port("line").exchange(query[0], holder="test")


async def identified(device: Device, manager: DualRuntimeManager) -> None:
    await until(lambda: device.identity.keys() & device.told, manager)
    await pause(0.05)


# ---- a stop and a death


@pytest.mark.parametrize("policy", ["passive", "reapply"])
@pytest.mark.parametrize("everything", [True, False], ids=["stop-all", "stop"])
@pytest.mark.fault("SIGKILL")
async def test_what_a_stop_switched_off_stays_off_after_its_reset_and_a_death(policy: str, everything: bool) -> None:
    async with lab(source(options={"on_reconnect": policy})) as (manager, device):
        if everything:
            await manager.stop_all()
            manager.reset_stop("test")
        else:
            await manager.command("it", Stop(), 2.0)
        await all_is_heard(manager)
        before = outputs(device)
        device.told.clear()
        await die(manager)
        await until(lambda: b"RANG 3" in device.told, manager)  # it neither moves nor emits, and comes behind the other
        assert outputs(device) == []
        assert before[0] == b"OUTP 1"
        assert "output" in status(manager).message
        await die(manager)
        assert outputs(device) == []
        await manager.command("it", Recover(), 2.0)
        await until(lambda: outputs(device) == [b"OUTP 1"], manager)
        await die(manager)  # what somebody has switched on since is the stanza's again
        await until(lambda: outputs(device) == [b"OUTP 1"] * 2, manager)


@pytest.mark.fault("SIGKILL", "stop-all")
async def test_what_was_set_again_after_a_stop_is_set_again_after_a_death_too() -> None:
    async with lab(source()) as (manager, device):
        await manager.stop_all()
        manager.reset_stop("test")
        await manager.command("it", SetParameter("output", True), 2.0)
        await all_is_heard(manager)
        device.told.clear()
        await die(manager)
        await until(lambda: outputs(device) == [b"OUTP 1"], manager)


@pytest.mark.fault("SIGKILL", "stop-all")
async def test_what_was_not_switched_on_as_a_stop_was_latched_is_not_switched_on_by_a_death() -> None:
    async with lab() as (manager, device):
        await manager.stop_all()
        await manager.add(source())
        manager.reset_stop("test")
        await die(manager)
        await until(lambda: device.told.count(b"RANG 3") == 2, manager)
        assert outputs(device) == []


@pytest.mark.fault("SIGKILL")
async def test_what_a_method_has_set_is_not_carried_over_and_the_status_says_so() -> None:
    async with lab(source(options={"on_reconnect": "reapply"})) as (manager, _):
        await manager.command("it", Execute("configure", (7,)), 2.0)
        assert await manager.command("it", GetParameter("range"), 2.0) == 7
        await manager.command("it", Execute("configure", (9,)), 2.0)  # 7 is stale, and was the last read
        await die(manager)
        await until(lambda: "other than before: range = 3" in status(manager).message, manager)
        await die(manager)
        await until(lambda: "replaced after" in status(manager).message, manager)
        assert "other than before" not in status(manager).message


@pytest.mark.parametrize("where", ["inline", "thread"])
@pytest.mark.fault("unplugged", "stop-all")
async def test_what_a_stop_switched_off_stays_off_when_a_lost_line_is_back(where: str) -> None:
    async with lab(source(), v2=where) as (manager, device):
        await manager.stop_all()
        manager.reset_stop("test")
        await all_is_heard(manager)
        device.told.clear()
        device.hang_up()
        await until(lambda: status(manager).restarts and status(manager).state == "ready", manager)
        await until(lambda: b"RANG 3" in device.told, manager)
        assert outputs(device) == []


@pytest.mark.parametrize(("kind", "emits"), [("Lamp", True), ("Supply", False)])
@pytest.mark.fault("SIGKILL")
async def test_the_stream_of_an_actor_from_a_file_begins_again_after_a_stop_only_if_it_merely_reads(
    kind: str, emits: bool
) -> None:
    it = InstrumentDefinition("it", "v4", f"{SUPPLIES}:{kind}", port="line", worker="own")
    async with lab(it) as (manager, device):
        await manager.command("it", StartAcquisition(), 2.0)
        await until(lambda: (b"LAMP 1" in device.told) is emits, manager)
        await manager.command("it", Stop(), 2.0)
        await all_is_heard(manager)
        device.told.clear()
        await die(manager)
        await pause(0.1)
        assert b"LAMP 1" not in device.told
        assert (status(manager).state == "acquiring") is not emits


# ---- a stop in the middle of a start


def slow(runtime: str, **facts: Any) -> InstrumentDefinition:
    kind = "SlowDriver" if runtime == "v2" else "Slow"
    return InstrumentDefinition("it", runtime, f"{SUPPLIES}:{kind}", port="line", worker="own", **facts)


@pytest.mark.parametrize("required", [False, True], ids=["", "required"])
@pytest.mark.parametrize("runtime", ["v2", "v4"])
@pytest.mark.fault("SIGKILL", "stop-all")
async def test_a_replacement_whose_start_a_stop_all_cut_comes_up_by_itself_and_still_latched(
    runtime: str, required: bool
) -> None:
    async with lab(slow(runtime, required=required), codec="esp300") as (manager, device):
        await identified(device, manager)
        device.mute = True
        device.told.clear()
        pid = kill(manager)
        await until(lambda: b"1TP?" in device.told, manager)
        await manager.stop_all()
        device.mute = False
        device.answer()
        await until(lambda: status(manager).state == "ready" and status(manager).pid not in (pid, None), manager, 4.0)
        assert manager.health().latched
        if runtime == "v2":
            with pytest.raises(UnsafeStateError):
                await manager.command("it", Execute("move"), 1.0)
            manager.reset_stop("test")
            await manager.command("it", Execute("move"), 1.0)


@pytest.mark.parametrize("required", [False, True], ids=["", "required"])
@pytest.mark.parametrize("runtime", ["v2", "v4"])
@pytest.mark.fault("SIGKILL", "stop-all")
async def test_a_replacement_to_whose_start_a_latched_stop_says_no_comes_up_after_its_reset(
    runtime: str, required: bool
) -> None:
    kind = {"v2": "EagerDriver", "v4": "Eager"}[runtime]
    it = InstrumentDefinition("it", runtime, f"{SUPPLIES}:{kind}", port="line", worker="own", required=required)
    async with lab(it, codec="esp300") as (manager, device):
        await identified(device, manager)
        await manager.stop_all()
        await all_is_heard(manager)
        device.told.clear()
        pid = kill(manager)
        await until(lambda: "latched" in status(manager).message, manager)
        await pause(0.5)
        assert b"1PA1" not in device.told
        manager.reset_stop("test")
        await until(lambda: status(manager).state == "ready" and status(manager).pid not in (pid, None), manager, 6.0)
        await until(lambda: b"1PA1" in device.told, manager)
        assert status(manager).recoverable


# ---- crash bytes and strangers

OFF = {Cause.CRASH: SafeAction("bytes", data=b"OUTP OFF\n")}


@pytest.mark.fault("SIGKILL")
async def test_crash_bytes_wait_for_no_question_on_a_line_that_was_never_lost() -> None:
    async with lab(source(safe=OFF)) as (manager, device):
        await identified(device, manager)
        device.told.clear()
        await die(manager)
        await until(lambda: b"RANG 3" in device.told, manager)
        assert device.told[:2] == [b"OUTP OFF", b"*IDN?"]


@pytest.mark.fault("SIGKILL", "unplugged", "another device")
async def test_after_its_line_was_lost_no_crash_bytes_go_to_another_device() -> None:
    async with lab(source(safe=OFF)) as (manager, device):
        await identified(device, manager)
        device.told.clear()
        device.identity[b"*IDN?"] = b"ACME,LASER,2,2"
        device.hang_up()
        await until(lambda: b"*IDN?" in device.told, manager)
        pid = kill(manager)
        await until(lambda: status(manager).pid not in (pid, None), manager)
        await pause(0.3)
        assert set(device.told) == {b"*IDN?"}
        with pytest.raises((PortLostError, LifecycleError)):
            await manager.broker.stop("line", b"OUTP OFF\n")
        device.identity.update(ID)
        await until(lambda: status(manager).state == "ready", manager, 12.0)
