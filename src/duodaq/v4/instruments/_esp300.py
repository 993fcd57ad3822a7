"""The ESP300 as an actor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from duodaq.drivers.esp300 import Esp300Driver
from duodaq.v4._message import handler
from duodaq.v4.instruments._instrument import Parameter
from duodaq.v4.instruments._messages import ConfigureMotion, EnableAxis
from duodaq.v4.instruments._motion import MotionActor

__all__ = ["Esp300"]


class Esp300(MotionActor[Esp300Driver]):
    """Moves the axes of a lab file (``axes.x = { number = 1, unit = "mm", limits = [0, 25] }``)."""

    operations: ClassVar[Mapping[str, type]] = {**MotionActor.operations, "enable": EnableAxis}

    def make_driver(self, options: dict[str, Any]) -> Esp300Driver:
        """The ESP300's own."""
        return Esp300Driver(self.port, self.context.holder, self.definition.axes, self.context.break_in, **options)

    def known_parameters(self) -> Mapping[str, Parameter]:
        """For each axis: position, target limits, velocity, acceleration, deceleration, enabled, moving, state."""
        own = {name: made for axis in self.definition.axes for name, made in _own_parameters(axis.name, axis.unit)}
        return {**super().known_parameters(), **own}

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


def _own_parameters(axis: str, unit: str) -> list[tuple[str, Parameter]]:
    async def enabled(actor: Esp300) -> bool:
        return await actor.driver.read_enabled(axis)

    async def acceleration(actor: Esp300) -> float:
        return await actor.driver.read_acceleration_setting(axis)

    async def deceleration(actor: Esp300) -> float:
        return await actor.driver.read_deceleration_setting(axis)

    async def set_acceleration(actor: Esp300, wanted: float) -> float:
        await actor.configure(ConfigureMotion(axis, acceleration=wanted))
        return await acceleration(actor)

    async def set_deceleration(actor: Esp300, wanted: float) -> float:
        await actor.configure(ConfigureMotion(axis, deceleration=wanted))
        return await deceleration(actor)

    return [
        (f"{axis}.enabled", Parameter(enabled)),
        (f"{axis}.acceleration", Parameter(acceleration, set_acceleration, f"{unit}/s²")),
        (f"{axis}.deceleration", Parameter(deceleration, set_deceleration, f"{unit}/s²")),
    ]
