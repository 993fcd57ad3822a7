"""What happens when the manager is not there any more, or sleeps: no orphan, no open shutter, no moving axis."""

from __future__ import annotations

import json
import os
import random
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import duodaq
from duodaq import clock
from duodaq.sim.table import TableClient

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial

GONE_S = 1.0
SAFE_S = 0.5
LOADED_S = 0.5
"""What a machine that does other things as well may add to either."""
SIMULATORS = ("duodaq.sim", "duodaq.sim.table")


def is_simulator(process: psutil.Process) -> bool:
    return any(part in SIMULATORS for part in process.cmdline())


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@contextmanager
def kept_alive(simulators: list[psutil.Process]) -> Iterator[None]:
    """Simulators end when the last writing end of their stdin is closed: hold one more than their program does."""
    with ExitStack() as stack:
        for process in simulators:
            stack.callback(os.close, os.open(f"/proc/{process.pid}/fd/0", os.O_WRONLY))
        yield


def seconds_until(condition: Callable[[], bool], limit_s: float) -> float:
    begun_s, limit = clock.monotonic_s(), clock.Deadline(limit_s)
    while not condition():
        if limit.passed:
            return float("inf")
        clock.block(0.005)
    return clock.monotonic_s() - begun_s


def kill_the_demo(start_program: Callable[..., Any], folder: Path, after_s: float) -> None:
    demo = start_program("-m", "duodaq.cli", "demo", "--headless", "--points", "41", "--out", folder)
    demo.wait_for("Both runtimes are running")
    (lab_file,) = folder.glob("demo-*/lab.toml")
    lab = tomllib.loads(lab_file.read_text())
    clock.block(after_s)
    family = descendants(demo.pid)
    simulators = [process for process in family if is_simulator(process)]
    others = [process for process in family if process not in simulators]
    assert len(others) >= 4, "a fork server, two workers and a watchdog at least"
    with kept_alive(simulators), TableClient(lab["instruments"]["camera"]["args"]["table"]) as table:
        os.kill(demo.pid, signal.SIGKILL)
        safe_s = seconds_until(lambda: is_safe(table), 5.0)
        gone_s = seconds_until(lambda: not any(map(is_running, others)), 5.0)
        assert safe_s < SAFE_S + LOADED_S, f"killed {after_s:.3f} s after the start: safe after {safe_s:.3f} s"
        assert gone_s < GONE_S + LOADED_S, [process.cmdline() for process in others if is_running(process)]
        for port in ("stage", "meter", "shutter"):
            os.close(os.open(lab["ports"][port]["serial"]["path"], os.O_RDWR | os.O_NOCTTY))
        for _ in range(10):
            clock.block(0.01)
            assert is_safe(table), "it moved once more"


def is_safe(table: TableClient) -> bool:
    state = table.state()
    return not state.shutter_open and not any(state.moving.values())


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.alone("everything must be safe 0.5 s after the death, and gone after 1 s")
def test_killing_the_demo_leaves_nothing_open_and_nobody_behind(
    start_program: Callable[..., Any], tmp_path: Path
) -> None:
    kill_the_demo(start_program, tmp_path, random.Random(1).uniform(0.2, 6.0))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100))
def test_killing_the_demo_at_a_hundred_moments(start_program: Callable[..., Any], tmp_path: Path, seed: int) -> None:
    kill_the_demo(start_program, tmp_path, random.Random(seed).uniform(0.0, 12.0))


def test_a_stop_all_goes_past_a_manager_that_sleeps(
    simulated_lab: Any, start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    with duodaq.connect(simulated_lab.name) as client:
        client.shutter.call("open")
        client.stage.x.home()
        client.stage.set("x.velocity", 0.5)
    mover = start_program("-c", f"import duodaq; duodaq.connect({simulated_lab.name!r}).stage.x.move(20.0)")
    simulated_lab.until(simulated_lab.is_moving)
    os.kill(host.pid, signal.SIGSTOP)
    stopper = start_program("-m", "duodaq.cli", "stop-all", "--lab", simulated_lab.name, "--json")
    try:
        simulated_lab.until(simulated_lab.is_safe, 10.0)
    finally:
        os.kill(host.pid, signal.SIGCONT)
    stopper.end()
    said = json.loads(stopper.said[stopper.said.index("{") :])
    assert set(said["watchdog"]) == {"stage", "shutter"}
    assert all("written_ns" in told for told in said["watchdog"].values())
    assert mover.end() != 0
    with duodaq.connect(simulated_lab.name) as client:
        assert client.status()["latched"]
    host.interrupt()
    assert host.end() == 0


def test_a_manager_that_sleeps_is_named_at_once_and_keeps_no_other_lab_waiting(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "dial.py").write_text("class Dial:\n    def turn(self):\n        return 1\n")
    (tmp_path / "z.toml").write_text(
        '[lab]\nname = "z"\n[instruments.dial]\nruntime = "v2"\ndriver = "./dial.py:Dial"\n'
    )
    sleeper = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    awake = start_program("-m", "duodaq.cli", "run", tmp_path / "z.toml")
    for host in (sleeper, awake):
        host.wait_for("Attach with")
    os.kill(sleeper.pid, signal.SIGSTOP)
    begun_ns, stopper = clock.utc_ns(), start_program("-m", "duodaq.cli", "stop-all", "--json")
    try:
        stopper.wait_for(f"{simulated_lab.name} does not answer; its watchdog has put the stop on the wire of ")
        with duodaq.connect("z") as client:
            simulated_lab.until(lambda: client.status()["latched"], 2.0)
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    assert stopper.end() == 0
    said = json.loads(stopper.said[stopper.said.index("{") :])
    assert set(said) == {simulated_lab.name, "z"}
    for told in said[simulated_lab.name]["watchdog"].values():
        assert told["written_ns"] > begun_ns
    for host in (sleeper, awake):
        host.interrupt()
        assert host.end() == 0
