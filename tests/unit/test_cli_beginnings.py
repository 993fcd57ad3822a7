"""`duodaq init` and `duodaq doctor`, as functions: what they write, say and refuse."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from duodaq.cli import _doctor, _init
from duodaq.cli._catalogue import KINDS
from duodaq.config import load_lab
from duodaq.errors import ConfigError
from duodaq.link import process_of
from duodaq.model import PortDefinition


@pytest.fixture
def out() -> Console:
    return Console(record=True, width=300, highlight=False)


@pytest.fixture
def no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_init, "_plugged_in", list)


pytestmark = pytest.mark.usefixtures("no_lines")


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "own"])
@pytest.mark.parametrize("where", ["/dev/ttyUSB0", "192.168.1.20:5025"])
def test_the_stanza_of_every_kind_makes_a_right_lab_file(kind: str, where: str, tmp_path: Path, out: Console) -> None:
    file = tmp_path / "my lab.toml"
    _init.init_lab(file, [f"{kind}={where}"], out)
    lab = load_lab(file)
    assert lab.name == "my-lab"
    assert [instrument.id for instrument in lab.instruments] == [kind]
    (port,) = lab.ports
    assert (port.tcp or (port.serial or {})["path"]) == where
    assert "wants your hand" not in out.export_text()


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_chosen_each_kind_waits_behind_its_comment(kind: str, tmp_path: Path, out: Console) -> None:
    file = tmp_path / "lab.toml"
    (tmp_path / "chopper.py").write_text("class Chopper:\n    def __init__(self, serial): ...\n")
    _init.init_lab(file, [], out)
    assert "take that away in front of yours" in out.export_text()
    assert load_lab(file).instruments == ()
    head, *stanzas = file.read_text().split(f"# {KINDS[kind].says}:\n")
    own = stanzas[0].split("\n\n")[0]
    file.write_text(head + "\n".join(line.removeprefix("#").removeprefix(" ") for line in own.splitlines()))
    assert len(load_lab(file).instruments) == 1


def test_a_wrong_answer_is_asked_again(tmp_path: Path, out: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [_init.Line("/dev/ttyUSB0", 'path = "/dev/ttyUSB0"', "a line")]
    answers = iter(["esp3000", "esp300", "hp34401a", "hp34401a=10.0.0.1:5025", ""])
    monkeypatch.setattr(_init.Prompt, "ask", lambda question, **_: next(answers))
    chosen = _init._ask(lines, out)
    assert [(one.kind.name, one.where) for one in chosen] == [("esp300", "/dev/ttyUSB0"), ("hp34401a", "10.0.0.1:5025")]
    said = out.export_text()
    assert "the kinds are esp300" in said
    assert "Write KIND=WHERE" in said


def test_a_class_of_ones_own_a_visa_resource_and_two_of_a_kind(tmp_path: Path, out: Console) -> None:
    (tmp_path / "chopper.py").write_text("class Chopper:\n    def __init__(self, serial): ...\n")
    added = [
        f"own={tmp_path}/chopper.py:Chopper@/dev/ttyUSB3",
        "hp34401a=GPIB0::22::INSTR",
        "hp34401a=192.168.1.20:5025",
    ]
    _init.init_lab(tmp_path / "lab.toml", added, out)
    lab = load_lab(tmp_path / "lab.toml")
    assert [i.id for i in lab.instruments] == ["chopper", "hp34401a", "hp34401a2"]
    assert lab.ports[1].visa is not None
    assert lab.ports[1].visa.resource == "GPIB0::22::INSTR"


def test_a_line_on_usb_is_named_by_its_identity_and_what_is_free_is_shown(
    tmp_path: Path, out: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        _init.Line("/dev/ttyUSB0", 'usb = "0403:6001:A50285BI"', "FT232R"),
        _init.Line("/dev/ttyS0", 'path = "/dev/ttyS0"', "16550A"),
    ]
    monkeypatch.setattr(_init, "_plugged_in", lambda: found)
    _init.init_lab(tmp_path / "lab.toml", ["esp300=/dev/ttyUSB0"], out)
    text = (tmp_path / "lab.toml").read_text()
    assert 'serial = { usb = "0403:6001:A50285BI", baud = 19200, rtscts = true }' in text
    assert '# serial = { path = "/dev/ttyS0" }  # 16550A' in text
    assert load_lab(tmp_path / "lab.toml").ports[0].serial["usb"] == "0403:6001:A50285BI"


@pytest.mark.parametrize(
    ("added", "sentence"),
    [
        ("esp3000=/dev/ttyUSB0", "the kinds are esp300"),
        ("esp300", "Write KIND=WHERE"),
        ("esp300=ttyUSB0", "'ttyUSB0' is no port"),
        ("own=/dev/ttyUSB0", "names no class"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    added: str, sentence: str, tmp_path: Path, out: Console
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _init.init_lab(tmp_path / "lab.toml", [added], out)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_left_alone(tmp_path: Path, out: Console) -> None:
    file = tmp_path / "lab.toml"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        _init.init_lab(file, [], out)
    assert file.read_text() == "mine"


def test_the_doctor_says_what_is_there_and_how_fast_the_disk_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = _doctor.examine(None, Console(width=300), as_json=True)
    found = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["duodaq"]["verdict"] == "ok"
    assert "a commit takes" in found["disk"]["said"]
    assert "extra scan" in found
    assert code == any(finding["verdict"] == "broken" for finding in found.values())
    assert not list(tmp_path.iterdir())


def test_the_doctor_names_a_port_that_is_not_there_may_not_be_opened_or_does_not_answer(
    tmp_path: Path, out: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "tty"
    locked.touch()
    locked.chmod(stat.S_IRUSR)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(locked))
    (tmp_path / "lab.toml").write_text(f"""
[ports.gone]
serial = {{ path = "{tmp_path}/nothing" }}

[ports.locked]
serial = {{ path = "{locked}" }}

[ports.deaf]
tcp = "127.0.0.1:9"
""")
    assert _doctor.examine(tmp_path / "lab.toml", out, as_json=False) == 1
    said = " ".join(out.export_text().split())
    assert "port gone is not there" in said
    assert "port locked may not be opened by you; it belongs to the group" in said
    assert "sudo usermod -aG" in said
    assert "port deaf 127.0.0.1:9 does not answer" in said
    assert "3 of" in said


def test_the_doctor_tells_the_other_end_of_a_pty_from_a_program_that_has_it_open(tmp_path: Path) -> None:
    master, slave = os.openpty()
    device = os.ttyname(slave)
    serve = "import os, sys; os.read(0, 1)"
    try:
        with subprocess.Popen([sys.executable, "-c", serve], stdin=subprocess.PIPE, pass_fds=(master, slave)) as ended:
            simulated = _doctor._permitted("port a", device, "")
            assert ended.stdin is not None
            ended.stdin.close()
        with subprocess.Popen([sys.executable, "-c", serve], stdin=subprocess.PIPE, pass_fds=(slave,)) as other:
            taken = _doctor._permitted("port a", device, "")
            assert other.stdin is not None
            other.stdin.close()
    finally:
        os.close(master)
        os.close(slave)
    assert simulated.verdict == "ok"
    assert f"process {ended.pid} (python" in simulated.said
    assert taken.verdict == "poor"
    assert f"open in process {other.pid} (python" in taken.said


def test_a_port_that_the_lab_itself_has_open_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    master, slave = os.openpty()
    device, has = (
        os.ttyname(slave),
        "from duodaq.link import LabLock; lock = LabLock('bench'); print(flush=True); input()",
    )
    command = [sys.executable, "-c", has]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(slave,)) as lab:
            assert lab.stdout is not None
            assert lab.stdin is not None
            lab.stdout.readline()
            own, other = (_doctor._permitted("port a", device, "", [name]) for name in ("bench", "another"))
            lab.stdin.close()
    finally:
        os.close(master)
        os.close(slave)
    assert (own.verdict, own.said) == ("ok", f"in use by the lab bench, which runs as process {lab.pid}")
    assert other.verdict == "poor"
    assert process_of("bench") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_the_doctor_names_the_program_that_is_connected_to_a_tcp_port(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    address, family = ("::1", socket.AF_INET6) if host == "[::1]" else ("127.0.0.1", socket.AF_INET)
    client = (
        "import socket, sys; from duodaq.link import LabLock; lock = LabLock('bench');"
        " line = socket.create_connection((sys.argv[1], int(sys.argv[2]))); print(flush=True); input()"
    )
    with socket.create_server((address, 0), family=family) as instrument:
        number = instrument.getsockname()[1]
        port = PortDefinition("dmm", tcp=f"{host}:{number}")
        assert _doctor._reached("port dmm", port, "bench").said == f"{host}:{number} answers"
        command = [sys.executable, "-c", client, address, str(number)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdout.readline()
            own, taken = (_doctor._reached("port dmm", port, name) for name in ("bench", "another"))
            other.stdin.close()
    assert own.verdict == "ok"
    assert own.said == f"{host}:{number}: in use by the lab bench, which runs as process {other.pid}"
    assert taken.verdict == "poor"
    assert taken.said.startswith(f"{host}:{number}: process {other.pid} (python")


def test_a_program_that_is_just_being_forked_does_not_hold_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    looks = iter([[(77, "forked")], [(78, "forked")]])
    monkeypatch.setattr(_doctor, "programs_holding", lambda _: next(looks))
    try:
        assert _doctor._permitted("port a", os.ttyname(slave), "").verdict == "ok"
    finally:
        os.close(master)
        os.close(slave)


def test_the_kernels_word_on_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(status: int) -> Any:
        monkeypatch.setattr(_doctor, "_clock_status", lambda: status)
        return [finding.verdict for finding in _doctor._about_clock()]

    assert said(0x40) == ["poor"]
    assert said(0x2001) == ["ok"]
    monkeypatch.undo()
    status = _doctor._clock_status()
    assert status is None or 0 <= status < 2**16


@pytest.mark.parametrize(
    ("description", "words"), [("n/a", ""), (None, ""), ("CP2102 USB to UART", "CP2102 USB to UART")]
)
def test_a_line_that_says_nothing_of_itself_is_given_no_words(description: str | None, words: str) -> None:
    port = SimpleNamespace(device="/dev/ttyS0", description=description)
    assert _init.words_of(port) == words
    assert _init._line(port).says == words
