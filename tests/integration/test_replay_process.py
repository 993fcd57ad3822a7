"""`duodaq replay` as a process: what a killed program left is served, what cannot be is said in a sentence."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import serial

from duodaq.errors import ConfigError
from duodaq.model import Direction, WireRecord
from duodaq.schema import wire, wire_batch
from duodaq.testing import replayed

pytestmark = pytest.mark.serial
MS = 1_000_000


def record(at_ms: int, direction: Direction, data: bytes, exchange: int, port: str = "x") -> WireRecord:
    return WireRecord(at_ms * MS, port, direction, data, "v2.x", exchange, None, at_ms)


ASKED = (record(10, ">", b"V 1\n", 1), record(20, ">", b"V?\n", 2), record(50, "<", b"1\r\n", 2))


def wirelog(path: Path, *records: WireRecord, cut: int = 0, ports: tuple[str, ...] = ("x",)) -> Path:
    with pa.ipc.new_stream(path, wire({port: {"address": f"/dev/tty{port}"} for port in ports})) as file:
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


def test_unknown_commands_are_told_as_they_come_and_counted_at_the_end(
    tmp_path: Path, start_program: Callable[..., Any]
) -> None:
    program = start_program("-m", "duodaq.cli", "replay", wirelog(tmp_path / "wire.arrows", *ASKED))
    program.wait_for("addresses")
    with serial.Serial(json.loads(program.said)["address"], timeout=10) as line:
        line.write(b"Q?\nQ?\n\xb5 1\nV?\n")
        assert line.readline() == b"1\r\n"
    program.wait_for(r"replay: x was told '\xb5 1', which was never recorded")
    program.interrupt(signal.SIGINT)
    assert program.end() == 0
    assert program.said.splitlines()[1:] == [
        "replay: x was told 'Q?', which was never recorded",
        r"replay: x was told '\xb5 1', which was never recorded",
        "replay: x: 'Q?' was never recorded; it came 2 times",
        r"replay: x: '\xb5 1' was never recorded; it came 1 time",
    ]


def test_what_is_said_of_unknown_commands_has_a_bound(tmp_path: Path, start_program: Callable[..., Any]) -> None:
    program = start_program("-m", "duodaq.cli", "replay", wirelog(tmp_path / "wire.arrows", *ASKED))
    program.wait_for("addresses")
    with serial.Serial(json.loads(program.said)["address"], timeout=10) as line:
        line.write(b"".join(b"Q%d\n" % n for n in range(150)) + b"V?\n")
        assert line.readline() == b"1\r\n"
    program.interrupt(signal.SIGINT)
    assert program.end() == 0
    assert program.said.count("was told") == 20
    assert program.said.count("it came 1 time") == 100
    assert "more unknown commands come" in program.said
    assert program.said.endswith("… and 50 more unknown commands\n")


def test_a_mistake_in_a_test_is_said_in_the_childs_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = wirelog(tmp_path / "good", *ASKED)
    mistakes: dict[str, Callable[[], Any]] = {
        "there is no wire log": lambda: replayed(tmp_path / "none"),
        "has no port 'y'. There are: x.": lambda: replayed(good, "y"),
        "'0' is no speed": lambda: replayed(good, speed=0),
        "possible: silent, error=TEXT": lambda: replayed(good, unknown="loud"),
    }
    for sentence, start in mistakes.items():
        with pytest.raises(ConfigError, match=sentence):
            start()
    assert capfd.readouterr().err == ""


def test_several_ports_come_in_the_order_of_the_lab_file_and_want_a_folder(
    tmp_path: Path, duodaq_command: Callable[..., Any]
) -> None:
    path = wirelog(tmp_path / "both", *ASKED, record(60, ">", b"W?\n", 1, "y"), ports=("y", "x"))
    with replayed(path) as replay:
        assert list(replay.addresses) == ["y", "x"]
        assert replay.address == replay.addresses["y"]
    (tmp_path / "stage").symlink_to("/dev/pts/nowhere")
    ended = duodaq_command("replay", path, "--link", tmp_path / "stage")
    assert ended.returncode == 2
    assert "2 ports are replayed (y, x), so a folder is wanted here, for a link each" in ended.stderr


def test_a_link_that_somebody_serves_is_refused_and_stays(
    tmp_path: Path, start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    path, link = wirelog(tmp_path / "wire.arrows", *ASKED), tmp_path / "run" / "stage"
    first = start_program("-m", "duodaq.cli", "replay", path, "--link", link)
    first.wait_for("addresses")
    leads_to = link.readlink()
    for arguments in (("replay", path), ("sim", "esp300")):
        ended = duodaq_command(*arguments, "--link", link)
        assert ended.returncode == 2
        assert f"--link {link}: cannot serve there: another one serves it already" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
        assert link.readlink() == leads_to
    first.interrupt(signal.SIGKILL)
    first.end()
    assert link.is_symlink()  # the dead leave it
    second = start_program("-m", "duodaq.cli", "replay", path, "--link", link)
    second.wait_for("addresses")
    link.unlink()
    link.symlink_to("/dev/null")  # somebody else's by now
    second.interrupt(signal.SIGINT)
    assert second.end() == 0
    assert [one.name for one in link.parent.iterdir()] == ["stage"]
