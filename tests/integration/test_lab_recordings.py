"""What a lab does for its recordings: V2's own commands reach them, crashes are repaired, ends are finalised."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq import clock, schema
from duodaq.app import _recording
from duodaq.app._host import live_streams
from duodaq.clock import pause
from duodaq.config import load_lab
from duodaq.errors import ConfigError, LifecycleError
from duodaq.model import (
    AlarmDefinition,
    Execute,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    RuntimeDefinition,
    Scalar,
)
from duodaq.schema import scalar_batch
from duodaq.storage import Recorder, unfinished_runs
from duodaq.testing import RailActor, RefusingDisk, growing_run, logged, rail_lab, record_run
from duodaq.v2 import GetInstrumentList, StartRecording, StopRecording
from duodaq.v4 import handler
from duodaq.v4.instruments import ReadPosition
from duodaq.workers._starter import CAN_FORK

KINDS = ["inline", "thread", *(["process"] if CAN_FORK else [])]
T = 1_790_000_000_000_000_000


class Meter:
    """A class of the lab's own, without a line."""

    def power(self) -> float:
        return 1.5


def bench(folder: Path, kind: str = "inline", **options: Any) -> LabDefinition:
    meter = InstrumentDefinition(
        "meter", "v2", Meter, polls=(PollDefinition("power", call="power", unit="W", every_s=0.02),)
    )
    return LabDefinition(
        "recordings", instruments=(meter,), v2=RuntimeDefinition("v2", kind), directory=folder, **options
    )


def rows(first: int, count: int) -> Any:
    return schema.scalar_batch(
        [Scalar("dmm", "voltage", "V", T + n, n, n / 7, "v4") for n in range(first, first + count)]
    )


def left_behind(path: Path, **provenance: Any) -> Path:
    """A run whose program was killed after 40 rows, in the middle of another batch."""
    with growing_run(path, provenance=provenance) as journal:
        for first in range(0, 40, 10):
            journal.write([rows(first, 10)])
            journal.commit()
    with (path / "dmm.voltage.arrows").open("ab") as file:
        file.write(b"\xff\xff\xff\xff torn")
    return path


@pytest.mark.parametrize("kind", KINDS)
async def test_v2s_own_commands_start_and_stop_the_labs_recording(kind: str, tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path, kind)) as lab:
        with pytest.raises(LifecycleError, match="no recording is under way"):
            await lab.manager.submit_v2(StopRecording())
        began = await lab.manager.submit_v2(StartRecording({"directory": str(tmp_path / "one")}))
        assert began == {"directory": str(tmp_path / "one")}
        assert lab.recording_directory == tmp_path / "one"
        with pytest.raises(LifecycleError, match="a recording is under way"):
            await lab.manager.submit_v2(StartRecording())
        await lab.read("meter", "power")
        summary = await lab.manager.submit_v2(StopRecording())
        assert [status.id for status in await lab.manager.submit_v2(GetInstrumentList())] == ["meter"]
    assert summary["complete"]
    run = duodaq.open_run(tmp_path / "one")
    assert run.state == "finished"
    assert len(run["meter.power"]) == summary["files"]["meter.power.arrows"] >= 1
    books = run.events[-1].doc["books"]["meter.power"]
    assert books == {
        "carried_in": 0,
        "produced": len(run["meter.power"]),
        "stored": len(run["meter.power"]),
        "lost": {},
        "in_flight": 0,
        "balanced": True,
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_read_before_the_recording_is_stopped_is_in_it(kind: str, tmp_path: Path) -> None:
    rail = rail_lab(tmp_path).instruments[0]
    definition = replace(bench(tmp_path, kind), v4=RuntimeDefinition("v4", kind))
    async with duodaq.Lab(replace(definition, instruments=(*definition.instruments, rail))) as lab:
        for _ in range(3):
            path = await lab.start_recording()
            read = await asyncio.gather(lab.read("rail", "x.position"), lab.read("meter", "power"))
            await lab.stop_recording()
            for row in read:
                found = duodaq.open_run(path)[f"{row.instrument}.{row.channel}"].to_arrow(["sequence"])
                assert row.sequence in found.column("sequence").to_pylist()


class StuckRail(RailActor):
    """A rail that blocks its loop while its position is read."""

    inside, let = threading.Event(), threading.Event()

    @handler(ReadPosition, idempotent=True)
    async def read_position(self, message: ReadPosition) -> float:
        self.inside.set()
        self.let.wait(30)
        return 0.0


async def test_a_worker_that_does_not_answer_holds_up_no_end_of_a_recording(tmp_path: Path) -> None:
    rail = replace(rail_lab(tmp_path).instruments[0], driver=StuckRail)
    definition = replace(bench(tmp_path), v4=RuntimeDefinition("v4", "thread"))
    async with duodaq.Lab(replace(definition, instruments=(*definition.instruments, rail))) as lab:
        await lab.start_recording()
        await lab.read("meter", "power")
        reading = asyncio.create_task(lab.manager.command("rail", Execute("read_position", ("x",))))
        assert await asyncio.to_thread(StuckRail.inside.wait, 10)
        began_s = clock.monotonic_s()
        try:
            with logged() as lines:
                summary = await lab.stop_recording()
            assert clock.monotonic_s() - began_s < 10
        finally:
            StuckRail.let.set()
        assert summary.complete
        assert [line["event"] for line in lines if "did not say" in line["event"]]
        assert await reading == 0.0


async def test_a_lab_repairs_at_its_start_what_a_crash_left_and_nothing_that_is_being_written(tmp_path: Path) -> None:
    crashed = left_behind(tmp_path / "runs" / "crashed")
    finished = record_run(tmp_path / "runs" / "finished", [rows(0, 3)])
    before = (finished / "events.jsonl").read_bytes()
    with growing_run(tmp_path / "runs" / "growing") as journal:
        journal.write([rows(0, 10)])
        journal.commit()
        async with duodaq.Lab(bench(tmp_path)) as lab:
            assert await lab.chores.done(30)
        journal.write([rows(10, 10)])
        journal.commit()
        assert duodaq.open_run(tmp_path / "runs" / "growing").state == "recording"
    run = duodaq.open_run(crashed)
    assert (run.state, len(run["dmm.voltage"])) == ("finished", 40)
    assert [event.name for event in run.events][-2:] == ["recovered", "stop"]
    assert (finished / "events.jsonl").read_bytes() == before
    assert [path.name for path in unfinished_runs(tmp_path / "runs")] == ["growing"]


async def test_a_lab_does_not_wait_for_its_repairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(tmp_path / "runs" / "crashed")
    let = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(root: Path) -> list[Path]:
        asyncio.run_coroutine_threadsafe(let.wait(), loop).result(30)
        return unfinished_runs(root)

    monkeypatch.setattr("duodaq.app._chores.unfinished_runs", slow)
    async with duodaq.Lab(bench(tmp_path)) as lab:
        assert (await lab.read("meter", "power")).value == 1.5
        assert not lab.chores.idle
        assert duodaq.open_run(tmp_path / "runs" / "crashed").state == "unfinished"
        let.set()
        assert await lab.chores.done(30)
    assert duodaq.open_run(tmp_path / "runs" / "crashed").state == "finished"


async def test_a_run_is_finalised_at_its_end_beside_the_lab(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path, finalise=("parquet", "hdf5"), keep_journal=False)) as lab:
        path = await lab.start_recording()
        await lab.read("meter", "power")
        await lab.stop_recording()
        assert not lab.chores.idle
        assert await lab.chores.done(60)
    run = duodaq.open_run(path)
    told = run.finalised
    assert told is not None
    assert (told["to"], told["error"], told["journal"]) == (["parquet", "hdf5"], None, "removed")
    assert sorted(told["files"]) == sorted(["meter.power.parquet", f"{path.name}.nxs"])
    assert not (path / "meter.power.arrows").exists()
    assert run["meter.power"].to_arrow().column("value").to_pylist() == [1.5] * len(run["meter.power"])


async def test_what_was_not_finalised_when_the_lab_ended_is_at_the_next_start(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path, finalise=("parquet",))) as lab:
        path = await lab.start_recording()
        await lab.read("meter", "power")
    assert duodaq.open_run(path).state == "finished"
    assert duodaq.open_run(path).finalised is None
    crashed = left_behind(tmp_path / "runs" / "crashed", finalise={"to": ["parquet"], "keep_journal": True})
    async with duodaq.Lab(bench(tmp_path)) as lab:
        assert await lab.chores.done(60)
    for one, file in ((path, "meter.power"), (crashed, "dmm.voltage")):
        told = duodaq.open_run(one).finalised
        assert told is not None
        assert (told["files"], told["journal"]) == ([f"{file}.parquet"], "kept")
        assert (one / f"{file}.arrows").exists()


async def test_a_finalise_that_fails_says_so_in_the_run_and_leaves_its_journal(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path, finalise=("parquet",), keep_journal=False)) as lab:
        path = await lab.start_recording()
        await lab.read("meter", "power")
        (path / "meter.power.parquet").mkdir()
        (path / "meter.power.parquet" / "somebody's").touch()
        await lab.stop_recording()
        assert await lab.chores.done(60)
    run = duodaq.open_run(path)
    assert run.finalised is not None
    assert "is a folder" in run.finalised["error"]
    assert (path / "meter.power.arrows").exists()
    assert len(run["meter.power"])


async def test_a_chore_under_way_does_not_hold_up_a_shutdown_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import threading\nthreading.Event().wait(600)\n", encoding="utf-8")
    monkeypatch.setattr("duodaq.app._chores.COMMAND", (str(slow),))
    lab = duodaq.Lab(bench(tmp_path))
    await lab.start()
    lab.chores.finalise(tmp_path / "x", ["parquet"])
    while lab.chores.pid is None:
        await pause(0.005)
    pid = lab.chores.pid
    begun = clock.monotonic_s()
    report = await lab.shutdown(4.0)
    assert clock.monotonic_s() - begun < 4.0 + 1.0
    assert report.clean
    assert lab.chores.idle
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_rows_are_removed_only_where_parquet_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(
        '[lab]\nfinalise = ["hdf5"]\nkeep_journal = false\n[instruments.m]\nruntime = "v2"\ndriver = "x:Y"\n'
    )
    with pytest.raises(ConfigError, match="keep_journal"):
        load_lab(file)


async def test_live_readers_may_ask_for_every_channel_and_whatever_else_was_published(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path)) as lab:
        lab.manager.v4_data.publish(schema.scalar_batch([Scalar("scan", "points", "", T, 0, 1.0, "v4")]))
        async with asyncio.timeout(30):
            while not {"meter.power", "scan.points"} <= {*live_streams(lab)}:
                await pause(0.01)


async def test_of_several_recordings_begun_at_once_one_begins(tmp_path: Path) -> None:
    async with duodaq.Lab(bench(tmp_path)) as lab:
        begun = await asyncio.gather(*(lab.start_recording() for _ in range(3)), return_exceptions=True)
        first, *others = begun
        assert isinstance(first, Path)
        assert all(isinstance(one, LifecycleError) and str(first) in str(one) for one in others), others
        assert lab.recording_directory == first
        one, same = await asyncio.gather(lab.stop_recording(), lab.stop_recording())
        assert one is same
        with pytest.raises(LifecycleError, match="no recording is under way"):
            await lab.stop_recording()
        assert [one for one in lab.runs_directory.iterdir() if one.is_dir()] == [first]


async def given_up(ending: asyncio.Task[Any], begun: asyncio.Event) -> None:
    await asyncio.wait_for(begun.wait(), 10)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending


def busy(lab: duodaq.Lab, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """A worker that is busy when a recording ends: one event says that it is waited for, the other ends that."""
    begun, free = asyncio.Event(), asyncio.Event()

    async def arrive() -> None:
        begun.set()
        await free.wait()

    monkeypatch.setattr(lab, "_let_measurements_arrive", arrive)
    return begun, free


async def test_an_end_that_was_begun_goes_on_when_whoever_asked_for_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with duodaq.Lab(bench(tmp_path)) as lab:
        log, recording = await lab.log(rotate=None, finalise=()), await lab.start_recording()
        begun, free = busy(lab, monkeypatch)
        await given_up(asyncio.create_task(lab.stop_log()), begun)
        begun.clear()
        await given_up(asyncio.create_task(lab.stop_recording()), begun)
        assert [one["directory"] for one in lab.logs()] == [str(log)]
        assert lab.recording_directory == recording
        again = asyncio.create_task(lab.stop_recording())
        await pause(0)
        free.set()
        ended = await again
        async with asyncio.timeout(30):
            while lab.logs():  # nobody asks a second time for its end
                await pause(0.005)
        assert (ended.directory, ended.complete) == (str(recording), True)
        assert (lab.logs(), lab.recording_directory) == ([], None)
        assert [duodaq.open_run(path).state for path in (log, recording)] == ["finished"] * 2


async def test_the_end_of_a_lab_ends_what_is_being_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duodaq.app._lab.REST_S", 0.05)
    async with duodaq.Lab(bench(tmp_path)) as lab:
        log, recording = await lab.log(rotate=None, finalise=()), await lab.start_recording()
        begun, _ = busy(lab, monkeypatch)
        await given_up(asyncio.create_task(lab.stop_log()), begun)
        begun.clear()
        await given_up(asyncio.create_task(lab.stop_recording()), begun)
    assert [duodaq.open_run(path).state for path in (log, recording)] == ["finished"] * 2


async def test_a_disk_that_refuses_is_an_alarm_of_the_lab_until_somebody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    disk = RefusingDisk(
        lambda operation, name: errno.ENOSPC if full and operation == "write" and "x.y" in name else None
    )
    monkeypatch.setattr(_recording, "Recorder", partial(Recorder, disk=disk))
    async with duodaq.Lab(LabDefinition("full", v2=RuntimeDefinition("v2", "inline"), directory=tmp_path)) as lab:

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(30):
                while not condition():
                    await pause(0.005)

        await lab.start_recording()
        assert lab.alarms.status() == ()
        lab.manager.v4_data.publish(scalar_batch([Scalar("x", "y", "V", clock.utc_ns(), 0, 1.0, "v4")]))
        await until(lambda: [one.state for one in lab.alarms.status()] == ["raised"])
        (alarm,) = lab.alarms.status()
        assert (alarm.name, alarm.raised) == ("lab: recording", 1)
        assert "No space left" in alarm.why
        full = False
        await until(lambda: [one.state for one in lab.alarms.status()] == ["returned"])
        summary = await lab.stop_recording()
        assert (summary.lost, summary.rows) == ({}, {"x.y": 1})
        assert [one.state for one in lab.alarms.status()] == ["returned"]
        assert lab.alarms.acknowledge("lab: recording", "me").state == "normal"
        assert lab.alarms.status() == ()
    changes = [e.doc for e in duodaq.open_run(summary.directory).events if e.name == "alarm"]
    assert [change["new"] for change in changes] == ["raised", "returned"]


async def test_each_change_of_an_alarm_is_in_the_events_of_every_recording_and_log_under_way(tmp_path: Path) -> None:
    hot = AlarmDefinition("hot", "x", "y", high=0.5, latch=True)
    definition = LabDefinition("told", v2=RuntimeDefinition("v2", "inline"), directory=tmp_path, alarms=(hot,))

    def publish(number: int, value: float) -> None:
        lab.manager.v4_data.publish(scalar_batch([Scalar("x", "y", "V", clock.utc_ns(), number, value, "v4")]))

    async def comes_to(state: str) -> None:
        async with asyncio.timeout(30):
            while [one.state for one in lab.alarms.status()] != [state]:
                await pause(0.005)

    async with duodaq.Lab(definition) as lab:
        runs = [await lab.log(name, rotate=None, finalise=()) for name in ("lab", "dmm")]
        runs.append(await lab.start_recording())
        publish(0, 1.0)
        await comes_to("raised")
        publish(1, 0.0)
        await comes_to("returned")
        await lab.stop_recording()
        await lab.stop_log("dmm")
        lab.alarms.acknowledge("hot", "ada")
        await lab.stop_log("lab")
    told = [[e.doc["new"] for e in duodaq.open_run(run).events if e.name == "alarm"] for run in runs]
    assert told == [["raised", "returned", "normal"], ["raised", "returned"], ["raised", "returned"]]
