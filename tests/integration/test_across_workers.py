"""An instrument made of two others, each of the three in a worker of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import cloudpickle
import pytest

from duodaq import sim
from duodaq.clock import Deadline, block, monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DeliveryError, DuodaqError, InstrumentError, LifecycleError, ReplyTimeoutError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    ReadChannel,
    RuntimeDefinition,
    SetParameter,
)
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

MODES = ("inline", "thread", "process")


@pytest.fixture(autouse=True)
def _by_value() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Meter:
    """A power meter, as a lab writes one."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial
        self.filter = 1

    def power(self) -> float:
        self.serial.write(b"D?\n")
        return float(self.serial.readline())

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ZeroDivisionError("a mistake in the meter")

    def slow(self, seconds: float) -> None:
        block(seconds)


class Ratio:
    """One power over another: made of two meters, has no line of its own."""

    def __init__(self, above: Any, below: Any, note: str = "") -> None:
        self.above = above
        self.below = below
        self.note = note
        self.first = above.call("power")

    def ratio(self) -> float:
        return self.above.call("power") / self.below.call("power")

    def powers(self) -> tuple[float, float]:
        return self.above.read("power").value, self.below.call("power")

    def pids(self) -> tuple[int, int, int]:
        return os.getpid(), self.above.call("pid"), self.below.call("pid")

    def narrow(self, value: int) -> int:
        return self.above.set("filter", value) + self.below.get("filter")

    def fail(self) -> None:
        self.above.call("fail")

    def wait(self) -> None:
        self.above.call("slow", 1.0, timeout_s=0.2)


@dataclass(frozen=True)
class Pids:
    """Asks for the processes of all three."""


@dataclass(frozen=True)
class Narrow:
    """Sets one and reads the other."""

    value: int


class Difference(InstrumentActor):
    """The same in V4: one power minus another."""

    channels = (PollDefinition("difference", 0.02, "W", call="difference"),)
    operations: ClassVar = {"pids": Pids, "narrow": Narrow}

    async def connect(self) -> None:
        self.above, self.below = self.definition.args["above"], self.definition.args["below"]

    async def difference(self) -> float:
        above, below = await asyncio.gather(self.above.call("power"), self.below.read("power"))
        return above - below.value

    @handler(Pids)
    async def pids(self, message: Pids) -> tuple[int, int, int]:
        return os.getpid(), await self.above.call("pid"), await self.below.call("pid")

    @handler(Narrow)
    async def narrow(self, message: Narrow) -> int:
        return await self.above.set("filter", message.value) + await self.below.get("filter")


class Mirror:
    """Asks another, which asks it."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def look(self, depth: int) -> str:
        return self.other.call("look", depth - 1, timeout_s=3.0) if depth else "nothing"


@pytest.fixture(scope="module")
def meters() -> Iterator[tuple[sim.SimProcess, sim.SimProcess]]:
    with sim.launch("newport1830c", seed=1) as one, sim.launch("newport1830c", seed=2) as two:
        yield one, two


def meter(name: str, port: str, worker: str) -> InstrumentDefinition:
    polls = (PollDefinition("power", 0.5, "W", call="power"),)
    return InstrumentDefinition(name, "v2", Meter, port=port, polls=polls, passive=True, worker=worker)


@asynccontextmanager
async def lab(
    meters: tuple[sim.SimProcess, ...], *instruments: InstrumentDefinition, mode: str = "process"
) -> AsyncIterator[DualRuntimeManager]:
    own = "own" if mode == "process" else ""
    ports = [
        PortDefinition(name, serial={"path": device.address}, codec="newport1830c")
        for name, device in zip("ab", meters, strict=True)
    ]
    manager = DualRuntimeManager(
        LabDefinition(
            "across",
            ports=tuple(ports),
            instruments=(*instruments, meter("one", "a", own), meter("two", "b", own)),
            v2=RuntimeDefinition("v2", mode),
            v4=RuntimeDefinition("v4", mode),
        )
    )
    await manager.start()
    try:
        yield manager
    finally:
        assert (await manager.shutdown(5.0)).clean


def ratio(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("ratio", "v2", Ratio, args={"above": "@one", "below": "@two"}, passive=True, **facts)


@pytest.mark.parametrize("mode", MODES)
async def test_a_v2_class_made_of_two_others_works_wherever_they_live(mode: str, meters: Any) -> None:
    async with lab(meters, ratio(), mode=mode) as manager:
        await until_ready(manager, "ratio")
        assert isinstance(await manager.command("ratio", Execute("ratio")), float)
        assert all(isinstance(power, float) for power in await manager.command("ratio", Execute("powers")))
        assert await manager.command("ratio", Execute("narrow", (3,))) == 4
        assert await manager.command("one", GetParameter("filter")) == 3
        pids = await manager.command("ratio", Execute("pids"))
        assert len(set(pids)) == (3 if mode == "process" else 1)


@pytest.mark.parametrize("mode", MODES)
async def test_an_actor_made_of_two_others_works_wherever_they_live(mode: str, meters: Any) -> None:
    args = {"above": "@one", "below": "@two"}
    actor = InstrumentDefinition("minus", "v4", Difference, args=args, options={"acquire": True})
    async with lab(meters, actor, mode=mode) as manager:
        got = manager.v4_data.subscribe("test", capacity=10_000, streams=("minus.difference",))
        assert (await got.get(5.0)).num_rows
        assert isinstance((await manager.command("minus", ReadChannel("difference"))).value, float)
        assert await manager.command("minus", Execute("narrow", (2,))) == 3
        pids = await manager.command("minus", Execute("pids"))
        assert len(set(pids)) == (3 if mode == "process" else 1)


async def test_the_error_of_another_comes_to_who_asked_and_names_it(meters: Any) -> None:
    async with lab(meters, ratio()) as manager:
        await until_ready(manager, "ratio")
        with pytest.raises(InstrumentError, match="a mistake in the meter") as caught:
            await manager.command("ratio", Execute("fail"))
        assert "one" in str(caught.value)
        with pytest.raises(DuodaqError, match="one"):
            await manager.command("one", Execute("fail"))


async def test_a_question_has_a_deadline_of_its_own(meters: Any) -> None:
    async with lab(meters, ratio()) as manager:
        await until_ready(manager, "ratio")
        begun_s = monotonic_s()
        with pytest.raises(ReplyTimeoutError, match="one"):
            await manager.command("ratio", Execute("wait"))
        assert monotonic_s() - begun_s < 0.9
        await pause(1.0)


async def test_who_would_wait_for_itself_is_told_at_once(meters: Any) -> None:
    left = InstrumentDefinition("left", "v2", Mirror, args={"other": "@right"}, worker="own", passive=True)
    right = InstrumentDefinition("right", "v2", Mirror, args={"other": "@left"}, worker="own", passive=True)
    async with lab(meters, left, right) as manager:
        assert await manager.command("left", Execute("look", (1,))) == "nothing"
        begun_s = monotonic_s()
        with pytest.raises(DuodaqError, match="right would wait for itself: right waits for left waits for right"):
            await manager.command("left", Execute("look", (5,)))
        assert monotonic_s() - begun_s < 1.0
        assert await manager.command("right", Execute("look", (1,))) == "nothing"


async def test_it_goes_on_after_the_death_of_what_it_is_made_of_and_after_its_own(meters: Any) -> None:
    async with lab(meters, ratio(worker="own")) as manager:
        await until_ready(manager, "ratio")
        for victim in (1, 0):
            pids = await manager.command("ratio", Execute("pids"))
            os.kill(pids[victim], 9)
            await until_answered(manager, Execute("ratio"))
            assert (await manager.command("ratio", Execute("pids")))[victim] != pids[victim]


async def test_the_death_of_another_is_told_to_who_asked_for_something_at_that_moment(meters: Any) -> None:
    async with lab(meters, ratio(worker="own")) as manager:
        await until_ready(manager, "ratio")
        pid = (await manager.command("ratio", Execute("pids")))[1]
        asked = asyncio.create_task(manager.command("ratio", Execute("wait")))
        await pause(0.05)
        os.kill(pid, 9)
        with pytest.raises(DeliveryError, match="its worker died") as caught:
            await asked
        assert caught.value.fate == "unknown"


async def test_a_latched_stop_holds_for_those_who_ask_across(meters: Any) -> None:
    async with lab(meters, InstrumentDefinition("arm", "v2", Mirror, args={"other": "@one"}, passive=True)) as manager:
        await manager.command("one", SetParameter("filter", 1))
        await manager.stop_all()
        with pytest.raises(DuodaqError):  # `look` is none of the meter's, and would not be asked for anyway
            await manager.command("arm", Execute("look", (1,)))
        manager.reset_stop("test")


async def test_a_text_that_names_no_instrument_stays_one(meters: Any) -> None:
    async with lab(meters, ratio()) as manager:
        await until_ready(manager, "ratio")
    definition = InstrumentDefinition("own", "v2", Ratio, args={"above": "@one", "below": "@two", "note": "@py"})
    async with lab(meters, definition) as manager:
        await until_ready(manager, "own")
        assert await manager.command("own", GetParameter("note")) == "@py"


async def until_ready(manager: DualRuntimeManager, instrument: str) -> None:
    """One that asks others in its beginning may have to begin again, until they are there."""
    ends = Deadline(8.0)
    while (status := next(s for s in manager.instruments() if s.id == instrument)).state != "ready":
        assert not ends.passed, status
        await pause(0.02)


async def until_answered(manager: DualRuntimeManager, command: Execute) -> None:
    ends, error = Deadline(8.0), None
    while not ends.passed:
        try:
            await manager.command("ratio", command, 2.0)
        except (DeliveryError, LifecycleError, InstrumentError) as caught:
            error = caught
            await pause(0.02)
        else:
            return
    raise AssertionError(f"it did not answer again: {error}")
