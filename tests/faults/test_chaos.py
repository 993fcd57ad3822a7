"""Processes of a lab are killed at random while it scans: the scan completes, the books balance, nothing is left."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.faults.fault_table import CHANCE

import duodaq
from duodaq import clock, sim

pytest.importorskip("pymeasure")
pytest.importorskip("bluesky")
pytestmark = pytest.mark.serial

LAB = """
[lab]
name = "chaos-{pid}"
shutdown = "10 s"

[ports.stage]
serial = {{ path = "{stage}", baud = 19200 }}
codec = "esp300"

[ports.meter]
serial = {{ path = "{meter}", baud = 9600 }}
codec = "newport1830c"

[ports.dmm]
tcp = "{dmm}"
codec = "scpi"

[instruments.dmm]
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "dmm"
passive = true
settings = {{ nplc = 0.2 }}
poll.reference = {{ read = "reading", unit = "V", every = "200 ms" }}

[instruments.meter]
runtime = "v2"
worker = "own"
driver = "duodaq.cli.demo.power_meter:PowerMeter"
port = "meter"
passive = true
poll.power = {{ call = "read_power", unit = "W", every = "50 ms" }}

[instruments.stage]
runtime = "v4"
driver = "duodaq:Esp300"
port = "stage"
axes.x = {{ number = 1, unit = "mm", limits = [0, 25] }}
safe = {{ shutdown = "stop", crash = "hold", stop_all = "stop" }}

[instruments.camera]
runtime = "v4"
driver = "duodaq:PvcamActor"
args = {{ simulated = true, table = "{table}", roi = [0, 0, 256, 256], exposure_s = 0.02 }}
options = {{ acquire = true }}
"""


@pytest.fixture
def lab_file(tmp_path: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        table = stack.enter_context(sim.launch_table(1))
        table.set_shutter(True)
        address = {
            "stage": stack.enter_context(sim.launch("esp300", table=table)).address,
            "meter": stack.enter_context(sim.launch("newport1830c", table=table)).address,
            "dmm": stack.enter_context(sim.launch("scpi-dmm", tcp=True, model="34401A", table=table)).address,
        }
        file = tmp_path / "lab.toml"
        file.write_text(LAB.format(**address, table=table.address, pid=os.getpid()))
        yield file


MOST_WATCHDOGS = 3
"""In a minute: beyond five it is not started again at once, and a lab without one does not end clean."""
MOST_OF_ONE_WORKER = 4
"""In a minute: beyond five it is given up, as it should be, until a person recovers it, and the scan with it. A spare
may become that worker in the moment in which it is killed.
"""
SPARE = "duodaq:spare"


class Killer:
    """Kills a process of the lab, chosen at random, every now and then; simulators are spared."""

    def __init__(self, seed: int, times: int, every_s: float) -> None:
        self.killed: list[str] = []
        self._killed_s: list[float] = []
        self._family: set[psutil.Process] = set()
        self._random = random.Random(seed)
        self._times = times
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer")

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        return len(self.killed) >= self._times

    def _run(self) -> None:
        while not self.done and not clock.block(self._every_s * self._random.uniform(0.5, 1.5), self._over):
            self._family.update(psutil.Process().children(recursive=True))  # they stay family when theirs dies first
            victims = [p for p in self._family if self._fair(p)]
            if victims:
                victim = self._random.choice(sorted(victims, key=lambda p: p.pid))
                self.killed.append(self._kind(victim))
                self._killed_s.append(clock.monotonic_s())
                os.kill(victim.pid, signal.SIGKILL)

    def _fair(self, process: psutil.Process) -> bool:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            kind = self._kind(process)
            if "duodaq.sim" in kind:
                return False
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return False
        recent = [k for k, s in zip(self.killed, self._killed_s, strict=True) if s > clock.monotonic_s() - 60.0]
        if "watchdog" in kind:
            return recent.count(kind) < MOST_WATCHDOGS
        return kind == SPARE or not kind.startswith("duodaq:") or recent.count(kind) < MOST_OF_ONE_WORKER

    @staticmethod
    def _kind(process: psutil.Process) -> str:
        words = process.cmdline()
        return words[words.index("-m") + 1] if "-m" in words else " ".join(words[:2]).strip()


def scan_under_fire(lab_file: Path, *, seed: int, kills: int, every_s: float) -> None:
    lab = duodaq.open(lab_file)
    try:
        lab.stage.x.home()
        with Killer(seed, kills, every_s) as killer:
            while not killer.done:
                run = lab.scan(
                    lab.stage.x, np.linspace(1.0, 3.0, 15), read=[lab.dmm, lab.meter], settle_s=0.05, progress=False
                )
                assert run.complete, killer.killed
                assert np.isfinite(run["power"]).all()
        deadline = clock.Deadline(30.0)
        while not all(i["state"] in ("ready", "acquiring") for i in lab.status()["instruments"]):
            assert not deadline.passed, lab.status()["instruments"]
            clock.block(0.05)
        status: dict[str, Any] = lab.status()
    finally:
        report = lab.close()
    assert [name for name, books in status["ledgers"].items() if not books["balanced"]] == []
    for stream in ("dmm.reference", "meter.power"):
        numbers = [books["produced"] for name, books in status["ledgers"].items() if name.startswith("worker")]
        assert sum(streams.get(stream, 0) for books in numbers for streams in books.values()) > 0
    assert report.clean, report
    assert not any(p.name.endswith((".sock", ".watchdog")) for p in _run_directory())


def _run_directory() -> list[Path]:
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "duodaq"
    return list(folder.iterdir()) if folder.is_dir() else []


@pytest.mark.timeout(110)
@pytest.mark.fault("SIGKILL", "watchdog", by=CHANCE)
def test_a_scan_completes_while_ten_processes_are_killed(lab_file: Path) -> None:
    scan_under_fire(lab_file, seed=1, kills=10, every_s=1.2)


@pytest.mark.soak
@pytest.mark.fault("SIGKILL", "watchdog", by=CHANCE)
def test_scans_complete_while_two_hundred_processes_are_killed(lab_file: Path) -> None:
    scan_under_fire(lab_file, seed=2, kills=200, every_s=5.0)
