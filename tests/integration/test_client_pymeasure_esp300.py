"""PyMeasure's own ESP300, unmodified, is an ordinary client of ``duodaq sim esp300 --pty``: every public member."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator

import pytest

from duodaq.sim import SimProcess, TableProcess, launch, launch_table

pytestmark = [pytest.mark.serial, pytest.mark.filterwarnings("ignore:It is not known whether:FutureWarning")]

pytest.importorskip("serial", reason="the serial extra is not installed")
pymeasure = pytest.importorskip("pymeasure", reason="the demo extra is not installed")

from pymeasure.adapters import SerialAdapter, VISAAdapter  # noqa: E402  after the skips above
from pymeasure.instruments.newport import ESP300  # noqa: E402  the same
from pymeasure.instruments.newport.esp300 import Axis, AxisError, GeneralError  # noqa: E402  the same

SHORT_S, LONG_S = 0.15, 10.0


@pytest.fixture(scope="module")
def table() -> Iterator[TableProcess]:
    with launch_table(3) as process:
        yield process


@pytest.fixture(scope="module")
def simulator(table: TableProcess) -> Iterator[SimProcess]:
    with launch("esp300", table=table) as process:
        yield process


@pytest.fixture
def stage(simulator: SimProcess) -> Iterator[ESP300]:
    adapter = SerialAdapter(
        simulator.address, baudrate=19200, timeout=LONG_S, write_termination="\r\n", read_termination="\r\n"
    )
    simulator.power_cycle()
    try:
        yield ESP300(adapter)
    finally:
        adapter.connection.close()


def patience(stage: ESP300, seconds: float) -> None:
    stage.adapter.connection.timeout = seconds


# What each public member does on the instrument. `axes` and what uses it reads every property of the class, SCPI ones
# that the controller does not know included: it is silent on those, which costs one time-out each and queues error 6.


def uses_identity(stage: ESP300) -> None:
    assert stage.id == "ESP300 Version 3.04 07/27/01"


def uses_error(stage: ESP300) -> None:
    assert stage.error == 0
    stage.write("1PA1")
    assert (stage.error, stage.error) == (113, 0)


def uses_errors(stage: ESP300) -> None:
    stage.write("1PA1")
    stage.write("XX")
    axis, general = stage.errors
    assert isinstance(axis, AxisError)
    assert str(axis).endswith("axis 1 reported the error: MOTOR NOT ENABLED")
    assert isinstance(general, GeneralError)
    assert general.message == "COMMAND DOES NOT EXIST"


def uses_clear_errors(stage: ESP300) -> None:
    stage.write("XX;XX;XX")
    stage.clear_errors()
    assert stage.errors == []


def uses_axes(stage: ESP300) -> None:
    patience(stage, SHORT_S)
    assert stage.axes == [stage.phi, stage.x, stage.y]


def uses_enable(stage: ESP300) -> None:
    patience(stage, SHORT_S)
    stage.enable()
    assert [axis.enabled for axis in (stage.x, stage.y, stage.phi)] == [True] * 3


def uses_disable(stage: ESP300) -> None:
    patience(stage, SHORT_S)
    stage.x.enable()
    stage.disable()
    assert [axis.enabled for axis in (stage.x, stage.y, stage.phi)] == [False] * 3


def uses_shutdown(stage: ESP300) -> None:
    patience(stage, SHORT_S)
    stage.x.enable()
    stage.shutdown()
    assert not stage.x.enabled


def uses_axis_attributes(stage: ESP300) -> None:
    assert [axis.axis for axis in (stage.x, stage.y, stage.phi)] == ["1", "2", "3"]
    assert all(isinstance(axis, Axis) for axis in (stage.x, stage.y, stage.phi))


def silent(member: str) -> Callable[[ESP300], None]:
    """A query that the controller does not know: no reply, error 6, and nothing left on the line."""

    def use(stage: ESP300) -> None:
        patience(stage, SHORT_S)
        assert getattr(stage, member) in ("", [""])
        assert (stage.error, stage.error) == (6, 0)

    return use


def ignored(member: str) -> Callable[[ESP300], None]:
    """A command that the controller does not know: error 6 and nothing else."""

    def use(stage: ESP300) -> None:
        getattr(stage, member)()
        assert (stage.error, stage.error) == (6, 0)

    return use


def uses_check_errors(stage: ESP300) -> None:
    patience(stage, SHORT_S)
    with pytest.raises((IndexError, ValueError)):
        stage.check_errors()  # PyMeasure takes the silence for a reply
    assert stage.error == 6


def uses_position(stage: ESP300) -> None:
    stage.x.enable()
    stage.x.position = 1.25
    stage.x.wait_for_stop()
    assert stage.x.position == 1.25


def uses_enabled(stage: ESP300) -> None:
    assert stage.y.enabled is False
    stage.y.enable()
    assert stage.y.enabled is True
    stage.y.disable()
    assert stage.y.enabled is False


def uses_limits(stage: ESP300) -> None:
    stage.x.left_limit, stage.x.right_limit = -0.5, 12.5
    assert (stage.x.left_limit, stage.x.right_limit) == (-0.5, 12.5)
    stage.x.enable()
    stage.x.position = 13
    assert [str(error).split(": ")[1] for error in stage.errors] == ["POSITIVE SOFTWARE LIMIT DETECTED"]


LINEAR = ("encoder count", "motor step", "millimeter", "micrometer", "inches", "milli-inches", "micro-inches")
ROTARY = ("degree", "gradient", "radian", "milliradian", "microradian")


def uses_units(stage: ESP300) -> None:
    for axis, units in ((stage.x, LINEAR), (stage.phi, ROTARY)):
        for unit in units:
            axis.units = unit
            assert axis.units == unit
    assert stage.errors == []


def uses_motion_done(stage: ESP300) -> None:
    stage.x.enable()
    stage.x.position = stage.x.position + 2
    assert stage.x.motion_done is False
    stage.x.wait_for_stop()
    assert stage.x.motion_done is True


def uses_home(stage: ESP300) -> None:
    stage.phi.enable()
    for mode in (1, 2):
        stage.phi.home(mode)
        assert stage.phi.motion_done is False
        stage.phi.wait_for_stop()
        assert stage.phi.position == 0
    assert stage.errors == []


def uses_define_position(stage: ESP300) -> None:
    stage.y.define_position(3.5)
    assert stage.y.position == 3.5


def uses_zero(stage: ESP300) -> None:
    stage.y.define_position(3.5)
    stage.y.zero()
    assert stage.y.position == 0


def uses_wait_for_stop(stage: ESP300) -> None:
    stage.x.enable()
    stage.x.position = stage.x.position + 3
    began_s = time.monotonic()
    stage.x.wait_for_stop(delay=0.2)
    assert time.monotonic() - began_s > 0.55 + 0.2 - 0.05  # the trapezoid and the delay
    assert stage.x.motion_done


def uses_words(stage: ESP300) -> None:
    stage.x.write("VA12")
    assert stage.x.ask("VA?").strip() == "12"
    assert stage.x.values("VA?") == [12.0]


INSTRUMENT: dict[str, Callable[[ESP300], None]] = {
    "id": uses_identity,
    "error": uses_error,
    "errors": uses_errors,
    "clear_errors": uses_clear_errors,
    "axes": uses_axes,
    "enable": uses_enable,
    "disable": uses_disable,
    "shutdown": uses_shutdown,
    "x": uses_axis_attributes,
    "y": uses_axis_attributes,
    "phi": uses_axis_attributes,
    "complete": silent("complete"),
    "status": silent("status"),
    "options": silent("options"),
    "next_error": silent("next_error"),
    "check_errors": uses_check_errors,
    "clear": ignored("clear"),
    "reset": ignored("reset"),
}
AXIS: dict[str, Callable[[ESP300], None]] = {
    "position": uses_position,
    "enabled": uses_enabled,
    "left_limit": uses_limits,
    "right_limit": uses_limits,
    "units": uses_units,
    "motion_done": uses_motion_done,
    "enable": uses_enabled,
    "disable": uses_enabled,
    "home": uses_home,
    "define_position": uses_define_position,
    "zero": uses_zero,
    "wait_for_stop": uses_wait_for_stop,
    "ask": uses_words,
    "write": uses_words,
    "values": uses_words,
    "axis": uses_axis_attributes,
    "controller": uses_axis_attributes,
}


def public_members(cls: type, *, below: type) -> set[str]:
    """What `cls` and its mix-ins add to PyMeasure's plain `Instrument`, from the class itself."""
    return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_") and name not in dir(below)}


def test_every_public_member_of_the_class_is_used_here():
    from pymeasure.instruments import Instrument

    overridden = {name for name in vars(ESP300) if not name.startswith("_")}
    assert public_members(ESP300, below=Instrument) | overridden <= set(INSTRUMENT)
    assert public_members(Axis, below=object) <= set(AXIS)


@pytest.mark.parametrize("member", INSTRUMENT)
def test_member_of_the_instrument(stage: ESP300, member: str):
    INSTRUMENT[member](stage)


@pytest.mark.parametrize("member", AXIS)
def test_member_of_an_axis(stage: ESP300, member: str):
    AXIS[member](stage)


def test_the_simulator_saw_a_patient_client_and_the_same_motion(
    stage: ESP300, simulator: SimProcess, table: TableProcess
):
    before = simulator.report()
    stage.x.enable()
    stage.x.position = 4
    stage.x.wait_for_stop()
    for _ in range(20):
        assert stage.x.position == 4
    after = simulator.report()
    assert after["produced"]["1TP"] - before["produced"].get("1TP", 0) == 20
    assert after["interleavings"] == before["interleavings"] == 0
    assert after["moves"][-1]["word"] == "PA"
    assert not table.state().moving[1]


def test_it_works_through_pyvisa_as_well(simulator: SimProcess):
    adapter = VISAAdapter(f"ASRL{simulator.address}::INSTR", visa_library="@py", baud_rate=19200, timeout=10000)
    try:
        stage = ESP300(adapter)
        assert stage.id.startswith("ESP300 Version")
        stage.x.enable()
        stage.x.position = 0.5
        stage.x.wait_for_stop()
        assert stage.x.motion_done
    finally:
        adapter.close()
        adapter.manager.close()
