"""How the end of a worker is known before the kernel is through with it, and what waits until it is."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError
from duodaq.link import send_descriptors
from duodaq.model import (
    Cause,
    Execute,
    InstrumentDefinition,
    LabDefinition,
    RuntimeDefinition,
    SafeAction,
)
from duodaq.workers import _process
from duodaq.workers._child import Child
from duodaq.workers._fork_server import shared_fork_server
from duodaq.workers._lifeline import Lifeline
from duodaq.workers._starter import CAN_FORK

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system has no pidfd to watch forked workers with")

LIMIT_S = 20.0
ENTRIES = """
import os
from duodaq.link import receive_descriptors
from duodaq.workers import _lifeline

def holds(link, fds, forks=False):
    (far,) = receive_descriptors(fds, 10.0)
    early = _lifeline.Keeper().hold(far)
    if forks and os.fork() == 0:
        link.recv(1)  # for ever: it is the manager that closes it
        os._exit(0)
    link.sendall(b"%d %d" % (early, far))
    link.recv(1)

def forks(link, fds):
    holds(link, fds, forks=True)

def holds_without_the_call(link, fds):
    _lifeline._close_range = None
    holds(link, fds)
"""


class Holder:
    """A worker that holds a lifeline: what it said of it, and whether its end is known."""

    def __init__(self, child: Child, lifeline: Lifeline, ended: asyncio.Event, early: bool, far: int) -> None:
        self.child, self.lifeline, self.ended, self.early, self.far = child, lifeline, ended, early, far

    def open_in(self, task: int) -> set[str]:
        """What one of its threads has open."""
        place = Path(f"/proc/{self.child.pid}/task/{task}/fd")
        return {os.readlink(fd) for fd in place.iterdir()}

    @property
    def keeper(self) -> int:
        """The thread that is not the first."""
        (task,) = {int(one.name) for one in Path(f"/proc/{self.child.pid}/task").iterdir()} - {self.child.pid}
        return task

    def blocks(self, task: int) -> set[int]:
        """The signals that one of its threads takes not."""
        lines = Path(f"/proc/{self.child.pid}/task/{task}/status").read_text().splitlines()
        mask = int(next(line.split()[1] for line in lines if line.startswith("SigBlk")), 16)
        return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}

    async def aclose(self) -> None:
        self.lifeline.close()
        await self.child.aclose()


@pytest.fixture(autouse=True)
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lifeline_entries.py").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))


async def holder(entry: str) -> Holder:
    child = await shared_fork_server().spawn(entry=f"lifeline_entries:{entry}", timeout_s=LIMIT_S)
    ended = asyncio.Event()
    lifeline = Lifeline(ended.set)
    assert send_descriptors(child.fds, [lifeline.far])
    lifeline.let_go()
    async with asyncio.timeout(LIMIT_S):
        early, far = (await asyncio.get_running_loop().sock_recv(child.link, 100)).split()
    return Holder(child, lifeline, ended, early == b"1", int(far))


async def test_keeper_has_the_lifeline_and_nothing_else_and_the_process_has_it_no_more() -> None:
    held = await holder("holds")
    assert held.early
    (only,) = held.open_in(held.keeper)
    assert only.startswith("pipe:")
    assert only not in held.open_in(held.child.pid)
    await held.aclose()


async def test_keeper_takes_no_signal() -> None:
    held = await holder("holds")
    assert held.blocks(held.keeper) >= {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}
    assert not held.blocks(held.child.pid)
    await held.aclose()


@pytest.mark.parametrize("entry", ["holds", "forks", "holds_without_the_call"])
async def test_end_is_told_once_also_with_a_child_of_its_own_and_without_a_table_of_its_own(entry: str) -> None:
    held = await holder(entry)
    assert held.early == (entry != "holds_without_the_call")
    await pause(0.02)
    assert not held.ended.is_set()
    os.kill(held.child.pid, signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        await held.ended.wait()
    await held.aclose()


async def test_lifeline_that_was_never_held_ends_when_it_is_let_go() -> None:
    ended = asyncio.Event()
    lifeline = Lifeline(ended.set)
    lifeline.let_go()
    async with asyncio.timeout(LIMIT_S):
        await ended.wait()
    lifeline.close()


# ── in a lab


class Patient:
    """A blocking driver that hangs, and dies of its crash action as long as `sick` is there."""

    def __init__(self, sick: str = "") -> None:
        self.sick = Path(sick or "/nowhere")

    def who(self) -> int:
        return os.getpid()

    def hang(self) -> None:
        threading.Event().wait()

    def shut(self) -> None:
        if self.sick.exists():
            self.sick.unlink()
            os._exit(5)


async def a_lab(**facts: Any) -> DualRuntimeManager:
    patient = InstrumentDefinition("patient", "v2", Patient, passive=True, deadline_s=LIMIT_S, **facts)
    manager = DualRuntimeManager(LabDefinition("lifeline", (), (patient,), v2=RuntimeDefinition("v2", "process")))
    await manager.start()
    return manager


async def test_commands_get_their_fate_when_the_process_has_gone_and_the_replacement_is_made_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager = await a_lab()
    group = manager._of("patient")._of("patient").group
    worker, kill = group.current, Child.kill
    assert worker is not None
    hanging = asyncio.ensure_future(manager.command("patient", Execute("hang")))
    while not any(group.page.begun(request.number) for request in worker.pending.values()):
        await pause(0.005)
    monkeypatch.setattr(Child, "kill", lambda child: None if child is worker.child else kill(child))
    monkeypatch.setattr(_process, "LAST_S", LIMIT_S)  # it is waited for no longer, in a lab
    os.kill(worker.child.pid, signal.SIGSTOP)  # it would leave when its link ends
    worker._pipe.end()  # as the lifeline does
    limit = Deadline(LIMIT_S)
    while group._made is None and not limit.passed:
        await pause(0.005)
    assert group._made is not None
    assert group._made.child.pid != worker.child.pid
    assert not hanging.done()
    assert not worker.child.gone.done()
    kill(worker.child)
    (error,) = await asyncio.gather(hanging, return_exceptions=True)
    assert isinstance(error, DuodaqError)
    assert error.fate == "unknown"
    assert await manager.command("patient", Execute("who"), LIMIT_S) != worker.child.pid
    assert (await manager.shutdown(5.0)).clean


async def test_replacement_that_dies_of_its_crash_action_is_the_next_death(tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    manager = await a_lab(args={"sick": str(sick)}, safe={Cause.CRASH: SafeAction("call", call="shut")})
    first = await manager.command("patient", Execute("who"))
    sick.touch()
    os.kill(first, signal.SIGKILL)
    limit = Deadline(LIMIT_S)
    while manager.instruments()[0].restarts < 2 and not limit.passed:
        await pause(0.01)
    while manager.instruments()[0].state != "ready" and not limit.passed:
        await pause(0.01)
    assert not sick.exists()
    assert await manager.command("patient", Execute("who")) != first
    assert (await manager.shutdown(5.0)).clean
