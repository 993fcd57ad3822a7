"""Ctrl-C and SIGTERM, sent to real process groups: whatever was going on, the table is safe afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq import clock
from duodaq.errors import DuodaqError

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial

SLOW_MM_S = 0.5

MOVE = """
import sys, duodaq
lab = duodaq.connect(sys.argv[1])
print("moving", flush=True)
lab.stage.x.move(20.0)
"""

PRIVATE_SCAN = """
import sys, duodaq
from duodaq.bluesky import ScanInterruptedError
lab = duodaq.open(sys.argv[1])
lab.shutter.call("open")
lab.stage.x.home()
lab.stage.set("x.velocity", 1.0)
def tell(name, document):
    if name == "event":
        print("point", document["seq_num"], flush=True)
try:
    lab.scan(lab.stage.x, [0.1 * n for n in range(200)], read=[lab.dmm], progress=False, on_document=tell)
except ScanInterruptedError as error:
    print("kept", len(error.run), len(error.run["voltage"]), error.run.complete, flush=True)
    lab.stage.x.read_position()
"""

PRIVATE_MOVE = """
import sys, duodaq
lab = duodaq.open(sys.argv[1])
lab.shutter.call("open")
lab.stage.x.home()
lab.stage.set("x.velocity", 0.5)
print("moving", flush=True)
lab.stage.x.move(20.0)
"""


def begin_long_move(lab: Any, host: Any, start_program: Callable[..., Any], folder: Path) -> Any:
    """The shutter opened, and a slow move begun by a program that is attached."""
    host.wait_for("Attach with")
    with duodaq.connect(lab.name) as client:
        client.shutter.call("open")
        client.stage.set("x.velocity", 20.0)
        client.stage.x.move(0.0)
        client.stage.set("x.velocity", SLOW_MM_S)
    script = folder / "mover.py"
    script.write_text(MOVE)
    mover = start_program(script, lab.name)
    mover.wait_for("moving")
    lab.until(lab.is_moving)
    assert lab.table.state().shutter_open
    return mover


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_a_lab_in_order_in_the_middle_of_a_move(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path, number: signal.Signals
) -> None:
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    mover = begin_long_move(simulated_lab, host, start_program, tmp_path)
    host.interrupt(number)
    assert host.end() in (0, 1)
    assert simulated_lab.is_safe()
    assert "Stopping in order" in host.said
    order = [host.said.index(part) for part in ("v4.stage", "v2.dmm", "bridge", "port.stage")]
    assert order == sorted(order)
    assert mover.end() != 0
    assert "stage.move" in mover.said


def test_a_second_signal_makes_it_faster_and_as_safe(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    simulated_lab.rewrite('shutdown = "8 s"', 'shutdown = "16 s"')  # the longer one waits for the move, the other not
    took_s: list[float] = []
    for signals in (1, 2):
        host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
        begin_long_move(simulated_lab, host, start_program, tmp_path)
        begun_s = clock.monotonic_s()
        for answer in ("Stopping in order", "Faster")[:signals]:
            host.interrupt()
            host.wait_for(answer)
        host.end()
        took_s.append(clock.monotonic_s() - begun_s)
        assert simulated_lab.is_safe()
    assert took_s[1] < took_s[0] - 1.0


def test_ctrl_c_during_a_scan_in_a_script_keeps_the_points_and_stops_the_axis(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "scan.py"
    script.write_text(PRIVATE_SCAN)
    program = start_program(script, simulated_lab.file)
    program.wait_for("point 3")
    program.interrupt()
    assert program.end() == 0
    kept, read, complete = program.said.split("kept ")[1].split()[:3]
    assert int(kept) == int(read) >= 3
    assert complete == "False"
    assert simulated_lab.is_safe()


def test_ctrl_c_during_a_move_in_a_script_stops_the_axis_and_closes_the_lab(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "move.py"
    script.write_text(PRIVATE_MOVE)
    program = start_program(script, simulated_lab.file)
    program.wait_for("moving")
    simulated_lab.until(simulated_lab.is_moving)
    program.interrupt()
    assert program.end() != 0
    assert "KeyboardInterrupt" in program.said
    assert simulated_lab.is_safe()


def test_ctrl_c_while_a_client_scans_stops_the_scan_and_tells_the_client(
    simulated_lab: Any, start_program: Callable[..., Any], tmp_path: Path
) -> None:
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    points: list[int] = []

    def stop_at_three(name: str, document: dict[str, Any]) -> None:
        if name == "event":
            points.append(document["seq_num"])
            if len(points) == 3:
                host.interrupt()

    with duodaq.connect(simulated_lab.name) as lab:
        lab.shutter.call("open")
        lab.stage.x.home()
        with pytest.raises(
            DuodaqError, match=r"(aborted by the end of the lab|failed) after \d+ of 200 points"
        ) as caught:
            lab.scan(lab.stage.x, [0.1 * n for n in range(200)], [lab.dmm], progress=False, on_document=stop_at_three)
    assert len(caught.value.run) >= 3
    host.end()
    assert simulated_lab.is_safe()


def has_open_a_line(pid: int) -> bool:
    """Whether a program, whose own streams are pipes, has a pty open."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{number}").startswith("/dev/pts/"):
                return True
    return False


def test_ctrl_c_during_the_start_leaves_nothing_open(simulated_lab: Any, start_program: Callable[..., Any]) -> None:
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Starting")
    limit = clock.Deadline(60.0)
    while not has_open_a_line(host.pid):
        assert not limit.passed
        clock.block(0.002)
    host.interrupt()
    host.end()
    with duodaq.open(simulated_lab.file) as lab:
        assert lab.dmm.read("voltage").unit == "V"
    assert simulated_lab.is_safe()
