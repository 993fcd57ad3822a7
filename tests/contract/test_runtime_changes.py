"""A runtime says nothing new of itself without counting it: a worker looks at the count alone before each answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import msgspec
import pytest

from duodaq.bridge import ParameterTable
from duodaq.errors import DuodaqError, PortLostError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    PollDefinition,
    ReadChannel,
    Recover,
    Runtime,
    SetParameter,
    Shutdown,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.ports import Broker
from duodaq.v2 import DataDistributor
from duodaq.v4 import DataPublisher, handler
from duodaq.v4.instruments import InstrumentActor
from duodaq.workers import Factories, RuntimeParts

DO: list[Callable[[Runtime], Awaitable[Any]]] = [
    lambda runtime: runtime.add(stanza(runtime, "one")),
    lambda runtime: runtime.start(5.0),
    lambda runtime: runtime.add(stanza(runtime, "two")),
    *[
        lambda runtime, command=command: runtime.command("one", command, 5.0)
        for command in (
            Execute("ping", (1,)),
            GetParameter("level"),
            SetParameter("level", 2.0),
            ReadChannel("level"),
            StartAcquisition(),
            ReadChannel("level"),
            StopAcquisition(),
            Execute("lose"),
            Recover(),
            Shutdown(),
        )
    ],
    lambda runtime: runtime.restart("two"),
    lambda runtime: runtime.remove("one"),
    lambda runtime: runtime.stop(5.0),
]


class Lamp:
    """A blocking driver without a device, which can be lost."""

    level = 1.0
    serial_number = "L-1"

    def ping(self, number: int) -> int:
        return number

    def lose(self) -> None:
        raise ConnectionResetError("unplugged")


class Ping(msgspec.Struct, frozen=True):
    """Asks for its own number."""

    number: int = 0


class Lose(msgspec.Struct, frozen=True):
    """Asks it to fail for good."""


class Echo(InstrumentActor):
    """An actor that answers."""

    operations: ClassVar = {"ping": Ping, "lose": Lose}

    @handler(Ping)
    async def ping(self, message: Ping) -> int:
        return message.number

    @handler(Lose)
    async def lose(self, message: Lose) -> None:
        raise PortLostError("unplugged")


def stanza(runtime: Runtime, name: str) -> InstrumentDefinition:
    if runtime.name == "v4":
        return InstrumentDefinition(name, "v4", Echo)
    polls = (PollDefinition("level", 60.0, "", read="level"),)
    return InstrumentDefinition(name, "v2", Lamp, polls=polls, passive=True, options={"acquire": False})


@pytest.fixture(params=["v2", "v4"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    parts = RuntimeParts(Broker(), ParameterTable(), DataDistributor(), DataPublisher())
    made: Runtime = getattr(Factories(), request.param)(parts)
    yield made
    await made.stop(5.0)


def said(runtime: Runtime) -> Any:
    return runtime.status, runtime.instruments(), runtime.channels()


async def test_whatever_is_done_to_it_no_change_goes_uncounted(runtime: Runtime) -> None:
    states: set[str] = set()
    for do in DO:
        before, count = said(runtime), runtime.changes
        try:
            await do(runtime)
        except DuodaqError as error:
            states.add(type(error).__name__)
        assert runtime.changes > count or said(runtime) == before
        states |= {status.state.value for status in runtime.instruments()}
    assert {"ready", "error", "disconnected"} <= states


async def test_an_answer_alone_is_no_change(runtime: Runtime) -> None:
    await runtime.add(stanza(runtime, "one"))
    await runtime.start(5.0)
    count = runtime.changes
    for number in range(20):
        assert await runtime.command("one", Execute("ping", (number,)), 5.0) == number
    assert runtime.changes == count
