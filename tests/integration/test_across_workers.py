"""An instrument made of two others, each of the three in a worker of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from duodaq import sim
from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import (
    DeliveryError,
    DuodaqError,
    InstrumentError,
    LifecycleError,
    ReplyTimeoutError,
    UnsafeStateError,
)
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    ReadChannel,
    RuntimeDefinition,
)

DRIVERS = Path(__file__).with_name("meters.py")
PASSIVE = frozenset({"power", "pid", "fail", "slow"})
MODES = ("inline", "thread", "process")


@pytest.fixture(scope="module")
def meters() -> Iterator[tuple[sim.SimProcess, sim.SimProcess]]:
    with sim.launch("newport1830c", seed=1) as one, sim.launch("newport1830c", seed=2) as two:
        yield one, two


def meter(name: str, port: str, worker: str) -> InstrumentDefinition:
    polls = (PollDefinition("power", 0.5, "W", call="power"),)
    return InstrumentDefinition(name, "v2", f"{DRIVERS}:Meter", port=port, polls=polls, passive=PASSIVE, worker=worker)


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


ONE_AND_TWO = {"above": "@one", "below": "@two"}


def ratio(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("ratio", "v2", f"{DRIVERS}:Ratio", **{"args": ONE_AND_TWO, "passive": True, **facts})


def mirror(name: str, other: str) -> InstrumentDefinition:
    driver = f"{DRIVERS}:Mirror"
    return InstrumentDefinition(name, "v2", driver, args={"other": f"@{other}"}, worker="own", passive=True)


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
    actor = InstrumentDefinition("minus", "v4", f"{DRIVERS}:Difference", args=args, options={"acquire": True})
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
    left, right = mirror("left", "right"), mirror("right", "left")
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


async def test_the_death_of_another_is_told_to_who_asked_for_something_at_that_moment(
    meters: Any, tmp_path: Path
) -> None:
    begun, limit = tmp_path / "begun", Deadline(10.0)
    async with lab(meters, ratio(worker="own")) as manager:
        await until_ready(manager, "ratio")
        pid = (await manager.command("ratio", Execute("pids")))[1]
        asked = asyncio.create_task(manager.command("ratio", Execute("linger", (str(begun),)), 20.0))
        while not begun.exists() and not limit.passed:
            await pause(0.01)
        os.kill(pid, 9)
        with pytest.raises(DeliveryError, match="its worker died") as caught:
            await asked
        assert caught.value.fate == "unknown"


async def test_a_latched_stop_holds_for_those_who_ask_across(meters: Any) -> None:
    async with lab(meters, ratio()) as manager:
        await until_ready(manager, "ratio")
        await manager.stop_all()
        with pytest.raises(UnsafeStateError, match=r"one\.filter.*latched"):
            await manager.command("ratio", Execute("narrow", (2,)))
        assert isinstance(await manager.command("ratio", Execute("ratio")), float)
        manager.reset_stop("test")
        await manager.command("ratio", Execute("narrow", (2,)))


async def test_a_text_that_names_no_instrument_stays_one(meters: Any) -> None:
    async with lab(meters, ratio(args={**ONE_AND_TWO, "note": "@py"})) as manager:
        await until_ready(manager, "ratio")
        assert await manager.command("ratio", GetParameter("note")) == "@py"


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
