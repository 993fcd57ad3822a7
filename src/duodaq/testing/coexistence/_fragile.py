"""Instruments of the isolation tests: some that break in every way, and some that only have to go on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import msgspec

from duodaq.clock import block
from duodaq.model import Measurement
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor, Newport1830C, ReadPower

POWER = b"D?\n"
HANG_S = 20.0


class Trouble:
    """What a fragile instrument is told to suffer, and what it noted."""

    def __init__(self) -> None:
        self.failing_starts = 0
        self.starts = 0
        self.inside = threading.Event()
        self.freed = threading.Event()
        self.after_hang: BaseException | None = None

    def start(self) -> None:
        """Called where a driver begins; fails if it is to fail."""
        self.starts += 1
        if self.failing_starts:
            self.failing_starts -= 1
            raise ConnectionRefusedError("the device does not answer")


def fragile_class(trouble: Trouble) -> type:
    """A blocking class for V2."""

    class Fragile:
        def __init__(self, serial: Any) -> None:
            trouble.start()
            self.serial = serial

        def read_power(self) -> float:
            self.serial.write(POWER)
            return float(self.serial.readline())

        def fail(self) -> None:
            raise ZeroDivisionError("a mistake in a driver")

        def hang(self) -> None:
            trouble.inside.set()
            block(HANG_S, trouble.freed)
            try:
                self.serial.write(POWER)
            except Exception as error:
                trouble.after_hang = error
                raise

    return Fragile


class Steady:
    """Reads the power; V2 polls it."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def power(self) -> float:
        """One reading from the device."""
        self.serial.write(POWER)
        return float(self.serial.readline())


class Calm:
    """Answers at once, in V2."""

    def ping(self, number: int) -> int:
        """The number given."""
        return number


class Ping(msgspec.Struct, frozen=True):
    """Asks for its own number."""

    number: int


class Finish(msgspec.Struct, frozen=True):
    """Take no further reading; done when the one in hand, if any, is complete."""


class Fail(msgspec.Struct, frozen=True):
    """Raise in the handler."""


class Crash(msgspec.Struct, frozen=True):
    """Let the actor crash."""


class Hang(msgspec.Struct, frozen=True):
    """Wait for ever in the handler; `blocking` the whole thread."""

    blocking: bool = False


class Witness(Newport1830C):
    """A power meter in V4 that streams, answers pings, and can be told to finish between two readings."""

    operations: ClassVar = {**Newport1830C.operations, "ping": Ping, "finish": Finish}
    finishing = False

    @handler(Ping)
    async def ping(self, message: Ping) -> int:
        """The number given."""
        return message.number

    @handler(Finish, operation=True)
    async def finish(self, message: Finish) -> None:
        """End the stream between two readings."""
        self.finishing = True
        await self.at_rest.wait()

    async def connect(self) -> None:
        """As every power meter."""
        self.at_rest = asyncio.Event()
        await super().connect()

    async def measure(self, channel: str) -> Measurement:
        """One reading; none any more once it is finishing."""
        if self.finishing:
            self.at_rest.set()
            await asyncio.get_running_loop().create_future()
        return await super().measure(channel)


def fragile_actor(trouble: Trouble) -> type[InstrumentActor]:
    """An actor for V4."""

    class Fragile(InstrumentActor):
        operations: ClassVar = {"read_power": ReadPower, "fail": Fail, "crash": Crash, "hang": Hang}

        async def connect(self) -> None:
            trouble.start()

        @handler(ReadPower, idempotent=True)
        async def read_power(self, message: ReadPower) -> float:
            return float(await self.port.exchange(POWER, holder=self.context.holder))

        @handler(Fail)
        async def fail(self, message: Fail) -> None:
            raise ZeroDivisionError("a mistake in an actor")

        @handler(Crash)
        async def crash(self, message: Crash) -> None:
            self.run_beside(_raise(), "crash")

        @handler(Hang)
        async def hang(self, message: Hang) -> None:
            trouble.inside.set()
            if message.blocking:
                block(HANG_S, trouble.freed)
            else:
                await asyncio.get_running_loop().create_future()

    return Fragile


async def _raise() -> None:
    raise ZeroDivisionError("a mistake in an actor, where nobody waits for it")
