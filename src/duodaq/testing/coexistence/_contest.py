"""Who takes part in a contest for one line: a V2 driver, V4 actors, and one that is killed while it holds it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec

from duodaq.clock import block, pause
from duodaq.v4 import ActorRef, handler
from duodaq.v4.instruments import InstrumentActor


class Contest:
    """Who asked what and got which answer, in order; and how many others were served meanwhile."""

    actors = ("asker a", "asker b", "asker c")
    axis = {"asker": 1, "asker a": 2, "asker b": 3, "asker c": 2}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.answers: dict[str, set[bytes]] = {name: set() for name in self.axis}
        self.overtaken: dict[str, list[int]] = {name: [] for name in self.axis}
        self.ended = threading.Event()
        self.sleeping = threading.Event()
        self.wake = threading.Event()

    def query(self, name: str) -> bytes:
        """A question that each axis answers in its own way."""
        return b"%dID?\r" % self.axis[name]

    def served(self, name: str, before: int, answer: bytes) -> None:
        """Note an answer; an empty one is a time-out, and none."""
        if not answer:
            return
        self.overtaken[name].append(len(self.turns) - before)
        self.turns.append(name)
        self.answers[name].add(answer.strip())


class Ask(msgspec.Struct, frozen=True):
    """Ask the device `count` times, one after the other, or until the contest has ended."""

    count: int


def asking_class(contest: Contest) -> type:
    class Asker:
        def __init__(self, serial: Any) -> None:
            self.serial = serial

        def ask(self, count: int) -> bytes:
            answer = b""
            for _ in range(count):
                if contest.ended.is_set():
                    break
                before = len(contest.turns)
                self.serial.write(contest.query("asker"))
                answer = bytes(self.serial.readline())
                contest.served("asker", before, answer)
            return answer.strip()

        def sleep_on_it(self) -> None:
            """Take the line, and fall asleep."""
            self.serial.write(contest.query("asker"))
            self.serial.readline()
            contest.sleeping.set()
            block(2.0, contest.wake)

    return Asker


def asking_actor(contest: Contest, name: str) -> type[InstrumentActor]:
    class Asker(InstrumentActor):
        operations = {"ask": Ask}  # noqa: RUF012 - as the base class has it

        @handler(Ask)
        async def ask(self, message: Ask) -> bytes:
            answer = b""
            for _ in range(message.count):
                if contest.ended.is_set():
                    break
                before = len(contest.turns)
                answer = await self.port.exchange(contest.query(name), holder=self.context.holder)
                contest.served(name, before, answer)
            return answer.strip()

    return Asker


class Victim:
    """What the test knows of an actor that is going to be killed while it holds the line."""

    def __init__(self) -> None:
        self.ref: ActorRef | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.holds = threading.Event()
        self.go = threading.Event()

    async def kill(self) -> None:
        if self.ref is None or self.loop is None:
            return
        killing = asyncio.run_coroutine_threadsafe(self.ref.kill(), self.loop)
        await asyncio.wait({asyncio.wrap_future(killing)}, timeout=3.0)


class Seize(msgspec.Struct, frozen=True):
    """Take the line and never give it back."""


def victim_actor(victim: Victim) -> type[InstrumentActor]:
    class Doomed(InstrumentActor):
        operations = {"seize": Seize}  # noqa: RUF012 - as the base class has it

        @handler(Seize)
        async def seize(self, message: Seize) -> None:
            victim.ref, victim.loop = self.ref, asyncio.get_running_loop()
            async with self.port.lease(self.context.holder) as lease:
                victim.holds.set()
                while not victim.go.is_set():
                    await pause(0.005)
                await lease.exchange(b"3SN?\r", timeout_s=30.0)

    return Doomed
