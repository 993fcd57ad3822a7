"""The ESP300 as an actor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from duodaq.drivers.esp300 import Esp300Driver
from duodaq.v4._message import handler
from duodaq.v4.instruments._instrument import Parameter
from duodaq.v4.instruments._messages import EnableAxis
from duodaq.v4.instruments._motion import MotionActor

__all__ = ["Esp300"]


class Esp300(MotionActor[Esp300Driver]):
    """Moves the axes of a lab file (``axes.x = { number = 1, unit = "mm", limits = [0, 25] }``)."""

    operations: ClassVar[Mapping[str, type]] = {**MotionActor.operations, "enable": EnableAxis}

    def make_driver(self, options: dict[str, Any]) -> Esp300Driver:
        """The ESP300's own."""
        return Esp300Driver(self.port, self.context.holder, self.definition.axes, self.context.break_in, **options)

    def known_parameters(self) -> Mapping[str, Parameter]:
        """For each axis: position, target limits, velocity, enabled, moving, state."""
        return {**super().known_parameters(), **{f"{axis}.enabled": _enabled(axis) for axis in self.driver.axes}}

    async def connect(self) -> None:
        """Learn the axes' units, and apply the stored motion settings; nothing moves."""
        await super().connect()
        self.note("firmware", self.driver.firmware)

    @handler(EnableAxis, moves=True)
    async def enable(self, message: EnableAxis) -> bool:
        """Switch an axis's motor on or off."""
        on = await self.driver.set_enabled(message.axis, message.on)
        self.note(f"{message.axis}.enabled", on)
        return on


def _enabled(axis: str) -> Parameter:
    async def read(actor: Esp300) -> bool:
        return await actor.driver.read_enabled(axis)

    return Parameter(read)
