"""What a V4 driver in the shadow does wrong stays in the shadow: the live lab goes on, and the report says it."""

from __future__ import annotations

import asyncio
import ctypes
import os
from abc import abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from duodaq import clock
from duodaq.app._live_shadow import LiveShadow
from duodaq.dual import DualRuntimeManager
from duodaq.errors import InstrumentError
from duodaq.migration import Beside, ShadowProcess, ShadowReport, equivalents_between
from duodaq.model import (
    Execute,
    InstrumentDefinition,
    LabDefinition,
    Measurement,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
    WireRecord,
)
from duodaq.testing._scripted_meter import ScriptedPowerMeter
from duodaq.v4.instruments import Newport1830C

METER = InstrumentDefinition(
    "meter", "v2", "duodaq.cli.demo.power_meter:PowerMeter", port="line",
    polls=(PollDefinition("power", 0.02, "W", call="read_power"),),
)  # fmt: skip
METER4 = InstrumentDefinition("meter", "v4", "duodaq:Newport1830C", port="line", args={"rate_hz": 50})
PORT = PortDefinition("line", tcp="nowhere:1", codec="newport1830c", timeout_s=2.0)
STANDS_S = 0.5


@pytest.fixture
async def manager() -> AsyncIterator[DualRuntimeManager]:
    sides = RuntimeDefinition("v2", "inline"), RuntimeDefinition("v4", "inline")
    made = DualRuntimeManager(
        LabDefinition("harm", (PORT,), (METER,), *sides), transports={"line": ScriptedPowerMeter().line}
    )
    await made.start()
    try:
        yield made
    finally:
        await made.shutdown()


class Late:
    """By how much the lab's loop comes late at most."""

    def __init__(self) -> None:
        self.most_s = 0.0

    async def look(self) -> None:
        while True:
            before_s = clock.monotonic_s()
            await clock.pause(0.005)
            self.most_s = max(self.most_s, clock.monotonic_s() - before_s - 0.005)


class Harmful(Newport1830C):
    """Reads well three times."""

    count = 0

    async def measure(self, channel: str) -> Measurement:
        self.count += 1
        if self.count > 3:
            self.harm()
        return await super().measure(channel)

    @abstractmethod
    def harm(self) -> None: ...


class Blocks(Harmful):
    def harm(self) -> None:
        clock.block(5.0)


class BlocksOnce(Harmful):
    def harm(self) -> None:
        if self.count == 4:
            clock.block(1.5)


class Computes(Harmful):
    def harm(self) -> None:
        begun_s = clock.monotonic_s()
        while clock.monotonic_s() - begun_s < 5.0:
            sum(range(1000))


class Dies(Harmful):
    def harm(self) -> None:
        os._exit(3)


class Faults(Harmful):
    def harm(self) -> None:
        ctypes.string_at(0)


class Eats(Harmful):
    def harm(self) -> None:
        self.eaten = [bytearray(64 << 20) for _ in range(200)]


class BlocksAtStart(Newport1830C):
    async def on_start(self) -> None:
        clock.block(5.0)


def shadow_of(manager: DualRuntimeManager, driver: Any, **facts: Any) -> LiveShadow:
    v4 = replace(METER4, driver=driver, **facts)
    return LiveShadow(manager, Beside(METER, v4, PORT, equivalents_between(METER, "newport1830c", METER4)))


async def until(live: LiveShadow, kind: str) -> ShadowReport:
    async with asyncio.timeout(20):
        while kind not in {row["kind"] for row in live.report().findings}:
            await clock.pause(0.02)
    return live.report()


@pytest.mark.parametrize(
    ("driver", "kind"),
    [(Blocks, "blocked"), (Computes, "blocked"), (Dies, "died"), (Faults, "died"), (BlocksAtStart, "blocked")],
)
async def test_a_v4_driver_that_blocks_or_dies_is_found_and_the_lab_goes_on(
    manager: DualRuntimeManager, driver: Any, kind: str
) -> None:
    late = Late()
    live = shadow_of(manager, driver)
    looking = asyncio.create_task(late.look())
    beginning = asyncio.create_task(live.start())
    try:
        report = await until(live, kind)
        assert float(await manager.command("meter", Execute("read_power"))) > 0
        assert not report.within
    finally:
        looking.cancel()
        begun_s = clock.monotonic_s()
        found = await live.end()
        await asyncio.gather(beginning, return_exceptions=True)
    assert late.most_s < STANDS_S
    assert clock.monotonic_s() - begun_s < 4.0
    assert kind in {row["kind"] for row in found.findings}, found.to_markdown()
    assert manager.mirrors == {}


async def test_what_asks_for_all_memory_is_refused_it_and_that_is_a_finding() -> None:
    sides = RuntimeDefinition("v2", "inline"), RuntimeDefinition("v4", "inline", memory_bytes=256 << 20)
    lab = LabDefinition("harm", (PORT,), (METER,), *sides)
    manager = DualRuntimeManager(lab, transports={"line": ScriptedPowerMeter().line})
    await manager.start()
    try:
        live = shadow_of(manager, Eats)
        await live.start()
        try:
            report = await until(live, "error")
        finally:
            await live.end()
    finally:
        await manager.shutdown()
    assert report.errors["v4"] > 0


async def test_one_that_blocks_where_it_may_is_no_difference_and_is_told(manager: DualRuntimeManager) -> None:
    live = shadow_of(manager, BlocksOnce, worker="own")
    await live.start()
    try:
        async with asyncio.timeout(20):
            while "its loop" not in live.report().not_comparable:
                await clock.pause(0.02)
    finally:
        found = await live.end()
    assert "worker of its own" in found.not_comparable["its loop"]
    assert "blocked" not in {row["kind"] for row in found.findings}


async def test_what_a_blocked_shadow_does_not_take_is_bounded_and_counted(manager: DualRuntimeManager) -> None:
    live = shadow_of(manager, Blocks)
    await live.start()
    shadow = live.shadow
    assert isinstance(shadow, ShadowProcess)
    try:
        await until(live, "blocked")
        record = WireRecord(1, "line", ">", b"x" * 10_000, "nobody", 0)
        for _ in range(2_000):
            shadow.take(record)
        assert shadow._pipe is not None
        assert shadow._pipe.backlog < 12 << 20
        assert "did not keep up" in live.report().not_comparable["what V4 did not take"]
        assert float(await manager.command("meter", Execute("read_power"))) > 0
    finally:
        await live.end()


class Argument:
    """What cannot leave its process."""

    def __reduce__(self) -> Any:
        raise TypeError("it stays here")


async def test_a_command_that_cannot_be_told_to_a_shadow_is_carried_out(manager: DualRuntimeManager) -> None:
    live = shadow_of(manager, Newport1830C)
    await live.start()
    try:
        with pytest.raises(InstrumentError, match="TypeError"):
            await manager.command("meter", Execute("set_wavelength", (Argument(),)))
        assert (await manager.command("meter", Execute("set_wavelength", (780,)))) is None
        async with asyncio.timeout(20):
            while live.report().orders["matched"] < 1:
                await clock.pause(0.02)
    finally:
        found = await live.end()
    assert "does not travel" in found.not_comparable["command set_wavelength"]


async def test_no_process_is_left_of_a_shadow_that_blocks(manager: DualRuntimeManager) -> None:
    live = shadow_of(manager, Blocks)
    await live.start()
    shadow = live.shadow
    assert isinstance(shadow, ShadowProcess)
    assert shadow._child is not None
    pid = shadow._child.pid
    await until(live, "blocked")
    await live.end()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
