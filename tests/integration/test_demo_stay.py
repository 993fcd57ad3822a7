"""The demonstration that goes on behind its scan: what its page knows, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import termios
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq.cli.demo._demo import _ended_as_by_ctrl_c
from duodaq.errors import UnsafeStateError

pytest.importorskip("pymeasure")
pytest.importorskip("pyvcam")
pytest.importorskip("fastapi")
pytestmark = pytest.mark.serial


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_each_signal_ends_in_order_what_ctrl_c_does_and_once(number: signal.Signals) -> None:
    def work_until_ended_twice() -> None:
        with _ended_as_by_ctrl_c():
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        work_until_ended_twice()
    assert signal.getsignal(number) is before


def test_a_demo_that_stays_has_its_run_on_its_page_and_ends_in_order_by_a_signal(
    start_program: Any, tmp_path: Path
) -> None:
    words = ("demo", "--headless", "--stay", "--points", "11", "--out", tmp_path / "runs", "--web-port", "0")
    demo = start_program("-m", "duodaq.cli", *words)
    demo.wait_for("The lab goes on")
    (run,) = duodaq.runs(tmp_path / "runs")
    assert (run.labels.sample, run.labels.tags) == ("knife edge", ("demo",))
    assert (run.path / "run.png").exists()
    assert run.plot().axes[0].get_ylabel() == "power (W)"
    (scan,) = run.scans
    assert len(scan) == 11
    found = re.search(r"page is at (\S+)", demo.said)
    assert found is not None, demo.said
    with urllib.request.urlopen(f"{found[1].rstrip('/')}/api/runs", timeout=30) as answer:
        assert run.path.name in json.dumps(json.load(answer))
    demo.interrupt(signal.SIGTERM)
    assert demo.end() == 0, demo.said
    assert "the shutter is closed, nothing moves" in demo.said
    assert "crash action" not in demo.said
    assert "Closing the shutter" in demo.said


def test_a_demo_is_found_stopped_and_ended_by_other_programs(
    start_program: Any, duodaq_command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    words = ("demo", "--headless", "--stay", "--points", "11", "--out", tmp_path / "runs", "--no-web")
    demo = start_program("-m", "duodaq.cli", *words)
    demo.wait_for("The lab goes on")
    status = json.loads(duodaq_command("status", "--json").stdout)
    assert status["lab"] == f"demo-{demo.pid}"
    stopped = duodaq_command("stop-all", "--json")
    assert stopped.returncode == 0, stopped.stderr
    assert "shutter" in json.loads(stopped.stdout)["on_wire_ns"]
    with duodaq.connect() as lab:
        with pytest.raises(UnsafeStateError):
            lab.stage.x.move(5.0)
        lab._channel.request("shutdown", {})
    assert demo.end() == 0, demo.said
    assert "the shutter is closed, nothing moves" in demo.said
    assert "no lab is running" in duodaq_command("status").stderr


def test_a_demo_at_a_terminal_that_takes_nothing_more_goes_on_and_ends(tmp_path: Path) -> None:
    """Ctrl-S: what it says waits, and neither the scan nor the shutter does."""
    ours, theirs = os.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    words = ("demo", "--no-web", "--points", "11", "--out", str(tmp_path / "runs"))
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "duodaq.cli", *words], stdin=theirs, stdout=theirs, stderr=theirs, process_group=0
        ) as demo:
            os.close(theirs)
            try:
                assert demo.wait(60.0) == 0
            finally:
                demo.kill()
    finally:
        os.close(ours)
    (run,) = duodaq.runs(tmp_path / "runs")
    assert run.state == "finished"
    assert len(run.scans[0]) == 11
