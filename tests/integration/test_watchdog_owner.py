"""The manager's side of the watchdog: what it tells, and what becomes of one that hangs, dies or is dismissed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duodaq.clock import monotonic_s, pause
from duodaq.errors import ConfigError, LifecycleError
from duodaq.model import PortDefinition
from duodaq.ports import Broker, SerialTransport
from duodaq.watchdog import ask_watchdog_to_stop_all
from duodaq.watchdog.owner import PortPlan, Watchdog, _child
from duodaq.watchdog.owner._restarts import Restarts

PLAN = PortPlan(b"\r", (b"ST\r",), (b"AB\r",))


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="wd-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def watchdog(folder: Path) -> AsyncIterator[Watchdog]:
    made = Watchdog(folder / "wd.sock", log_path=folder / "log")
    yield made
    await made.disarm()


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, slave
    for descriptor in (master, slave):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process
        process.kill()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def silent(master: int) -> bool:
    return not select.select([master], [], [], 0.1)[0]


async def until(condition: Callable[[], Any], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await pause(0.005)


async def ask(watchdog: Watchdog) -> dict[str, Any]:
    assert watchdog.socket_path is not None
    return (await asyncio.to_thread(ask_watchdog_to_stop_all, watchdog.socket_path, 5.0))["ports"]


def held(watchdog: Watchdog, path: str) -> int:
    """How many descriptors on `path` the watchdog's process has."""
    found = 0
    for name in os.listdir(f"/proc/{watchdog.pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{watchdog.pid}/fd/{name}") == path
    return found


async def test_a_disarmed_watchdog_ends_and_does_nothing(
    watchdog: Watchdog, pty: tuple[int, int], worker: subprocess.Popen[bytes]
) -> None:
    await watchdog.start(20)
    watchdog.watch_port("stage", PLAN, pty[1])
    pidfd = os.pidfd_open(worker.pid)
    watchdog.watch_worker(worker.pid, pidfd)
    os.close(pidfd)
    assert await watchdog.settled(5)
    assert watchdog.alive
    pid = watchdog.pid
    result = await watchdog.disarm(5)
    assert (result.clean, result.why) == (True, "")
    assert not watchdog.alive
    assert gone(pid)
    assert silent(pty[0])
    assert worker.poll() is None
    assert not watchdog.socket_path.exists()
    assert (await watchdog.disarm()).clean


@pytest.mark.alone("0.1 s are left to a limit of 0.2 s")
async def test_a_watchdog_that_does_not_end_is_killed_within_the_limit(
    watchdog: Watchdog, pty: tuple[int, int]
) -> None:
    await watchdog.start(20)
    watchdog.watch_port("stage", PLAN, pty[1])
    os.kill(watchdog.pid, signal.SIGSTOP)
    begun_s = monotonic_s()
    result = await watchdog.disarm(0.2)
    assert monotonic_s() - begun_s < 0.3
    assert not result.clean
    assert "killed" in result.why
    assert silent(pty[0])


async def test_a_cancelled_disarm_leaves_nothing_and_does_nothing(watchdog: Watchdog, pty: tuple[int, int]) -> None:
    await watchdog.start(20)
    watchdog.watch_port("stage", PLAN, pty[1])
    pid = watchdog.pid
    os.kill(pid, signal.SIGSTOP)
    disarming = asyncio.create_task(watchdog.disarm(30))
    await pause(0.05)
    disarming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await disarming
    assert gone(pid)
    assert silent(pty[0])


async def test_what_was_told_before_the_start_counts_and_what_was_forgotten_does_not(
    watchdog: Watchdog, pty: tuple[int, int]
) -> None:
    for name in ("stage", "gone"):
        watchdog.watch_port(name, PLAN, pty[1])
    await watchdog.start(20)
    watchdog.watch_port("late", PLAN)
    watchdog.forget_port("gone")
    watchdog.forget_port("never there")
    watchdog.forget_worker(1)
    answer = await ask(watchdog)
    assert sorted(answer) == ["late", "stage"]
    assert answer["late"] == {"error": "it has no line"}
    assert held(watchdog, os.ttyname(pty[1])) == 1


async def test_a_broker_tells_it_of_lines_that_are_lost_found_and_closed(
    watchdog: Watchdog, pty: tuple[int, int], folder: Path
) -> None:
    link = folder / "tty"
    link.symlink_to(os.ttyname(pty[1]))
    broker = Broker()
    await watchdog.start(20)
    watchdog.watch_port("stage", PLAN)
    await broker.add(PortDefinition("other", tcp="127.0.0.1:1"))
    await broker.add(PortDefinition("stage", serial={"path": str(link)}), transport=SerialTransport(str(link)))
    await broker.open("stage")
    unsubscribe = broker.subscribe_lines(watchdog.line_changed)
    path = os.ttyname(pty[1])
    await watchdog.settled(5)
    assert held(watchdog, path) == 1

    os.close(pty[0])  # pulled
    os.close(pty[1])
    await until(lambda: broker.status()[1].state == "lost")
    await watchdog.settled(5)
    assert held(watchdog, path) + held(watchdog, f"{path} (deleted)") == 0
    assert (await ask(watchdog))["stage"] == {"error": "it has no line"}

    master, slave = os.openpty()  # and plugged in again
    tty.setraw(slave)
    link.unlink()
    link.symlink_to(os.ttyname(slave))
    await until(lambda: broker.status()[1].state == "open")
    assert (await ask(watchdog))["stage"]["written_ns"]
    assert os.read(master, 100) == b"\rAB\r"

    await broker.aclose()
    await watchdog.settled(5)
    assert held(watchdog, os.ttyname(slave)) == 0
    unsubscribe()
    unsubscribe()
    os.close(master)
    os.close(slave)


async def test_a_closed_port_is_free_at_once_though_the_watchdog_has_not_heard_of_it(
    watchdog: Watchdog, pty: tuple[int, int]
) -> None:
    broker = Broker()
    await watchdog.start(20)
    watchdog.watch_port("stage", PLAN)
    broker.subscribe_lines(watchdog.line_changed)
    await broker.add(PortDefinition("stage", serial={"path": os.ttyname(pty[1])}))
    await broker.open("stage")
    await watchdog.settled(5)
    os.kill(watchdog.pid, signal.SIGSTOP)
    await broker.aclose()
    again = SerialTransport(os.ttyname(pty[1]))
    await again.open(Nobody(), 5)
    await again.aclose()
    os.kill(watchdog.pid, signal.SIGCONT)


class Nobody:
    def data_received(self, data: bytes, /) -> None: ...

    def transport_lost(self, cause: Exception | None, /) -> None: ...


async def test_a_listener_that_raises_does_not_keep_the_port_from_opening(pty: tuple[int, int]) -> None:
    broker = Broker()
    broker.subscribe_lines(lambda _name, _descriptor: 1 / 0)
    heard: list[tuple[str, bool]] = []
    broker.subscribe_lines(lambda name, descriptor: heard.append((name, descriptor is not None)))
    await broker.add(PortDefinition("stage", serial={"path": os.ttyname(pty[1])}))
    await broker.open("stage")
    await broker.aclose()
    assert heard == [("stage", True), ("stage", False)]


async def test_it_is_started_again_but_not_for_ever_at_once(folder: Path, pty: tuple[int, int]) -> None:
    watchdog = Watchdog(folder / "wd.sock", restarts=Restarts(limit=2, window_s=1.0))
    await watchdog.start(20)
    watchdog.watch_port("stage", PLAN, pty[1])
    begun_s = monotonic_s()
    for number in (1, 2, 3):
        os.kill(watchdog.pid, signal.SIGKILL)
        await until(lambda number=number: watchdog.restarted == number and watchdog.alive)
    assert monotonic_s() - begun_s > 1.0
    assert (await ask(watchdog))["stage"]["written_ns"]
    assert (await watchdog.disarm()).clean


async def test_a_watchdog_that_hangs_is_replaced(
    watchdog: Watchdog, pty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    await watchdog.start(20)
    monkeypatch.setattr(_child, "ANSWER_S", 0.3)
    hung = watchdog.pid
    os.kill(hung, signal.SIGSTOP)
    watchdog.watch_port("stage", PLAN, pty[1])
    assert not await watchdog.settled(0.05)
    monkeypatch.undo()
    await until(lambda: watchdog.alive and watchdog.pid != hung)
    assert (await ask(watchdog))["stage"]["written_ns"]


@pytest.mark.alone("a thousand messages must be told within 1 s")
async def test_telling_more_than_the_socket_takes_never_blocks_and_loses_nothing(
    watchdog: Watchdog, pty: tuple[int, int]
) -> None:
    await watchdog.start(20)
    os.kill(watchdog.pid, signal.SIGSTOP)
    begun_s = monotonic_s()
    for number in range(1000):
        watchdog.watch_port(f"port {number % 50}", PortPlan(b"\r", (b"x" * 1000,), (b"%d\r" % number,)), pty[1])
    assert monotonic_s() - begun_s < 1.0
    os.kill(watchdog.pid, signal.SIGCONT)
    assert await watchdog.settled(10)
    answer = await ask(watchdog)
    assert len(answer) == 50
    assert all("written_ns" in port for port in answer.values())
    assert held(watchdog, os.ttyname(pty[1])) == 50
    said = b""
    while not silent(pty[0]):
        said += os.read(pty[0], 65536)
    assert {int(part) for part in said.split()} == set(range(950, 1000))


async def test_a_plan_that_is_too_long_is_refused_and_the_one_before_still_counts(
    watchdog: Watchdog, pty: tuple[int, int]
) -> None:
    await watchdog.start(20)
    watchdog.watch_port("stage", PLAN, pty[1])
    with pytest.raises(ValueError, match="too many"):
        watchdog.watch_port("stage", PortPlan(b"\r", (b"x" * 70_000,)), pty[1])
    with pytest.raises(OSError, match="Bad file"):
        watchdog.watch_port("stage", PLAN, 9999)
    assert (await ask(watchdog))["stage"]["written_ns"]


async def test_a_start_that_fails_says_why_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a socket"):
        Watchdog(folder / ("x" * 120))
    nowhere = Watchdog(folder / "no" / "wd.sock")
    with pytest.raises(LifecycleError, match="cannot listen at"):
        await nowhere.start(20)
    assert not nowhere.alive
    await nowhere.disarm()
    late = Watchdog()
    with pytest.raises(LifecycleError, match=r"not ready within 0\.001 s"):
        await late.start(0.001)
    await late.disarm()
    with pytest.raises(LifecycleError, match="started before"):
        await late.start()


async def test_a_file_named_like_a_module_in_the_users_directory_is_not_loaded(
    watchdog: Watchdog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "socket.py").write_text("raise SystemExit('loaded')")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    await watchdog.start(20)
    assert watchdog.alive
    assert os.readlink(f"/proc/{watchdog.pid}/cwd") == "/"
