"""What a worker's drivers start ends with the worker, wherever it hides; what lives in another worker goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from duodaq.clock import Deadline, pause
from duodaq.workers._child import Child
from duodaq.workers._fork_server import ForkServer
from duodaq.workers._starter import CAN_FORK

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system has no fork server")

LIMIT_S = 20.0
ENTRY = """
import os, subprocess, sys

SLEEP = [sys.executable, "-S", "-c", "import signal; print(flush=True); signal.pause()"]
CHAIN = '''
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, start_new_session=True)
inner.stdout.readline()
print(flush=True)
signal.pause()
'''
DAEMON = '''
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    os.execv(sys.argv[1], sys.argv[1:])
'''

def start(how, link, fds):
    command = {"session": SLEEP, "chain": [sys.executable, "-S", "-c", CHAIN, *SLEEP],
               "daemon": [sys.executable, "-S", "-c", DAEMON, *SLEEP]}[how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    if how == "daemon":
        process.wait()
    link.sendall(b"up")
    link.recv(1)

def session(link, fds): start("session", link, fds)
def chain(link, fds): start("chain", link, fds)
def daemon(link, fds): start("daemon", link, fds)
"""


@pytest.fixture(autouse=True)
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "orphan_entries.py").write_text(ENTRY)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
async def server() -> AsyncIterator[ForkServer]:
    server = ForkServer()
    await server.start(LIMIT_S)
    yield server
    await server.aclose()


async def started(server: ForkServer, how: str) -> tuple[Child, list[psutil.Process]]:
    """A worker, and what its driver has started."""
    child = await server.spawn(entry=f"orphan_entries:{how}", timeout_s=LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.get_running_loop().sock_recv(child.link, 10) == b"up"
    below = psutil.Process(child.pid).children(recursive=True)
    assert len(below) == {"session": 1, "chain": 2, "daemon": 1}[how]
    assert all(os.getsid(one.pid) != os.getsid(child.pid) for one in below)
    return child, below


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running()]


async def none_is_left(processes: list[psutil.Process], limit_s: float = 5.0) -> bool:
    """They are gone, and reaped; one that is not ends here all the same."""
    limit = Deadline(limit_s)
    while (left := alive(processes)) and not limit.passed:
        await pause(0.005)
    for one in left:
        one.kill()
    return not left


@pytest.mark.parametrize("how", ["session", "chain", "daemon"])
async def test_what_a_driver_started_in_another_session_ends_with_its_worker(server: ForkServer, how: str) -> None:
    child, below = await started(server, how)
    bystander, his = await started(server, "daemon")
    assert server.pid is not None
    child.kill()
    await child.gone
    assert await none_is_left(below)
    assert alive(his) == his
    assert {one.pid for one in psutil.Process(server.pid).children()} <= {child.pid, bystander.pid}
    await child.aclose()
    await bystander.aclose()
    assert await none_is_left(his)


@pytest.mark.parametrize("how", ["session", "chain", "daemon"])
async def test_it_ends_with_the_server_too_that_is_when_the_program_ends(server: ForkServer, how: str) -> None:
    child, below = await started(server, how)
    await server.aclose()
    assert await none_is_left(below)
    await child.aclose()
