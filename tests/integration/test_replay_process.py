"""`duodaq replay` as a process: what a killed program left is served, what cannot be is said in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import serial

from duodaq.model import Direction, WireRecord
from duodaq.schema import wire, wire_batch
from duodaq.testing import replayed

pytestmark = pytest.mark.serial
MS = 1_000_000


def record(at_ms: int, direction: Direction, data: bytes, exchange: int) -> WireRecord:
    return WireRecord(at_ms * MS, "x", direction, data, "v2.x", exchange, None, at_ms)


ASKED = (record(10, ">", b"V 1\n", 1), record(20, ">", b"V?\n", 2), record(50, "<", b"1\r\n", 2))


def wirelog(path: Path, *records: WireRecord, cut: int = 0) -> Path:
    with pa.ipc.new_stream(path, wire({"x": {"address": "/dev/ttyUSB0"}})) as file:
        for one in records:
            file.write_batch(wire_batch([one], wire()))
    path.write_bytes(path.read_bytes()[: -cut or None])
    return path


def test_the_log_of_a_killed_program_is_replayed_unplugged_and_spoilt(tmp_path: Path) -> None:
    path = wirelog(tmp_path / "wire.arrows", *ASKED, record(60, ">", b"W?\n", 3), cut=20)
    with replayed(path) as replay:
        with serial.Serial(replay.addresses["x"], timeout=10) as line:
            line.write(b"V?\n")
            assert line.readline() == b"1\r\n"
            replay.fault("garble_next=1")
            line.write(b"V?\n")
            assert line.readline() != b"1\r\n"
        replay.unplug("x")
        assert not Path(replay.address).exists()
        replay.replug("x")
        assert Path(replay.address).exists()
        assert replay.report()["x"]["exchanges"] == 2


def test_what_cannot_be_replayed_is_said_in_a_sentence(tmp_path: Path, duodaq_command: Callable[..., Any]) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    good = wirelog(tmp_path / "good", *ASKED)
    mistakes = {
        (tmp_path / "empty",): "is empty, and so no wire log",
        (tmp_path / "text",): "is no wire log",
        (tmp_path / "none",): "there is no wire log",
        (wirelog(tmp_path / "bare"),): "holds no command: there is nothing to replay",
        (good, "--port", "y"): "has no port 'y'. There are: x.",
        (good, "--speed", "0"): "'0' is no speed",
        (good, "--tcp", "0", "--pty"): "--tcp excludes --pty",
    }
    for arguments, sentence in mistakes.items():
        ended = duodaq_command("replay", *arguments)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert sentence in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
