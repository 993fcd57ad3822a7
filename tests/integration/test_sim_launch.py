"""Simulators as processes: one line when ready, an end on every way out, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duodaq.clock import block
from duodaq.errors import PortLostError
from duodaq.sim import NAMES, launch, launch_table

STARTED_S = 60.0
pytestmark = pytest.mark.usefixtures("simulators_from_the_start")


@contextmanager
def spawn(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A simulator as a program of its own; one that goes on against expectation ends with the test."""
    command = [sys.executable, "-m", "duodaq.sim", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def gone(pid: int) -> bool:
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        block(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_one_line_of_json_and_serves_until_a_signal(tmp_path: Path, number: signal.Signals):
    link = tmp_path / "stage"
    with spawn("esp300", "--pty", "--link", str(link)) as process:
        ready = json.loads(process.stdout.readline())
        assert ready == {"instrument": "esp300", "address": str(link)}
        assert link.resolve().is_char_device()
        process.send_signal(number)
        rest, complaints = process.communicate(timeout=STARTED_S)
    assert (process.returncode, rest, complaints) == (0, "", "")
    assert not link.is_symlink()


def test_a_file_in_the_place_of_the_link_is_left_alone(tmp_path: Path):
    (tmp_path / "notes").write_text("precious")
    with spawn("esp300", "--link", str(tmp_path / "notes")) as process:
        _, complaints = process.communicate(timeout=STARTED_S)
    assert process.returncode == 2
    assert "no symlink" in complaints
    assert (tmp_path / "notes").read_text() == "precious"


def test_without_a_link_the_address_is_the_device_itself():
    with spawn("newport1830c") as process:
        address = json.loads(process.stdout.readline())["address"]
        assert Path(address).is_char_device()
        assert not Path(address).is_symlink()
        process.terminate()
        process.communicate(timeout=STARTED_S)


def test_on_tcp_the_address_is_host_and_port():
    with spawn("esp300", "--tcp", "0") as process:
        host, port = json.loads(process.stdout.readline())["address"].split(":")
        assert host == "127.0.0.1"
        assert 0 < int(port) < 65536
        process.terminate()
        process.communicate(timeout=STARTED_S)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["laser-cannon"], "invalid choice"),
        (["esp300", "--model", "ESP9"], "ESP301"),
        (["esp300", "--fault", "explode"], "stall"),
        (["esp300", "--table", "/nowhere/table"], "/nowhere/table"),
        (["esp300", "--link", "/dev/null/link"], "/dev/null"),
        (["esp300", "--tcp", "1", "--pty"], "not allowed with"),
    ],
)
def test_a_wrong_option_ends_with_code_2_and_says_why(arguments: list[str], hint: str):
    with spawn(*arguments) as process:
        out, complaints = process.communicate(timeout=STARTED_S)
    assert process.returncode == 2
    assert out == ""
    assert hint in complaints
    assert "Traceback" not in complaints


def test_a_child_ends_with_its_parent_even_when_that_is_killed():
    script = (
        "import os, signal, threading\n"
        "from duodaq.sim import launch, launch_table\n"
        "children = []\n"
        "def start():\n"
        "    children.append(launch_table(1))\n"
        "    children.append(launch('esp300', table=children[0]))\n"
        "thread = threading.Thread(target=start)\n"  # the thread that launched them ends before the process does
        "thread.start()\n"
        "thread.join()\n"
        "assert children[1].report()['commands'] == 0\n"
        "print(*(f'{child.pid}:{child.address}' for child in children), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        out, _ = parent.communicate(timeout=STARTED_S)
    assert parent.returncode == -signal.SIGKILL
    pids, addresses = zip(*(child.split(":") for child in out.split()), strict=True)
    assert len(pids) == 2
    assert all(gone(int(pid)) for pid in pids)
    assert [folder for folder in (Path(address).parent for address in addresses) if folder.exists()] == []


def test_ctrl_c_at_the_terminal_does_not_reach_the_instruments():
    with launch("esp300") as process:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)


def test_a_simulator_ends_when_its_table_is_gone(capfd: pytest.CaptureFixture[str]):
    with launch_table(1) as table, launch("shutter", table=table) as process:
        table.kill()
        with pytest.raises((PortLostError, ValueError)):
            process.report()
        assert process.stop() in (0, 1)


def test_stop_may_be_called_twice_and_leaves_no_folder():
    process = launch("esp300")
    folder = Path(process.address).parent
    assert process.alive
    assert process.stop() == 0
    assert process.stop() == 0
    assert not process.alive
    assert not folder.exists()


def test_a_simulator_that_was_killed_leaves_no_folder():
    with launch_table(1) as table, launch("esp300", table=table) as process:
        folders = [Path(child.address).parent for child in (table, process)]
        assert all(folder.is_dir() for folder in folders)
        process.kill()
        table.kill()
        assert [folder for folder in folders if folder.exists()] == []


def test_a_launch_that_fails_says_so_and_leaves_nothing(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(PortLostError, match="exit code 2"):
        launch("esp300", model="ESP9")
    assert "ESP301" in capfd.readouterr().err


def test_counts_stand_under_the_label_that_was_given():
    with launch_table(1) as table, launch("esp300", table=table, label="left stage") as process:
        process.report()
        assert list(table.counts()) == ["left stage"]


def test_the_names_are_those_the_command_line_knows():
    known = "ell14 esp300 maitai newport1830c scpi-dmm scpi-psu scpi-scope shutter"
    assert sorted(NAMES) == known.split()
