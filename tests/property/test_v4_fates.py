"""Whatever happens to an actor, each message ends exactly once, and what its sender was told is what was done."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq.clock import pause
from duodaq.errors import DeliveryError
from duodaq.model import Fate
from duodaq.testing import run_virtual
from duodaq.v4 import Actor, ActorSystem, RestartPolicy, handler


class Read:
    def __init__(self, number: int, seconds: float) -> None:
        self.number, self.seconds = number, seconds


class Move(Read):
    pass


class Home(Read):
    pass


class Halt(Read):
    pass


class Crash:
    pass


class Worker(Actor):
    def __init__(self, begun: list[int], done: list[int]) -> None:
        self.begun, self.done = begun, done

    async def on_start(self) -> None:
        await pause(0.01)

    async def work(self, message: Read) -> int:
        self.begun.append(message.number)
        await pause(message.seconds)
        self.done.append(message.number)
        return message.number

    @handler(Read, idempotent=True)
    async def read(self, message: Read) -> int:
        return await self.work(message)

    @handler(Move, moves=True)
    async def move(self, message: Read) -> int:
        return await self.work(message)

    @handler(Home, moves=True, operation=True)
    async def home(self, message: Read) -> int:
        return await self.work(message)

    @handler(Halt, urgent=True)
    async def halt(self, message: Read) -> int:
        return await self.work(message)

    @handler(Crash, urgent=True)
    def crash(self, _: Crash) -> None:
        raise ValueError("crash")


SECONDS = st.sampled_from([0.0, 0.02, 0.3, 5.0])
STEPS = st.one_of(
    st.tuples(st.sampled_from([Read, Move, Home, Halt]), SECONDS, st.sampled_from([0.01, 0.2, 10.0])),
    st.tuples(st.just("pause"), st.sampled_from([0.0, 0.01, 0.25]), st.none()),
    st.tuples(st.sampled_from(["crash", "end moving", "cancel an asker"]), st.none(), st.none()),
)


def fate_of(asker: asyncio.Task[int]) -> Fate | None:
    """What the asker was told; None if it left."""
    if asker.cancelled():
        return None
    error = asker.exception()
    if error is None:
        return Fate.DONE
    assert isinstance(error, DeliveryError), error
    return Fate(error.fate)


async def run(steps: list[Any], capacity: int, ending: str) -> None:
    system, begun, done = ActorSystem(), list[int](), list[int]()
    policy = RestartPolicy(limit=2, window_s=1, backoff=lambda n: 0.05 * (n - 1))
    ref = await system.spawn(Worker, begun, done, mailbox=capacity, restart=policy)
    askers: list[asyncio.Task[int]] = []
    homes: set[int] = set()
    for what, seconds, deadline_s in steps:
        if what == "pause":
            await pause(seconds)
        elif what == "crash":
            await asyncio.wait((asyncio.ensure_future(ref.tell(Crash())),))
        elif what == "end moving":
            ref.end_moving("a test")
        elif what == "cancel an asker":
            for asker in askers[-1:]:
                asker.cancel()
        else:
            homes |= {len(askers)} if what is Home else set()
            askers.append(asyncio.ensure_future(ref.ask(what(len(askers), seconds), deadline_s)))
            await pause(0)
    await (system.stop(3) if ending == "stop" else ref.kill())
    if askers:
        _, pending = await asyncio.wait(askers, timeout=0)
        assert not pending, "an asker was left waiting"
    await system.stop(3)
    assert len(begun) == len(set(begun)), "a message was handled twice"
    for number, asker in enumerate(askers):
        fate = fate_of(asker)
        if fate is Fate.DONE:
            assert asker.result() == number
            assert number in done
        elif fate is Fate.NOT_DONE:
            assert number not in begun
        elif fate is Fate.UNKNOWN:
            # an operation cut off before its first step says so too: that is the cautious answer
            assert number in begun or number in homes
    metrics = ref.metrics
    assert (metrics.depth, metrics.waiting, metrics.urgent_depth) == (0, 0, 0)
    assert metrics.high_water <= capacity


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEPS, max_size=25), capacity=st.integers(1, 4), ending=st.sampled_from(["stop", "kill"]))
def test_every_message_ends_once_and_its_fate_is_true(steps: list[Any], capacity: int, ending: str):
    run_virtual(run(steps, capacity, ending))
