"""Actors loaded by path, as a lab's own file: of their classes the manager knows nothing."""

from __future__ import annotations

from typing import ClassVar

from duodaq.model import StartAcquisition
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor, ScpiActor, scpi_setting


class Supply(ScpiActor):
    """Only reads while it acquires."""

    parameters: ClassVar = {"volts": scpi_setting("VOLT", "V")}


class Lamp(ScpiActor):
    """Emits while it acquires."""

    @handler(StartAcquisition, moves=True)
    async def start_acquisition(self, message: StartAcquisition) -> None:
        await self.port.exchange(b"LAMP 1\n", holder="lamp")
        await super().start_acquisition(message)


class Slow(InstrumentActor):
    """Asks its device something in its beginning, which a stop may cut."""

    async def connect(self) -> None:
        await self.port.exchange(b"1TP?\r", holder="slow", reply=self.port.codec.expects_reply(b"1TP?\r"))


class Eager(InstrumentActor):
    """Moves something in its beginning, which none should; a latched stop refuses it."""

    async def connect(self) -> None:
        await self.port.exchange(b"1PA1\r", holder="eager")


class EagerDriver:
    """The same in V2."""

    def __init__(self, serial) -> None:
        serial.write(b"1PA1\r")


class SlowDriver:
    """The same in V2, in its constructor; it can move too."""

    def __init__(self, serial) -> None:
        self._line = serial
        self.where()

    def where(self) -> str:
        self._line.write(b"1TP?\r")
        return self._line.readline().decode().strip()

    def move(self) -> None:
        self._line.write(b"1PA1\r")
