"""What a spare does before it is needed: it goes the whole way once, and nothing is left of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from duodaq.clock import Deadline, pause
from duodaq.model import InstrumentDefinition, RuntimeName
from duodaq.workers._fork_server import shared_fork_server
from duodaq.workers._messages import Answer, decode_from_worker
from duodaq.workers._nursery import Nursery
from duodaq.workers._starter import CAN_FORK

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system has no fork server")

LIMIT_S = 20.0
ENTRY = """
import asyncio, gc, json, logging, os, signal, sys, threading
from duodaq.workers import _rehearsal

def state():
    gc.collect()
    kinds = ("Pipe", "Outbox", "Ready", "_Rehearsing", "V2Runtime", "V4Runtime", "LogLine", "RemoteBroker")
    logger = logging.getLogger("duodaq")
    return {
        "open": sorted(fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
        "threads": [thread.name for thread in threading.enumerate()],
        "left": sorted(type(one).__name__ for one in gc.get_objects() if type(one).__name__ in kinds),
        "log": [list(map(str, logger.handlers)), logger.level, logger.propagate],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)],
        "wakes": signal.set_wakeup_fd(-1), "masked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "output": [sys.stdout.fileno(), sys.stderr.fileno(), os.readlink("/proc/self/fd/1")],
    }

def rehearses(link, fds):
    _rehearsal.new_loop().close()  # uvloop keeps a pipe for signals from the first loop on
    asyncio.set_event_loop(None)
    _rehearsal.keeper()
    before = state()
    answers = [_rehearsal.rehearse(runtime, gc.collect).hex() for runtime in ("v2", "v4", "v2")]
    link.sendall(json.dumps([before, state(), answers]).encode())
    link.recv(1)
"""


async def hear(link: Any) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.get_running_loop().sock_recv(link, 1 << 20)


def answers_in(data: bytes) -> list[Answer]:
    found: list[Answer] = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        message = decode_from_worker(memoryview(data[4:end]))
        found += [message] if isinstance(message, Answer) else []
        data = data[end:]
    return found


@pytest.fixture(autouse=True)
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rehearsal_entry.py").write_text(ENTRY)
    monkeypatch.syspath_prepend(str(tmp_path))


async def test_rehearsal_goes_the_whole_way_and_leaves_nothing() -> None:
    child = await shared_fork_server().spawn(entry="rehearsal_entry:rehearses", timeout_s=LIMIT_S)
    text = b""
    while not text.endswith(b"]]"):
        text += await hear(child.link)
    await child.aclose()
    before, after, replies = json.loads(text)
    assert after == before
    assert before["left"] == []
    for reply in replies:
        answers = answers_in(bytes.fromhex(reply))
        assert [answer.error for answer in answers] == [None] * 5
        assert [answer.body for answer in answers if answer.number in (2, 3, 4)] == [1, 1, 1]


@pytest.mark.parametrize("runtime", ["v2", "v4"])
async def test_named_spare_has_rehearsed_and_the_bare_one_has_not(runtime: RuntimeName) -> None:
    definition = InstrumentDefinition("one", runtime, "json:JSONDecoder")
    nursery = Nursery(shared_fork_server())
    await nursery.start(LIMIT_S)
    try:
        (await nursery.take("one", [definition], LIMIT_S)).close()
        limit = Deadline(LIMIT_S)
        while not {"one", None} <= set(nursery._spares.ready) and not limit.passed:
            await pause(0.02)
        named, bare = (nursery._spares.ready[key].pid for key in ("one", None))
        while tasks(named) != 2 and not limit.passed:  # the keeper of its lifeline waits; what it rehearsed ends
            await pause(0.01)
        assert (tasks(named), tasks(bare)) == (2, 1)
    finally:
        await nursery.aclose()


def tasks(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
