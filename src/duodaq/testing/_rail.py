"""A lab of two rails that exist in this program alone: for tests of what people do with a lab, in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from duodaq import clock
from duodaq.errors import OutOfRangeError, RefusedError
from duodaq.model import AxisDefinition, InstrumentDefinition, LabDefinition, PollDefinition, RuntimeDefinition, Stop
from duodaq.telemetry import listen_to_log
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor, MoveAbsolute, Parameter, ReadPosition


class Arm(msgspec.Struct, frozen=True):
    """Let the lamp be lit."""


def _setting(name: str, unit: str = "", low: float = 0.0, high: float = 10.0) -> Parameter:
    async def read(rail: RailActor) -> Any:
        return rail.has[name]

    async def write(rail: RailActor, value: Any) -> Any:
        if not low <= value <= high:
            raise OutOfRangeError(f"{value} is beyond {low:g} to {high:g}", left="nothing was sent")
        rail.take(name, value)
        return value

    return Parameter(read, write, unit)


async def _read_lamp(rail: RailActor) -> bool:
    return rail.has["lamp"]


async def _set_lamp(rail: RailActor, lit: bool) -> bool:
    rail.take("lamp", lit)
    return lit


async def _read_x(rail: RailActor) -> float:
    return rail.has["x"]


class RailActor(InstrumentActor):
    """A rail that moves by `step_s` a unit, with a gain, an offset and a lamp.

    Attributes:
        all: The rails of this program, by their names; what each `has` and was told, in `said`.
        broken: Settings that are refused, with the reason.
        step_s: How long a move takes for each unit of its way.
    """

    all: ClassVar[dict[str, RailActor]] = {}
    broken: ClassVar[dict[str, str]] = {}
    step_s: ClassVar[float] = 0.0
    operations: ClassVar[Mapping[str, type]] = {"move": MoveAbsolute, "read_position": ReadPosition, "arm": Arm}
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "gain": _setting("gain"),
        "offset": _setting("offset", "V", -5.0, 5.0),
        "lamp": Parameter(_read_lamp, _set_lamp, emits=True),
        "x.position": Parameter(_read_x, unit="mm"),
        "x.velocity": _setting("x.velocity", "mm/s", 0.1),
    }

    async def connect(self) -> None:
        """Begin where it stood."""
        before = RailActor.all.get(self.definition.id)
        new: dict[str, Any] = {"gain": 1.0, "offset": 0.0, "lamp": False, "x": 0.0, "x.velocity": 1.0}
        self.has = new if before is None else before.has
        self.said: list[tuple[str, Any]] = []
        self.stopped = asyncio.Event()
        RailActor.all[self.definition.id] = self

    def take(self, name: str, value: Any) -> None:
        """Be set."""
        if name in self.broken:
            raise RefusedError(self.broken[name])
        self.has[name] = value
        self.said.append((name, value))

    @handler(MoveAbsolute, moves=True, operation=True)
    async def move(self, message: MoveAbsolute) -> None:
        """Go there, a tenth of a unit at a time."""
        low, high = self.definition.axes[0].limits or (-1e9, 1e9)
        if not low <= message.position <= high:
            raise OutOfRangeError(f"{message.position:g} is beyond {low:g} to {high:g}", left="nothing moved")
        self.stopped.clear()
        while self.has["x"] != message.position:
            if self.stopped.is_set():
                raise RefusedError("it was stopped on its way")
            await clock.pause(self.step_s / 10)
            left = message.position - self.has["x"]
            is_last = abs(left) <= 0.1 or not self.step_s
            self.has["x"] = message.position if is_last else self.has["x"] + 0.1 * _sign(left)
        self.said.append(("move", message.position))

    @handler(ReadPosition, idempotent=True)
    async def read_position(self, message: ReadPosition) -> float:
        """Where it is."""
        return self.has["x"]

    @handler(Arm)
    async def arm(self, message: Arm) -> None:
        """Do nothing."""

    @handler(Stop, urgent=True)
    async def handle_stop(self, message: Stop) -> None:
        """Stand still."""
        self.stopped.set()


def _sign(number: float) -> float:
    return -1.0 if number < 0 else 1.0


def rail_lab(folder: Path, name: str = "rails") -> LabDefinition:
    """A lab of two rails, ``rail`` and ``other``, whose x goes from 0 to 25 mm."""
    RailActor.all.clear()
    RailActor.broken.clear()
    RailActor.step_s = 0.0
    poll = PollDefinition("x.position", 1.0, "mm", read="x.position")
    rails = tuple(
        InstrumentDefinition(one, "v4", RailActor, polls=(poll,), axes=(AxisDefinition("x", 1, "mm", (0.0, 25.0)),))
        for one in ("rail", "other")
    )
    return LabDefinition(name, instruments=rails, v2=RuntimeDefinition("v2", "inline"), directory=folder)


@contextlib.contextmanager
def logged() -> Generator[list[dict[str, Any]]]:
    """The lines that are logged in this program within the block, as they come."""
    lines: list[dict[str, Any]] = []

    def heard(level: str, facts: Mapping[str, Any]) -> None:
        lines.append({"level": level, **facts})

    end: Callable[[], None] = listen_to_log(heard)
    try:
        yield lines
    finally:
        end()
