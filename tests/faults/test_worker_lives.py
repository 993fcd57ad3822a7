"""Workers from their beginning to their end: where drivers come from, who lives beside whom, and what nobody leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.faults.fault_table import PEACE, PROGRAM

from duodaq import sim
from duodaq.clock import Deadline, block, monotonic_s, pause
from duodaq.drivers import codec
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DeliveryError, DuodaqError, LifecycleError, ReplyTimeoutError
from duodaq.model import (
    Execute,
    GetParameter,
    InstrumentDefinition,
    LabDefinition,
    PortDefinition,
    Recover,
    RuntimeDefinition,
)
from duodaq.ports import Broker

PATIENTS = Path(__file__).with_name("patients.py")


@asynccontextmanager
async def lab(*instruments: InstrumentDefinition) -> AsyncIterator[DualRuntimeManager]:
    processes = {"v2": RuntimeDefinition("v2", "process"), "v4": RuntimeDefinition("v4", "process")}
    manager = DualRuntimeManager(LabDefinition("lives", instruments=instruments, **processes))
    await manager.start()
    try:
        yield manager
    finally:
        assert (await manager.shutdown(5.0)).clean


async def timed(work: Any) -> tuple[Any, float]:
    begun_s = monotonic_s()
    (result,) = await asyncio.gather(work, return_exceptions=True)
    return result, monotonic_s() - begun_s


def shown_in_ps(pid: int) -> tuple[str, str]:
    words, short = (Path(f"/proc/{pid}/{file}").read_text().rstrip("\0\n") for file in ("cmdline", "comm"))
    return words, short


def blocker(name: str, **facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition(name, "v2", f"{PATIENTS}:Blocker", **facts)


@pytest.mark.fault("os._exit")
async def test_a_replacement_that_dies_while_it_starts_is_the_next_death_and_a_person_may_recover_it(
    tmp_path: Path,
) -> None:
    sick = tmp_path / "sick"
    frail = InstrumentDefinition("frail", "v2", f"{PATIENTS}:Sickly", args={"sick": str(sick)})
    async with lab(frail) as manager:
        sick.touch()
        (error,) = await asyncio.gather(manager.command("frail", Execute("die")), return_exceptions=True)
        assert isinstance(error, DeliveryError)
        deadline = Deadline(15.0)
        while manager.instruments()[0].recoverable:
            assert not deadline.passed, manager.instruments()
            await pause(0.01)
        assert manager.instruments()[0].restarts == 5
        with pytest.raises(LifecycleError, match="has failed"):
            await manager.command("frail", Execute("who"))
        sick.unlink()
        await manager.command("frail", Recover())
        assert await manager.command("frail", Execute("who")) in {p.pid for p in psutil.process_iter()}
        assert manager.instruments()[0].state == "ready"


@pytest.mark.fault("SIGKILL")
async def test_workers_are_told_apart_by_their_names_and_the_status_names_their_processes() -> None:
    async with lab(blocker("one"), blocker("two", worker="own"), blocker("inside", worker="thread")) as manager:
        seen = {status.id: status for status in manager.instruments()}
        for name, worker, short in (("one", "v2-process", "duodaq:v2-proce"), ("two", "v2.two", "duodaq:v2.two")):
            pid = await manager.command(name, Execute("who"))
            assert (seen[name].pid, seen[name].worker, seen[name].mode) == (pid, worker, "process")
            assert shown_in_ps(pid) == (f"duodaq:{worker}", short)
        assert (seen["inside"].pid, seen["inside"].mode) == (os.getpid(), "thread")
        assert {(w.name, w.mode, w.pid, w.instruments) for w in manager.health().workers} == {
            ("v2-process", "process", seen["one"].pid, ("one",)),
            ("v2.two", "process", seen["two"].pid, ("two",)),
            ("v2-thread", "thread", os.getpid(), ("inside",)),
            ("v4-process", "process", manager._sides["v4"].workers()[0].pid, ()),
        }
        os.kill(seen["one"].pid, 9)
        deadline = Deadline(5.0)
        while (now := manager.instruments()[0]).pid in (None, seen["one"].pid) or now.state != "ready":
            assert not deadline.passed, now
            await pause(0.01)
        assert now.pid == await manager.command("one", Execute("who"))


@pytest.mark.alone("0.1 s are left to a deadline of 0.2 s")
@pytest.mark.fault("overdue")
async def test_two_instruments_in_one_worker_keep_their_own_deadlines() -> None:
    async with lab(blocker("quick", deadline_s=0.2), blocker("patient", deadline_s=3.0)) as manager:
        pids = await asyncio.gather(*(manager.command(name, Execute("who")) for name in ("quick", "patient")))
        assert pids[0] == pids[1]
        (error, quick_s), (answer, patient_s) = await asyncio.gather(
            *(timed(manager.command(name, Execute("block", (0.6,)))) for name in ("quick", "patient"))
        )
        assert isinstance(error, ReplyTimeoutError)
        assert error.instrument == "quick"
        assert error.command == "block"
        assert error.fate == "unknown"
        assert quick_s < 0.2 + 0.1
        assert answer == 0.6
        assert patient_s < 0.6 + 0.3
        assert await manager.command("quick", Execute("who"), 2.0) == pids[0]  # it was no hang: nothing was ended


@pytest.mark.fault("exception")
async def test_the_errors_of_two_instruments_in_one_worker_name_each_its_own() -> None:
    async with lab(blocker("one"), blocker("two")) as manager:
        errors = await asyncio.gather(
            *(manager.command(name, Execute("fail", (name,))) for name in ("one", "two") * 20), return_exceptions=True
        )
        for name, error in zip(("one", "two") * 20, errors, strict=True):
            assert isinstance(error, DuodaqError)
            assert error.instrument == name
            assert f"a mistake in {name}" in str(error)


@pytest.mark.fault("C call")
async def test_others_in_a_worker_that_is_ended_for_one_are_told_why_and_go_on(tmp_path: Path) -> None:
    begun, limit = tmp_path / "begun", Deadline(10.0)
    hung, well = blocker("hung", deadline_s=0.2, kill_after_s=0.2), blocker("well")
    async with lab(hung, well) as manager:
        pid = await manager.command("well", Execute("who"))
        blocked = asyncio.create_task(timed(manager.command("well", Execute("block", (30.0, str(begun))), 30.0)))
        while not begun.exists() and not limit.passed:
            await pause(0.01)
        waiting = asyncio.create_task(timed(manager.command("well", GetParameter("serial"), 10.0)))
        await asyncio.gather(manager.command("hung", Execute("block", (30.0,))), return_exceptions=True)
        error, _ = await blocked
        assert isinstance(error, DeliveryError)
        assert error.instrument == "well"
        assert error.fate == "unknown"
        assert "hung hung" in str(error)
        assert (await waiting)[0] == "none"  # a read that had waited went on
        assert await manager.command("well", Execute("who"), 5.0) != pid


@pytest.mark.fault("forks and exits")
async def test_a_worker_whose_child_holds_its_link_open_is_dead_at_once_and_the_child_ends_with_it() -> None:
    async with lab(blocker("parent", deadline_s=3.0, passive=True)) as manager:
        first = await manager.command("parent", Execute("who"))
        error, took_s = await timed(manager.command("parent", Execute("suffer", ("forks and exits",))))
        assert isinstance(error, DeliveryError), error
        assert error.fate == "unknown"
        assert took_s < 1.0
        assert await manager.command("parent", Execute("who"), 3.0) != first
        limit = Deadline(1.0)
        while orphans := _living_in_group(first):
            assert not limit.passed, f"left behind: {orphans}"
            await pause(0.01)


def _living_in_group(group: int) -> list[int]:
    found: list[int] = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


@pytest.mark.fault("SIGKILL", "os._exit")
async def test_replacements_that_die_while_they_start_leave_one_worker(tmp_path: Path) -> None:
    deaths, pids = tmp_path / "deaths", tmp_path / "pids"
    await asyncio.to_thread(deaths.write_text, "")
    args = {"deaths": str(deaths), "pids": str(pids)}
    frail = InstrumentDefinition("frail", "v2", f"{PATIENTS}:Frail", args=args, passive=True)
    async with lab(frail) as manager:
        await asyncio.to_thread(deaths.write_text, "xx")
        os.kill(await manager.command("frail", Execute("who")), 9)
        limit = Deadline(8.0)
        while await asyncio.to_thread(deaths.read_text):
            assert not limit.passed
            await pause(0.02)
        last = await manager.command("frail", Execute("who"), 5.0)
        await pause(0.5)
        begun = [int(line) for line in (await asyncio.to_thread(pids.read_text)).split()]
        assert begun[-1] == last
        assert [pid for pid in begun if psutil.pid_exists(pid)] == [last]
        assert len(begun) == 4
        (status,) = manager.instruments()
        assert status.restarts == 3


@pytest.mark.fault(by=PEACE)
async def test_twenty_workers_started_at_once_come_up_without_a_race() -> None:
    names = [f"i{n}" for n in range(20)]
    async with lab(*(blocker(name, worker="own") for name in names)) as manager:
        pids = await asyncio.gather(*(manager.command(name, Execute("who"), 10.0) for name in names))
        assert len(set(pids)) == 20
        assert all(status.state == "ready" and not status.restarts for status in manager.instruments())


SCRIPT = """
import asyncio, os, pathlib
from dataclasses import dataclass
from typing import ClassVar
import msgspec
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, RuntimeDefinition
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

with open("executed", "a") as file:
    file.write("once\\n")

UNIT = "V"

class Meter:
    def __init__(self):
        self.gain = 2
    def __reduce__(self):
        pathlib.Path("pickled").touch()
        raise TypeError("a driver is never pickled")
    def level(self, x):
        return f"{self.gain * x} {UNIT} {os.getpid()}"
    def whole(self):
        return self

@dataclass(frozen=True)
class Level:
    x: float

class Twice(msgspec.Struct, frozen=True):
    x: float
    times: int = 2

class Actor(InstrumentActor):
    operations: ClassVar = {"level": Level, "twice": Twice}
    def __reduce__(self):
        pathlib.Path("pickled").touch()
        raise TypeError("an actor is never pickled")
    @handler(Level)
    async def level(self, message):
        return f"{2 * message.x} {UNIT} {os.getpid()}"
    @handler(Twice)
    async def twice(self, message):
        return message.times * message.x

async def main():
    meter = InstrumentDefinition("meter", "v2", Meter, passive=True)
    actor = InstrumentDefinition("actor", "v4", Actor)
    processes = dict(v2=RuntimeDefinition("v2", "process"), v4=RuntimeDefinition("v4", "process"))
    manager = DualRuntimeManager(LabDefinition("script", instruments=(meter, actor), **processes))
    await manager.start()
    try:
        for name in ("meter", "actor"):
            value, unit, pid = (await manager.command(name, Execute("level", (3.0,)))).split()
            assert (value, unit) == ("6.0", "V") and int(pid) != os.getpid()
        assert await manager.command("actor", Execute("twice", (4.0,))) == 8.0
        os.kill(int(pid), 9)
        meter_pid = (await manager.command("meter", Execute("level", (3.0,)))).split()[2]
        os.kill(int(meter_pid), 9)
        await asyncio.sleep(0.2)
        for name in ("meter", "actor"):
            assert (await manager.command(name, Execute("level", (3.0,)))).startswith("6.0 V")
        try:
            await manager.command("meter", Execute("whole"))
        except Exception as error:
            print("refused:", error)
    finally:
        await manager.shutdown()
    print("well")
"""


def run(*arguments: str, folder: Path) -> str:
    """What a program in a folder of its own says."""
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.fault("SIGKILL", by=PROGRAM)
def test_classes_of_a_script_work_in_workers_and_the_script_runs_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + "\nasyncio.run(main())\n")  # with no guard: nobody runs it again
    said = run("script.py", folder=tmp_path)
    assert "well" in said
    assert "refused: meter.whole" in said
    assert (tmp_path / "executed").read_text() == "once\n"
    assert not (tmp_path / "pickled").exists()


NOTEBOOK = """
import __main__, asyncio, linecache, sys, types
cells = open("cells").read().split("# cell\\n")
space = __main__.__dict__
loop = asyncio.new_event_loop()
async def kernel():
    for number, cell in enumerate(cells):
        exec(compile(cell, f"<cell {number}>", "exec"), space)
    await space["main"]()
loop.run_until_complete(kernel())
loop.close()
"""


@pytest.mark.fault("SIGKILL", by=PROGRAM)
def test_classes_of_a_notebook_work_in_workers(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text(
        SCRIPT.replace("\nUNIT", "\n# cell\nUNIT").replace("\nasync def main", "\n# cell\nasync def main")
    )
    said = run("-c", NOTEBOOK, folder=tmp_path)
    assert "well" in said
    assert (tmp_path / "executed").read_text() == "once\n"
    assert not (tmp_path / "pickled").exists()


@pytest.mark.fault("SIGKILL", by=PROGRAM)
def test_classes_of_a_module_beside_the_script_work_in_workers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    (tmp_path / "script.py").write_text("import mine, asyncio\nasyncio.run(mine.main())\n")
    assert "well" in run("script.py", folder=tmp_path)
    assert not (tmp_path / "pickled").exists()


MANAGER = """
import asyncio, sys
from duodaq.dual import DualRuntimeManager
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, PollDefinition, PortDefinition, RuntimeDefinition
port, patients = sys.argv[1:]
async def main():
    processes = dict(v2=RuntimeDefinition("v2", "process"), v4=RuntimeDefinition("v4", "process"))
    polls = (PollDefinition("power", 0.01, "W", call="power"),)
    ports = (PortDefinition("m", serial={"path": port}, codec="newport1830c"),)
    steady = InstrumentDefinition("steady", "v2", patients + ":Steady", port="m", polls=polls)
    hung = InstrumentDefinition("hung", "v2", patients + ":Blocker", worker="own", kill_after_s=60.0)
    actor = InstrumentDefinition("actor", "v4", "duodaq:Newport1830C", port="m", options={"acquire": True})
    manager = DualRuntimeManager(LabDefinition("orphans", ports=ports, instruments=(steady, hung, actor), **processes))
    await manager.start()
    asyncio.ensure_future(manager.command("hung", Execute("suffer", ("KIND",)), 60.0))
    await asyncio.sleep(0.7)
    print("up", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def device() -> Iterator[sim.SimProcess]:
    with sim.launch("newport1830c") as launched:
        yield launched


@pytest.mark.alone("nobody may be left 1 s after the death")
@pytest.mark.parametrize("kind", ["nothing", "C call", "lock-holding call"])
@pytest.mark.fault("lab killed", by=PROGRAM)
async def test_no_orphan_keeps_an_instrument_when_the_manager_is_killed(device: sim.SimProcess, kind: str) -> None:
    program = [sys.executable, "-c", MANAGER.replace("KIND", kind), device.address, str(PATIENTS)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, process_group=0) as manager:  # noqa: ASYNC220  its line is read beside the loop
        try:
            assert manager.stdout is not None
            assert await asyncio.to_thread(manager.stdout.readline) == "up\n"
            family = psutil.Process(manager.pid).children(recursive=True)
            assert len(family) >= 4
        finally:
            os.kill(manager.pid, 9)
    limit = Deadline(1.0)
    while alive := [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        if limit.passed:
            described = [f"{one.pid}: {' '.join(one.cmdline())}" for one in alive]
            for one in alive:
                one.kill()
            pytest.fail(f"still there: {described}")
        block(0.005)
    broker = Broker()
    await broker.add(PortDefinition("m", serial={"path": device.address}), codec("newport1830c"))
    await broker.open("m", 1.0)
    try:
        assert float(await broker.port("m").exchange(b"D?\n", holder="test"))
    finally:
        await broker.aclose(1.0)
