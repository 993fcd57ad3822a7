"""Another device at the line of a worker that has died, and what a replacement is told of the settings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from duodaq.clock import Deadline, block, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DeliveryError, DuodaqError, LifecycleError
from duodaq.model import (
    Cause,
    Execute,
    GetParameter,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    LabDefinition,
    PortDefinition,
    Recover,
    RuntimeDefinition,
    SafeAction,
    SetParameter,
    StartAcquisition,
)
from duodaq.v4.instruments import ScpiActor, scpi_setting

SUPPLY, STRANGER = b"ACME,SUPPLY,1,1", b"ACME,LASER,2,2"


class Device:
    """Answers on a socket, and keeps what it was told; `name` is who it is now."""

    def __init__(self) -> None:
        self.name = SUPPLY
        self.told: list[bytes] = []
        self.volts = b"0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).strip():
                self.told.append(line)
                if line == b"*IDN?":
                    writer.write(self.name + b"\n")
                elif line == b"VOLT?":
                    writer.write(self.volts + b"\n")
                elif line == b"SYST:ERR?":
                    writer.write(b'+0,"No error"\n')
                elif line.endswith(b"?"):
                    writer.write(b"0\n")
                elif line.startswith(b"VOLT "):
                    self.volts = line[5:]
        finally:
            writer.close()


class Supply(ScpiActor):
    parameters: ClassVar = {"volts": scpi_setting("VOLT", "V")}


class Output:
    """A driver of V2 with one setting, which emits; setting it off kills the process behind it, if told so."""

    def __init__(self, serial: Any) -> None:
        self._line = serial
        self.dies_next = False
        self._output = False

    @property
    def output(self) -> bool:
        return self._output

    @output.setter
    def output(self, on: bool) -> None:
        self._output = on
        self._line.write(b"OUTP 1\n" if on else b"OUTP 0\n")
        if self.dies_next:
            block(0.05)
            os._exit(1)

    def will_die(self) -> None:
        self.dies_next = True


@asynccontextmanager
async def lab(*instruments: InstrumentDefinition) -> AsyncIterator[tuple[DualRuntimeManager, Device]]:
    device = Device()
    server = await asyncio.start_server(device.serve, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    processes = {"v2": RuntimeDefinition("v2", "process"), "v4": RuntimeDefinition("v4", "process")}
    port = PortDefinition("line", tcp=place, codec="scpi", timeout_s=0.5)
    manager = DualRuntimeManager(LabDefinition("identity", ports=(port,), instruments=instruments, **processes))
    await manager.start()
    try:
        yield manager, device
    finally:
        await manager.shutdown(5.0)
        server.close()
        await server.wait_closed()


def supply(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("supply", "v4", Supply, port="line", settings={"volts": 5}, **facts)


def status(manager: DualRuntimeManager, instrument: str = "supply") -> InstrumentStatus:
    return next(one for one in manager.instruments() if one.id == instrument)


async def until_state(manager: DualRuntimeManager, *states: InstrumentState, instrument: str = "supply") -> None:
    limit = Deadline(8.0)
    while status(manager, instrument).state not in states or status(manager, instrument).pid is None:
        assert not limit.passed, status(manager, instrument)
        await pause(0.005)


async def die(manager: DualRuntimeManager, instrument: str = "supply") -> None:
    """Kill the worker, and wait until another is there in its place."""
    pid = status(manager, instrument).pid
    assert pid is not None
    os.kill(pid, 9)
    limit = Deadline(8.0)
    while status(manager, instrument).pid in (pid, None):
        assert not limit.passed, status(manager, instrument)
        await pause(0.005)
    await until_state(
        manager, InstrumentState.READY, InstrumentState.ERROR, InstrumentState.ACQUIRING, instrument=instrument
    )


async def until_known(device: Device) -> None:
    limit = Deadline(2.0)
    while b"*IDN?" not in device.told and not limit.passed:
        await pause(0.01)
    await pause(0.1)


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.fault("SIGKILL", "another device")
async def test_to_another_device_nothing_is_written_after_a_death(added: bool) -> None:
    async with lab(*(() if added else (supply(),))) as (manager, device):
        if added:
            await manager.add(supply())
        await until_known(device)
        device.name = STRANGER
        device.told.clear()
        await die(manager)
        assert status(manager).state is InstrumentState.ERROR
        assert set(device.told) == {b"*IDN?"}
        with pytest.raises(LifecycleError, match="another device"):
            await manager.command("supply", SetParameter("volts", 7), 2.0)
        assert set(device.told) == {b"*IDN?"}


@pytest.mark.fault("SIGKILL", "another device")
async def test_whoever_asks_another_device_who_it_is_makes_it_no_known_one() -> None:
    async with lab(supply()) as (manager, device):
        await until_known(device)
        device.name = STRANGER
        reply = await manager.broker.port("line").exchange(b"*IDN?\n", holder="a person", reply=_line(manager))
        assert STRANGER in reply
        device.told.clear()
        await die(manager)
        assert status(manager).state is InstrumentState.ERROR
        assert set(device.told) == {b"*IDN?"}


@pytest.mark.fault("SIGKILL", "another device")
async def test_the_right_device_is_taken_back_by_recover_and_no_other() -> None:
    async with lab(supply()) as (manager, device):
        await until_known(device)
        device.name = STRANGER
        await die(manager)
        device.told.clear()
        with pytest.raises(DuodaqError, match="another device"):
            await manager.command("supply", Recover(), 2.0)
        assert set(device.told) == {b"*IDN?"}
        device.name = SUPPLY
        await manager.command("supply", Recover(), 2.0)
        await until_state(manager, InstrumentState.READY)
        assert await manager.command("supply", GetParameter("volts"), 2.0) == 5


def _line(manager: DualRuntimeManager) -> Any:
    codec = manager.broker.port("line").codec
    assert codec is not None
    query = codec.identity()
    assert query is not None
    return query[1]


# ---- settings


def camera(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition(
        "camera", "v4", "duodaq:PvcamActor", args={"simulated": True, "exposure_s": 0.005}, worker="own", **facts
    )


@pytest.mark.fault("SIGKILL")
async def test_settings_made_by_operations_are_the_replacements_too() -> None:
    pytest.importorskip("pyvcam")
    async with lab(camera()) as (manager, _):
        await manager.command("camera", Execute("configure_roi", ((10, 20, 64, 48),)), 5.0)
        await manager.command("camera", Execute("set_binning", ((2, 2),)), 5.0)
        await manager.command("camera", Execute("set_timing", (0.007,)), 5.0)
        names = ("roi", "binning", "exposure_s", "gain", "mode", "speed")
        before = [await manager.command("camera", GetParameter(name), 5.0) for name in names]
        await die(manager, "camera")
        assert [await manager.command("camera", GetParameter(name), 5.0) for name in names] == before


@pytest.mark.fault("SIGKILL", "stop-all")
async def test_a_stream_that_was_stopped_does_not_begin_again_with_a_replacement() -> None:
    pytest.importorskip("pyvcam")
    async with lab(camera()) as (manager, _):
        await manager.command("camera", StartAcquisition(), 5.0)
        await manager.stop_all()
        manager.reset_stop("test")
        await die(manager, "camera")
        assert await manager.command("camera", Execute("is_streaming"), 5.0) is False


@pytest.mark.fault("SIGKILL", "stop-all")
async def test_a_stream_does_not_begin_again_in_a_replacement_while_a_stop_is_latched() -> None:
    pytest.importorskip("pyvcam")
    async with lab(camera()) as (manager, _):
        await manager.command("camera", StartAcquisition(), 5.0)
        pid = status(manager, "camera").pid
        assert pid is not None
        os.kill(pid, 9)
        stopping = asyncio.create_task(manager.stop_all())
        limit = Deadline(8.0)
        while status(manager, "camera").pid in (pid, None):
            assert not limit.passed
            await pause(0.005)
        await stopping
        await until_state(manager, InstrumentState.READY, instrument="camera")
        assert await manager.command("camera", Execute("is_streaming"), 5.0) is False
        manager.reset_stop("test")
        assert await manager.command("camera", Execute("is_streaming"), 5.0) is False


def source(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("source", "v2", Output, port="line", settings={"output": True}, **facts)


@pytest.mark.fault("SIGKILL")
async def test_what_the_crash_action_switched_off_stays_off_until_somebody_says_recover() -> None:
    off = {Cause.CRASH: SafeAction("bytes", data=b"OUTP OFF\n")}
    async with lab(source(safe=off)) as (manager, device):
        await die(manager, "source")
        assert [line for line in device.told if line.startswith(b"OUTP")] == [b"OUTP 1", b"OUTP OFF"]
        assert "output" in status(manager, "source").message
        await manager.command("source", Recover(), 2.0)
        limit = Deadline(2.0)
        while [line for line in device.told if line.startswith(b"OUTP")][-1] != b"OUTP 1":
            assert not limit.passed, device.told  # it has been written; the device reads it on this same loop
            await pause(0.005)


@pytest.mark.parametrize("policy", ["passive", "reapply", "withhold", "ask"])
@pytest.mark.fault("os._exit")
async def test_an_output_that_was_switched_off_as_its_worker_died_stays_off(policy: str) -> None:
    async with lab(source(options={"on_reconnect": policy})) as (manager, device):
        await manager.command("source", Execute("will_die"), 2.0)
        pid = status(manager, "source").pid
        with pytest.raises(DeliveryError) as caught:
            await manager.command("source", SetParameter("output", False), 2.0)
        assert caught.value.fate == "unknown"
        limit = Deadline(8.0)
        while status(manager, "source").pid in (pid, None) or status(manager, "source").state != "ready":
            assert not limit.passed
            await pause(0.005)
        await pause(0.1)
        assert [line for line in device.told if line.startswith(b"OUTP")] == [b"OUTP 1", b"OUTP 0"]
