"""Instruments of the isolation tests: some that break in every way, and some that only have to go on."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
from typing import Any, ClassVar

import msgspec

from duodaq.model import Measurement
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor, Newport1830C, ReadPower

POWER = b"D?\n"
HANG_S = 20.0


class Trouble:
    """What a fragile instrument is told to suffer, and what it notes, by files in one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.evidence = Evidence(os.path.join(directory, "notes"))
        self.inside, self.freed, self.next_start_fails = (
            Gate(os.path.join(directory, name)) for name in ("inside", "freed", "next start fails")
        )

    @property
    def args(self) -> dict[str, Any]:
        """What a fragile instrument is constructed with."""
        return {"trouble": self.directory}

    @property
    def starts(self) -> int:
        """How often it was started."""
        return self.evidence.count("start")

    @property
    def started_in(self) -> int:
        """The process in which it was started last."""
        return self.evidence.read("start")[-1].pid

    def start(self) -> None:
        """Called where a driver begins; fails if it is to fail."""
        self.evidence.note("start")
        if self.next_start_fails.close():
            raise ConnectionRefusedError("the device does not answer")

    def perish(self, how: str) -> None:
        """Note that the process ends, if it ends at once, and end it."""
        if how in ENDS_AT_ONCE:
            self.evidence.note("perishes")
        perish(how)

    @property
    def perished_ns(self) -> tuple[int, ...]:
        """When a process noted that it ends, each time (UTC ns)."""
        return tuple(note.t_ns for note in self.evidence.read("perishes"))


ENDS_AT_ONCE = ("os._exit", "SIGKILL", "SIGSEGV")
PERISHING = (*ENDS_AT_ONCE, "loop that holds the GIL")
"""What only a process of its own survives."""


def perish(how: str) -> None:
    """End, or block for ever, the process that calls it."""
    match how:
        case "os._exit":
            os._exit(3)
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "SIGSEGV":
            ctypes.string_at(0)
        case _:
            re.match("(a+)+$", "a" * 200 + "b")  # takes 2^200 steps, and the interpreter lets nobody in between


class FragileDriver:
    """A blocking class for V2 that breaks in every way."""

    def __init__(self, serial: Any, trouble: str) -> None:
        self.trouble = Trouble(trouble)
        self.trouble.start()
        self.serial = serial

    def read_power(self) -> float:
        """One reading from the device."""
        self.serial.write(POWER)
        return float(self.serial.readline())

    def fail(self) -> None:
        """Raise."""
        raise ZeroDivisionError("a mistake in a driver")

    def hang(self) -> None:
        """Block until it is freed; then try to write."""
        self.trouble.inside.open()
        self.trouble.freed.wait(HANG_S)
        try:
            self.serial.write(POWER)
        except Exception as error:
            self.trouble.evidence.note("after hang", error=repr(error))
            raise

    def perish(self, how: str) -> None:
        """Take the whole process along."""
        self.trouble.perish(how)


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


class Perish(msgspec.Struct, frozen=True):
    """End the whole process, in one of the ways of PERISHING."""

    how: str


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


class FragileActor(InstrumentActor):
    """An actor for V4 that breaks in every way."""

    operations: ClassVar = {"read_power": ReadPower, "fail": Fail, "crash": Crash, "hang": Hang, "perish": Perish}

    async def connect(self) -> None:
        """Start, unless it is to fail."""
        self.trouble = Trouble(self.definition.args["trouble"])
        self.trouble.start()

    @handler(ReadPower, idempotent=True)
    async def read_power(self, message: ReadPower) -> float:
        """One reading from the device."""
        return float(await self.port.exchange(POWER, holder=self.context.holder))

    @handler(Fail)
    async def fail(self, message: Fail) -> None:
        """Raise."""
        raise ZeroDivisionError("a mistake in an actor")

    @handler(Crash)
    async def crash(self, message: Crash) -> None:
        """Raise where nobody waits for it."""
        self.run_beside(_raise(), "crash")

    @handler(Hang)
    async def hang(self, message: Hang) -> None:
        """Wait for ever, or block until it is freed."""
        self.trouble.inside.open()
        if message.blocking:
            self.trouble.freed.wait(HANG_S)
        else:
            await asyncio.get_running_loop().create_future()

    @handler(Perish)
    async def perish(self, message: Perish) -> None:
        """Take the whole process along."""
        self.trouble.perish(message.how)


async def _raise() -> None:
    raise ZeroDivisionError("a mistake in an actor, where nobody waits for it")
