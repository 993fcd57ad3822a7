"""Bad input: one clear message each with file, line, key and remedy; exit code 2; nothing started."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq.errors import PortBusyError

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial

WIDE = {**os.environ, "COLUMNS": "200"}
GOOD = """\
[ports.stage]
serial = { path = "/dev/duodaq-none", baud = 19200, rtscts = true }
codec = "esp300"

[instruments.stage]
runtime = "v4"
driver = "duodaq:Esp300"
port = "stage"
axes.x = { number = 1, unit = "mm", limits = [0, 25] }

[instruments.chopper]
runtime = "v2"
driver = "duodaq.cli.demo.shutter:Shutter"
port = "stage"
"""

MISTAKES = {
    "unknown key": ('codec = "esp300"', 'codek = "esp300"', 3, "ports.stage.codek", 'Did you mean "codec"?'),
    "duplicate id": ("[instruments.chopper]", "[instruments.stage]", 11, "instruments.stage", "Rename or remove one"),
    "missing port": ('port = "stage"\naxes', 'port = "stages"\naxes', 8, "instruments.stage.port", "stage"),
    "wrong type": ("baud = 19200", 'baud = "19200"', 2, "ports.stage.serial.baud", "19200"),
    "missing driver": ("demo.shutter:", "demo.shuter:", 13, "instruments.chopper.driver", "shutter"),
    "not TOML": ('runtime = "v2"', "runtime = v2", 12, "", "runtime = v2"),
}


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_file_is_named_by_line_and_key_with_what_would_be_right(
    mistake: str, command: str, tmp_path: Path, duodaq_command: Callable[..., Any]
) -> None:
    old, new, line, key, remedy = MISTAKES[mistake]
    file = tmp_path / "lab.toml"
    assert GOOD.count(old) == 1
    file.write_text(GOOD.replace(old, new))
    ended = duodaq_command(command, file)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"duodaq: {file}:{line}: {key}")
    assert remedy in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_cannot_be_read_is_named(command: str, tmp_path: Path, duodaq_command: Callable[..., Any]) -> None:
    missing = duodaq_command(command, tmp_path / "lab.toml")
    assert missing.returncode == 2
    assert f"duodaq: {tmp_path / 'lab.toml'}: there is no such file" in missing.stderr
    folder = duodaq_command(command, tmp_path)
    assert folder.returncode == 2
    assert "is a folder" in folder.stderr
    (tmp_path / "binary.toml").write_bytes(b"[lab]\n\xff\xfe\n")
    binary = duodaq_command(command, tmp_path / "binary.toml")
    assert binary.returncode == 2
    assert f"{tmp_path / 'binary.toml'}:2: is not UTF-8 text. Save it as UTF-8" in binary.stderr


def _like_anybody() -> None:
    """Root may read everything: give that up, so that what follows runs as it would for anybody else."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: counts from the exec that follows


def test_a_file_that_this_user_may_not_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(GOOD)
    file.chmod(0)
    command = [sys.executable, "-m", "duodaq.cli", "check", str(file)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=WIDE, preexec_fn=_like_anybody
    )
    assert ended.returncode == 2
    assert "permission denied. Check who may read it" in ended.stderr


def test_an_answer_that_cannot_be_written_is_said_in_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "duodaq.cli", "doctor", "--json"]
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=WIDE
        )
    assert ended.returncode == 1
    assert ended.stderr == "duodaq: what it says cannot be written: No space left on device\n"


def test_a_device_that_is_not_there_is_named_with_its_line(tmp_path: Path, duodaq_command: Callable[..., Any]) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(GOOD)
    assert duodaq_command("check", file).returncode == 0
    ended = duodaq_command("run", file)
    assert ended.returncode == 2
    assert f"duodaq: {file}:1: ports.stage: /dev/duodaq-none: there is no such device" in ended.stderr


def test_a_busy_device_is_named_with_its_line_and_who_has_it(
    simulated_lab: Any, tmp_path: Path, duodaq_program: Callable[..., Any]
) -> None:
    other = tmp_path / "other.toml"
    with duodaq.open(simulated_lab.file):
        other.write_text(simulated_lab.file.read_text().replace(simulated_lab.name, "other"))
        ended = duodaq_program("run", other)
        with pytest.raises(PortBusyError) as caught:
            duodaq.open(other)
    line, device = simulated_lab.line_of("[ports.stage]"), simulated_lab.addresses["stage"]
    assert ended.returncode == 2
    assert f"duodaq: {other}:{line}: ports.stage: {device}: another program has this port open" in ended.stderr
    assert f"process {os.getpid()} (" in ended.stderr
    assert "close it there, or share it" in ended.stderr
    assert ended.stdout == ""
    assert "state=ready" not in ended.stderr
    assert device in str(caught.value)


def test_a_socket_that_nobody_serves_is_named_with_its_line(
    simulated_lab: Any, duodaq_command: Callable[..., Any]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        simulated_lab.rewrite(simulated_lab.addresses["dmm"], address)
        ended = duodaq_command("run", simulated_lab.file)
    assert ended.returncode == 2
    line = simulated_lab.line_of("[ports.dmm]")
    assert f"{simulated_lab.file}:{line}: ports.dmm: {address}: no connection" in ended.stderr
    assert simulated_lab.is_safe()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status"], "no lab"),
        (["stop-all", "--lab", "nobody"], "no lab"),
        (
            ["sim", "nonsense"],
            "There are: ell14, esp300, maitai, newport1830c, scpi-dmm, scpi-psu, scpi-scope, shutter.",
        ),
        (["sim", "esp300", "--tcp", "0", "--pty"], "--tcp excludes --pty"),
        (["sim", "scpi-dmm", "--model", "3458A"], "34401A"),
        (["sim", "esp300", "--tcp", "99999"], "--tcp"),
        (["sim", "esp300", "--seed", "-1"], "--seed"),
        (["sim", "esp300", "--table", "/nowhere"], "duodaq: --table /nowhere: no optical table"),
        (["demo", "--points", "3"], "11"),
        (["demo", "--points", "11", "--unplug-at", "12"], "duodaq: --unplug-at 12: the scan has only 11 points"),
        (["demo", "--out", __file__], f"duodaq: --out {__file__}: cannot record there: Not a directory"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_words_on_the_command_line_end_with_2_and_a_sentence(
    arguments: list[str], said: str, duodaq_command: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    ended = duodaq_command(*arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
