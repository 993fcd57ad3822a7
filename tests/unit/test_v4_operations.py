"""Long operations beside the mailbox: awaited, cancelled, watched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from duodaq.clock import Deadlines, pause
from duodaq.errors import DeliveryError, MailboxFullError, ReplyTimeoutError, StoppedError
from duodaq.model import Fate, Outcome
from duodaq.testing import virtual_time
from duodaq.v4 import Actor, ActorSystem, Progress, handler


class Stage(Actor):
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    @handler(float, operation=True, moves=True)
    async def home(self, seconds: float) -> str:
        try:
            for step in range(4):
                self.progress(step / 4, f"step {step}")
                await pause(seconds / 4)
        except asyncio.CancelledError:
            self.log.append("cleaned up")
            raise
        return "homed"

    @handler(str)
    async def read(self, text: str) -> str:
        return text

    @handler(tuple)
    def meddle(self, _: tuple[str]) -> None:
        self.progress(1.0, "not mine")

    @handler(bytes, operation=True)
    async def fail(self, _: bytes) -> None:
        await pause(1)
        raise ValueError("limit switch")

    @handler(complex, operation=True)
    async def watch(self, seconds: complex) -> str:
        self.log.append("watches")
        await pause(seconds.real)
        return "seen"

    @handler(int)
    async def hold(self, seconds: int) -> None:
        await pause(seconds)


@virtual_time
async def test_an_operation_does_not_block_the_mailbox():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    operation = ref.operate(10.0)
    await pause(1)
    assert await ref.ask("still here") == "still here"
    assert not operation.done
    assert await operation == "homed"
    assert (operation.fate, system.now_s()) == (Fate.DONE, pytest.approx(10))
    await system.stop()


@virtual_time
async def test_an_operation_can_be_asked_and_awaited_more_than_once():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    assert await ref.ask(1.0) == "homed"
    operation = ref.operate(1.0)
    assert [await operation, await operation] == ["homed", "homed"]
    await system.stop()


@virtual_time
async def test_progress_is_reported_as_it_comes():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    operation = ref.operate(4.0)
    seen = [progress async for progress in operation.updates()]
    assert seen == [Progress(0.0), *(Progress(step / 4, f"step {step}") for step in range(4))]
    assert operation.progress == Progress(0.75, "step 3")
    await system.stop()


@virtual_time
async def test_a_handler_beside_an_operation_reports_no_progress_for_it():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    operation = ref.operate(4.0)
    await pause(0.1)
    await ref.ask(("meddle",))
    assert operation.progress == Progress(0.0, "step 0")
    await operation
    await system.stop()


@virtual_time
async def test_cancelling_one_under_way_ends_it_unknown_after_its_clean_up():
    system, log = ActorSystem(), []
    ref = await system.spawn(Stage, log)
    operation = ref.operate(10.0)
    await pause(1)
    operation.cancel()
    with pytest.raises(DeliveryError, match="cancelled while under way"):
        await operation
    assert (operation.fate, log) == (Fate.UNKNOWN, ["cleaned up"])
    await system.stop()


@virtual_time
async def test_cancelling_one_that_waits_ends_it_not_done():
    system, log = ActorSystem(), []
    ref = await system.spawn(Stage, log)
    holding = asyncio.ensure_future(ref.ask(2))
    await pause(0)
    operation = ref.operate(1.0)
    operation.cancel()
    operation.cancel()
    with pytest.raises(StoppedError, match="before it began"):
        await operation
    assert operation.fate is Fate.NOT_DONE
    await holding
    assert log == []
    await system.stop()


@virtual_time
async def test_cancelling_one_in_its_first_moment_still_gives_it_a_fate():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    operation = ref.operate(1.0)
    await pause(0)
    operation.cancel()
    with pytest.raises(DeliveryError):
        await operation
    assert operation.fate in (Fate.UNKNOWN, Fate.NOT_DONE)
    await system.stop()


@virtual_time
async def test_cancelling_an_awaiter_leaves_the_operation_alone():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    operation = ref.operate(4.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await operation
    assert await operation == "homed"
    await system.stop()


@virtual_time
async def test_a_failure_goes_to_whoever_awaits_and_an_unwatched_one_is_no_warning():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    with pytest.raises(ValueError, match="limit switch"):
        await ref.operate(b"")
    unwatched = ref.operate(b"")
    await pause(2)
    assert unwatched.fate is Fate.FAILED
    assert ref.metrics.restarts == 0
    await system.stop()


@virtual_time
async def test_an_operation_may_have_a_deadline():
    system = ActorSystem()
    ref = await system.spawn(Stage, [])
    operation = ref.operate(10.0, timeout_s=1)
    with pytest.raises(ReplyTimeoutError):
        await operation
    assert operation.fate is Fate.UNKNOWN
    await system.stop(20)
    assert ref.metrics.late == 1


@virtual_time
async def test_a_stop_waits_for_a_short_operation_and_cuts_a_long_one():
    system, log = ActorSystem(), []
    for seconds, outcome, fate in ((1.0, Outcome.CLEAN, Fate.DONE), (100.0, Outcome.FORCED, Fate.UNKNOWN)):
        ref = await system.spawn(Stage, log)
        operation = ref.operate(seconds)
        await pause(0.1)
        report = await ref.stop(4)
        assert (report.outcome, operation.fate) == (outcome, fate)
    assert log == ["cleaned up"]


@virtual_time
async def test_operations_under_way_are_bounded():
    system = ActorSystem()
    ref = await system.spawn(Stage, [], mailbox=2)
    operations = [ref.operate(1.0) for _ in range(3)]
    assert [await operation for operation in operations[:2]] == ["homed"] * 2
    with pytest.raises(MailboxFullError, match="2 operations are under way"):
        await operations[2]
    await system.stop()


@virtual_time
async def test_one_that_neither_moves_nor_emits_begins_at_once_where_nothing_is_before_it():
    system, log = ActorSystem(), []
    ref = await system.spawn(Stage, log)
    operation = ref.operate(complex(1))
    await pause(0)
    assert log == ["watches"]
    assert await operation == "seen"
    assert (ref.metrics.taken, ref.metrics.handled, ref.metrics.high_water) == (1, 1, 1)
    await system.stop()


@virtual_time
async def test_one_that_neither_moves_nor_emits_does_not_overtake_what_came_before():
    system, log = ActorSystem(), []
    ref = await system.spawn(Stage, log)
    holding = asyncio.ensure_future(ref.ask(2))
    await pause(0)
    watching = ref.operate(complex(1))
    await pause(1)
    assert log == []
    assert (await watching, holding.done()) == ("seen", True)
    assert ref.metrics.taken == ref.metrics.handled == 2
    await system.stop()


@virtual_time
async def test_one_that_moves_waits_in_the_mailbox_where_a_stop_finds_it():
    system, log = ActorSystem(), []
    ref = await system.spawn(Stage, log)
    moving = ref.operate(1.0)
    assert ref.end_moving("a stop") == 1
    with pytest.raises(StoppedError, match="a stop"):
        await moving
    assert moving.fate is Fate.NOT_DONE
    await system.stop()


@virtual_time
async def test_who_waits_for_one_within_a_limit_is_told_whether_it_ended_and_it_goes_on():
    system, deadlines = ActorSystem(), Deadlines()
    ref = await system.spawn(Stage, [])
    operation = ref.operate(complex(3))
    assert not await operation.ended_within(1.0, deadlines)
    assert (operation.done, system.now_s()) == (False, pytest.approx(1))
    assert await operation.ended_within(5.0, deadlines)
    assert (await operation, system.now_s()) == ("seen", pytest.approx(3))
    assert await operation.ended_within(None, deadlines)
    failing = ref.operate(b"")
    assert await failing.ended_within(None, deadlines)
    assert failing.fate is Fate.FAILED
    await system.stop()
