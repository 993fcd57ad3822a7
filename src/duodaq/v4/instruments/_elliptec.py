"""Elliptec rotators as an actor: as many of those on a line as the lab file gives it."""

from __future__ import annotations

from typing import Any

from duodaq.drivers.ell14 import ElliptecDriver
from duodaq.v4.instruments._motion import MotionActor

__all__ = ["Elliptec"]


class Elliptec(MotionActor[ElliptecDriver]):
    """Turns the rotators of a lab file (``axes.half = { number = 0, unit = "deg", limits = [0, 360] }``).

    The number is the address on the line. Several instruments, of V2 too, may share a line. A velocity is in per cent.
    """

    def make_driver(self, options: dict[str, Any]) -> ElliptecDriver:
        """The Elliptec's own."""
        return ElliptecDriver(self.port, self.context.holder, self.definition.axes, self.context.break_in, **options)

    async def connect(self) -> None:
        """Learn who the rotators are; nothing turns."""
        await super().connect()
        for name, axle in self.driver.axes.items():
            self.note(f"{name}.serial", axle.serial)
