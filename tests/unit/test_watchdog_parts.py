"""What the watchdog decides and reads without a process: plans, restarts, messages, its log, USB adapters."""

from __future__ import annotations

import json
import os
import socket
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from duodaq.clock import anchor_ns, utc_ns
from duodaq.drivers import codec
from duodaq.model import PortDefinition
from duodaq.watchdog import _serial_line as serial_line
from duodaq.watchdog import _wire as wire
from duodaq.watchdog._lines import Line, Writing
from duodaq.watchdog._record import Record
from duodaq.watchdog.owner import PortPlan, plan_for
from duodaq.watchdog.owner._restarts import Restarts


def test_a_codec_says_what_terminates_half_a_command() -> None:
    port = PortDefinition("stage", serial={"path": "/dev/ttyUSB0", "baud": 19200}, codec="esp300")
    plan = plan_for(port, codec("esp300"), [b"1ST\r", b"2ST\r"], [b"AB\r"])
    assert plan == PortPlan(b"\r", (b"1ST\r", b"2ST\r"), (b"AB\r",), port.serial, None)


@pytest.mark.parametrize(
    ("actions", "terminator"),
    [([b"SHUT 0\r\n", b"X\n"], b"\r\n"), ([b"SHUT 0", b"X\n"], b"\n"), ([b"\x02\x00"], b""), ([], b"")],
)
def test_without_a_codec_the_end_of_the_actions_own_lines_does(actions: list[bytes], terminator: bytes) -> None:
    assert plan_for(PortDefinition("shutter", tcp="a:1"), None, actions).terminator == terminator


def test_every_byte_goes_through_a_message_and_a_path_becomes_absolute() -> None:
    everything = bytes(range(256))
    message = PortPlan(everything, (everything,), (), {"path": "pts", "baud": 9600}).as_message("p")
    line = Line("p")
    line.learn(json.loads(wire.packed(message)))
    assert (line.terminator, line.crash, line.stop_all) == (everything, [everything], [])
    assert line.serial == {"path": str(Path.cwd() / "pts"), "baud": 9600}
    assert line.can_reopen


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too many for one message"):
        wire.packed({"crash": ["x" * wire.LIMIT]})


def test_a_descriptor_travels_with_its_message() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read_end, write_end = os.pipe()
    with near, far:
        wire.send(near, b"with", write_end)
        wire.send(near, b"without")
        packet, passed = wire.receive(far)
        assert packet == b"with"
        assert passed is not None
        os.write(passed, b"!")
        assert os.read(read_end, 1) == b"!"
        assert wire.receive(far) == (b"without", None)
        with pytest.raises(BlockingIOError):
            wire.receive(far)
        near.close()
        assert wire.receive(far) == (b"", None)
    for descriptor in (read_end, write_end, passed):
        os.close(descriptor)


def test_a_watchdog_is_started_again_at_once_but_five_times_a_minute() -> None:
    restarts = Restarts()
    for now_s in (0.0, 1.0, 2.0, 3.0, 4.0):
        assert restarts.wait_s(now_s) == 0
        restarts.begun(now_s)
    assert restarts.wait_s(5.0) == 55.0
    assert restarts.wait_s(60.0) == 0
    restarts.begun(60.0)
    assert restarts.wait_s(60.5) == 0.5
    assert restarts.count == 6


def test_the_log_holds_up_nothing_when_nobody_reads_it(tmp_path: Path) -> None:
    record = Record(anchor_ns(), str(tmp_path / "log"))
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write_end, True)
    stderr = os.dup(2)
    os.dup2(write_end, 2)
    try:
        record.add("something", port="p")
        assert (tmp_path / "log").read_text() == ""
        record.flush()
        os.close(read_end)
        record.flush()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(write_end)
        os.close(record._places[1])
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (line["event"], line["port"]) == ("something", "p")
    assert abs(line["t_ns"] - utc_ns()) < 60_000_000_000


def test_a_log_that_cannot_be_opened_is_no_obstacle(capfd: pytest.CaptureFixture[str]) -> None:
    record = Record(anchor_ns(), "/dev/null/no/log")
    record.flush()
    assert "no log file" in capfd.readouterr().err


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, slave
    os.close(master)
    os.close(slave)


def test_a_serial_line_is_opened_with_the_settings_of_the_lab_file(pty: tuple[int, int]) -> None:
    settings = {"path": os.ttyname(pty[1]), "baud": 19200, "bytesize": 7, "parity": "E", "stopbits": 2, "rtscts": True}
    descriptor = serial_line.open_serial(settings)
    iflag, _, cflag, lflag, ispeed, ospeed, _ = termios.tcgetattr(descriptor)
    assert (iflag, lflag, ispeed, ospeed) == (0, 0, termios.B19200, termios.B19200)
    assert cflag & termios.CSTOPB
    assert cflag & termios.CRTSCTS
    assert not os.get_blocking(descriptor)
    with pytest.raises(BlockingIOError):
        serial_line.open_serial({**settings, "parity": "N", "xonxoff": True})
    os.close(descriptor)


def test_a_rate_without_a_number_of_its_own_stays_as_the_line_had_it(pty: tuple[int, int]) -> None:
    serial_line.configure(pty[1], {"baud": 57600, "xonxoff": True})
    serial_line.configure(pty[1], {"baud": 123457, "parity": "M"})
    iflag, _, _, _, ispeed, ospeed, _ = termios.tcgetattr(pty[1])
    assert (iflag, ispeed, ospeed) == (0, termios.B57600, termios.B57600)


def test_a_usb_adapter_is_found_by_its_numbers(tmp_path: Path) -> None:
    for number, serial in enumerate(("A1", "B2")):
        device = tmp_path / "devices" / f"usb{number}"
        port = device / f"usb{number}:1.{number}" / f"ttyUSB{number}"
        port.mkdir(parents=True)
        for name, fact in (("idVendor", "0403"), ("idProduct", "6001"), ("serial", serial)):
            (device / name).write_text(fact + "\n")
        (tmp_path / "tty" / f"ttyUSB{number}").mkdir(parents=True)
        (tmp_path / "tty" / f"ttyUSB{number}" / "device").symlink_to(port)
    (tmp_path / "tty" / "tty0").mkdir()
    ttys = str(tmp_path / "tty")
    assert serial_line.find_usb("0403:6001:b2", ttys) == "/dev/ttyUSB1"
    assert serial_line.find_usb("0403:6001", ttys, location="usb0") == "/dev/ttyUSB0"
    assert serial_line.find_usb("0403:6001", ttys, interface=1) == "/dev/ttyUSB1"
    with pytest.raises(FileNotFoundError, match="several"):
        serial_line.find_usb("0403:6001", ttys)
    for missing in ("0403:6001:c3", "1234:5678", ""):
        with pytest.raises(FileNotFoundError):
            serial_line.find_usb(missing, ttys)


def test_bytes_go_on_where_a_full_line_stopped_them(pty: tuple[int, int]) -> None:
    near, far = socket.socketpair()
    with near, far:
        line = Line("p")
        line.hold(os.dup(near.fileno()))
        line.terminator = b"\r"
        writing = Writing(line, [b"x" * 1_000_000, b"y"])
        heard = b""
        done = writing.begin()
        assert not done
        while not done:
            heard += far.recv(1_000_000)
            done = writing.push()
        far.setblocking(False)
        while not heard.endswith(b"y"):
            heard += far.recv(1_000_000)
        assert heard == b"\r" + b"x" * 1_000_000 + b"y"
        line.let_go()


def test_a_line_that_is_gone_is_an_error_and_not_a_wait() -> None:
    near, far = socket.socketpair()
    with near:
        line = Line("p")
        line.hold(os.dup(near.fileno()))
        far.close()
        writing = Writing(line, [b"x"])
        assert writing.begin()
        assert writing.error == "Broken pipe"
        line.let_go()
