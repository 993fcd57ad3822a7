"""Alarms of a lab that runs as a program: a scan waits for one, people see and acknowledge it from outside."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

import duodaq
from duodaq.cli._alarms import show_alarms
from duodaq.errors import LifecycleError
from duodaq.telemetry import listen_to_log

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


def look(lab: str, acknowledge: list[str], *, as_json: bool) -> tuple[int, str]:
    """What `duodaq alarms` ends with and prints, in this process."""
    out = io.StringIO()
    code = show_alarms(lab, acknowledge, Console(file=out, width=200), as_json=as_json)
    return code, out.getvalue()


def test_a_scan_waits_until_its_alarm_is_acknowledged_from_the_command_line(
    simulated_lab: Any, start_program: Callable[..., Any]
) -> None:
    simulated_lab.file.write_text(simulated_lab.file.read_text().replace('every = "1 s"', 'every = "50 ms"') + ALARM)
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")
    with duodaq.connect(simulated_lab.name) as lab:
        simulated_lab.until(lambda: lab.alarms["high"].state == "raised")
        done: list[Any] = []

        def scan() -> None:
            with duodaq.connect(simulated_lab.name) as mine:
                done.append(mine.scan(mine.stage.x, [0.1, 0.2], read=mine.dmm, progress=False, record=False))

        said: list[str] = []
        deaf = listen_to_log(lambda level, event: said.append(str(event.get("event"))))
        scanning = threading.Thread(target=scan)
        scanning.start()
        simulated_lab.until(lambda: any(one.startswith("the scan waits") for one in said))
        assert not done
        assert not simulated_lab.is_moving()
        code, shown = look(simulated_lab.name, [], as_json=False)
        assert code == 1
        for part in ("high", "dmm.voltage", "raised", "mV is below 1e+09 mV", "look at the supply"):
            assert part in shown
        assert [one["name"] for one in lab.status()["alarms"]] == ["high"]
        code, told = look(simulated_lab.name, ["high"], as_json=True)
        assert code == 0
        assert json.loads(told)[0]["state"] == "acknowledged"
        assert json.loads(told)[0]["by"]
        scanning.join(20.0)
        assert done
        assert done[0].complete
        assert said[-1] == "the scan goes on"
        deaf()
        with pytest.raises(LifecycleError, match="no alarm 'hihg'; there are: high"):
            lab.alarms.acknowledge("hihg")
        assert repr(lab.alarms) == "<alarms: high acknowledged>"
    host.interrupt()
    assert host.end() == 0
