"""The commands that look at a running lab or serve a simulator, as separate programs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq.errors import DeliveryError, UnsafeStateError

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial


def test_a_running_lab_is_shown_stopped_and_reset(
    simulated_lab: Any, start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    name = simulated_lab.name
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    shown = duodaq_command("status", "--lab", name)
    assert shown.returncode == 0
    for part in (f"{name} is running since ", "dmm", "V2", "stage", "V4", "acquiring", "exchanges"):
        assert part in shown.stdout
    told = json.loads(duodaq_command("status", "--lab", name, "--json").stdout)
    assert told["state"] == "running"
    assert {i["id"]: i["runtime"] for i in told["instruments"]} == {"dmm": "v2", "shutter": "v2", "stage": "v4"}
    assert {p["name"] for p in told["ports"]} == {"stage", "dmm", "shutter"}
    with duodaq.connect(name) as lab:
        lab.shutter.call("open")
        stopped = duodaq_command("stop-all", "--lab", name)
        assert stopped.returncode == 0
        assert "stage: stop is on the wire" in stopped.stdout
        assert "dmm: nothing was sent: it " in stopped.stdout
        assert "Moves are refused until: duodaq stop-all --reset" in stopped.stdout
        simulated_lab.until(simulated_lab.is_safe)
        with pytest.raises(UnsafeStateError):
            lab.stage.x.move(1.0)
        assert "stop-all is latched" in duodaq_command("status", "--lab", name).stdout
        assert duodaq_command("stop-all", "--lab", name, "--reset").returncode == 0
        lab.stage.x.move(0.5)
    assert json.loads(duodaq_command("stop-all", "--lab", name, "--json").stdout)["failures"] == {}
    refused = duodaq_command("run", simulated_lab.file)
    assert refused.returncode == 2
    assert f"lab '{name}' is running already, as process {host.pid}" in refused.stderr
    host.interrupt()
    assert host.end() == 0


def test_a_bare_stop_all_stops_every_running_lab(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_program: Callable[..., Any],
    duodaq_command: Callable[..., Any],
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "dial.py").write_text("class Dial:\n    def turn(self):\n        return 1\n")
    hosts = []
    for name in ("one", "two"):
        file = tmp_path / f"{name}.toml"
        file.write_text(f'[lab]\nname = "{name}"\n[instruments.dial]\nruntime = "v2"\ndriver = "./dial.py:Dial"\n')
        hosts.append(start_program("-m", "duodaq.cli", "run", file))
        hosts[-1].wait_for("Attach with")
    stopped = duodaq_command("stop-all")
    assert stopped.returncode == 0, stopped.stderr
    assert "Stopped one." in stopped.stdout
    assert "Stopped two." in stopped.stdout
    for name in ("one", "two"):
        with duodaq.connect(name) as lab, pytest.raises(UnsafeStateError):
            lab.dial.call("turn")
    vague = duodaq_command("stop-all", "--reset")
    assert vague.returncode == 2
    assert "--lab NAME" in vague.stderr
    assert duodaq_command("stop-all", "--reset", "--lab", "two").returncode == 0
    assert duodaq_command("status").stdout.count("stop-all is latched") == 1
    for host in hosts:
        host.interrupt()
        assert host.end() == 0


def test_a_client_is_told_by_name_which_lab_is_gone(tmp_path: Path, start_program: Callable[..., Any]) -> None:
    (tmp_path / "dial.py").write_text(
        "import threading\nclass Dial:\n    def wait(self):\n        threading.Event().wait(60)\n"
    )
    file, name = tmp_path / "lab.toml", f"gone soon {os.getpid()}"
    file.write_text(f'[lab]\nname = "{name}"\n[instruments.dial]\nruntime = "v2"\ndriver = "./dial.py:Dial"\n')
    host = start_program("-m", "duodaq.cli", "run", file)
    host.wait_for("Attach with")
    with duodaq.connect(name) as lab:
        waits = lab.dial.call_soon("wait")
        host.interrupt(signal.SIGKILL)
        with pytest.raises(DeliveryError, match=f"lab {name} is gone") as caught:
            waits.result(10.0)
        assert (caught.value.fate, caught.value.instrument) == ("unknown", "dial")
        with pytest.raises(DeliveryError, match=f"lab {name} is gone") as caught:
            lab.status()
        assert caught.value.fate == "not done"


def test_two_labs_of_one_name_are_refused_and_a_killed_one_is_no_obstacle(
    simulated_lab: Any, start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    os.kill(host.pid, signal.SIGKILL)
    host.end()
    gone = duodaq_command("status", "--lab", simulated_lab.name)
    assert gone.returncode == 2
    assert "no lab" in gone.stderr
    second = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    second.wait_for("Attach with")
    assert duodaq_command("status", "--lab", simulated_lab.name).returncode == 0
    second.interrupt(signal.SIGTERM)
    assert second.end() == 0


def test_a_checked_file_says_what_it_describes(simulated_lab: Any, duodaq_command: Callable[..., Any]) -> None:
    ended = duodaq_command("check", simulated_lab.file)
    assert ended.returncode == 0
    assert f"{simulated_lab.name}: 3 ports, 2 instruments in V2, 1 in V4." in ended.stdout
    assert "a stop breaks in at once" in ended.stdout
    assert "a stop waits for the exchange in hand, at most" in ended.stdout
    assert "The file is right." in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_simulator_says_one_line_and_serves_until_a_signal(
    start_program: Callable[..., Any], tmp_path: Path, number: signal.Signals
) -> None:
    link = tmp_path / "stage"
    program = start_program("-m", "duodaq.cli", "sim", "esp300", "--pty", "--link", link)
    program.wait_for("{")
    assert json.loads(program.said) == {"instrument": "esp300", "address": str(link)}
    assert link.is_symlink()
    program.interrupt(number)
    assert program.end() == 0
    assert program.said.count("\n") == 1
    assert not link.is_symlink()


def test_a_simulator_serves_on_tcp_and_a_taken_port_is_named(
    start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    program = start_program("-m", "duodaq.cli", "sim", "scpi-dmm", "--tcp", "0", "--model", "34465A")
    program.wait_for("{")
    host, _, port = json.loads(program.said)["address"].rpartition(":")
    with socket.create_connection((host, int(port)), 5.0) as line:
        line.sendall(b"*IDN?\n")
        assert b"34465A" in line.recv(200)
    taken = duodaq_command("sim", "scpi-dmm", "--tcp", port)
    assert taken.returncode == 2
    assert f"--tcp {port}: cannot serve there: " in taken.stderr
    program.interrupt()
    assert program.end() == 0


def test_run_says_where_the_page_is_and_serves_it_until_the_end(
    simulated_lab: Any, start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    pytest.importorskip("fastapi")
    host = start_program("-m", "duodaq.cli", "run", "--web-port", "0", simulated_lab.file)
    host.wait_for("Attach with")
    address = re.search(r"Its page is at (http://127\.0\.0\.1:\d+/)", host.said)
    assert address is not None, host.said
    with urllib.request.urlopen(f"{address[1]}api/status", timeout=10) as answer:
        assert json.load(answer)["lab"] == simulated_lab.name
    assert f"its page is at {address[1]}\n" in duodaq_command("status", "--lab", simulated_lab.name).stdout
    host.interrupt()
    assert host.end() == 0, host.said
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address[1], timeout=10)


def test_run_without_the_parts_of_the_page_says_how_to_get_them_and_goes_on(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    bare = tmp_path / "bare.py"
    bare.write_text(
        "import sys; sys.modules['uvicorn'] = None\nfrom duodaq.cli import main\nsys.argv[0] = 'duodaq'\nmain()\n"
    )
    host = start_program(bare, "run", simulated_lab.file)
    host.wait_for("Attach with")
    assert "There is no page without uvicorn: pip install 'duodaq[web]'" in host.said
    host.interrupt()
    assert host.end() == 0, host.said


def test_lab_that_would_let_strangers_in_is_not_started(simulated_lab: Any, duodaq_command: Callable[..., Any]) -> None:
    simulated_lab.rewrite("[ports.stage]", '[web]\nhost = "0.0.0.0"\n\n[ports.stage]')
    ended = duodaq_command("run", simulated_lab.file)
    assert ended.returncode == 2
    assert "lets other machines in, and needs a token" in ended.stderr
    assert f":{simulated_lab.line_of('[web]')}: web:" in ended.stderr
