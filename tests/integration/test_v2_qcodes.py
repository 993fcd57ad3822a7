"""QCoDeS's own, unmodified Keysight 34465A hosted in V2, in a process, against the simulated instrument."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duodaq import sim
from duodaq.errors import DuodaqError, InstrumentError, RefusedError
from duodaq.testing._family_lab import FamilyLab, error_of

pytest.importorskip("qcodes")
pytest.importorskip("pyvisa")
pytestmark = pytest.mark.serial

LAB = """
[ports.dmm]
tcp = "DMM"
codec = "scpi"

[instruments.dmm]
runtime = "v2"
driver = "qcodes.instrument_drivers.Keysight:Keysight34465A"
port = "dmm"
settings = { NPLC = 0.2 }
passive = ["trigger.slope"]
deadline = { default = "5 s", connect = "60 s", "visa_handle.read" = "200 ms" }
kill_after = "300 ms"
poll.voltage = { read = "volt", every = "100 ms" }

[instruments.raw]
runtime = "v4"
driver = "duodaq:ScpiActor"
port = "dmm"
"""


@pytest.fixture(scope="module")
def meter() -> Iterator[sim.SimProcess]:
    with sim.launch("scpi-dmm", tcp=True, model="34465A", seed=5) as process:
        yield process


@pytest.fixture(scope="module")
def shared(meter: sim.SimProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyLab]:
    """One lab for those tests that leave it as it was; its home is a folder of its own."""
    folder, home = tmp_path_factory.mktemp("qcodes"), tmp_path_factory.mktemp("home")
    before, os.environ["HOME"] = os.environ["HOME"], str(home)
    try:
        with FamilyLab(folder, LAB.replace("DMM", meter.address)) as lab:
            yield lab.settled()
        assert list(home.iterdir()) == [], "QCoDeS wrote into the home of its user"
    finally:
        os.environ["HOME"] = before


@pytest.fixture(autouse=True)
def reset(meter: sim.SimProcess) -> None:
    """The instrument as it is when switched on."""
    host, port = meter.address.split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(b"*RST;*CLS;*OPC?\n")
        assert line.recv(8) == b"1\n"


def errors_in(lab: FamilyLab) -> str:
    return lab.raw.call("query", "SYST:ERR?")


def test_it_lives_in_a_process_and_its_channels_have_the_units_that_its_parameters_have(shared: FamilyLab) -> None:
    assert shared.status("dmm")["mode"] == "process"
    assert shared.status("dmm")["pid"] != os.getpid()
    assert shared.channel("dmm.voltage")["unit"] == "V"
    reading = shared.dmm.read("voltage")
    assert (reading.unit, abs(reading.value) < 10) == ("V", True)
    assert shared.dmm.read("sample.timer").unit == "s"
    assert shared.dmm.read("res").unit == "Ohms"


def test_its_parameters_are_called_as_in_qcodes_and_are_values_by_name(shared: FamilyLab) -> None:
    count = shared.dmm.driver.trigger.count
    assert count() == 1
    count(3)
    assert count() == count.get() == shared.dmm.get("trigger.count") == 3
    shared.dmm.driver.trigger.count = 1
    assert shared.dmm.get("trigger.count") == 1
    assert shared.dmm.set("trigger.count", 1) == 1
    assert (count.label, shared.dmm.driver.sample.timer.unit) == ("Trigger Count", "s")
    assert shared.dmm.driver.IDN()["model"] == "34465A"
    assert shared.dmm.driver.get_idn()["vendor"] == "Keysight Technologies"
    assert errors_in(shared).startswith("+0")


def test_what_its_validators_refuse_and_what_it_does_not_have_is_refused_by_name(shared: FamilyLab) -> None:
    for work, words in {
        lambda: shared.dmm.set("NPLC", 3): "dmm.NPLC: the driver said no: ValueError: .*3 is not in",
        lambda: shared.dmm.set("line_frequency", 60): "dmm.line_frequency: line_frequency can be read, but not set",
        lambda: shared.dmm.get(
            "trigger.cont"
        ): "dmm.trigger.cont: .* has no 'trigger.cont'; did you mean 'trigger.count'",
        lambda: shared.dmm.read("vlt"): "dmm.* has no channel 'vlt'; there are: voltage, .*NPLC",
        lambda: shared.dmm.get("_visa_handle"): "is not the name of a public attribute",
    }.items():
        with pytest.raises(RefusedError, match=words):
            work()
    assert errors_in(shared).startswith("+0")


def test_every_parameter_of_it_is_answered_by_the_instrument(shared: FamilyLab) -> None:
    unanswered: dict[str, Exception] = {}
    for name in EVERY:
        try:
            shared.dmm.get(name)
        except DuodaqError as error:
            unanswered[name] = error
        if not errors_in(shared).startswith("+0"):
            unanswered[name] = RuntimeError("an error in its queue")
    assert unanswered == {}


EVERY = [
    *("trigger.count", "trigger.delay", "trigger.auto_delay_enabled", "trigger.slope", "trigger.level"),
    *("trigger.source", "sample.count", "sample.pretrigger_count", "sample.source", "sample.timer"),
    *("sample.timer_minimum", "display.enabled", "display.text", "sense_function", "line_frequency", "NPLC", "range"),
    *("resolution", "autorange", "autozero", "aperture_mode", "aperture_time", "volt", "curr", "ac_volt", "ac_curr"),
    *("res", "four_wire_res", "timetrace_npts", "timetrace_dt", "time_axis", "timeout", "IDN"),
]


def test_a_time_trace_is_a_spectrum_over_its_own_axis(shared: FamilyLab) -> None:
    shared.dmm.set("sense_function", "DC Voltage")
    shared.dmm.set("NPLC", 0.02)
    shared.dmm.set("timetrace_npts", 20)
    shared.dmm.set("timetrace_dt", 0.01)
    reading = shared.dmm.read("timetrace")
    assert reading.unit == "V"
    assert np.shape(reading.value) == (20,)
    assert shared.dmm.get("trigger.source") == "IMM"
    assert errors_in(shared).startswith("+0")


def test_a_killed_worker_is_replaced_with_its_settings_and_qcodes_knows_no_name_of_it(
    meter: sim.SimProcess, tmp_path: Path
) -> None:
    with FamilyLab(tmp_path, LAB.replace("DMM", meter.address)) as lab:
        lab.dmm.set("trigger.slope", "POS")
        for text in ("VOLT:NPLC 100", "TRIG:SLOP NEG"):
            lab.raw.call("write", text)
        lab.kill_worker("dmm")
        assert lab.dmm.get("trigger.slope") == "POS"
        assert lab.dmm.get("NPLC") == 0.2
        assert abs(lab.dmm.read("voltage").value) < 10
        pid = lab.status("dmm")["pid"]
        for _ in range(2):
            lab.dmm.restart()
            assert lab.dmm.driver.name == "dmm"
        assert lab.status("dmm")["pid"] == pid

        restarts = lab.status("dmm")["restarts"]
        lab.dmm.set("timetrace_dt", 1e-6)
        error = error_of(lambda: lab.dmm.get("timetrace"))
        assert isinstance(error, InstrumentError)
        assert (error.instrument, error.command) == ("dmm", "timetrace")
        assert "Can not realize a time trace" in str(error)

        error = error_of(lambda: lab.dmm.call("visa_handle.read"))  # nothing was asked: the driver waits for 5 s
        assert isinstance(error, DuodaqError)
        assert (error.instrument, error.command, error.fate) == ("dmm", "visa_handle.read", "unknown")
        lab.wait(lambda: lab.status("dmm")["restarts"] == restarts + 1)
        lab.wait(lambda: lab.status("dmm")["state"] == "acquiring")
        assert (
            lab.dmm.get("NPLC") == 0.2
        )  # it came back by its revoked handle, or in another process: who sees it first
        assert abs(lab.dmm.read("voltage").value) < 10


@pytest.mark.parametrize("worker", ["inline", "thread"])
def test_it_is_connected_anew_in_one_process_and_its_name_is_free(
    meter: sim.SimProcess, tmp_path: Path, worker: str
) -> None:
    with FamilyLab(tmp_path, LAB.replace("DMM", meter.address), worker) as lab:
        for _ in range(2):
            lab.dmm.restart()
            assert lab.dmm.read("voltage").unit == "V"


def state_of(tmp_path: Path, stanzas: str, worker: str = "process") -> dict[str, Any]:
    with FamilyLab(tmp_path, stanzas, worker) as lab:
        return lab.status("dmm")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'read = "volt",',
            'read = "volt", unit = "mV",',
            'poll.voltage.unit.*reads in "mV".* says "V".*leave the unit',
        ),
        ('read = "volt",', 'read = "vlt",', "poll.voltage.read.*has no 'vlt'; did you mean 'volt'"),
        ("settings =", "args = { colour = 1 }\nsettings =", "args.colour.*takes no 'colour'"),
    ],
)
def test_a_stanza_that_says_another_thing_than_its_driver_is_refused(
    meter: sim.SimProcess, tmp_path: Path, old: str, new: str, words: str
) -> None:
    stanzas = LAB.replace("DMM", meter.address).replace(old, new)
    status = state_of(tmp_path, stanzas, "inline")
    assert status["state"] == "error"
    assert not status["recoverable"]
    assert re.search(words, status["message"], re.IGNORECASE), status["message"]
