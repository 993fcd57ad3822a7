"""Instruments made of others, and what they are made of; loaded by path as a lab's own file is."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from duodaq.clock import block
from duodaq.model import PollDefinition
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor


class Meter:
    """A power meter, as a lab writes one."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial
        self.filter = 1

    def power(self) -> float:
        self.serial.write(b"D?\n")
        return float(self.serial.readline())

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ZeroDivisionError("a mistake in the meter")

    def slow(self, seconds: float, note: str = "") -> None:
        """Take so long; that it has begun is seen by a file of this name."""
        if note:
            Path(note).touch()
        block(seconds)


class Ratio:
    """One power over another: made of two meters, has no line of its own."""

    def __init__(self, above: Any, below: Any, note: str = "") -> None:
        self.above = above
        self.below = below
        self.note = note
        self.first = above.call("power")

    def ratio(self) -> float:
        return self.above.call("power") / self.below.call("power")

    def powers(self) -> tuple[float, float]:
        return self.above.read("power").value, self.below.call("power")

    def pids(self) -> tuple[int, int, int]:
        return os.getpid(), self.above.call("pid"), self.below.call("pid")

    def narrow(self, value: int) -> int:
        return self.above.set("filter", value) + self.below.get("filter")

    def fail(self) -> None:
        self.above.call("fail")

    def wait(self) -> None:
        self.above.call("slow", 1.0, timeout_s=0.2)

    def linger(self, note: str) -> None:
        self.above.call("slow", 20.0, note, timeout_s=20.0)


@dataclass(frozen=True)
class Pids:
    """Asks for the processes of all three."""


@dataclass(frozen=True)
class Narrow:
    """Sets one and reads the other."""

    value: int


class Difference(InstrumentActor):
    """The same in V4: one power minus another."""

    channels = (PollDefinition("difference", 0.02, "W", call="difference"),)
    operations: ClassVar = {"pids": Pids, "narrow": Narrow}

    async def connect(self) -> None:
        self.above, self.below = self.definition.args["above"], self.definition.args["below"]

    async def difference(self) -> float:
        above, below = await asyncio.gather(self.above.call("power"), self.below.read("power"))
        return above - below.value

    @handler(Pids)
    async def pids(self, message: Pids) -> tuple[int, int, int]:
        return os.getpid(), await self.above.call("pid"), await self.below.call("pid")

    @handler(Narrow)
    async def narrow(self, message: Narrow) -> int:
        return await self.above.set("filter", message.value) + await self.below.get("filter")


class Mirror:
    """Asks another, which asks it."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def look(self, depth: int) -> str:
        return self.other.call("look", depth - 1, timeout_s=3.0) if depth else "nothing"
