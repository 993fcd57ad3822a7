"""PyMeasure, thorlabs-elliptec and a class that uses PyVISA, all unmodified, in worker processes: deaths and hangs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duodaq import sim
from duodaq.errors import DuodaqError, ReplyTimeoutError
from duodaq.testing._family_lab import FamilyLab, error_of

pytest.importorskip("pymeasure")
pytest.importorskip("pyvisa")
pytest.importorskip("thorlabs_elliptec")
pytestmark = pytest.mark.serial

LAB = """
[ports.dmm]
tcp = "DMM"
codec = "scpi"

[ports.stage]
serial = { path = "STAGE", baud = 19200, rtscts = true }
codec = "esp300"

[ports.line]
serial = { path = "LINE", baud = 9600 }
codec = "ell14"
timeout = "2 s"

[instruments.dmm]
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "dmm"
settings = { nplc = 1 }
passive = ["nplc"]
deadline = { wait_for = "200 ms", connect = "30 s" }
kill_after = "300 ms"
worker = "own"
poll.voltage = { read = "reading", unit = "V", every = "100 ms" }

[instruments.esp]
runtime = "v2"
driver = "pymeasure.instruments.newport:ESP300"
port = "stage"
settings = { "x.units" = "millimeter" }
passive = ["x.left_limit"]
deadline = { wait_for = "200 ms", connect = "30 s" }
kill_after = "300 ms"
worker = "own"
poll.position = { read = "x.position", unit = "mm", every = "100 ms" }

[instruments.plate0]
runtime = "v2"
driver = "thorlabs_elliptec:ELLx"
port = "line"
args = { device_id = 0 }
deadline = { move_absolute = "20 s", connect = "30 s" }
poll.angle = { call = "get_position", unit = "deg", every = "200 ms" }

[instruments.plate1]
runtime = "v2"
driver = "thorlabs_elliptec:ELLx"
port = "line"
args = { device_id = 1 }
deadline = { move_absolute = "20 s", connect = "30 s" }

[instruments.plate2]
runtime = "v2"
driver = "thorlabs_elliptec:ELLx"
port = "line"
args = { device_id = 2 }
deadline = { move_absolute = "20 s", connect = "30 s" }

[instruments.meter]
runtime = "v2"
driver = "./meter.py:Meter"
port = "dmm"
args = { address = "{visa}" }
settings = { text = "HELLO" }
deadline = { wait = "200 ms", connect = "30 s" }
kill_after = "300 ms"
worker = "own"
poll.voltage = { call = "voltage", unit = "V", every = "100 ms" }
"""

METER = '''
import threading

import pyvisa


class Meter:
    """A script of ten years ago, as a class."""

    def __init__(self, address):
        self.resource = pyvisa.ResourceManager("@duodaq").open_resource(
            address, read_termination="\\n", write_termination="\\n"
        )

    @property
    def text(self):
        return self.resource.query("DISP:TEXT?").strip('"')

    @text.setter
    def text(self, text):
        self.resource.write(f'DISP:TEXT "{text}"')

    def voltage(self):
        return float(self.resource.query("READ?"))

    def wait(self):
        threading.Event().wait(20)

    def fail(self):
        raise OSError("no such luck")

    def close(self):
        self.resource.close()
'''


@contextmanager
def opened(folder: Path) -> Iterator[FamilyLab]:
    with (
        sim.launch("scpi-dmm", tcp=True, model="34401A", seed=5) as dmm,
        sim.launch("esp300") as stage,
        sim.launch("ell14") as line,
    ):
        (folder / "meter.py").write_text(METER)
        places = {"DMM": dmm.address, "STAGE": stage.address, "LINE": line.address}
        with FamilyLab(folder, re.sub("DMM|STAGE|LINE", lambda found: places[found[0]], LAB)) as lab:
            yield lab


ERRORS = [
    ("dmm", ("set", "nplc", 3), "nplc", "3"),
    ("esp", ("set", "x.units", "furlongs"), "x.units", "furlongs"),
    ("meter", ("call", "fail"), "fail", "no such luck"),
    ("plate1", ("call", "get_positions"), "get_positions", "did you mean 'get_position'"),
]


def test_they_live_in_processes_and_a_death_or_a_hang_costs_one_of_these(tmp_path: Path) -> None:
    with opened(tmp_path) as lab:
        check_where_they_live(lab)
        check_errors(lab)
        check_deaths(lab)
        check_hang(lab, "meter", "wait")
        check_hang(lab, "dmm", "wait_for", 20)
        assert lab.dmm.get("nplc") == 0.2
        assert lab.meter.get("text") == "HELLO"


def check_where_they_live(lab: FamilyLab) -> None:
    assert {lab.status(name)["mode"] for name in ("dmm", "esp", "plate0", "plate1", "plate2", "meter")} == {"process"}
    assert len({lab.status(name)["pid"] for name in ("dmm", "esp", "plate0", "meter")}) == 4
    assert len({lab.status(f"plate{n}")["pid"] for n in range(3)}) == 1
    readings = [lab.dmm.read("voltage"), lab.esp.read("position"), lab.plate0.read("angle"), lab.meter.read("voltage")]
    assert [reading.unit for reading in readings] == ["V", "mm", "deg", "V"]
    for number in range(3):
        device = getattr(lab, f"plate{number}")
        device.call("move_absolute", 10.0 * (number + 1), blocking=True)
        assert device.call("get_position") == pytest.approx(10.0 * (number + 1), abs=0.05)


def check_errors(lab: FamilyLab) -> None:
    for instrument, work, command, words in ERRORS:
        error = error_of(lambda: getattr(getattr(lab, instrument), work[0])(*work[1:]))  # noqa: B023  called at once
        assert isinstance(error, DuodaqError)
        assert (error.instrument, error.command) == (instrument, command)
        assert words in str(error)


def check_deaths(lab: FamilyLab) -> None:
    lab.dmm.set("nplc", 0.2)
    lab.meter.call("resource.write", 'DISP:TEXT "GONE"')
    lab.esp.set("x.left_limit", -7.0)
    for name in ("dmm", "esp", "plate0", "meter"):
        lab.kill_worker(name)
    assert lab.dmm.get("nplc") == 0.2
    assert lab.meter.get("text") == "HELLO"
    assert lab.esp.get("x.left_limit") == -7.0
    for number in range(3):
        angle = getattr(lab, f"plate{number}").call("get_position")
        assert angle == pytest.approx(10.0 * (number + 1), abs=0.05)
    assert lab.plate0.read("angle").unit == "deg"


def check_hang(lab: FamilyLab, name: str, method: str, *args: float) -> None:
    pid = lab.status(name)["pid"]
    error = error_of(lambda: getattr(lab, name).call(method, *args))
    assert isinstance(error, ReplyTimeoutError)
    assert (error.instrument, error.command, error.fate) == (name, method, "unknown")
    lab.wait_for_another(name, pid)
    assert abs(getattr(lab, name).read("voltage").value) < 10
