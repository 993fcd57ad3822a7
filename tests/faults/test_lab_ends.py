"""A lab that is killed, or does not end by itself: its next start says so. Recordings without a place; dead spares."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fault_table import ITSELF

from duodaq.app import Lab, LabHost, _recording, exposition, samples_of
from duodaq.clock import Deadline, pause
from duodaq.dual import DualRuntimeManager
from duodaq.errors import StorageError
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, RuntimeDefinition
from duodaq.storage import Recorder
from duodaq.telemetry import listen_to_log
from duodaq.testing import RefusingDisk
from duodaq.workers._fork_server import shared_fork_server
from duodaq.workers._starter import CAN_FORK

PATIENTS = Path(__file__).with_name("patients.py")
WITHIN_S = 20.0
REPAIRED = "repaired a recording that was left unfinished"
Said = list[tuple[str, Mapping[str, Any]]]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def said() -> Iterator[Said]:
    lines: Said = []
    deaf = listen_to_log(lambda level, event: lines.append((level, dict(event))))
    yield lines
    deaf()


async def until(condition: Callable[[], Any]) -> None:
    limit = Deadline(WITHIN_S)
    while not condition():
        assert not limit.passed
        await pause(0.01)


def lab_of(tmp_path: Path, *instruments: InstrumentDefinition, **facts: Any) -> Lab:
    return Lab(LabDefinition("ends", recording_dir=tmp_path / "runs", instruments=instruments, **facts))


def figures(lab: Lab, metric: str) -> dict[str, float]:
    """Of one metric, by what stands between the braces."""
    found = (line for line in exposition(lab).decode().splitlines() if line.startswith(metric))
    return {line.partition(" ")[0].removeprefix(metric): float(line.rpartition(" ")[2]) for line in found}


async def run(lab: Lab, while_it_runs: Callable[[], Any] = lambda: None) -> dict[str, float]:
    """Let it run as `duodaq run` does; how its last run ended, as its metrics say."""
    host, found = LabHost(lab), dict[str, float]()

    async def ready() -> None:
        found.update(figures(lab, "duodaq_last_run"))
        if (work := while_it_runs()) is not None:
            await work
        host.ask_to_end()

    await host.run(ready)
    return {name: value for name, value in found.items() if value}


KILLED = """
import asyncio, os, sys
from pathlib import Path
from duodaq.app import Lab, LabHost
from duodaq.model import LabDefinition

async def main():
    lab = Lab(LabDefinition("ends", recording_dir=Path(sys.argv[1])))
    async def ready():
        await lab.start_recording(Path(sys.argv[1]) / "killed")
        os.kill(os.getpid(), 9)
    await LabHost(lab).run(ready)

asyncio.run(main())
"""


@pytest.mark.fault("lab killed", "recording left", by=ITSELF)
async def test_of_a_lab_that_was_killed_its_next_start_says_when_it_was_seen_last_and_what_it_left(
    tmp_path: Path, said: Said
) -> None:
    assert await run(lab_of(tmp_path)) == {'{ended="unknown"}': 1}
    assert [line for _, line in said if "last run" in line["event"]] == []
    program = [sys.executable, "-c", KILLED, str(tmp_path / "runs")]
    killed = await asyncio.create_subprocess_exec(*program)
    assert await killed.wait() == -9
    next_one = lab_of(tmp_path)
    assert await run(next_one, lambda: next_one.chores.done(WITHIN_S)) == {'{ended="died"}': 1}
    ((level, line),) = [one for one in said if "last run" in one[1]["event"]]
    assert (level, line["event"]) == ("error", "the last run of this lab did not end in order")
    assert (line["pid"], line["recordings_to_repair"]) == (killed.pid, ["killed"])
    assert line["last_seen"].endswith("+00:00")
    (line,) = [line for _, line in said if line["event"] == REPAIRED]
    assert line["run"] == str(tmp_path / "runs" / "killed")
    (repaired,) = [one.value for one in samples_of(next_one) if one.name == "duodaq_recordings_repaired"]
    assert repaired == 1
    assert await run(lab_of(tmp_path)) == {'{ended="clean"}': 1}


@pytest.mark.fault("forced", "leaked", by=ITSELF)
async def test_what_does_not_end_is_a_line_of_the_shutdown_and_a_figure_of_the_next_run(
    tmp_path: Path, said: Said
) -> None:
    deaf = InstrumentDefinition("deaf", "v2", f"{PATIENTS}:Blocker", worker="thread")
    lab, begun = lab_of(tmp_path, deaf, shutdown_s=0.5), tmp_path / "begun"
    calls: list[asyncio.Task[Any]] = []

    async def block() -> None:
        call = Execute("block", (2.0, str(begun)))
        calls.append(asyncio.create_task(lab.command("deaf", call, 60.0)))
        await until(begun.exists)

    await run(lab, block)
    await asyncio.gather(*calls, return_exceptions=True)
    forced = [line for level, line in said if line["event"] == "not ended in order: forced" and level == "warning"]
    assert "commands" in [line["component"] for line in forced]
    leaked = [line for level, line in said if line["event"] == "not ended in order: leaked" and level == "error"]
    (why,) = [line["why"] for line in leaked if line["component"] == "v2.deaf"]
    assert "block" in why
    assert await run(lab_of(tmp_path)) == {'{ended="leaked"}': 1}
    ((level, line),) = [one for one in said if "last run" in one[1]["event"]]
    assert (level, line["event"]) == ("warning", "not all of the last run of this lab ended by itself")
    assert (line["pid"], line["ended"]) == (os.getpid(), "leaked")
    await until(lambda: not any("deaf" in thread.name for thread in threading.enumerate()))


@pytest.mark.fault("no place", by=ITSELF)
@pytest.mark.parametrize("refusal", [errno.EROFS, errno.ENOSPC])
async def test_a_recording_without_a_place_is_a_line_and_a_figure(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refused(*args: Any, **facts: Any) -> Recorder:
        return Recorder(*args, disk=RefusingDisk(lambda _op, _path: refusal), **facts)

    monkeypatch.setattr(_recording, "Recorder", refused)
    lab = lab_of(tmp_path)
    async with lab:
        for begin in (lab.start_recording, lab.log):
            with pytest.raises(StorageError):
                await begin()
        assert figures(lab, "duodaq_recordings_not_begun_total") == {"": 2}
    lines = [line for level, line in said if line["event"] == "a recording could not begin" and level == "error"]
    assert [line["what"] for line in lines] == ["recording", "log log"]
    assert os.strerror(refusal).lower() in lines[0]["error"].lower()


@asynccontextmanager
async def manager_of(*instruments: InstrumentDefinition) -> AsyncIterator[DualRuntimeManager]:
    manager = DualRuntimeManager(
        LabDefinition("spares", instruments=instruments, v2=RuntimeDefinition("v2", "process"))
    )
    await manager.start()
    try:
        yield manager
    finally:
        await manager.shutdown(5.0)


@pytest.mark.skipif(not CAN_FORK, reason="there is no fork server here")
@pytest.mark.fault("spare dies", "fork server dies")
async def test_a_spare_that_dies_and_a_fork_server_that_dies_are_replaced() -> None:
    it = InstrumentDefinition("it", "v2", f"{PATIENTS}:Blocker")
    async with manager_of(it) as manager:
        spares = manager.housing.nursery._spares
        await until(lambda: None in spares.ready)
        before, server = spares.ready[None].pid, shared_fork_server().pid
        assert server is not None
        os.kill(server, 9)
        os.kill(before, 9)
        await until(lambda: None in spares.ready and spares.ready[None].pid != before)
        assert shared_fork_server().pid != server
        assert await manager.command("it", Execute("who")) not in (server, before)
