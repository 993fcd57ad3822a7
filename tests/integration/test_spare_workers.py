"""Spares as real processes: taken at once, with their modules loaded, replaced when they die, gone in the end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from duodaq.clock import pause
from duodaq.workers._child import Child
from duodaq.workers._fork_server import shared_fork_server
from duodaq.workers._fresh import FreshStarter
from duodaq.workers._spares import Spares
from duodaq.workers._starter import CAN_FORK

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system has no pidfd to watch forked workers with")

LIMIT_S = 20.0

ENTRY = """
import os, sys

def answers(link, fds):
    while data := link.recv(1000):
        link.sendall(b"loaded" if data.decode() in sys.modules else b"not loaded")
"""


@pytest.fixture(params=["forked", "fresh"])
async def spares(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Spares]:
    (tmp_path / "spare_entry.py").write_text(ENTRY)
    (tmp_path / "spare_driver.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    spares = Spares(shared_fork_server() if request.param == "forked" else FreshStarter(), entry="spare_entry:answers")
    yield spares
    await spares.aclose()


async def ready(spares: Spares, *keys: str | None) -> None:
    async with asyncio.timeout(LIMIT_S):
        while set(spares.ready) != set(keys):
            await pause(0.01)


async def ask(child: Child, module: str) -> bytes:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LIMIT_S):
        await loop.sock_sendall(child.link, module.encode())
        return await loop.sock_recv(child.link, 100)


async def test_taken_spare_answers_and_has_its_stanza_s_modules(spares: Spares) -> None:
    spares.start({"dmm": ["spare_driver"]})
    await ready(spares, None, "dmm")
    own, bare = spares.ready["dmm"], spares.ready[None]
    taken = await spares.take("dmm", ["spare_driver"], timeout_s=LIMIT_S)
    assert taken is own
    assert await ask(taken, "spare_driver") == b"loaded"
    assert await ask(bare, "spare_driver") == b"not loaded"
    await ready(spares, None, "dmm")
    assert spares.ready["dmm"].pid != own.pid
    await taken.aclose()


async def test_spare_that_was_killed_is_replaced(spares: Spares) -> None:
    spares.start()
    await ready(spares, None)
    first = spares.ready[None]
    os.kill(first.pid, signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        await first.gone
    await ready(spares, None)
    assert spares.ready[None].pid != first.pid


async def test_dropped_spare_ends(spares: Spares) -> None:
    spares.start({"dmm": ["spare_driver"]})
    await ready(spares, None, "dmm")
    gone = spares.ready["dmm"].gone
    spares.drop("dmm")
    async with asyncio.timeout(LIMIT_S):
        await gone
    assert set(spares.ready) == {None}


async def test_worker_is_made_when_there_is_no_spare(spares: Spares) -> None:
    taken = await spares.take("dmm", ["spare_driver"], timeout_s=LIMIT_S)
    assert await ask(taken, "spare_driver") == b"loaded"
    await taken.aclose()
