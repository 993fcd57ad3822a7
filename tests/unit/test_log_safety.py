"""What the log does to whoever writes it: nothing, whatever is said, whoever listens, and whether anybody reads it."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodaq.clock import Deadline, block, monotonic_s
from duodaq.telemetry import LogFile, Outlet, configure_logging, event_counts, get_logger, listen_to_log
from duodaq.telemetry import _log_file as log_file
from duodaq.telemetry import _log_writer as log_writer
from duodaq.telemetry._log_line import as_json, for_a_person
from duodaq.telemetry._log_writer import LogWriter

FORGED = "a\n2026-01-01T00:00:00Z [error    ] STOP ALL failed\r\x1b[2J\x85\x9b31m\u2028\u2029\udc80\x00\x7f"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger("duodaq")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before


def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed
        block(0.002)


class Silent:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


# ---- one line ------------------------------------------------------------------------------------------------------


@given(st.recursive(st.text() | st.floats() | st.none(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_whatever_is_said_is_one_line_of_json(said: Any) -> None:
    line = as_json({"event": said, "reply": said})
    assert len(line.splitlines()) == 1
    assert json.loads(line, parse_constant=pytest.fail).keys() == {"event", "reply"}
    line.encode()


def test_what_an_instrument_says_is_in_the_file_as_it_was_and_begins_no_line(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "lab.jsonl", 10**6, 1, {})
    file.open()
    get_logger("test").warning(FORGED, reply=FORGED, more=[FORGED], odd=Silent(), raised=ValueError(FORGED))
    file.end()
    until(lambda: file.ended)
    (line,) = (tmp_path / "lab.jsonl").read_text("utf-8").splitlines()
    told = json.loads(line)
    assert (told["event"], told["reply"], told["more"], told["raised"]) == (FORGED, FORGED, [FORGED], FORGED)
    assert "without words" in told["odd"]
    assert file.lost == 0


@pytest.mark.parametrize("as_it_is", [True, False], ids=["json", "for a person"])
def test_so_it_is_on_the_console(as_it_is: bool) -> None:
    stream = io.StringIO()
    configure_logging("INFO", json=as_it_is, stream=stream)
    get_logger("test").warning(FORGED, reply=FORGED, more=[FORGED], odd=Silent(), raised=ValueError(FORGED))
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_a_line_has_a_greatest_length() -> None:
    line = as_json({"event": "e" * 10**6, "reply": ["r" * 10**6], **{f"fact {n}": "x" * 10**4 for n in range(1000)}})
    assert len(line) < 100_000
    assert json.loads(line)["event"].endswith("(999000 characters cut)")
    assert len(for_a_person(None, "", {"event": "e", "reply": "r" * 10**6})["reply"]) < 11_000


def test_no_traceback_on_the_console_shows_what_stands_in_variables() -> None:
    stream = io.StringIO()
    configure_logging("INFO", stream=stream)
    token = "".join(("se", "cret"))
    try:
        raise ValueError(len(token))
    except ValueError:
        get_logger("test").error("failed", exc_info=True)
    assert "ValueError: 6" in stream.getvalue()
    assert token not in stream.getvalue()


# ---- who listens, and who reads ------------------------------------------------------------------------------------


def test_a_handler_that_raises_is_counted_and_reaches_nobody_who_logs() -> None:
    class Bad(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("bad handler")

    root, key = logging.getLogger("duodaq"), ("error", "a handler of the log failed")
    root.handlers[:], root.level, before = [Bad()], logging.INFO, event_counts().get(key, 0)
    heard: list[Any] = []
    deaf = listen_to_log(lambda _, event: heard.append(event["event"]))
    get_logger("test").bind(port="line").warning("said all the same")
    deaf()
    assert event_counts()[key] == before + 1
    assert heard[0] == "said all the same"


def test_a_listener_that_raises_is_counted_and_keeps_no_other_from_hearing() -> None:
    key = ("error", "somebody who listens to the log failed")
    before, heard = event_counts().get(key, 0), list[Any]()
    ends = [listen_to_log(lambda *_: 1 / 0), listen_to_log(lambda _, event: heard.append(event["event"]))]
    get_logger("test").warning("heard")
    for end in ends:
        end()
    assert heard == ["heard"]
    assert event_counts()[key] == before + 1


def test_a_console_that_nobody_reads_keeps_nobody_waiting_and_says_what_it_lost() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        outlet = Outlet(stream)
        began_s = monotonic_s()
        for number in range(5000):
            outlet.write(f"{number} {'x' * 100}\n")
        assert monotonic_s() - began_s < 5.0
        assert outlet.lost > 1000
        outlet.drain(0.01)
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.extend(reader))
        thread.start()
        until(lambda: not outlet._writing)
        stream.close()
        thread.join()
    seen = 0
    for line in found:
        if line.startswith(b"("):
            seen += int(line[1:].split()[0])
        else:
            assert int(line.split()[0]) == seen, "what is lost is said in its place"
            seen += 1
    assert seen == 5000
    assert len([line for line in found if not line.startswith(b"(")]) == 5000 - outlet.lost


def test_a_console_whose_reader_has_gone_loses_nothing_but_its_lines() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        outlet = Outlet(stream)
        for _ in range(3):
            outlet.write("to nobody\n")
        until(lambda: not outlet._writing)


# ---- the disk ------------------------------------------------------------------------------------------------------


def test_a_disk_that_refuses_has_whole_lines_and_all_of_them_once_it_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full: list[bool] = []

    def write(fd: int, data: bytes, plain: Callable[..., int] = os.write) -> int:
        if not full:
            return plain(fd, data)
        if len(data) > 20:
            return plain(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(log_writer.os, "write", write)
    monkeypatch.setattr(log_file, "AGAIN_S", 0.01)
    path, said = tmp_path / "lab.jsonl", list[Any]()
    deaf = listen_to_log(lambda level, event: said.append((level, event["event"])))
    file = LogFile(path, 10**6, 1, {})
    file.open()
    log = get_logger("test")
    log.info("line", number=0)
    until(lambda: path.stat().st_size)
    full.append(True)
    for number in range(1, 50):
        log.info("line", number=number)
    until(lambda: ("error", "the log file takes no lines") in said)
    assert [json.loads(line)["number"] for line in path.read_text("utf-8").split("\n") if line.endswith("}")] == [0]
    full.clear()
    until(lambda: ("warning", "the log file takes lines again") in said)
    file.end()
    until(lambda: file.ended)
    deaf()
    told = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["number"] for line in told if line["event"] == "line"] == list(range(50))
    assert file.lost == 0


def test_a_disk_that_goes_on_refusing_costs_the_end_nothing_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    file = LogFile(tmp_path / "lab.jsonl", 10**6, 1, {})
    file.open()
    monkeypatch.setattr(LogWriter, "write", refuse)
    for _ in range(30):
        get_logger("test").info("lost")
    file.end()
    until(lambda: file.ended, 5.0)
    assert file.lost >= 30


def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "log" / "lab.jsonl"
    writer = LogWriter(path, 100, 2)
    writer.write(b"one\n")
    path.unlink()
    path.parent.rmdir()
    writer.write(b"two\n")
    assert path.read_bytes() == b"two\n"
    path.rename(tmp_path / "moved")
    writer.write(b"three\n")
    writer.close()
    assert (path.read_bytes(), (tmp_path / "moved").read_bytes()) == (b"three\n", b"two\n")


def test_behind_half_a_line_of_somebody_who_was_killed_a_new_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "lab.jsonl"
    path.write_bytes(b'whole\n{"event": "ha')
    writer = LogWriter(path, 100, 2)
    writer.write(b"new\n")
    writer.close()
    assert path.read_bytes() == b'whole\n{"event": "ha\nnew\n'


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_file_never_grows_beyond_its_size_however_many_are_kept(tmp_path: Path, keep: int) -> None:
    writer = LogWriter(tmp_path / "lab.jsonl", 100, keep)
    for number in range(200):
        writer.write(b"%09d\n" % number)
    writer.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == keep + 1
    assert all(one.stat().st_size <= 100 for one in files)
    kept = b"".join(one.read_bytes() for one in [*reversed(files[1:]), files[0]]).split()
    assert [int(line) for line in kept] == list(range(200 - len(kept), 200))
