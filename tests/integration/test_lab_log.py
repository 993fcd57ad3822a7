"""A log of a lab: chosen channels, rotated, old runs removed, nothing lost or doubled, one series to read."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import duodaq
from duodaq import schema
from duodaq.app import _log
from duodaq.app._log import Log, LogPlan
from duodaq.clock import pause, utc_ns
from duodaq.dataplane import Hub
from duodaq.errors import ConfigError, LifecycleError, StorageError
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, PollDefinition, RuntimeDefinition, Scalar
from duodaq.storage import Recorder, RecordingSummary, _recorder, recover
from duodaq.storage._series import KeptRun, to_remove
from duodaq.testing import QuickDisk, RefusingDisk

DAY = 86_400 * 10**9


class Clock:
    """The lab's clock, as far as its logs look at it. It begins at noon: no test runs past midnight."""

    def __init__(self) -> None:
        self.ahead_ns = DAY // 2 - utc_ns() % DAY

    def __call__(self) -> int:
        return utc_ns() + self.ahead_ns


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[duodaq.Lab]:
    definition = LabDefinition("weeks", v2=RuntimeDefinition("v2", "inline"), directory=tmp_path)
    async with duodaq.Lab(definition) as lab:
        yield lab


class Source:
    """Publishes rows, numbered without a gap, in two streams."""

    def __init__(self, lab: duodaq.Lab) -> None:
        self.lab = lab
        self.sent = 0

    def publish(self, count: int = 10) -> None:
        for channel in ("temperature", "humidity"):
            rows = [Scalar("room", channel, "", utc_ns(), n, n / 7, "v4") for n in range(self.sent, self.sent + count)]
            self.lab.manager.v4_data.publish(schema.scalar_batch(rows))
        self.sent += count


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await pause(0.005)


async def begin(lab: duodaq.Lab, now: Clock, **options: Any) -> Log:
    plan = LogPlan("room", lab.chores.root, **options)
    log = Log(lab.manager, lab.definition, plan, lab.chores, now)
    await log.start()
    lab.manager.attach("log room", log)
    return log


def numbers(stream: Any) -> list[int]:
    return stream.to_arrow(["sequence"]).column("sequence").to_pylist()


async def test_chosen_channels_go_into_a_series_of_runs_that_is_read_as_one(lab: duodaq.Lab) -> None:
    now, source = Clock(), Source(lab)
    log = await begin(lab, now, channels=("*.temperature",))
    for turn in range(3):
        source.publish()
        now.ahead_ns += DAY
        await until(lambda turn=turn: len(log.runs) == turn + 1)
    source.publish()
    await log.close(10)
    assert await lab.chores.done(60)
    runs = duodaq.runs(lab.chores.root, log="room")
    assert len(runs) == 4
    assert [run.provenance["log"]["part"] for run in runs] == [1, 2, 3, 4]
    assert [run.provenance["log"]["previous"] for run in runs] == [None, *(run.uid for run in runs[:3])]
    series = runs.together()
    assert [*series.streams] == ["room.temperature"]
    assert numbers(series["room.temperature"]) == [*range(40)]
    assert len(series["room.temperature"]) == 40
    assert series["room.temperature"].to_pandas().shape[0] == 40
    first = runs[0]["room.temperature"].to_arrow().column("timestamp")[9].value
    assert numbers(series["room.temperature"].between(first, None)) == [*range(9, 40)]
    assert not series.missing()
    assert len(duodaq.runs(lab.chores.root, log="other")) == 0
    assert all(run.finalised and run.finalised["journal"] == "removed" for run in runs)
    checked = [recover(run.path, finished_too=True) for run in runs]
    assert [(found.rows, found.gaps, found.changed) for found in checked] == [
        ({"room.temperature": 10}, [], False) for _ in runs
    ]
    assert numbers(series["room.temperature"]) == [*range(40)]


async def test_it_is_begun_ended_and_listed_by_name(lab: duodaq.Lab) -> None:
    source = Source(lab)
    with pytest.raises(ConfigError, match=r"no channel fits \*\.humidity\. This lab has no channel yet"):
        await lab.log("room", "*.humidity")
    source.publish()
    directory = await lab.log("room", "*.humidity", keep="90d", budget="50GB")
    recording = await lab.start_recording()
    source.publish()
    with pytest.raises(LifecycleError, match="a log called room is under way"):
        await lab.log("room")
    (told,) = lab.logs()
    assert (told["name"], told["directory"], told["channels"]) == ("room", str(directory), ["*.humidity"])
    summary = await lab.stop_log("room")
    assert summary["files"] == {"room.humidity.arrows": 10}
    assert summary["complete"]
    assert set((await lab.stop_recording()).rows) == {"room.humidity", "room.temperature"}
    assert recording.parent == directory.parent
    with pytest.raises(LifecycleError, match="no log called room"):
        await lab.stop_log("room")
    with pytest.raises(ConfigError, match="dayly"):
        await lab.log(rotate="dayly")
    assert lab.logs() == []


async def test_a_log_goes_on_where_it_was_after_the_lab_was_gone(lab: duodaq.Lab) -> None:
    await lab.log("room")
    await lab.stop_log("room")
    await lab.log("room")
    await lab.stop_log("room")
    first, second = duodaq.runs(lab.chores.root, log="room")
    assert second.provenance["log"]["previous"] == first.uid
    assert second.provenance["log"]["part"] == 2


async def test_old_runs_go_when_they_were_found_whole_and_nobody_wants_them(lab: duodaq.Lab) -> None:
    now, source = Clock(), Source(lab)
    log = await begin(lab, now, keep="90d")
    for turn in range(3):
        source.publish()
        now.ahead_ns += DAY
        await until(lambda turn=turn: len(log.runs) == turn + 1)
        assert await lab.chores.done(60)
    one, kept, spoiled = duodaq.runs(lab.chores.root, log="room")[:3]
    kept.label(tags=["keep"])
    (spoiled.path / "finalised.json").write_text('{"error": "not whole"}')
    now.ahead_ns += 100 * DAY
    await until(lambda: not one.path.exists())
    source.publish()
    await log.close(10)
    left = duodaq.runs(lab.chores.root, log="room")
    assert {run.path for run in left} >= {kept.path, spoiled.path}
    assert [*lab.chores.root.glob(".*removed")] == []
    removals = [event.doc for run in left for event in run.events if event.name == "removed"]
    assert [(doc["uid"], doc["reason"]) for doc in removals if doc["run"] == str(one.path)] == [(one.uid, "age")]
    assert [previous for _, previous in left.together().missing()] == [one.uid]


async def test_the_budget_takes_the_oldest_of_this_series_and_of_no_other(lab: duodaq.Lab) -> None:
    now, source = Clock(), Source(lab)
    other = await lab.log("other")
    await lab.stop_log("other")
    log = await begin(lab, now, budget=1)
    source.publish()
    now.ahead_ns += DAY
    await until(lambda: len(log.runs) == 1)
    first = Path(log.runs[0].directory)
    assert await lab.chores.done(60)
    now.ahead_ns += 120 * 10**9
    await until(lambda: not first.exists())
    await log.close(10)
    assert other.exists()
    assert log.directory.exists()


async def test_a_log_of_another_lab_in_the_same_folder_is_another_series(lab: duodaq.Lab, tmp_path: Path) -> None:
    root = lab.chores.root
    async with duodaq.Lab(LabDefinition("others", directory=tmp_path / "elsewhere")) as others:
        theirs = await others.log("room", directory=root)
        await others.stop_log("room")
        assert await others.chores.done(60)
    nobodys = await lab.log("room")
    await lab.stop_log("room")
    assert await lab.chores.done(60)
    page = json.loads((nobodys / "run.json").read_text())
    page["provenance"]["log"].pop("lab")
    page["provenance"].pop("lab")
    (nobodys / "run.json").write_text(json.dumps(page))
    now = Clock()
    log = await begin(lab, now, keep="1d", budget=1)
    now.ahead_ns += DAY
    await until(lambda: len(log.runs) == 1)
    first = Path(log.runs[0].directory)
    assert await lab.chores.done(60)
    now.ahead_ns += 3 * DAY
    await until(lambda: not first.exists())
    await log.close(10)
    assert theirs.exists()
    assert nobodys.exists()
    ours = [run.provenance["log"] for run in duodaq.runs(root, log="room") if run.path not in (theirs, nobodys)]
    assert ours[0]["part"] > 1
    assert ours[0]["lab"] == "weeks"
    assert all(run.provenance["log"]["previous"] != duodaq.open_run(theirs).uid for run in duodaq.runs(root))


async def test_a_run_that_somebody_tags_just_before_it_would_go_stays(
    lab: duodaq.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged: list[Path] = []

    def and_tagged(*args: Any, **options: Any) -> list[tuple[KeptRun, str]]:
        going = to_remove(*args, **options)
        for run, _ in going:
            duodaq.open_run(run.path).label(tags=["keep"])
            tagged.append(run.path)
        return going

    monkeypatch.setattr(_log, "to_remove", and_tagged)
    now = Clock()
    log = await begin(lab, now, budget=1)
    now.ahead_ns += DAY
    await until(lambda: len(log.runs) == 1)
    assert await lab.chores.done(60)
    now.ahead_ns += 120 * 10**9
    await until(lambda: len(tagged) > 0)
    await log.close(10)
    assert tagged
    assert all(path.exists() for path in tagged)


async def test_no_row_is_lost_or_doubled_at_a_rotation_under_load(tmp_path: Path) -> None:
    hub: Hub[Any] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    recorder = Recorder(tmp_path / "0", hub, level="kernel", disk=QuickDisk())
    await recorder.start()
    ending, sent = threading.Event(), 0
    one = schema.scalar_batch([Scalar("dmm", "voltage", "V", utc_ns(), n, 0.0, "v4") for n in range(10)])

    def publish() -> None:
        nonlocal sent
        while not ending.wait(0.0005):
            numbers = np.arange(10 * sent, 10 * sent + 10, dtype=np.uint64)
            columns = [numbers if f.name == "sequence" else one.column(i) for i, f in enumerate(one.schema)]
            hub.publish(type(one).from_arrays(columns, schema=one.schema))
            sent += 1

    thread = threading.Thread(target=publish)
    thread.start()
    summaries: list[RecordingSummary] = []
    for turn in range(1, 6):
        # A series turned over before anything is published is an empty run, which has no books.
        await until(lambda before=sent: sent > before + 1)
        summaries.append(await recorder.rotate(tmp_path / str(turn)))
    await until(lambda before=sent: sent > before + 1)
    ending.set()
    thread.join()
    summaries.append(await recorder.stop())
    found: list[int] = []
    for summary in summaries:
        run = duodaq.open_run(summary.directory)
        assert run.state == "finished"
        books = run.events[-1].doc["books"]["dmm.voltage"]
        assert books["balanced"]
        assert books["stored"] == len(run["dmm.voltage"]) == summary.rows["dmm.voltage"]
        assert not run["dmm.voltage"].gaps()
        found += numbers(run["dmm.voltage"])
    assert found == [*range(10 * sent)]


async def test_the_books_of_a_series_add_up_over_lost_rows_too(tmp_path: Path) -> None:
    hub: Hub[Any] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    refusing = threading.Event()
    disk = RefusingDisk(lambda op, name: errno.ENOSPC if refusing.is_set() and op == "write" else None)
    recorder = Recorder(tmp_path / "0", hub, capacity=20, when_full="count", on_failure="resume", disk=disk)
    await recorder.start()
    sent = 0

    def publish(batches: int) -> None:
        nonlocal sent
        for _ in range(batches):
            hub.publish(schema.scalar_batch([Scalar("dmm", "voltage", "V", utc_ns(), sent, 0.0, "v4")]))
            sent += 1

    publish(15)
    assert await recorder.flush(timeout_s=10)
    refusing.set()
    publish(1)
    await until(lambda: recorder.refusing)
    publish(100)
    refusing.clear()
    await until(lambda: not recorder.refusing)
    summaries = [await recorder.rotate(tmp_path / "1")]
    publish(7)
    summaries.append(await recorder.stop())
    pages = [duodaq.open_run(s.directory).events[-1].doc["books"]["dmm.voltage"] for s in summaries]
    assert all(page["balanced"] for page in pages)
    assert sum(page["produced"] for page in pages) == sent
    lost = sum(sum(page["lost"].values()) for page in pages)
    assert lost > 0
    assert sum(page["stored"] for page in pages) == sent - lost
    assert [sum(summary.lost.values()) for summary in summaries] == [lost, 0]


async def test_a_next_run_that_cannot_be_made_leaves_the_present_one_as_it_is(tmp_path: Path) -> None:
    hub: Hub[Any] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    recorder = Recorder(tmp_path / "0", hub)
    await recorder.start()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot record to"):
        await recorder.rotate(tmp_path / "file" / "run")
    hub.publish(schema.scalar_batch([Scalar("dmm", "voltage", "V", utc_ns(), 0, 0.0, "v4")]))
    summary = await recorder.stop()
    assert (summary.directory, summary.rows) == (str(tmp_path / "0"), {"dmm.voltage": 1})
    with pytest.raises(LifecycleError):
        await recorder.rotate(tmp_path / "1")
    assert not (tmp_path / "1").exists()


def one_row(n: int) -> Any:
    return schema.scalar_batch([Scalar("dmm", "voltage", "V", utc_ns(), n, 0.0, "v4")])


def let_time_be_up(monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> None:
    """The time for a turn is up as soon as `when` is true, and not by the clock."""
    patient = _recorder.until

    async def waits(condition: Callable[[], bool], timeout_s: float) -> bool:
        if not isinstance(getattr(condition, "__self__", None), threading.Event):
            return await patient(condition, timeout_s)
        await until(lambda: condition() or when())
        return condition()

    monkeypatch.setattr(_recorder, "until", waits)


async def test_a_rotation_that_the_disk_does_not_let_begin_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Hub[Any] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    refusing = threading.Event()
    disk = RefusingDisk(lambda op, name: errno.ENOSPC if refusing.is_set() and name.startswith("dmm") else None)
    recorder = Recorder(tmp_path / "0", hub, disk=disk)
    await recorder.start()
    refusing.set()
    hub.publish(one_row(0))
    await until(lambda: recorder.refusing)
    let_time_be_up(monkeypatch, lambda: recorder.refusing)
    with pytest.raises(StorageError, match="recording goes on in it"):
        await recorder.rotate(tmp_path / "1")
    assert not recorder.turning
    assert not (tmp_path / "1").exists()
    refusing.clear()
    await until(lambda: not recorder.refusing)
    summary = await recorder.rotate(tmp_path / "1")
    assert (summary.directory, summary.rows) == (str(tmp_path / "0"), {"dmm.voltage": 1})
    assert (await recorder.stop()).directory == str(tmp_path / "1")
    assert recorder.take_late() == []


async def test_a_rotation_that_ends_after_its_time_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Hub[Any] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    next_is_there = tmp_path / "1" / "journal.index"
    well = threading.Event()

    def refuses(operation: str, name: str) -> int | None:
        refused = operation == "sync" and name.startswith("events") and not well.is_set()
        return errno.ENOSPC if refused and next_is_there.exists() else None

    recorder = Recorder(tmp_path / "0", hub, disk=RefusingDisk(refuses), provenance={"part": 0})
    await recorder.start()
    hub.publish(one_row(0))
    assert await recorder.flush(timeout_s=10)
    let_time_be_up(monkeypatch, lambda: recorder.refusing)
    with pytest.raises(StorageError, match=r"goes on in .*1 as soon as the disk allows"):
        await recorder.rotate(tmp_path / "1", provenance={"part": 1})
    assert recorder.turning
    with pytest.raises(LifecycleError, match="once at a time"):
        await recorder.rotate(tmp_path / "2")
    hub.publish(one_row(1))
    well.set()
    await until(lambda: not recorder.turning)
    late = recorder.take_late()
    assert [(one.directory, one.rows) for one in late] == [(str(tmp_path / "0"), {"dmm.voltage": 1})]
    assert recorder.take_late() == []
    last = await recorder.stop()
    assert (last.directory, last.rows) == (str(tmp_path / "1"), {"dmm.voltage": 1})
    assert duodaq.open_run(tmp_path / "1").provenance == {"part": 1}


class LateRecording:
    """Its recorder is rotated when nobody waits for it any more."""

    def __init__(self) -> None:
        self.recorder = self
        self.turning = True
        self.page = None
        self.directory = Path("next")
        self.late = [RecordingSummary("first", {}, 0, 0)]

    async def rotate(self, target: Path, more: Any) -> RecordingSummary:
        raise StorageError("the disk does not let it be ended")

    def take_late(self) -> list[RecordingSummary]:
        late, self.late = self.late, []
        return late


async def test_a_log_knows_of_a_run_that_was_ended_late(lab: duodaq.Lab) -> None:
    now = Clock()
    log = await begin(lab, now)
    part, own = log._part, log._recording_or_none
    log._recording_or_none = LateRecording()
    await log._rotate(now())
    log._note_late()
    log._recording_or_none = own
    assert log._part == part + 1
    assert log._turn_ns is not None
    assert log._turn_ns > now() + 60 * 10**9, "it is not tried again at once"
    assert [run.directory for run in log.runs] == ["first"]
    await log.close(10)


class Dying:
    """Ends its process when it is told to."""

    def power(self) -> float:
        return 1.0

    def die(self) -> None:
        os._exit(3)


async def test_the_ledger_of_a_log_holds_over_the_death_of_a_worker(tmp_path: Path) -> None:
    meter = InstrumentDefinition(
        "meter", "v2", Dying, polls=(PollDefinition("power", call="power", unit="W", every_s=0.005),)
    )
    definition = LabDefinition("dying", instruments=(meter,), v2=RuntimeDefinition("v2", "process"), directory=tmp_path)
    async with duodaq.Lab(definition) as lab:
        await lab.log("room", rotate=None, finalise=())

        async def stored(more: int) -> None:
            async with asyncio.timeout(30):
                while sum(log_rows(lab)) < more:
                    await pause(0.01)

        await stored(5)
        with pytest.raises(duodaq.DuodaqError):
            await lab.command("meter", Execute("die"))
        await stored(sum(log_rows(lab)) + 5)
        directory = Path(lab.logs()[0]["directory"])
        await lab.stop_log("room")
    run = duodaq.open_run(directory)
    books = run.events[-1].doc["books"]["meter.power"]
    assert books["balanced"]
    assert books["stored"] == len(run["meter.power"])
    (ledgers,) = [event.doc for event in run.events if event.name == "ledgers"]
    assert {"v2", "v4", "worker v2-process"} <= ledgers.keys()
    assert all(ledger["balanced"] for ledger in ledgers.values())
    (counted,) = ledgers["worker v2-process"]["produced"].values()
    produced = counted["meter.power"]
    (row,) = [r for r in ledgers["worker v2-process"]["rows"] if r["stream"] == "meter.power"]
    assert produced == row["delivered"] + sum(row["dropped"].values()) + row["in_flight"]


def log_rows(lab: duodaq.Lab) -> list[int]:
    return [row.delivered for row in lab.manager.v4_data.ledger().rows() if row.subscriber == "log room"]
