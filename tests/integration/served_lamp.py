"""A lab of one lamp, which needs no line, with its page and a client of it: for the tests of the HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pyarrow as pa
import pytest

from duodaq import clock
from duodaq.app import Lab
from duodaq.errors import OutOfRangeError
from duodaq.model import (
    AlarmDefinition,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    RuntimeDefinition,
    WebDefinition,
)
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor, Parameter

httpx = pytest.importorskip("httpx")
PageServer: Any = pytest.importorskip("duodaq.web").PageServer
websockets = pytest.importorskip("websockets.asyncio.client")

ALARMS = (AlarmDefinition("bright", "lamp", "level", high=5.0),)
TOKEN, LOOK = "an operator's token", "a viewer's own token"


class Wait(msgspec.Struct, frozen=True):
    """Wait for so long."""

    time_s: float


class Capabilities(msgspec.Struct, frozen=True):
    """What it can do."""


class Arm(msgspec.Struct, frozen=True):
    """Arm it."""


async def _level(lamp: Lamp) -> float:
    return lamp.level


async def _set_level(lamp: Lamp, level: float) -> float:
    if not 0 <= level <= 10:
        raise OutOfRangeError(f"{level} is beyond 0 to 10", left="nothing was sent")
    lamp.level = level
    return level


class Lamp(InstrumentActor):
    """Something without a line, with all that a panel shows."""

    level = 1.0
    parameters: ClassVar[Mapping[str, Parameter]] = {"level": Parameter(_level, _set_level, "V")}
    operations: ClassVar[Mapping[str, type]] = {"wait": Wait, "arm": Arm, "get_capabilities": Capabilities}

    @handler(Wait, moves=True, operation=True)
    async def wait(self, message: Wait) -> str:
        await clock.pause(message.time_s)
        return "waited"

    @handler(Capabilities)
    async def capabilities(self, message: Capabilities) -> dict[str, int]:
        return {"bit_depth": 12}

    @handler(Arm)
    async def arm(self, message: Arm) -> str:
        return "armed"


def definition(folder: Path, **web: Any) -> LabDefinition:
    lamp = InstrumentDefinition("lamp", "v4", Lamp, polls=(PollDefinition("level", 0.02, "V", read="level"),))
    inline = RuntimeDefinition("v2", "inline")
    page = WebDefinition(port=0, **web)
    return LabDefinition("small", instruments=(lamp,), v2=inline, directory=folder, web=page, alarms=ALARMS)


class Served:
    """A lab with its page, and a client of it."""

    def __init__(self, lab: Lab, address: str, client: Any) -> None:
        self.lab = lab
        self.address = address
        self.client = client

    async def get(self, path: str, **options: Any) -> Any:
        return await self.client.get(path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return await self.client.post(path, json=body, **options) if body is not None else await self.client.post(path)

    def live(self, **headers: str) -> Any:
        place = self.address.replace("http", "ws") + "api/live"
        return websockets.connect(place, additional_headers=headers, compression=None, max_size=None, proxy=None)


@contextlib.asynccontextmanager
async def serving(folder: Path, requests_per_s: float = 1000.0, **web: Any) -> AsyncIterator[Served]:
    async with contextlib.AsyncExitStack() as stack:
        lab = await stack.enter_async_context(Lab(definition(folder, **web)))
        page = await stack.enter_async_context(PageServer(lab, requests_per_s=requests_per_s))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=page.address, trust_env=False))
        yield Served(lab, page.address, client)


async def heard(live: Any, kind: str) -> dict[str, Any]:
    """The next text of that kind."""
    async with asyncio.timeout(10):
        while True:
            message = await live.recv()
            if isinstance(message, str) and (found := json.loads(message))["type"] == kind:
                return found


async def seen(live: Any, kind: str) -> Any:
    """The next Arrow message of that kind, as a table."""
    async with asyncio.timeout(10):
        while True:
            message = await live.recv()
            for table in tables_of(message) if isinstance(message, bytes) else ():
                if table.schema.metadata[b"kind"] == kind.encode():
                    return table


def tables_of(message: bytes) -> Iterator[Any]:
    """All of a message's streams, one behind the other."""
    source = pa.BufferReader(message)
    while source.tell() < len(message):
        yield pa.ipc.open_stream(source).read_all()
