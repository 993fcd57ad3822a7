"""Alarms of a lab that runs as a program: a scan waits for one, people see and acknowledge it from outside."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

import duodaq
from duodaq.clock import Deadline, block
from duodaq.errors import LifecycleError

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial

ALARM = """
[alarms.high]
channel = "dmm.voltage"
unit = "mV"
low = 1e9
latch = true
pause_scan = true
note = "look at the supply"
"""


def test_a_scan_waits_until_its_alarm_is_acknowledged_from_the_command_line(
    simulated_lab: Any, start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    simulated_lab.file.write_text(simulated_lab.file.read_text().replace('every = "1 s"', 'every = "50 ms"') + ALARM)
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    with duodaq.connect(simulated_lab.name) as lab:
        lab.stage.x.home()
        simulated_lab.until(lambda: lab.alarms["high"].state == "raised")
        done: list[Any] = []

        def scan() -> None:
            with duodaq.connect(simulated_lab.name) as mine:
                done.append(mine.scan(mine.stage.x, [0.1, 0.2], read=mine.dmm, progress=False, record=False))

        scanning = threading.Thread(target=scan)
        scanning.start()
        begun = Deadline(0.5)
        while not begun.passed:
            assert not done
            block(0.02)
        assert lab.stage.x.read_position().value == pytest.approx(0.0, abs=1e-3)
        shown = duodaq_command("alarms", "--lab", simulated_lab.name)
        assert shown.returncode == 1
        for part in ("high", "dmm.voltage", "raised", "mV is below 1e+09 mV", "look at the supply"):
            assert part in shown.stdout
        assert "mV is below 1e+09 mV" in duodaq_command("status", "--lab", simulated_lab.name).stdout
        told = duodaq_command("alarms", "--lab", simulated_lab.name, "--acknowledge", "high", "--json")
        assert told.returncode == 0
        assert json.loads(told.stdout)[0]["state"] == "acknowledged"
        assert json.loads(told.stdout)[0]["by"]
        scanning.join(20.0)
        assert done
        assert done[0].complete
        with pytest.raises(LifecycleError, match="no alarm 'hihg'; there are: high"):
            lab.alarms.acknowledge("hihg")
        assert repr(lab.alarms) == "<alarms: high acknowledged>"
    host.interrupt()
    assert host.end() == 0
