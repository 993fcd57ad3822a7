"""Drivers that suffer, loaded by path as a lab's own file is: what they do to the process that they live in."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from duodaq.clock import block
from duodaq.link import BlobRef, Pipe
from duodaq.v4 import handler
from duodaq.v4.instruments import Newport1830C
from duodaq.workers._messages import Batch, Item, parcel
from duodaq.workers._outbox import Outbox


class WordlessError(Exception):
    """Fails at saying what it is."""

    def __str__(self) -> str:
        raise ZeroDivisionError("a mistake in an error")

    __repr__ = __str__


def suffer(kind: str) -> None:
    """Do the worst that `kind` names; from most of it nobody returns."""
    libc = ctypes.CDLL(None)
    holding_the_lock = ctypes.PyDLL(None)
    match kind:
        case "exception":
            raise ZeroDivisionError("a mistake in a driver")
        case "exception without words":
            raise WordlessError
        case "os._exit":
            os._exit(3)
        case "SIGSEGV":
            ctypes.string_at(0)
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "C call":
            while True:
                libc.sleep(3600)  # a signal may end it early
        case "busy loop":
            while True:
                pass
        case "lock-holding call":
            while True:
                holding_the_lock.sleep(3600)
        case "memory bomb":
            hold: list[Any] = []
            while True:
                hold.append(np.ones(2**20))
        case "output flood":
            while True:
                print("so much to say " * 20)  # noqa: T201  it is what this driver suffers from
        case "forks and exits":
            if os.fork() == 0:
                block(5.0)
            os._exit(3)
        case _:
            speak(kind)


def speak(kind: str) -> None:
    """Say something on the link that no worker says."""
    pipe = next(one for one in gc.get_objects() if type(one) is Pipe)
    outbox = next(one for one in gc.get_objects() if type(one) is Outbox)
    match kind:
        case "garbage":
            # its length is right, lest it be waited for; and no message begins with that byte
            pipe._end.send((4092).to_bytes(4, "little") + b"\xc1" + os.urandom(4091))
        case "wrong message":
            pipe._end.send(b"\5\0\0\0\x93\xa1?\1\2")
        case "message for the other side":
            pipe._end.send(b"\3\0\0\0\x92\xa1p\1"[:4] + b"\x92\xa1p")
        case "oversized message":
            pipe._end.send(b"\xff\xff\xff\xff" + bytes(100))
        case "forged measurement":
            pipe.send(Item(parcel(b"no measurement")))
        case "forged place in the ring":
            ring = outbox._ring_for(2**17)
            assert ring is not None
            pipe.send(Batch(blob=BlobRef(1, ring.size - 64, 2**30, "|u1", (2**30,))))
        case "forged content in the ring":
            ring = outbox._ring_for(2**17)
            assert ring is not None
            ref = ring.write(np.frombuffer(os.urandom(2**17), np.uint8))
            pipe.send(Batch(blob=ref))
        case _:
            raise AssertionError(kind)


def obey(orders: str) -> None:
    """Fail to start while the file of orders is there."""
    if os.path.exists(orders):
        raise ConnectionRefusedError("the device does not answer")


class Patient:
    """A V2 driver, as a lab writes one."""

    def __init__(self, serial: Any, orders: str) -> None:
        self.serial = serial
        obey(orders)

    def power(self) -> float:
        self.serial.write(b"D?\n")
        return float(self.serial.readline())

    def suffer(self, kind: str) -> None:
        suffer(kind)

    def who(self) -> int:
        return os.getpid()


class Steady:
    """A V2 driver that only has to go on."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def power(self) -> float:
        self.serial.write(b"D?\n")
        return float(self.serial.readline())

    def ping(self, number: int) -> int:
        return number


@dataclass(frozen=True)
class Suffer:
    """Asks for the worst."""

    kind: str


@dataclass(frozen=True)
class Who:
    """Asks for its process."""


class PatientActor(Newport1830C):
    """The patient in V4."""

    operations: ClassVar = {**Newport1830C.operations, "suffer": Suffer, "who": Who}

    async def connect(self) -> None:
        obey(self.definition.args["orders"])
        await super().connect()

    @handler(Suffer)
    async def suffer(self, message: Suffer) -> None:
        suffer(message.kind)

    @handler(Who)
    async def who(self, message: Who) -> int:
        return os.getpid()


class Blocker:
    """A V2 driver without a device."""

    serial = "none"

    def who(self) -> int:
        return os.getpid()

    def block(self, seconds: float, note: str = "") -> float:
        """Take so long; that it has begun is seen by a file of this name."""
        if note:
            Path(note).touch()
        block(seconds)
        return seconds

    def fail(self, where: str) -> None:
        raise ZeroDivisionError(f"a mistake in {where}")

    def suffer(self, kind: str) -> None:
        if kind != "nothing":
            suffer(kind)

    def take_more_than_there_is(self) -> int:
        return len(np.ones(2**28))

    def keep_all_there_is(self, seconds: float) -> int:
        """Take memory in ever smaller pieces until there is nearly none, and hold it."""
        held: list[Any] = []
        for size in (2**20, 2**17, 2**16):
            try:
                while True:
                    held.append(np.ones(size // 8))
            except MemoryError:
                continue
        block(seconds)
        return len(held)


class Obedient:
    """A driver without a device, which fails to start while it is told so."""

    def __init__(self, orders: str) -> None:
        obey(orders)

    def who(self) -> int:
        return os.getpid()


class Frail:
    """A driver whose constructor ends its process once for each letter in a file; its pid goes to another."""

    def __init__(self, deaths: str, pids: str) -> None:
        with open(pids, "a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        with open(deaths, "r+", encoding="ascii") as file:
            left = file.read()
            file.seek(0)
            file.truncate()
            file.write(left[1:])
        if left:
            block(0.05)
            os._exit(3)

    def who(self) -> int:
        return os.getpid()


class Sickly:
    """Its process ends in its constructor while the file of its sickness is there."""

    def __init__(self, sick: str) -> None:
        if os.path.exists(sick):
            os._exit(3)

    def who(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os._exit(3)
