"""The wire of a lab goes into a file: whole, at any moment, and never at the cost of the wire."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq import clock
from duodaq.errors import LifecycleError, StorageError
from duodaq.model import LabDefinition, PortDefinition, WireRecord
from duodaq.ports import WireLog
from duodaq.schema import WirelogFile, wire_records
from duodaq.storage import WireRecorder
from duodaq.testing._scripted_port import ScriptedTransport


def record(sequence: int, data: bytes = b"A?\n") -> WireRecord:
    return WireRecord(10**18 + sequence, "p", ">", data, "a", sequence, None, sequence)


class Line:
    """A port's memory of its records, and a recorder of it."""

    def __init__(self, path: Path, limit: int = 65536, ports: Any = None) -> None:
        self.log = WireLog(limit)
        self.recorder = WireRecorder(path, {"p": self.log.after}, ports, "bench")

    def add(self, count: int = 1, data: bytes = b"A?\n") -> None:
        for _ in range(count):
            self.log.add(record(self.log.count + 1, data))


def echo(line: bytes) -> bytes | None:
    return line + b"=ok\n" if line.endswith(b"?") else None


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[duodaq.Lab]:
    ports = (PortDefinition("p", tcp="nowhere:1", codec="scpi"), PortDefinition("q", tcp="nowhere:2", codec="scpi"))
    definition = LabDefinition("bench", ports=ports, recording_dir=tmp_path / "runs")
    lab = duodaq.Lab(definition, transports={name: ScriptedTransport(echo, name) for name in "pq"})
    async with lab:
        yield lab


async def ask(lab: duodaq.Lab, port: str, data: bytes) -> bytes:
    return await lab.manager.broker.port(port).exchange(data, holder="me")


async def test_what_passes_all_ports_is_in_the_file(lab: duodaq.Lab, tmp_path: Path) -> None:
    await ask(lab, "p", b"BEFORE?\n")
    path = await lab.record_wire(tmp_path / "w")
    await ask(lab, "p", b"A?\n")
    await ask(lab, "q", b"B?\n")
    summary = await lab.stop_wire()
    await ask(lab, "p", b"AFTER?\n")
    found = duodaq.open_wirelog(path)
    assert [(r.port, r.data) for r in found.records() if r.direction == "!"] == [("p", b"open"), ("q", b"open")]
    assert [(r.port, r.direction, r.data, r.exchange) for r in found.records() if r.direction != "!"] == [
        ("p", ">", b"BEFORE?\n", 1),  # what a port remembers goes first: a replay has to answer it
        ("p", "<", b"BEFORE?=ok\n", 1),
        ("p", ">", b"A?\n", 2),
        ("p", "<", b"A?=ok\n", 2),
        ("q", ">", b"B?\n", 1),
        ("q", "<", b"B?=ok\n", 1),
    ]
    assert found.ports["p"] == {"codec": "scpi", "address": "p", "timeout_s": 2.0, "idle_ms": None}
    assert (summary.records, summary.complete, found.lost()) == (8, True, {"p": 0, "q": 0})


async def test_it_goes_with_a_recording_if_wished(lab: duodaq.Lab) -> None:
    folder = await lab.start_recording(wire=True)
    await ask(lab, "p", b"A?\n")
    await lab.stop_recording()
    assert [r.data for r in duodaq.open_wirelog(folder).records()] == [b"A?\n", b"A?=ok\n"]
    without = await lab.start_recording()
    await lab.stop_recording()
    assert not (without / "wire.arrows").exists()


async def test_a_shutdown_ends_the_file(lab: duodaq.Lab, tmp_path: Path) -> None:
    path = await lab.record_wire(tmp_path / "w")
    await ask(lab, "p", b"A?\n")
    report = await lab.shutdown()
    assert report.clean
    found = duodaq.open_wirelog(path)
    assert (len(found), found.torn) == (4, False)


async def test_there_is_one_at_a_time_and_none_is_written_over(lab: duodaq.Lab, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    with pytest.raises(StorageError, match="there already: name another file — nothing is recorded"):
        await lab.record_wire(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "precious"
    await lab.record_wire(tmp_path / "w")
    with pytest.raises(LifecycleError, match="is being recorded"):
        await lab.record_wire(tmp_path / "x")
    await lab.stop_wire()
    with pytest.raises(LifecycleError, match="not being recorded"):
        await lab.stop_wire()


async def test_a_file_that_grows_can_be_read(tmp_path: Path) -> None:
    line = Line(tmp_path / "w")
    await line.recorder.start()
    line.add()
    async with asyncio.timeout(5):
        while not len(WirelogFile(tmp_path / "w")):
            await clock.pause(0.01)
    line.add()
    assert (await line.recorder.stop()).records == 2
    assert WirelogFile(tmp_path / "w").records() == [record(1), record(2)]


KILLED = """
import asyncio, os, signal, sys
from duodaq import clock
from duodaq.model import WireRecord
from duodaq.ports import WireLog
from duodaq.storage import WireRecorder

async def main():
    log = WireLog()
    recorder = WireRecorder(sys.argv[1], {"p": log.after})
    await recorder.start()
    for i in range(1, 100_000):
        log.add(WireRecord(i, "p", ">", b"A?\\n", "a", i, None, i))
        if i == 3_000:
            print("there", flush=True)
        if i % 20 == 0:
            await clock.pause(0.001)

asyncio.run(main())
"""


async def test_kill_9_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(tmp_path / "w"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    await clock.pause(0.2)
    os.kill(process.pid, signal.SIGKILL)
    await process.communicate()
    found = WirelogFile(tmp_path / "w").records()
    assert len(found) >= 3_000
    assert [r.sequence for r in found] == list(range(1, len(found) + 1))


async def test_more_than_the_memory_holds_is_lost_and_counted(tmp_path: Path) -> None:
    line = Line(tmp_path / "w", limit=80)
    line.add(5)
    await line.recorder.start()
    line.add(200)  # without a breath: the disk has no chance
    async with asyncio.timeout(5):
        while not len(WirelogFile(tmp_path / "w")):
            await clock.pause(0.01)
    line.add()
    summary = await line.recorder.stop()
    found = WirelogFile(tmp_path / "w")
    assert summary.records + summary.lost["p"] == 201
    assert 100 <= summary.lost["p"] <= 140
    assert not summary.complete
    assert [r.sequence for r in found.records()] == list(range(206 - summary.records + 1, 207))


async def test_a_gap_in_the_middle_is_seen_in_the_file(tmp_path: Path) -> None:
    line = Line(tmp_path / "w", limit=80)
    await line.recorder.start()
    line.add()
    async with asyncio.timeout(5):
        while not len(WirelogFile(tmp_path / "w")):
            await clock.pause(0.01)
    line.add(200)
    summary = await line.recorder.stop()
    assert WirelogFile(tmp_path / "w").lost() == summary.lost != {}


async def test_a_full_disk_ends_the_file_after_what_is_whole(tmp_path: Path, file_limit: Callable[[int], None]) -> None:
    line = Line(tmp_path / "w")
    await line.recorder.start()
    line.add()
    async with asyncio.timeout(5):
        while not len(WirelogFile(tmp_path / "w")):
            await clock.pause(0.01)
    file_limit((tmp_path / "w").stat().st_size + 200_000)
    line.add(data=b"x" * 300_000)
    async with asyncio.timeout(5):
        while line.recorder._error is None:
            await clock.pause(0.01)
    line.add()
    summary = await line.recorder.stop()
    assert summary.error is not None
    assert (summary.records, summary.lost) == (1, {"p": 2})
    found = WirelogFile(tmp_path / "w")
    assert (found.records(), found.torn) == ([record(1)], False)


@pytest.fixture
def file_limit() -> Any:
    """Let no file of this process grow beyond so many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


async def test_records_and_tables_are_the_same(tmp_path: Path) -> None:
    line = Line(tmp_path / "w", ports={"p": {"codec": None}})
    await line.recorder.start()
    line.add(5, bytes([0, 10, 255]))
    await line.recorder.stop()
    found = WirelogFile(tmp_path / "w")
    wanted = [record(i, bytes([0, 10, 255])) for i in range(1, 6)]
    assert wire_records(found.to_arrow()) == found.records() == wanted
