"""A power meter that is moved between the runtimes, and what is asked of it meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from duodaq import clock
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DeliveryError, DuodaqError
from duodaq.migration import command_in_v4, equivalents_between
from duodaq.model import (
    Execute,
    InstrumentDefinition,
    InstrumentState,
    LabDefinition,
    ManagerState,
    PollDefinition,
    PortDefinition,
    RuntimeDefinition,
)
from duodaq.testing._scripted_meter import ScriptedPowerMeter

V2 = InstrumentDefinition(
    "meter",
    "v2",
    "duodaq.cli.demo.power_meter:PowerMeter",
    port="meter",
    polls=(PollDefinition("power", 0.01, "W", call="read_power"),),
)
V4 = InstrumentDefinition("meter", "v4", "duodaq:Newport1830C", port="meter", args={"rate_hz": 100})
SAME = equivalents_between(V2, "newport1830c", V4)


@asynccontextmanager
async def running(
    v2: str, v4: str, meter: ScriptedPowerMeter, first: InstrumentDefinition = V2, *, ends_clean: bool = True
) -> AsyncIterator[DualRuntimeManager]:
    """A lab of one meter. All of it must end clean, unless the test kills or hangs an owner and says so."""
    port = PortDefinition("meter", tcp="nowhere:1", codec="newport1830c", timeout_s=0.3)
    lab = LabDefinition(
        "moving", (port,), (first,), RuntimeDefinition("v2", v2), RuntimeDefinition("v4", v4), shutdown_s=5.0
    )
    manager = DualRuntimeManager(lab, transports={"meter": meter.line})
    await manager.start()
    try:
        yield manager
    finally:
        report = await manager.shutdown()
        assert report is not None
        assert report.clean or not ends_clean, report.to_dict()
        assert manager.state is ManagerState.STOPPED


async def move(manager: DualRuntimeManager, target: InstrumentDefinition, **options: Any) -> Any:
    now, passage = await manager.move(target, **options)
    if now.runtime == "v4":
        manager.translations["meter"] = lambda command: command_in_v4(command, SAME) or command
    else:
        manager.translations.pop("meter", None)
    return passage


class Load:
    """Senders that set one wavelength after another, each once, and read; what each command's fate was."""

    def __init__(self, manager: DualRuntimeManager, senders: int) -> None:
        self.fates: dict[int, str] = {}
        self.reads = 0
        self._manager = manager
        self._next = itertools.count(1)
        self._going = True
        self._tasks = [asyncio.create_task(self._send()) for _ in range(senders)]

    async def _send(self) -> None:
        while self._going:
            wanted = next(self._next)
            try:
                if wanted < 10_000:  # no meter knows more
                    await self._manager.command("meter", Execute("set_wavelength", (wanted,)), 20.0)
                    self.fates[wanted] = "done"
                await self._manager.command("meter", Execute("read_power"), 20.0)
                self.reads += 1
            except DeliveryError as error:
                self.fates.setdefault(wanted, error.fate)
            except DuodaqError as error:
                self.fates.setdefault(wanted, f"{type(error).__name__}: {error}")
            await clock.pause(0)  # an error may come without a wait

    async def end(self) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)


async def come_to(condition: Callable[[], object], what: str) -> None:
    deadline = clock.Deadline(20)
    while not condition():
        assert not deadline.passed, what
        await clock.pause(0.005)


async def well(manager: DualRuntimeManager) -> None:
    """Wait until the instrument answers again: a dead worker is replaced, a parked owner is restarted."""
    async with asyncio.timeout(20):
        while True:
            status = next(i for i in manager.instruments() if i.id == "meter")
            if status.state in (InstrumentState.READY, InstrumentState.ACQUIRING):
                return
            if status.state is InstrumentState.DISCONNECTED:
                await manager.restart_instrument("meter")
            await clock.pause(0.01)


def lost_with_workers(manager: DualRuntimeManager) -> int:
    """How many measurements the books of the worker processes call lost with them."""
    books = (ledger for name, ledger in manager.ledgers().items() if name.startswith("worker "))
    return sum(row["dropped"].get("worker died", 0) for ledger in books for row in ledger["rows"])
