"""A spare goes through what it will have to do, once, with an instrument that has no device.

What a forked process touches first costs it a page fault and the copy of a page: a reference is counted in each object
that is merely looked at, and they lie all over the memory. A worker's way from its first message to its first answer
touches 900 pages (V4) or 1,000 (V2), which takes most of 3 to 4 ms. So a spare that stands ready for one worker goes
that way beforehand, and pays with 5 MB of its own memory, which a worker that runs has anyway. The bare spare does not.

Rules for whoever edits this:

* Nothing is opened, and nothing is left, no thread, task, handler or descriptor; but for the keeper of the lifeline.
* What is said is made in the fork server, once. The pages that saying it takes are none of a worker's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from duodaq import clock
from duodaq.model import GetParameter, InstrumentDefinition, RuntimeName
from duodaq.v4.instruments import InstrumentActor, Parameter
from duodaq.workers._by_value import dumps
from duodaq.workers._log_line import ROOT
from duodaq.workers._memory_limit import private_bytes
from duodaq.workers._messages import VERSION, Ask, Make, Order, encode, parcel
from duodaq.workers._page import SharedPage
from duodaq.workers._parts import Factories
from duodaq.workers._plan import WorkerPlan, to_start
from duodaq.workers._worker_main import Ready, Worker, keeper, new_loop

READS = 3
LIMIT_S = 5.0
_ALL = 1 << 20
_LENGTH = struct.Struct("<I")
_ID = "rehearsal"
_START, _READ, _STOP = 1, 2, 100


def _read_number(actor: Any) -> Any:
    return actor.read_number()


class _Actor(InstrumentActor):
    parameters: ClassVar = {"number": Parameter(_read_number)}

    async def read_number(self) -> int:
        return 1


class _Driver:
    number = 1


_Actor.__module__ = _Driver.__module__ = "__main__"  # so that they travel by value, as those of a notebook do


def _script(runtime: RuntimeName) -> tuple[bytes, ...]:
    """What the manager says to a worker of that runtime, as bytes for the link."""
    factories, driver = Factories(), {"v2": _Driver, "v4": _Actor}[runtime]
    factory = factories.v2 if runtime == "v2" else factories.v4
    definition = InstrumentDefinition(_ID, runtime, driver, passive=runtime == "v2")
    ahead = {_ID: definition}
    plan = WorkerPlan("spare", runtime, factory, {}, {}, False, clock.anchor_ns(), logging.INFO, ahead=ahead)
    messages = [
        Make(VERSION, dumps(plan)),
        Ask(_START, "start", parcel((LIMIT_S, to_start([definition], ahead))), None),
        *(Order(_READ + number, definition.id, GetParameter("number"), LIMIT_S) for number in range(READS)),
        Ask(_STOP, "stop", parcel(LIMIT_S), None),
    ]
    return tuple(_LENGTH.pack(len(body)) + body for body in map(encode, messages))


_SAID: dict[RuntimeName, tuple[bytes, ...]] = {"v2": _script("v2"), "v4": _script("v4")}


def v2(rest: Callable[[], None]) -> None:
    """Rehearse the part of a V2 worker."""
    rehearse("v2", rest)


def v4(rest: Callable[[], None]) -> None:
    """Rehearse the part of a V4 worker."""
    rehearse("v4", rest)


class _Rehearsing(Worker):
    """A worker of which nothing is left but what it has touched."""

    def __init__(self, link: socket.socket, descriptors: socket.socket) -> None:
        super().__init__(link, descriptors)
        self.served = 0
        self.serves = asyncio.Event()
        self._brokers_end: socket.socket | None = None

    def close(self) -> None:
        """End it from this side."""
        self._pipe.close()
        if self._ready is not None:
            self._ready.page.close()
            self._ready.broker.close()
        if self._brokers_end is not None:
            self._brokers_end.close()

    def _settle(self) -> tuple[SharedPage, socket.socket]:
        keeper()
        if sys.platform == "linux":
            private_bytes()
        self._brokers_end, end = socket.socketpair()  # silent, but there: a slow rehearsal looks what has come
        return SharedPage(), end

    def _lost(self, why: str) -> None:
        raise AssertionError(f"a rehearsal that was cut short: {why}")

    async def _serve(self, ready: Ready, ask: Order | Ask) -> None:
        await super()._serve(ready, ask)
        self.served += 1
        self.serves.set()

    async def has_served(self, count: int) -> None:
        """Wait until it has answered so many requests."""
        while self.served < count:
            self.serves.clear()
            await self.serves.wait()


def rehearse(runtime: RuntimeName, rest: Callable[[], None]) -> bytes:
    """Rehearse the part of a worker of that runtime; what it answered, as bytes from the link.

    Args:
        runtime: Whose part.
        rest: Called between the steps, to let others have the processor; blocks as long as it likes.
    """
    logger = logging.getLogger(ROOT)
    before = logger.handlers[:], logger.level, logger.propagate
    manager, link = socket.socketpair()
    descriptors = socket.socket(socket.AF_UNIX)
    loop = new_loop()
    try:
        return loop.run_until_complete(_play(_SAID[runtime], rest, manager, link, descriptors))
    finally:
        loop.close()
        asyncio.set_event_loop(None)
        for end in (manager, link, descriptors):
            end.close()
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
        gc.collect()  # what the fork server made is frozen, and is not looked at


async def _play(
    said: Sequence[bytes],
    rest: Callable[[], None],
    manager: socket.socket,
    link: socket.socket,
    descriptors: socket.socket,
) -> bytes:
    worker = _Rehearsing(link, descriptors)
    worker.open()
    try:
        for requests, frame in enumerate(said):  # the first is none
            manager.sendall(frame)
            await asyncio.wait_for(worker.has_served(requests), LIMIT_S)
            await clock.pause(0)  # after a Make it is told how things are
            rest()
        return manager.recv(_ALL)
    finally:
        worker.close()
