"""Who takes part in a contest for one line: a V2 driver, V4 actors, and one that is killed while it holds it."""

from __future__ import annotations

import os
import signal
from bisect import bisect_left, bisect_right
from typing import Any, ClassVar

import msgspec

from duodaq.clock import monotonic_ns
from duodaq.testing.coexistence._bench import until
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.testing.coexistence._witness import process_lives
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

ACTORS = ("asker a", "asker b", "asker c")
AXES = {"asker": 1, "asker a": 2, "asker b": 3, "asker c": 2}


class Contest:
    """Who asked what when and got which answer, by their own notes in one directory; and the gates between the scenes.

    Times are those of CLOCK_MONOTONIC, which all processes share.
    """

    def __init__(self, directory: str) -> None:
        self.evidence = Evidence(os.path.join(directory, "notes"))
        self.ended, self.wake, self.go, self.death = (
            Gate(os.path.join(directory, name)) for name in ("ended", "wake", "go", "death")
        )

    @staticmethod
    def query(name: str) -> bytes:
        """A question that each axis answers in its own way."""
        return b"%dID?\r" % AXES[name]

    def served(self, name: str, asked_ns: int, answer: bytes) -> None:
        """Note an answer; an empty one is a time-out, and none."""
        if answer:
            facts = {"answer": answer.strip().decode("latin-1"), "asked_ns": asked_ns, "served_ns": monotonic_ns()}
            self.evidence.note("served", name=name, **facts)

    def noted(self, kind: str) -> bool:
        """Whether anybody has noted this."""
        return self.evidence.count(kind) > 0

    @property
    def turns(self) -> int:
        """How many have been served."""
        return self.evidence.count("served")

    def answers(self) -> dict[str, set[bytes]]:
        """The different answers that each has got."""
        found: dict[str, set[bytes]] = {name: set() for name in AXES}
        for note in self.evidence.read("served"):
            found[note["name"]].add(note["answer"].encode("latin-1"))
        return found

    def overtaken(self) -> dict[str, list[int]]:
        """For each question of each, how many others were served between its asking and its answer."""
        served = self.evidence.read("served")
        moments = sorted(note["served_ns"] for note in served)
        found: dict[str, list[int]] = {name: [] for name in AXES}
        for note in served:
            between = bisect_left(moments, note["served_ns"]) - bisect_right(moments, note["asked_ns"])
            found[note["name"]].append(between)
        return found

    async def kill_victim(self, *, with_its_process: bool) -> None:
        """Kill the actor that holds the line, or the process that it lives in; wait until that has been done."""
        held = self.evidence.read("holds")
        if not held:
            return
        if with_its_process:
            os.kill(held[-1].pid, signal.SIGKILL)
            await until(lambda: not process_lives(held[-1].pid), 3.0)
        else:
            self.death.open()
            await until(lambda: self.noted("gone"), 3.0)


class AskingDriver:
    """V2's: asks and asks; or takes the line and sleeps."""

    def __init__(self, serial: Any, contest: str) -> None:
        self.serial = serial
        self.contest = Contest(contest)

    def ask(self, count: int) -> bytes:
        """Ask the device `count` times, one after the other, or until the contest has ended."""
        answer = b""
        for _ in range(count):
            if self.contest.ended.is_open:
                break
            asked_ns = monotonic_ns()
            self.serial.write(self.contest.query("asker"))
            answer = bytes(self.serial.readline())
            self.contest.served("asker", asked_ns, answer)
        return answer.strip()

    def sleep_on_it(self) -> None:
        """Take the line, and fall asleep."""
        self.serial.write(self.contest.query("asker"))
        self.serial.readline()
        self.contest.evidence.note("sleeping")
        self.contest.wake.wait(2.0)


class Ask(msgspec.Struct, frozen=True):
    """Ask the device `count` times, one after the other, or until the contest has ended."""

    count: int


class AskingActor(InstrumentActor):
    """V4's: asks and asks."""

    operations: ClassVar = {"ask": Ask}

    @handler(Ask)
    async def ask(self, message: Ask) -> bytes:
        """The last answer."""
        contest, name = Contest(self.definition.args["contest"]), self.definition.id
        answer = b""
        for _ in range(message.count):
            if contest.ended.is_open:
                break
            asked_ns = monotonic_ns()
            answer = await self.port.exchange(contest.query(name), holder=self.context.holder)
            contest.served(name, asked_ns, answer)
        return answer.strip()


class Seize(msgspec.Struct, frozen=True):
    """Take the line and never give it back."""


class DoomedActor(InstrumentActor):
    """Takes the line, asks when it is told to, and is killed when the gate of its death opens."""

    operations: ClassVar = {"seize": Seize}

    async def connect(self) -> None:
        """Await its death."""
        self.contest = Contest(self.definition.args["contest"])
        self.run_beside(self._die(), "death")

    async def disconnect(self) -> None:
        """Note that it is gone."""
        self.contest.evidence.note("gone")

    async def _die(self) -> None:
        await self.contest.death.reached()
        await self.ref.kill()

    @handler(Seize)
    async def seize(self, message: Seize) -> None:
        """Take the line; ask when told to."""
        async with self.port.lease(self.context.holder) as lease:
            self.contest.evidence.note("holds")
            await self.contest.go.reached()
            await lease.exchange(b"3SN?\r", timeout_s=30.0)
