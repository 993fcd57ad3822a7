"""The flight recorder and the log file: what is written, when, and how little of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duodaq.app import Lab
from duodaq.app import _flight_recorder as flight
from duodaq.cli._tail import tail_port
from duodaq.clock import Deadline, pause
from duodaq.errors import ConfigError
from duodaq.model import AlarmDefinition, ObserverDefinition
from duodaq.schema import open_wirelog
from duodaq.telemetry import LogFile, configure_logging, get_logger, is_read_by_a_person, tracing

Labs = Callable[..., Lab]
TURNED = AlarmDefinition("turned", "dial", "angle", high=3.0)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger("duodaq")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "SETTLE_S", 0.01)
    monkeypatch.setattr(flight, "GAP_S", 0.01)


async def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed
        await pause(0.002)


def flights(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


async def test_a_stop_all_writes_what_was_before_it(dial_lab: Labs, tmp_path: Path, at_once: None) -> None:
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path / "flight"), alarms=(TURNED,)) as lab:
        await until(lambda: lab.alarms.status()[0].state == "raised")
        with tracing("ab" * 16):
            await lab.read("dial", "angle")
        await lab.stop_all()
        await until(lambda: lab.observers.flight.written)
    (place,) = flights(tmp_path / "flight")
    assert place.name.endswith("-stop-all")
    told = json.loads((place / "lab.json").read_text("utf-8"))
    assert (told["causes"], told["status"]["latched"]) == (["stop-all"], True)
    lines = [json.loads(line) for line in (place / "events.jsonl").read_text("utf-8").splitlines()]
    assert {"alarm raised", "stop-all"} <= {line.get("event") for line in lines}
    assert ("v2.dial", "acquiring") in {(line.get("subject"), line.get("new")) for line in lines}
    assert ("turned", "raised") in {(line.get("alarm"), line.get("new")) for line in lines}
    log = open_wirelog(place)
    assert b"A?\n" in {record.data for record in log.records("line")}
    assert "ab" * 16 in {record.trace_id for record in log.records("line")}


async def test_a_wire_of_a_flight_is_shown_by_ports_tail(
    dial_lab: Labs, tmp_path: Path, at_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path)) as lab:
        await lab.read("dial", "angle")
        await lab.stop_all()
        await until(lambda: lab.observers.flight.written)
    tail_port("line", None, flights(tmp_path)[0], Console(width=200), last=None, once=True, as_json=False)
    assert "A?\\n" in capsys.readouterr().out


async def test_several_causes_at_once_are_one_flight_and_only_so_many_are_kept(
    dial_lab: Labs, tmp_path: Path, at_once: None
) -> None:
    (tmp_path / "not ours").mkdir()
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path, flight_keep=2)) as lab:
        recorder = lab.observers.flight
        for number in range(1, 5):
            recorder.trigger("crash")
            recorder.trigger("hang")
            recorder.trigger("crash")
            await until(lambda n=number: recorder.written == n)
    kept = flights(tmp_path)
    assert len(kept) == 3
    assert tmp_path / "not ours" in kept
    assert json.loads((kept[0] / "lab.json").read_text("utf-8"))["causes"] == ["crash", "hang"]


async def test_what_broke_at_the_very_end_is_still_written(dial_lab: Labs, tmp_path: Path) -> None:
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path)) as lab:
        lab.observers.flight.trigger("crash")
    assert len(flights(tmp_path)) == 1


async def test_the_end_of_a_lab_waits_for_a_slow_disk_and_says_what_it_did_not_wait_for(
    dial_lab: Labs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duodaq.telemetry import event_counts

    goes_on, write = threading.Event(), flight._write_wire
    monkeypatch.setattr(flight, "_write_wire", lambda *what: goes_on.wait(20.0) and write(*what))
    key = ("error", "what was before is not whole: the lab has ended meanwhile")
    before = event_counts().get(key, 0)
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path)) as lab:
        recorder = lab.observers.flight
        recorder.trigger("crash")
        asyncio.get_running_loop().call_later(2.5, goes_on.set)
    assert recorder.written == 1
    assert event_counts().get(key, 0) == before

    goes_on.clear()
    monkeypatch.setattr(flight, "CLOSE_S", 0.05)
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path)) as lab:
        recorder = lab.observers.flight
        recorder.trigger("crash")
    assert recorder.written == 0
    assert event_counts()[key] == before + 1
    goes_on.set()
    await until(lambda: recorder.written)


async def test_a_disk_that_refuses_is_in_the_log_and_harms_nobody(
    dial_lab: Labs, tmp_path: Path, at_once: None
) -> None:
    from duodaq.telemetry import event_counts

    (tmp_path / "file").write_text("no folder")
    key = ("error", "what was before could not be written")
    before = event_counts().get(key, 0)
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path / "file")) as lab:
        await lab.stop_all()
        await until(lambda: event_counts().get(key, 0) == before + 1)
        assert lab.observers.flight.written == 0
        lab.reset_stop("test")
        await lab.read("dial", "angle")


def test_what_is_remembered_is_bounded() -> None:
    from duodaq.ports import Broker

    recorder = flight.FlightRecorder(Broker(), "lab", ObserverDefinition(), dict)
    for number in range(6000):
        recorder.note("log", {"text": "x" * 10_000, "number": number})
    assert len(recorder._lines) == 5000
    assert len(recorder._lines[0]["text"]) < 2100
    assert recorder._lines[0]["number"] == 1000


# ---- the log file --------------------------------------------------------------------------------------------------


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def test_every_line_says_its_lab_run_instrument_port_and_trace(dial_lab: Labs, tmp_path: Path) -> None:
    file = tmp_path / "log" / "lab.jsonl"
    log = get_logger("test")
    observers = ObserverDefinition(log_file=file, log_bytes=10**6, log_keep=1)
    async with dial_lab(observers=observers, alarms=(TURNED,)) as lab:
        await until(lambda: lab.alarms.status()[0].state == "raised")
        await lab.start_recording(tmp_path / "run")
        uid = str(lab.recorder.page.uid)
        with tracing("cd" * 16):
            log.info("in the run", port="line")
        await lab.stop_recording()
        log.warning("an actor's", actor="stage")
        configure_logging("ERROR")
        log.info("still in the file")
    told = {line["event"]: line for line in lines_of(file)}
    assert all(
        {"lab", "run", "instrument", "port", "trace_id", "level", "timestamp"} <= set(line) for line in told.values()
    )
    assert (told["alarm raised"]["instrument"], told["alarm raised"]["run"]) == ("dial", None)
    one = told["in the run"]
    assert (one["run"], one["port"], one["trace_id"], one["lab"]) == (uid, "line", "cd" * 16, 'the "lab"\\')
    assert (told["an actor's"]["instrument"], told["an actor's"]["run"]) == ("stage", None)
    assert "still in the file" in told


async def test_a_full_file_is_put_aside_and_only_so_many_are_kept(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "lab.jsonl", 2000, 2, {})
    file.open()
    for number in range(60):
        get_logger("test").info("a line of some length", number=number)
    file.end()
    await until(lambda: file.ended)
    files = flights(tmp_path)
    assert [one.name for one in files] == ["lab.jsonl", "lab.jsonl.1", "lab.jsonl.2"]
    assert all(one.stat().st_size <= 2000 for one in files)
    assert lines_of(tmp_path / "lab.jsonl")[-1]["number"] == 59
    assert file.lost == 0


async def test_a_log_file_is_nobody_who_reads_the_log(tmp_path: Path) -> None:
    root = logging.getLogger("duodaq")
    root.handlers[:], root.propagate = [], False
    file = LogFile(tmp_path / "lab.jsonl", 2000, 2, {})
    file.open()
    assert not is_read_by_a_person()
    configure_logging("WARNING")
    assert is_read_by_a_person()
    file.end()
    await until(lambda: file.ended)


async def test_a_log_file_that_cannot_be_is_said_and_nothing_is_started(dial_lab: Labs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lab = dial_lab(observers=ObserverDefinition(log_file=tmp_path / "file" / "lab.jsonl"))
    with pytest.raises(ConfigError, match=r"logging\.file: .* cannot be written"):
        await lab.start()


# ---- what a flight does when it cannot be written, and what may be in it --------------------------------------------


async def test_a_flight_is_there_whole_or_not_at_all_and_a_full_disk_fills_with_none(
    dial_lab: Labs, tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duodaq.telemetry import event_counts

    key, full = ("error", "what was before could not be written"), [True]
    before, write_wire = event_counts().get(key, 0), flight._write_wire

    def write(*args: Any) -> None:
        assert not [one for one in flights(tmp_path) if not one.name.startswith(".")], "seen before it was whole"
        if full:
            raise OSError("No space left on device")
        write_wire(*args)

    monkeypatch.setattr(flight, "_write_wire", write)
    left = tmp_path / ".20260101T000000.000Z-crash.part"
    left.mkdir()
    os.utime(left, (0, 0))
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path)) as lab:
        for number in range(1, 4):
            lab.observers.flight.trigger("crash")
            await until(lambda n=number: event_counts().get(key, 0) == before + n)
            await until(lambda: not flights(tmp_path))
        full.clear()
        lab.observers.flight.trigger("crash")
        await until(lambda: lab.observers.flight.written)
        (place,) = flights(tmp_path)
        assert {one.name for one in place.iterdir()} == {"lab.json", "events.jsonl", "wire.arrows"}


async def test_whatever_was_logged_a_flight_is_written_and_each_event_is_a_line(
    dial_lab: Labs, tmp_path: Path, at_once: None
) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    odd = "a\nb\u2028c\x85d\x9b31m\udc80"
    async with dial_lab(observers=ObserverDefinition(flight_dir=tmp_path)) as lab:
        get_logger("test").warning("odd", reply=odd, silent=Silent(), more=[odd], file=Path("/\udc80"))
        lab.observers.flight.trigger("crash")
        await until(lambda: lab.observers.flight.written)
    lines = [json.loads(line) for line in (flights(tmp_path)[0] / "events.jsonl").read_text("utf-8").splitlines()]
    (told,) = [line for line in lines if line.get("event") == "odd"]
    assert told["reply"] == odd
    assert "without words" in told["silent"]


async def test_a_folder_that_is_gone_is_made_again(dial_lab: Labs, tmp_path: Path, at_once: None) -> None:
    folder = tmp_path / "flight"
    async with dial_lab(observers=ObserverDefinition(flight_dir=folder)) as lab:
        for number in (1, 2):
            lab.observers.flight.trigger("crash")
            await until(lambda n=number: lab.observers.flight.written == n)
            if number == 1:
                shutil.rmtree(folder)
    assert len(flights(folder)) == 1
