"""Each message ends once, and its sender learns how."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from duodaq.clock import pause
from duodaq.errors import DeliveryError, LifecycleError, MailboxFullError, ReplyTimeoutError, StoppedError
from duodaq.model import Fate
from duodaq.testing import virtual_time
from duodaq.v4 import Actor, ActorRef, ActorState, ActorSystem, WouldBlock, handler

TRACE: ContextVar[str] = ContextVar("TRACE", default="none")


@dataclass(frozen=True)
class Read:
    number: int = 0


@dataclass(frozen=True)
class Move:
    to: float = 0.0


@dataclass(frozen=True)
class Hold:
    seconds: float


@dataclass(frozen=True)
class Break:
    what: str = "broken"


@dataclass(frozen=True)
class Halt:
    pass


class SpecialRead(Read):
    pass


class Bench(Actor):
    """Records what it did; can be made to hold a message in hand, or to break."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    @handler(Read, idempotent=True)
    async def read(self, message: Read) -> int:
        self.log.append(message.number)
        return message.number

    @handler(Move, moves=True)
    async def move(self, message: Move) -> float:
        self.log.append(("moved", message.to))
        return message.to

    @handler(Hold)
    async def hold(self, message: Hold) -> str:
        self.log.append("begun")
        await pause(message.seconds)
        self.log.append("ended")
        return "held"

    @handler(Break)
    def fail(self, message: Break) -> None:
        raise ValueError(message.what)

    @handler(Halt, urgent=True)
    async def halt(self, message: Halt) -> str:
        self.log.append("halted")
        return "halted"


@asynccontextmanager
async def bench(**options: Any) -> AsyncIterator[tuple[ActorSystem, ActorRef, list[Any]]]:
    system, log = ActorSystem(), list[Any]()
    ref = await system.spawn(Bench, log, name="bench", **options)
    try:
        yield system, ref, log
    finally:
        await system.stop(5)


@virtual_time
async def test_ask_returns_what_the_handler_returned():
    async with bench() as (_, ref, log):
        assert await ref.ask(Read(7)) == 7
        assert log == [7]


@virtual_time
async def test_messages_of_one_sender_are_handled_in_order_one_at_a_time():
    async with bench() as (_, ref, log):
        await asyncio.gather(ref.ask(Hold(1)), *(ref.ask(Read(n)) for n in range(50)))
        assert log == ["begun", "ended", *range(50)]


@virtual_time
async def test_a_handlers_exception_goes_to_the_asker_and_the_actor_goes_on():
    async with bench() as (system, ref, _):
        with pytest.raises(ValueError, match="broken"):
            await ref.ask(Break())
        assert await ref.ask(Read(1)) == 1
        assert (ref.metrics.failed, ref.metrics.restarts, len(system.dead_letters)) == (1, 0, 0)


@virtual_time
async def test_an_exception_from_a_tell_is_a_crash_and_a_dead_letter_with_its_fate():
    async with bench() as (system, ref, _):
        await ref.tell(Break("told"))
        assert await ref.ask(Read(1)) == 1
        (letter,) = system.dead_letters
        assert (letter.actor, letter.message, letter.fate) == ("bench", Break("told"), Fate.FAILED)
        assert ref.metrics.restarts == 1


@virtual_time
async def test_an_ask_overdue_while_it_waits_is_withdrawn_and_not_done():
    async with bench() as (_, ref, log):
        holding = asyncio.ensure_future(ref.ask(Hold(10), timeout_s=20))
        await pause(0)
        with pytest.raises(ReplyTimeoutError) as caught:
            await ref.ask(Read(1), timeout_s=1)
        assert caught.value.fate == Fate.NOT_DONE
        assert caught.value.instrument == "bench"
        assert ref.metrics.depth == 0
        await holding
        assert log == ["begun", "ended"]


@virtual_time
async def test_an_ask_overdue_in_hand_is_unknown_and_its_outcome_is_late():
    async with bench() as (_, ref, log):
        with pytest.raises(ReplyTimeoutError) as caught:
            await ref.ask(Hold(10), timeout_s=1)
        assert caught.value.fate == Fate.UNKNOWN
        await pause(10)
        assert (log, ref.metrics.late) == (["begun", "ended"], 1)


@virtual_time
async def test_a_deadline_is_kept_to_within_a_tick():
    async with bench() as (system, ref, _):
        begun = system.now_s()
        with pytest.raises(ReplyTimeoutError):
            await ref.ask(Hold(10), timeout_s=0.1)
        assert 0.1 <= system.now_s() - begun <= 0.11


@virtual_time
async def test_a_cancelled_asker_withdraws_what_waits():
    async with bench() as (_, ref, log):
        holding = asyncio.ensure_future(ref.ask(Hold(10), timeout_s=20))
        waiting = asyncio.ensure_future(ref.ask(Move(3)))
        await pause(1)
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert waiting.cancelled()
        await holding
        assert log == ["begun", "ended"]


@virtual_time
async def test_a_cancelled_asker_leaves_what_is_in_hand_to_end_late():
    async with bench() as (_, ref, log):
        asker = asyncio.ensure_future(ref.ask(Hold(10), timeout_s=20))
        await pause(1)
        asker.cancel()
        await pause(20)
        assert (log, ref.metrics.late) == (["begun", "ended"], 1)


@virtual_time
async def test_tell_nowait_would_block_when_the_mailbox_is_full():
    async with bench(mailbox=2) as (_, ref, log):
        holding = asyncio.ensure_future(ref.ask(Hold(1)))
        await pause(0.1)
        ref.tell_nowait(Read(1))
        ref.tell_nowait(Read(2))
        with pytest.raises(WouldBlock) as caught:
            ref.tell_nowait(Read(3))
        assert caught.value.fate == Fate.NOT_DONE
        await holding
        assert await ref.ask(Read(4)) == 4
        assert log == ["begun", "ended", 1, 2, 4]
        assert (ref.metrics.refused, ref.metrics.high_water) == (1, 2)


@virtual_time
async def test_tell_waits_for_room_in_the_order_of_coming():
    async with bench(mailbox=1) as (_, ref, log):
        await asyncio.gather(ref.tell(Hold(1)), *(ref.tell(Read(n)) for n in range(5)))
        await ref.ask(Read(99))
        assert log == ["begun", "ended", *range(5), 99]


@virtual_time
async def test_tell_gives_up_when_there_is_no_room_in_time():
    async with bench(mailbox=1) as (_, ref, log):
        await ref.tell(Hold(10))
        await pause(0.1)
        await ref.tell(Read(1))
        with pytest.raises(MailboxFullError):
            await ref.tell(Read(2), timeout_s=1)
        await pause(10)
        assert log == ["begun", "ended", 1]


@virtual_time
async def test_a_cancelled_tell_is_withdrawn():
    async with bench(mailbox=1) as (_, ref, log):
        await ref.tell(Hold(1))
        await pause(0.1)
        await ref.tell(Read(1))
        teller = asyncio.ensure_future(ref.tell(Read(2)))
        await pause(0.1)
        teller.cancel()
        await pause(2)
        assert log == ["begun", "ended", 1]
        assert ref.metrics.waiting == 0


@virtual_time
async def test_urgent_messages_are_served_beside_the_message_in_hand():
    async with bench() as (system, ref, log):
        holding = asyncio.ensure_future(ref.ask(Hold(10), timeout_s=20))
        await pause(1)
        assert await ref.ask(Halt()) == "halted"
        assert system.now_s() == pytest.approx(1)
        await holding
        assert log == ["begun", "halted", "ended"]


@virtual_time
async def test_end_moving_ends_waiting_moves_alone():
    async with bench() as (_, ref, log):
        holding = asyncio.ensure_future(ref.ask(Hold(1)))
        await pause(0.1)
        moves = [asyncio.ensure_future(ref.ask(Move(n))) for n in range(3)]
        reading = asyncio.ensure_future(ref.ask(Read(5)))
        await pause(0.1)
        assert ref.end_moving("stop all") == 3
        for move in moves:
            with pytest.raises(StoppedError, match="stop all") as caught:
                await move
            assert caught.value.fate == Fate.NOT_DONE
        assert await reading == 5
        await holding
        assert log == ["begun", "ended", 5]


@virtual_time
async def test_a_message_nobody_handles_is_refused_as_not_done():
    async with bench() as (_, ref, _):
        with pytest.raises(DeliveryError, match="no handler for str") as caught:
            await ref.ask("what?")
        assert caught.value.fate == Fate.NOT_DONE


@virtual_time
async def test_a_subclass_of_a_message_finds_its_bases_handler():
    async with bench() as (_, ref, _):
        assert await ref.ask(SpecialRead(3)) == 3


@virtual_time
async def test_an_actor_that_would_wait_for_its_own_mailbox_is_told_so():
    class Narcissus(Actor):
        @handler(Read)
        async def read(self, message: Read) -> int:
            return await self.ref.ask(message)

    system = ActorSystem()
    ref = await system.spawn(Narcissus)
    with pytest.raises(LifecycleError, match="own mailbox"):
        await ref.ask(Read())
    await system.stop()


@virtual_time
async def test_a_handler_sees_its_senders_context_and_no_other():
    class Witness(Actor):
        async def receive(self, message: Any) -> str:
            seen = TRACE.get()
            TRACE.set("left by a handler")
            await pause(0.01)
            assert TRACE.get() == "left by a handler"
            return seen

    async def sender(trace: str) -> str:
        TRACE.set(trace)
        return await ref.ask("who?")

    system = ActorSystem()
    ref = await system.spawn(Witness)
    traces = [f"t{n}" for n in range(20)]
    assert await asyncio.gather(*(asyncio.create_task(sender(trace)) for trace in traces)) == traces
    assert await ref.ask("me?") == "none"
    await system.stop()


@virtual_time
async def test_time_outs_and_the_current_task_work_inside_a_handler():
    class Patient(Actor):
        async def receive(self, message: float) -> str:
            assert asyncio.current_task() is not None
            try:
                async with asyncio.timeout(message):
                    await pause(10)
            except TimeoutError:
                return "timed out"
            return "in time"

    system = ActorSystem()
    ref = await system.spawn(Patient)
    TRACE.set("another context")
    assert await ref.ask(1.0) == "timed out"
    assert await ref.ask(11.0, timeout_s=60) == "in time"
    await system.stop()


@virtual_time
async def test_a_handler_that_cancels_itself_fails_as_unknown_and_the_actor_goes_on():
    class Odd(Actor):
        async def receive(self, message: str) -> str:
            if message == "cancel":
                raise asyncio.CancelledError
            return message

    system = ActorSystem()
    ref = await system.spawn(Odd)
    with pytest.raises(DeliveryError, match="was cancelled") as caught:
        await ref.ask("cancel")
    assert caught.value.fate == Fate.UNKNOWN
    assert await ref.ask("on") == "on"
    await system.stop()


@virtual_time
async def test_a_stopped_actor_refuses_and_buries_what_is_told_to_it():
    async with bench() as (system, ref, _):
        await ref.stop()
        assert ref.state is ActorState.STOPPED
        with pytest.raises(StoppedError):
            await ref.ask(Read())
        with pytest.raises(StoppedError):
            await ref.tell(Move(1))
        assert [(letter.message, letter.fate) for letter in system.dead_letters] == [(Move(1), Fate.NOT_DONE)]


@virtual_time
async def test_an_idle_actor_owns_no_task():
    async with bench() as (_, ref, _):
        await ref.ask(Read())
        await pause(3)
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await ref.ask(Read(2)) == 2


@virtual_time
async def test_handlers_that_never_wait_leave_the_loop_to_others():
    class Busy(Actor):
        def __init__(self) -> None:
            self.count = 0

        @handler(Read)
        async def read(self, message: Read) -> None:
            self.count += 1
            if self.count < 10_000:
                self.ref.tell_nowait(message)

        @handler(Halt, urgent=True)
        def halt(self, message: Halt) -> int:
            return self.count

    system = ActorSystem()
    ref = await system.spawn(Busy)
    await ref.tell(Read())
    await pause(0)
    assert 0 < await ref.ask(Halt()) < 10_000
    await ref.kill()
    await system.stop()
