"""An ophyd and an ophyd-async device, written as their users write them, hosted in V2 in a process on simulators."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duodaq import sim
from duodaq.errors import DuodaqError, RefusedError, ReplyTimeoutError
from duodaq.testing._family_lab import FamilyLab, error_of

pytest.importorskip("ophyd")
pytest.importorskip("ophyd_async")
pytest.importorskip("pyvisa")
pytestmark = pytest.mark.serial

Devices = tuple[sim.SimProcess, sim.SimProcess]
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "host-qcodes-and-ophyd.md").read_text(encoding="utf-8")

WATCHES = """

class Watched(Axis):
    \"\"\"With what goes wrong.\"\"\"

    def set_for_ever(self, position):
        return DeviceStatus(self)

    def set_in_vain(self, position):
        status = DeviceStatus(self)
        status.set_exception(RuntimeError("the stage is stuck"))
        return status

    def hang(self):
        threading.Event().wait(20)

    def pid(self):
        import os
        return os.getpid()
"""

TURNS = """

import threading


class Watched(Supply):
    \"\"\"With what goes wrong.\"\"\"

    @AsyncStatus.wrap
    async def ramp_for_ever(self, volts):
        await asyncio.Event().wait()

    @AsyncStatus.wrap
    async def ramp_in_vain(self, volts):
        raise RuntimeError("the supply is stuck")

    async def hang(self):
        threading.Event().wait(20)

    async def stick(self):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
"""

LAB = """
[ports.stage]
serial = { path = "STAGE", baud = 19200, rtscts = true }
codec = "esp300"

[ports.psu]
tcp = "PSU"
codec = "scpi"

[instruments.x]
runtime = "v2"
driver = "./axis.py:Watched"
port = "stage"
deadline = { x = "30 s", set_for_ever = "200 ms", hang = "200 ms", connect = "60 s" }
kill_after = "300 ms"
settings = { velocity = 5 }
passive = ["velocity"]
poll.position = { read = "x", every = "100 ms" }

[instruments.supply]
runtime = "v2"
driver = "./supply.py:Watched"
port = "psu"
args = { address = "{visa}" }
deadline = { supply = "30 s", ramp_for_ever = "200 ms", hang = "200 ms", stick = "200 ms", connect = "60 s" }
kill_after = "300 ms"
settings = { output = 1 }
passive = ["setpoint"]
worker = "own"
poll.voltage = { read = "supply", every = "100 ms" }
poll.current = { read = "current", unit = "amps", every = "100 ms" }
"""


def in_the_page(file: str) -> str:
    found = re.search(rf"^```\w+\n# {re.escape(file)}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@contextmanager
def simulated() -> Iterator[Devices]:
    with sim.launch("esp300") as stage, sim.launch("scpi-psu", tcp=True) as supply:
        yield stage, supply


@pytest.fixture
def devices() -> Iterator[Devices]:
    with simulated() as made:
        yield made


def opened(devices: Devices, folder: Path, worker: str = "process") -> FamilyLab:
    stage, supply = devices
    (folder / "axis.py").write_text(in_the_page("axis.py") + WATCHES)
    (folder / "supply.py").write_text(in_the_page("supply.py") + TURNS)
    stanzas = LAB.replace("STAGE", stage.address).replace("PSU", supply.address)
    return FamilyLab(folder, stanzas if worker == "process" else stanzas.replace('worker = "own"\n', ""), worker)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyLab]:
    """One lab for those tests that leave its workers alone."""
    with simulated() as devices, opened(devices, tmp_path_factory.mktemp("ophyd")) as made:
        yield made.settled()


def test_both_live_in_processes_and_their_channels_have_the_units_that_they_describe(lab: FamilyLab) -> None:
    assert {lab.status(name)["mode"] for name in ("x", "supply")} == {"process"}
    assert len({os.getpid(), lab.status("x")["pid"], lab.status("supply")["pid"]}) == 3
    units = {name: lab.channel(name)["unit"] for name in ("x.position", "supply.voltage", "supply.current")}
    assert units == {"x.position": "mm", "supply.voltage": "V", "supply.current": "amps"}
    assert lab.x.read("velocity").unit == "mm/s"
    assert lab.x.read("x_velocity").value == 5
    assert lab.supply.read("supply-current").unit == "A"


def test_an_ophyd_device_is_set_and_waited_for(lab: FamilyLab) -> None:
    assert lab.x.set("x", 1.5) == pytest.approx(1.5, abs=0.01)
    assert lab.x.read("position").value == pytest.approx(1.5, abs=0.01)
    lab.x.call("set", 2.5, deadline_s=30)
    assert lab.x.get("readback") == pytest.approx(2.5, abs=0.01)
    assert lab.x.driver.readback.get() == pytest.approx(2.5, abs=0.01)
    assert lab.x.set("velocity", 4) == 4
    lab.x.driver.velocity = 5
    assert lab.x.driver.velocity.get() == 5
    assert lab.x.driver.name == "x"


def test_an_ophyd_async_device_is_set_and_waited_for(lab: FamilyLab) -> None:
    lab.supply.set("supply", 2.5)
    assert lab.supply.read("voltage").value == pytest.approx(2.5, abs=0.05)
    assert lab.supply.set("setpoint", 1.0) == 1.0
    assert lab.supply.driver.setpoint.get_value() == 1.0
    lab.supply.driver.setpoint.set(2.0)
    assert lab.supply.get("setpoint") == 2.0
    assert set(lab.supply.get("supply")) == {"supply-voltage", "supply-current"}


@pytest.mark.parametrize(
    ("instrument", "what", "args", "words"),
    [
        ("x", "set", ("readback", 1.0), "x.readback: readback can be read, but not set"),
        ("supply", "set", ("voltage", 1.0), "supply.voltage: voltage can be read, but not set"),
        ("x", "get", ("readbak",), "x.readbak: Watched has no 'readbak'; did you mean 'readback'"),
        ("supply", "get", ("curent",), "supply.curent: Watched has no 'curent'; did you mean 'current'"),
        ("x", "read", ("nothing",), "has no channel 'nothing'; there are: position, readback, velocity"),
        ("supply", "read", ("nothing",), "no channel 'nothing'; there are: voltage, current, setpoint, output"),
        ("supply", "call", ("voltage",), "supply.voltage: voltage of Watched is a value, not a method"),
    ],
)
def test_what_they_do_not_have_is_refused_by_name(
    lab: FamilyLab, instrument: str, what: str, args: tuple[object, ...], words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        getattr(getattr(lab, instrument), what)(*args)


@pytest.mark.parametrize(("instrument", "method"), [("x", "set_in_vain"), ("supply", "ramp_in_vain")])
def test_a_status_that_fails_names_instrument_and_command(lab: FamilyLab, instrument: str, method: str) -> None:
    error = error_of(lambda: getattr(lab, instrument).call(method, 1.0))
    assert isinstance(error, DuodaqError)
    assert (error.instrument, error.command) == (instrument, method)
    assert "is stuck" in str(error)


@pytest.mark.parametrize(("instrument", "method"), [("x", "set_for_ever"), ("supply", "ramp_for_ever")])
def test_a_status_is_waited_for_until_the_deadline_and_its_worker_stays(
    lab: FamilyLab, instrument: str, method: str
) -> None:
    pid = lab.status(instrument)["pid"]
    error = error_of(lambda: getattr(lab, instrument).call(method, 1.0))
    assert isinstance(error, ReplyTimeoutError)
    assert (error.instrument, error.command, error.fate) == (instrument, method, "unknown")
    for _ in range(3):
        assert getattr(lab, instrument).read("position" if instrument == "x" else "voltage").unit in ("mm", "V")
    assert lab.status(instrument)["pid"] == pid


def test_a_call_that_does_not_return_or_a_death_costs_one_worker_and_settings_are_carried_over(
    devices: Devices, tmp_path: Path
) -> None:
    with opened(devices, tmp_path) as lab:
        for instrument, method, other in (("x", "hang", "supply"), ("supply", "hang", "x"), ("supply", "stick", "x")):
            pid, others = lab.status(instrument)["pid"], lab.status(other)["pid"]
            error = error_of(lambda: getattr(lab, instrument).call(method))  # noqa: B023  called at once
            assert isinstance(error, ReplyTimeoutError)
            assert (error.instrument, error.command, error.fate) == (instrument, method, "unknown")
            lab.wait_for_another(instrument, pid)
            assert lab.status(other)["pid"] == others

        lab.x.set("velocity", 4)
        lab.supply.set("setpoint", 1.5)
        lab.kill_worker("x")
        lab.kill_worker("supply")
        assert lab.x.get("velocity") == 4
        assert lab.supply.get("setpoint") == 1.5
        assert lab.supply.get("output") == 1
        assert lab.x.read("position").unit == "mm"
        assert lab.supply.read("voltage").value == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("worker", ["inline", "thread"])
def test_both_are_hosted_in_this_process_too_and_leave_nothing_behind(
    devices: Devices, tmp_path: Path, worker: str
) -> None:
    with opened(devices, tmp_path, worker) as lab:
        for name in ("x", "supply"):
            getattr(lab, name).restart()
        assert lab.x.read("position").unit == "mm"
        assert lab.supply.read("voltage").unit == "V"
        assert isinstance(error_of(lambda: lab.x.call("set_for_ever", 1)), ReplyTimeoutError)
        assert isinstance(error_of(lambda: lab.supply.call("ramp_for_ever", 1)), ReplyTimeoutError)
        assert lab.x.get("readback") == pytest.approx(lab.x.read("x").value)
