"""Workers are killed at any moment, with each policy for settings: an output changes when somebody says so, or not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DeliveryError, DuodaqError, LifecycleError
from duodaq.model import InstrumentDefinition, LabDefinition, PortDefinition, Recover, RuntimeDefinition, SetParameter

POLICIES = ("passive", "reapply", "withhold", "ask")


class Source:
    """A device with an output, which knows what it is told to do at present, and notes each change without a word."""

    def __init__(self) -> None:
        self.output = False
        self.changes = 0
        self.wanted: bool | None = None
        self.unasked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := (await reader.readline()).strip():
                if line == b"*IDN?":
                    writer.write(b"ACME,SOURCE,1,1\n")
                elif line == b"OUTP?":
                    writer.write(b"1\n" if self.output else b"0\n")
                elif line.startswith(b"OUTP "):
                    self.switch(line == b"OUTP 1")
        writer.close()

    def switch(self, on: bool) -> None:
        if on is not self.output:
            self.output = on
            self.changes += 1
            if on is not self.wanted:
                self.unasked.append(f"change {self.changes}: to {on}, and nobody had said so")
            self.wanted = None  # said once, it may change once


class Driver:
    """A foreign driver: an output that emits."""

    def __init__(self, serial: Any) -> None:
        self._line = serial

    @property
    def output(self) -> bool:
        self._line.write(b"OUTP?\n")
        return self._line.readline() == b"1\n"

    @output.setter
    def output(self, on: bool) -> None:
        self._line.write(b"OUTP 1\n" if on else b"OUTP 0\n")


@asynccontextmanager
async def lab() -> AsyncIterator[tuple[DualRuntimeManager, dict[str, Source]]]:
    sources = {policy: Source() for policy in POLICIES}
    ports: list[PortDefinition] = []
    async with AsyncExitStack() as stack:
        for name, source in sources.items():
            server = await asyncio.start_server(source.serve, "127.0.0.1", 0)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            ports.append(PortDefinition(name, tcp=f"127.0.0.1:{server.sockets[0].getsockname()[1]}", codec="scpi"))
        instruments = tuple(
            InstrumentDefinition(name, "v2", Driver, port=name, worker="own", options={"on_reconnect": name})
            for name in sources
        )
        v2 = RuntimeDefinition("v2", "process")
        manager = DualRuntimeManager(LabDefinition("kills", ports=tuple(ports), instruments=instruments, v2=v2))
        await manager.start()
        try:
            yield manager, sources
        finally:
            await manager.shutdown(5.0)


async def kill(manager: DualRuntimeManager, name: str, after_s: float) -> None:
    """Kill its worker a moment from now, and wait until another is there in its place."""
    await pause(after_s)
    pid = status(manager, name).pid
    assert pid is not None
    os.kill(pid, 9)
    limit = Deadline(30.0)
    while status(manager, name).pid in (pid, None) or status(manager, name).state != "ready":
        assert not limit.passed, status(manager, name)
        await pause(0.005)


def status(manager: DualRuntimeManager, name: str) -> Any:
    return next(one for one in manager.instruments() if one.id == name)


async def switch(manager: DualRuntimeManager, name: str, source: Source, on: bool) -> None:
    """Say so once; a verdict that it is not done means that it never will be."""
    source.wanted = on
    try:
        await manager.command(name, SetParameter("output", on), 15.0)
    except DeliveryError as error:
        if error.fate == "unknown":
            return
    except (LifecycleError, DuodaqError):
        pass
    source.wanted = None


async def life_under_fire(name: str, manager: DualRuntimeManager, source: Source, seed: int, kills: int) -> None:
    chance = random.Random(f"{seed} {name}")
    for _ in range(kills):
        for _ in range(3):
            await switch(manager, name, source, chance.random() < 0.5)
        dying = asyncio.create_task(kill(manager, name, chance.uniform(0.0, 0.01)))
        while not dying.done():
            await switch(manager, name, source, chance.random() < 0.5)
            await pause(0.001)
        await dying
    if name == "ask":
        source.wanted = not source.output  # it is told now to go on as it was told before
    await manager.command(name, Recover(), 15.0)
    await switch(manager, name, source, True)
    assert source.output
    assert source.changes > kills


# Of one worker, which may be replaced five times in a minute, each time after a longer while.
@pytest.mark.parametrize(("labs", "kills"), [(1, 2), pytest.param(10, 5, marks=pytest.mark.soak)])
@pytest.mark.timeout(600)
@pytest.mark.fault("SIGKILL")
async def test_an_output_never_changes_by_the_death_of_a_worker(labs: int, kills: int) -> None:
    for seed in range(labs):
        async with lab() as (manager, sources), asyncio.TaskGroup() as group:
            for name, source in sources.items():
                group.create_task(life_under_fire(name, manager, source, seed, kills))
        assert {name: source.unasked for name, source in sources.items()} == {name: [] for name in sources}
