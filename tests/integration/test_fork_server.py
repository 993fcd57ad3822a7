"""Workers from the fork server and from fresh interpreters: how they come up, what they are, how their end is known."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from duodaq.clock import Deadline, block, pause
from duodaq.errors import LifecycleError
from duodaq.testing import LeakWatch
from duodaq.workers._child import Child
from duodaq.workers._fork_server import ForkServer, shared_fork_server
from duodaq.workers._fresh import FreshStarter
from duodaq.workers._starter import CAN_FORK, Starter, shared_starter

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="this system has no pidfd to watch forked workers with")

LIMIT_S = 20.0

ENTRIES = Path(__file__).with_name("worker_entries.py")

SLOW = "import sys, time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass\n"
ASLEEP = """
import time

def now_ns():
    with open("/proc/thread-self/schedstat") as file:  # for how long it ran, and for how long it was kept waiting to
        ran_ns, kept_ns, _ = map(int, file.read().split())
    return time.monotonic_ns() - ran_ns - kept_ns

begun_ns = now_ns()
"""


@pytest.fixture(autouse=True)
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ENTRIES, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture(params=["forked", "fresh"])
async def starter(request: pytest.FixtureRequest) -> AsyncIterator[Starter]:
    if request.param == "forked":
        yield shared_fork_server()
        return
    fresh = FreshStarter()
    yield fresh
    await fresh.aclose()


@pytest.fixture
async def own_server() -> AsyncIterator[ForkServer]:
    server = ForkServer()
    yield server
    await server.aclose()


async def spawn(starter: Starter, name: str, **options: Any) -> Child:
    return await starter.spawn(entry=f"worker_entries:{name}", timeout_s=LIMIT_S, **options)


async def hear(child: Child) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.get_running_loop().sock_recv(child.link, 1 << 20)


async def described(starter: Starter, **options: Any) -> dict[str, Any]:
    child = await spawn(starter, "describe", **options)
    try:
        text = await hear(child)
        while not text.endswith(b"}"):
            text += await hear(child)
        return json.loads(text)
    finally:
        await child.aclose()


def exists(pid: int) -> bool:
    """Whether such a process is there and not merely waiting to be reaped."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().replace(")", " ", 1)
    except OSError:
        return False


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def all_end(pids: list[int], within_s: float) -> bool:
    deadline = Deadline(within_s)
    while any(map(exists, pids)) and not deadline.passed:
        block(0.01)
    return not any(map(exists, pids))


async def test_entry_point_runs_and_its_link_works(starter: Starter) -> None:
    child = await spawn(starter, "echo")
    assert await hear(child) == b"up"
    child.link.send(b"and back")
    assert await hear(child) == b"and back"
    assert not child.exited
    assert await child.aclose() == -signal.SIGKILL


async def test_descriptors_can_be_passed_later(starter: Starter) -> None:
    child = await spawn(starter, "passes")
    reads, writes = os.pipe()
    socket.send_fds(child.fds, [b"one"], [writes])
    os.close(writes)
    async with asyncio.timeout(LIMIT_S):
        assert await child.exit == 0
    assert os.read(reads, 100) == b"through"
    os.close(reads)
    child.close()


async def test_worker_is_like_an_interpreter_started_for_it(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await starter.start(LIMIT_S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "added later"))
    monkeypatch.setenv("DUODAQ_TEST", "set after the server's start")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    about = await described(starter)
    assert about["cwd"] == str(tmp_path)
    assert about["path"] == sys.path
    assert about["environ"]["OPENBLAS_NUM_THREADS"] == "1"
    forced = {"OPENBLAS_NUM_THREADS", "JE_ARROW_MALLOC_CONF"}
    wanted = {name: value for name, value in os.environ.items() if name not in forced}
    assert {name: value for name, value in about["environ"].items() if name not in forced} == wanted
    assert about["stdin"] == "/dev/null"
    assert about["comm"] == "duodaq:spare"
    assert (about["interrupt"], about["child"], about["pipe"], about["masked"]) == (True, True, True, 0)
    assert (about["blocking"], about["collects"], about["threads"]) == (True, True, 1)


async def test_worker_leads_a_group_of_its_own_and_no_session(starter: Starter) -> None:
    about = await described(starter)
    assert about["group"] == about["pid"]  # Ctrl-C at the terminal is for the foreground group
    assert about["session"] != about["pid"]  # a leader would make a serial line its controlling terminal


async def test_forked_worker_holds_nothing_of_its_server_nor_of_its_sisters() -> None:
    server = shared_fork_server()
    sisters = [await spawn(server, "echo") for _ in range(3)]
    about = await described(server)
    assert about["open"] == sorted([0, 1, 2, *about["given"]])
    for sister in sisters:
        await sister.aclose()


async def test_workers_draw_different_random_numbers(starter: Starter) -> None:
    first, second = await described(starter), await described(starter)
    assert first["random"] != second["random"]
    assert first["numpy"] != second["numpy"]


@pytest.mark.parametrize(
    ("entry", "code"),
    [("returns", 0), ("says", 7), ("raises", 1), ("interrupted_by_itself", -signal.SIGSEGV), ("leaves_a_thread", 0)],
)
async def test_exit_code_is_reported(starter: Starter, entry: str, code: int) -> None:
    child = await spawn(starter, entry)
    async with asyncio.timeout(LIMIT_S):
        assert await child.exit == code
    assert child.gone.done()
    assert child.exited
    child.kill()  # nobody else is hit
    child.close()


async def test_output_goes_where_the_program_writes_now(
    starter: Starter, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with capfd.disabled():
        await starter.start(LIMIT_S)
    child = await spawn(starter, "says")
    async with asyncio.timeout(LIMIT_S):
        assert await child.exit == 7
    child.close()
    out, err = capfd.readouterr()
    assert out == "to stdout"
    assert err == "to stderr\n"


async def test_failing_entry_point_shows_its_traceback(starter: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    child = await spawn(starter, "raises")
    async with asyncio.timeout(LIMIT_S):
        await child.exit
    child.close()
    assert "RuntimeError: an entry point that fails" in capfd.readouterr().err


async def test_terminate_is_a_signal_that_the_worker_can_take(starter: Starter) -> None:
    child = await spawn(starter, "echo")
    assert await hear(child) == b"up"
    child.terminate()
    async with asyncio.timeout(LIMIT_S):
        assert await child.exit == -signal.SIGTERM
    child.close()


async def test_death_is_seen_at_the_pidfd_and_at_the_link(starter: Starter) -> None:
    child = await spawn(starter, "echo")
    assert await hear(child) == b"up"
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(child.pidfd, seen.set)
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        await seen.wait()
        await child.gone
        assert await hear(child) == b""
        assert await child.exit == -signal.SIGKILL
    loop.remove_reader(child.pidfd)
    child.close()


async def test_close_kills_a_worker_that_still_runs(starter: Starter) -> None:
    child = await spawn(starter, "echo")
    pid = child.pid
    child.close()
    child.close()
    assert all_end([pid], 2)
    assert child.exit.done()
    child.kill()  # nothing: its number may be another's by now


async def test_modules_are_imported_before_and_one_that_fails_is_passed_over(starter: Starter, tmp_path: Path) -> None:
    (tmp_path / "wanted_module.py").write_text("")
    (tmp_path / "broken_module.py").write_text("raise SystemExit(3)")
    about = await described(starter, preload=("broken_module", "not_there_at_all", "wanted_module"))
    assert "wanted_module" in about["modules"]
    assert "broken_module" not in about["modules"]


async def test_paced_import_rests_until_the_first_message(starter: Starter, tmp_path: Path) -> None:
    (tmp_path / "asleep.py").write_text(ASLEEP)
    for number in range(8):
        (tmp_path / f"slow_{number}.py").write_text(SLOW)
    preload = ("asleep", *(f"slow_{number}" for number in range(8)))

    async def slept_s(message: bytes) -> float:
        """How long it rested by itself: of what a busy machine keeps it waiting, nothing."""
        child = await spawn(starter, "slept", preload=preload, paced=True)
        if message:
            child.link.send(message)
        slept_ns = await hear(child)
        await child.aclose()
        return int(slept_ns) / 1e9

    assert await slept_s(b"") > 7 * 0.05 - 0.01  # the system counts in ticks
    assert await slept_s(b"now") < 3 * 0.05


async def test_twenty_workers_at_once_come_up_without_a_race(starter: Starter) -> None:
    children = await asyncio.gather(*(spawn(starter, "echo") for _ in range(20)))
    assert len({child.pid for child in children}) == 20
    assert await asyncio.gather(*map(hear, children)) == [b"up"] * 20
    await asyncio.gather(*(child.aclose() for child in children))


async def test_cancelled_or_late_order_leaves_no_worker(own_server: ForkServer) -> None:
    with pytest.raises(LifecycleError, match="did not answer in time"):
        await own_server.spawn(entry="worker_entries:stubborn", timeout_s=0.001)  # it has not even loaded
    order = asyncio.ensure_future(spawn(own_server, "stubborn"))
    await pause(0)
    order.cancel()
    await asyncio.wait({order})
    assert order.cancelled()
    await own_server.start(LIMIT_S)
    about = await described(own_server)
    deadline = Deadline(2)
    while children_of(own_server.pid) and not deadline.passed:
        await pause(0.01)
    assert children_of(own_server.pid) == []
    assert not exists(about["pid"])


async def test_memory_limit_turns_a_bomb_into_an_error(starter: Starter) -> None:
    child = await spawn(starter, "bomb")
    assert await hear(child) == b"refused"
    await child.aclose()


async def test_order_too_long_for_a_packet_is_refused_in_words() -> None:
    with pytest.raises(LifecycleError, match="could not be sent"):
        await spawn(shared_fork_server(), "echo", preload=("x" * 500_000,))


async def test_no_room_for_sockets_is_said_in_words_and_leaves_none(starter: Starter) -> None:
    await starter.start(LIMIT_S)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    filling = [os.dup(0)]
    while filling[-1] < highest:
        filling.append(os.dup(0))
    for room in range(6):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(filling) + 1 + room, hard))
        try:
            with pytest.raises(LifecycleError, match="no sockets for a worker"):
                await spawn(starter, "echo")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in filling:
        os.close(fd)
    child = await spawn(starter, "echo")
    assert await hear(child) == b"up"
    await child.aclose()


def test_labs_on_several_loops_share_one_server() -> None:
    heard: list[bytes] = []

    def lab() -> None:
        async def main() -> None:
            for _ in range(3):
                child = await spawn(shared_starter(), "echo")
                heard.append(await hear(child))
                await child.aclose()

        asyncio.run(main())

    threads = [threading.Thread(target=lab) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == [b"up"] * 12


def test_workers_are_made_and_watched_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        for starter in (shared_fork_server(), FreshStarter()):
            child = await spawn(starter, "echo")
            assert await hear(child) == b"up"
            child.kill()
            async with asyncio.timeout(LIMIT_S):
                await child.gone
                assert await child.exit == -signal.SIGKILL
            child.close()

    uvloop.run(main())


async def test_children_outlive_their_server_and_the_next_order_starts_another(own_server: ForkServer) -> None:
    child = await spawn(own_server, "echo")
    first = own_server.pid
    assert await hear(child) == b"up"
    assert own_server.alive
    os.kill(first, signal.SIGKILL)
    assert all_end([first], 2)
    assert not own_server.alive
    child.link.send(b"still here")
    assert await hear(child) == b"still here"
    other = await spawn(own_server, "echo")
    assert await hear(other) == b"up"
    assert own_server.pid != first
    child.kill()
    async with asyncio.timeout(LIMIT_S):
        await child.gone
        assert await child.exit is None  # nobody was there to tell
    child.close()
    await other.aclose()


class SeenLate(ForkServer):
    """A server whose death shows at its sockets a moment before it shows at its process, as it may in the kernel."""

    @property
    def alive(self) -> bool:
        return self._running is not None


async def test_server_killed_over_an_order_costs_nobody_his_worker() -> None:
    server = SeenLate()
    for name in ("stopped", "killed"):
        await server.start(LIMIT_S)
        if name == "stopped":
            os.kill(server.pid, signal.SIGSTOP)
            order = asyncio.ensure_future(spawn(server, "echo"))
            await pause(0.05)
            os.kill(server.pid, signal.SIGKILL)
        else:
            os.kill(server.pid, signal.SIGKILL)
            order = asyncio.ensure_future(spawn(server, "echo"))
        child = await order
        assert await hear(child) == b"up"
        await child.aclose()
    assert server.died == 2
    await server.aclose()
    assert server.died == 2  # it was asked to end


async def test_server_with_a_second_thread_refuses_and_says_so(
    own_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUODAQ_PRELOAD", "worker_entries:start_thread")
    with pytest.raises(LifecycleError, match="it has 2 threads and must have one to fork"):
        await spawn(own_server, "echo")


@pytest.mark.parametrize("kind", ["forked", "fresh"])
async def test_what_the_environment_names_is_called_in_every_worker(
    kind: str, own_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUODAQ_PRELOAD", "worker_entries:patch; worker_entries:patch")
    starter = own_server if kind == "forked" else FreshStarter()
    child = await spawn(starter, "patched")
    assert await hear(child) == b"yes"
    await child.aclose()


async def test_server_that_cannot_load_says_why_and_is_tried_anew(
    own_server: ForkServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUODAQ_PRELOAD", "worker_entries:not_there")
    with pytest.raises(LifecycleError, match=r"could not load what workers need: AttributeError.*not_there"):
        await own_server.start(LIMIT_S)
    assert "AttributeError" in capfd.readouterr().err
    monkeypatch.delenv("DUODAQ_PRELOAD")
    child = await spawn(own_server, "echo")
    assert await hear(child) == b"up"
    await child.aclose()


async def test_folder_of_the_lab_cannot_hide_a_module_of_the_server(
    own_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "selectors.py").write_text("raise RuntimeError('a file of the lab')")
    monkeypatch.chdir(lab)
    await own_server.start(LIMIT_S)


async def test_end_of_the_server_ends_its_children(own_server: ForkServer) -> None:
    children = [await spawn(own_server, "echo") for _ in range(2)]
    await own_server.aclose()
    assert not own_server.alive
    assert not any(exists(child.pid) for child in children)
    for child in children:
        assert child.exited
        child.close()


async def test_worker_that_a_test_leaves_is_a_leak_and_its_server_is_none() -> None:
    await shared_fork_server().start(LIMIT_S)
    watch = LeakWatch()
    child = await spawn(shared_fork_server(), "echo")
    assert [leak for leak in watch.leaks(0.0) if leak.startswith(f"worker process {child.pid} (")]
    await child.aclose()
    assert watch.leaks() == []


PROGRAM = """
import asyncio, json, sys
from duodaq.workers._fork_server import shared_fork_server

async def main():
    server = shared_fork_server()
    children = [await server.spawn(entry="worker_entries:" + sys.argv[1], timeout_s=20) for _ in range(3)]
    print(json.dumps([server.pid, *(child.pid for child in children)]), flush=True)
    if sys.stdin.readline() == "clean\\n":
        for child in children:
            await child.aclose()

asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "stubborn"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    ) as process:
        yield process
        process.kill()


def test_server_and_workers_end_when_their_program_is_killed(program: subprocess.Popen[str]) -> None:
    pids = json.loads(program.stdout.readline())
    assert all(map(exists, pids))
    program.kill()
    assert all_end(pids, 1.0)


def test_server_and_workers_end_before_their_program_does(program: subprocess.Popen[str]) -> None:
    pids = json.loads(program.stdout.readline())
    program.communicate("clean\n", timeout=LIMIT_S)
    assert program.returncode == 0
    assert not any(map(exists, pids))


async def test_workers_of_a_forgetful_program_end_with_it(program: subprocess.Popen[str]) -> None:
    pids = json.loads(program.stdout.readline())
    program.communicate("\n", timeout=LIMIT_S)
    assert not any(map(exists, pids))


def own_memory_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


async def test_bare_worker_has_little_memory_of_its_own() -> None:
    child = await spawn(shared_fork_server(), "echo")
    assert await hear(child) == b"up"
    assert own_memory_kb(child.pid) < 4000
    await child.aclose()
