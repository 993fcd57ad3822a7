"""What the manager has in its tests: in a module of its own, as a worker imports it, and with it what it imports."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from duodaq.clock import block, pause
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

LET_GO = threading.Event()
"""Ends every hang at the end of a test: a thread cannot be killed, and the next test must not see it."""


class Meter:
    """A home-made driver of the power meter."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def power(self) -> float:
        self.serial.write(b"D?\n")
        return float(self.serial.readline())


class Shutter:
    """A home-made driver of the shutter."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def open(self) -> None:
        self.serial.write(b"SHUT 1\n")

    def shut(self) -> None:
        self.serial.write(b"SHUT 0\n")

    def hang(self) -> None:
        block(20.0, LET_GO)


class NeverReturns:
    """A driver none of whose calls ends."""

    def hang(self) -> None:
        block(20.0, LET_GO)


class HangCommand:
    """Never ends."""


class HangingActor(InstrumentActor):
    operations: ClassVar = {"hang": HangCommand}

    @handler(HangCommand)
    async def hang(self, message: HangCommand) -> None:
        block(20.0, LET_GO)


class FailingActor(InstrumentActor):
    async def connect(self) -> None:
        raise ConnectionRefusedError("nobody is there")


class SlowActor(InstrumentActor):
    async def connect(self) -> None:
        await pause(20.0)
