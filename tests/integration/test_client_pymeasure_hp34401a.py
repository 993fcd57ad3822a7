"""PyMeasure's own, unmodified HP34401A against the simulated 34401A, on a pty and on TCP, through PyVISA.

Every public member of the class is in one of the tables below; one that a new PyMeasure brings fails the last test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from duodaq import sim

pytest.importorskip("pyvisa_py")
pymeasure_hp = pytest.importorskip("pymeasure.instruments.hp")
HP34401A = pymeasure_hp.HP34401A

pytestmark = [
    pytest.mark.serial,
    pytest.mark.filterwarnings("ignore:It is not known whether this device support SCPI:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Deprecated property name:FutureWarning"),
]

OVERLOAD = 9.9e37

SETTINGS: dict[str, tuple[Any, ...]] = {
    "function_": ("ACV", "FREQ", "PERIOD", "CONTINUITY", "DIODE", "R2W", "R4W", "DCI", "ACI", "DCV_RATIO", "DCV"),
    "range_": (0.1, 1, 1000, 10),
    "autorange": (True, False),
    "nplc": (0.02, 0.2, 1, 100, 10),
    "detector_bandwidth": (3, 200, 20),
    "autozero_enabled": (False, True),
    "auto_input_impedance_enabled": (True, False),
    "trigger_source": ("BUS", "EXT", "IMM"),
    "trigger_delay": (0, 0.5, 3600),
    "trigger_auto_delay_enabled": (True, False),
    "sample_count": (1, 100, 50000),
    "trigger_count": (1, 7, 50000),
    "display_enabled": (False, True),
    "displayed_text": ("HELLO", ""),
    "beeper_enabled": (False, True),
}
WORDS = {"nplc": (("MIN", 0.02), ("MAX", 100)), "range_": (("MIN", 0.1), ("MAX", 1000)), "trigger_delay": (("MIN", 0),)}

READINGS: dict[str, Callable[[Any], bool]] = {
    "reading": lambda value: 0.5 < value < 4.0,
    "voltage_ac": lambda value: abs(value) < 1e-2,
    "current_dc": lambda value: abs(value) < 1e-2,
    "current_ac": lambda value: abs(value) < 1e-2,
    "resistance": lambda value: value == OVERLOAD,
    "resistance_4w": lambda value: value == OVERLOAD,
    "terminals_used": lambda value: value == "FRONT",
    "scpi_version": lambda value: value == 1991.0,
    "stored_readings_count": lambda value: value == 0,
    "self_test_result": lambda value: value == 0,
    "id": lambda value: value.startswith("HEWLETT-PACKARD,34401A,0,"),
    "complete": lambda value: value == "1",
    "status": lambda value: int(value) == 0,
    "options": lambda value: value == "0",
    "next_error": lambda value: value == [0, '"No error"'],
}

TESTED_BELOW = {
    "resolution",
    "init_trigger",
    "stored_reading",
    "trigger_single_autozero",
    "beep",
    "gate_time",
    "remote_control_enabled",
    "remote_lock_enabled",
    "check_errors",
    "check_get_errors",
    "check_set_errors",
    "clear",
    "reset",
    "shutdown",
    "ask",
    "read",
    "write",
    "values",
    "write_bytes",
    "read_bytes",
    "wait_for",
}
NOT_OF_THIS_INSTRUMENT = {
    "binary_values": "the 34401A has no binary replies",
    "read_binary_values": "the 34401A has no binary replies",
    "write_binary_values": "the 34401A takes no blocks",
    "control": "makes properties, talks to nobody",
    "measurement": "makes properties, talks to nobody",
    "setting": "makes properties, talks to nobody",
    "add_child": "has no channels",
    "remove_child": "has no channels",
    "get_channels": "has no channels",
    "get_channel_pairs": "has no channels",
    "BaseChannelCreator": "has no channels",
    "ChannelCreator": "has no channels",
    "MultiChannelCreator": "has no channels",
    "BOOL_MAPPINGS": "a table",
    "FUNCTIONS": "a table",
    "FUNCTIONS_WITH_RANGE": "a table",
}


@pytest.fixture(scope="module", params=["pty", "tcp"])
def served(request: pytest.FixtureRequest) -> Iterator[sim.SimProcess]:
    with sim.launch("scpi-dmm", model="34401A", tcp=request.param == "tcp", seed=5) as process:
        yield process


@pytest.fixture
def meter(served: sim.SimProcess) -> Iterator[Any]:
    host, _, port = served.address.rpartition(":")
    resource = f"TCPIP0::{host}::{port}::SOCKET" if host else f"ASRL{served.address}::INSTR"
    instrument = HP34401A(resource, visa_library="@py", read_termination="\n", write_termination="\n", timeout=3000)
    instrument.reset()
    instrument.clear()
    yield instrument
    instrument.adapter.connection.close()
    instrument.adapter.manager.close()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_set_is_read_back(meter: Any, name: str) -> None:
    for value in SETTINGS[name]:
        setattr(meter, name, value)
        assert getattr(meter, name) == (pytest.approx(value) if isinstance(value, float) else value)
    for word, value in WORDS.get(name, ()):
        setattr(meter, name, word)
        assert getattr(meter, name) == pytest.approx(value)
    assert meter.check_errors() == []


@pytest.mark.parametrize("name", READINGS)
def test_each_measurement_answers_in_its_kind(meter: Any, name: str) -> None:
    assert READINGS[name](getattr(meter, name))
    assert meter.check_errors() == []


def test_every_function_that_has_a_range_sets_it(meter: Any) -> None:
    for function in HP34401A.FUNCTIONS_WITH_RANGE:
        meter.function_ = function
        meter.range_ = "MIN"
        meter.autorange = True
        assert meter.autorange is True
    assert meter.check_errors() == []


def test_resolution_follows_integration_time_and_conflicts_with_autorange(meter: Any) -> None:
    meter.resolution = 1e-3
    assert [int(error[0]) for error in meter.check_errors()] == [-221]
    meter.range_ = 10
    for volts, cycles in ((1e-3, 0.02), (3e-5, 1), (3e-6, 100)):
        meter.resolution = volts
        assert meter.resolution == pytest.approx(volts)
        assert meter.nplc == cycles
    assert meter.check_errors() == []


def test_gate_time_of_frequency_and_period(meter: Any) -> None:
    for function in ("FREQ", "PERIOD"):
        meter.function_ = function
        for seconds in (0.01, 1, 0.1):
            meter.gate_time = seconds
            assert meter.gate_time == pytest.approx(seconds)
    assert meter.check_errors() == []


def test_a_burst_is_triggered_stored_counted_and_fetched(meter: Any) -> None:
    meter.nplc = 0.02
    meter.sample_count = 20
    meter.init_trigger()
    assert len(meter.stored_reading) == 20
    assert meter.stored_readings_count == 20
    assert len(meter.reading) == 20


def test_a_bus_trigger_starts_the_measurement(meter: Any) -> None:
    meter.trigger_source = "BUS"
    meter.init_trigger()
    meter.write("*TRG")
    assert 0.5 < meter.stored_reading < 4.0


def test_single_autozero_leaves_autozero_off(meter: Any) -> None:
    meter.trigger_single_autozero()
    assert meter.autozero_enabled is False


def test_remote_lock_and_beep_are_taken_without_a_word(meter: Any) -> None:
    for remote in (True, False):
        meter.remote_control_enabled = remote
        meter.remote_lock_enabled = remote
    meter.beep()
    assert meter.check_errors() == []


def test_errors_are_reported_once_in_order(meter: Any) -> None:
    meter.write("VOLT:RANG 5000")
    meter.write("NO:SUCH:HEADER 1")
    assert [int(error[0]) for error in meter.check_errors()] == [-222, -113]
    assert meter.check_get_errors() == []
    assert meter.check_set_errors() == []


def test_plain_words_go_through(meter: Any) -> None:
    meter.write("FUNC?")
    meter.wait_for()
    assert meter.read() == '"VOLT"'
    assert meter.ask("VOLT:NPLC?;RANG?") == "+1.00000000E+01;+1.00000000E+01"
    assert meter.values("TRIG:SOUR?") == ["IMM"]
    meter.write_bytes(b"*OPC?\n")
    assert meter.read_bytes(2) == b"1\n"
    meter.shutdown()


def test_the_simulator_saw_no_interleaving_and_counted_the_readings(meter: Any, served: sim.SimProcess) -> None:
    before = served.report()
    for _ in range(5):
        assert isinstance(meter.reading, float)
    after = served.report()
    assert after["interleavings"] == after["misframed"] == 0
    assert after["produced"]["reading"] - before["produced"].get("reading", 0) == 5


def test_every_public_member_is_accounted_for() -> None:
    members = {name for name in dir(HP34401A) if not name.startswith("_")}
    assert members == {*SETTINGS, *READINGS, *TESTED_BELOW, *NOT_OF_THIS_INSTRUMENT}
