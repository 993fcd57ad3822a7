"""V2's decisions that need no loop: readings, schedules, stanzas, foreign exceptions, members."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodaq.bridge import ParameterTable
from duodaq.errors import (
    ConfigError,
    InstrumentError,
    LifecycleError,
    PortLostError,
    PortTimeoutError,
    RefusedError,
    ReplyFormatError,
)
from duodaq.model import (
    Execute,
    GetParameter,
    Image,
    InstrumentDefinition,
    InstrumentState,
    InstrumentStatus,
    PollDefinition,
    Scalar,
    SetParameter,
    SnapFrame,
    Spectrum,
    Stop,
    Vector,
)
from duodaq.testing import logged
from duodaq.v2._fault import is_lost, is_recoverable, typed_error
from duodaq.v2._member import find_method, has_member, members_of, read_member, set_member, unit_of_doc
from duodaq.v2._polling import Polling
from duodaq.v2._reading import Reading
from duodaq.v2._rules import deadline_s, may_move, settings_for_reconnect
from duodaq.v2._schedule import BackoffPolicy, PollSchedule
from duodaq.v2._settings import WatchedSettings
from duodaq.v2._state import StateKeeper


class FakeQuantity:
    """What pint's Quantity looks like from outside."""

    def __init__(self, magnitude: Any, units: str) -> None:
        self.magnitude = magnitude
        self.units = units


def measured(value: Any, unit: str = "V") -> Any:
    return Reading(value, unit, 5).measurement("dmm", "voltage", 3)


@pytest.mark.parametrize("value", [1, 1.0, True, "1.0", b"+1.00E+00\r\n", np.float32(1), np.array(1.0), np.bool_(True)])
def test_whatever_is_one_number_is_a_scalar(value: Any) -> None:
    scalar = measured(value)
    assert isinstance(scalar, Scalar)
    assert (scalar.value, scalar.unit, scalar.t_ns, scalar.sequence, scalar.origin) == (1.0, "V", 5, 3, "v2")
    assert type(scalar.value) is float


@pytest.mark.parametrize("value", [[1, 2, 3], (1.0, 2.0, 3.0), np.arange(1, 4, dtype=np.int16)])
def test_numbers_in_a_row_are_a_vector(value: Any) -> None:
    vector = measured(value)
    assert isinstance(vector, Vector)
    assert vector.values.dtype == np.float64
    assert vector.values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("given_type", "kept"),
    [(np.uint8, np.uint8), (np.uint16, np.uint16), (np.float64, np.float64), (np.int32, np.float64), (bool, np.uint8)],
)
def test_a_plane_of_numbers_is_an_image_in_the_nearest_pixel_type(given_type: Any, kept: Any) -> None:
    image = measured(np.ones((2, 3), dtype=given_type))
    assert isinstance(image, Image)
    assert image.pixels.dtype == kept
    assert image.pixels.shape == (2, 3)


def test_two_arrays_of_one_length_are_a_spectrum() -> None:
    spectrum = measured((FakeQuantity(np.arange(4.0), "nm"), np.ones(4)), "W")
    assert isinstance(spectrum, Spectrum)
    assert (spectrum.axis_unit, spectrum.unit) == ("nm", "W")
    assert spectrum.axis.tolist() == [0, 1, 2, 3]


def test_a_quantity_brings_its_own_unit() -> None:
    pint = pytest.importorskip("pint")
    scalar = measured(pint.UnitRegistry().Quantity(2.5, "millivolt"))
    assert (scalar.value, scalar.unit) == (2.5, "mV")


def test_an_array_that_the_driver_uses_again_does_not_change_what_was_measured() -> None:
    buffer = np.zeros((2, 2), dtype=np.uint16)
    image = measured(buffer)
    buffer[:] = 7
    assert image.pixels.sum() == 0
    assert not image.pixels.flags.writeable


@pytest.mark.parametrize(
    "value", [None, "warm", b"", object(), {"a": 1}, np.zeros((2, 2, 2)), ["a"], 1j, [[1], [2, 3]]]
)
def test_what_is_no_measurement_is_refused(value: Any) -> None:
    with pytest.raises(ReplyFormatError):
        Reading(value, "V", 0)


def test_readings_keep_to_the_grid_and_count_what_they_skip() -> None:
    schedule = PollSchedule(1.0, 10.0)
    assert schedule.due_s == 10.0
    schedule.done(10.2)
    assert schedule.due_s == 11.0
    schedule.done(13.5)
    assert (schedule.due_s, schedule.skipped) == (14.0, 2)
    schedule.done(14.1)
    assert (schedule.due_s, schedule.skipped) == (15.0, 2)


@given(st.floats(0.001, 100), st.lists(st.floats(0.0, 500), max_size=60))
def test_a_schedule_never_drifts_and_loses_no_grid_point_uncounted(every_s: float, delays: list[float]) -> None:
    schedule = PollSchedule(every_s, 0.0)
    now_s = 0.0
    for done, delay_s in enumerate(delays, start=1):
        now_s = max(now_s, schedule.due_s) + delay_s
        schedule.done(now_s)
        assert schedule.due_s >= now_s - 1e-6 * (1 + now_s)
        assert schedule.due_s == pytest.approx((done + schedule.skipped) * every_s)


def test_back_off_grows_up_to_its_limit() -> None:
    policy = BackoffPolicy(first_s=0.5, longest_s=4.0)
    assert [policy.delay_s(n) for n in (1, 2, 3, 4, 5, 1000)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_failing_channel_is_read_later_and_later_and_forgiven_with_its_first_reading() -> None:
    polling = Polling((PollDefinition("a", 0.1, read="a"), PollDefinition("b", 0.1, read="b")))
    assert polling.next_due_s is None
    polling.begin(0.0)
    failing = polling.channels["a"]
    polling.failed(failing, 0.01, "no")
    assert failing.due_s == pytest.approx(0.1)
    polling.failed(failing, 0.11, "no")
    assert failing.due_s == pytest.approx(0.61)
    assert polling.due(0.2) is polling.channels["b"]
    assert polling.failing == (failing,)
    polling.succeeded(failing, 0.7)
    assert polling.failing == ()
    assert (failing.done, failing.failed, failing.schedule.skipped) == (1, 2, 4)


def test_a_new_connection_begins_with_a_clean_slate() -> None:
    polling = Polling((PollDefinition("a", 0.1, read="a"),))
    polling.begin(0.0)
    for now_s in (0.0, 1.0, 2.0):
        polling.failed(polling.channels["a"], now_s, "no")
    polling.forgive()
    assert polling.failing == ()
    assert polling.due(2.1) is polling.channels["a"]


def stanza(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("x", "v2", "m:C", polls=(PollDefinition("power", 1.0, call="get_power"),), **facts)


def test_a_method_has_its_own_deadline_else_the_instruments() -> None:
    definition = stanza(method_deadline_s={"home": None, "reading": 30.0})
    assert [deadline_s(definition, n) for n in ("home", "reading", "other")] == [None, 30.0, 5.0]
    assert deadline_s(definition, "other", "reading") == 30.0


@pytest.mark.parametrize(
    ("command", "passive", "moves"),
    [
        (Execute("go"), frozenset(), True),
        (Execute("go"), frozenset({"go"}), False),
        (Execute("go"), True, False),
        (Execute("get_power"), frozenset(), False),
        (SetParameter("level", 1), frozenset(), True),
        (SetParameter("level", 1), frozenset({"level"}), False),
        (GetParameter("level"), frozenset(), False),
        (SnapFrame(), frozenset(), False),
        (Stop(), frozenset(), False),
    ],
)
def test_setting_and_calling_may_move_unless_passive(command: Any, passive: Any, moves: bool) -> None:
    assert may_move(stanza(passive=passive), command) is moves


@pytest.mark.parametrize(
    ("policy", "latched", "again", "withheld"),
    [
        ("passive", False, {"nplc": 10, "level": 2}, ["power"]),
        ("passive", True, {"nplc": 10}, ["level", "power"]),
        ("reapply", False, {"nplc": 10, "level": 2, "power": 5}, []),
        ("withhold", False, {}, ["level", "nplc", "power"]),
    ],
)
def test_after_a_reconnect_nothing_is_set_that_might_emit_unless_the_stanza_says_it(
    policy: str, latched: bool, again: dict[str, Any], withheld: list[str]
) -> None:
    definition = stanza(settings={"level": 2, "nplc": 1}, passive=frozenset({"nplc"}), options={"on_reconnect": policy})
    found = settings_for_reconnect(definition, {"nplc": 10, "power": 5}, latched=latched)
    assert (found[0], sorted(found[1])) == (again, withheld)


def test_what_a_reconnection_withholds_is_logged_once_it_is_there_and_not_at_each_attempt() -> None:
    known = WatchedSettings(stanza(), ParameterTable())
    known.note(SetParameter("tau", 0.1), 0.1)
    with logged() as lines:
        for _ in range(3):
            known.again(latched=False)
        assert lines == []
        known.connected({})
    assert [(one["event"], one["withheld"]) for one in lines] == [("settings after reconnect", ["tau"])]
    known.at_first(latched=False)
    assert known.outstanding == ""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("x"), RefusedError),
        (AttributeError("x"), RefusedError),
        (TimeoutError("x"), PortTimeoutError),
        (RuntimeError("x"), InstrumentError),
        (KeyboardInterrupt(), InstrumentError),
    ],
)
def test_a_foreign_exception_becomes_a_typed_one_that_keeps_it(raised: BaseException, expected: type) -> None:
    typed = typed_error(raised, "dmm", "read")
    assert type(typed) is expected
    assert (typed.instrument, typed.command, typed.__cause__) == ("dmm", "read", raised)


def test_our_own_errors_are_passed_on_as_they_are() -> None:
    error = PortLostError("gone")
    assert typed_error(error, "dmm", "read") is error
    assert error.instrument == "dmm"


class SerialException(OSError):  # noqa: N818  # the name is the point
    """As pyserial's, told by its name."""


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (PortLostError("x"), True),
        (ConnectionResetError(), True),
        (OSError(errno.EIO, "x"), True),
        (SerialException("device disconnected"), True),
        (FileNotFoundError(errno.ENOENT, "calibration.txt"), False),
        (TimeoutError(), False),
        (PortTimeoutError("x"), False),
        (ValueError(), False),
    ],
)
def test_only_what_a_new_connection_can_mend_counts_as_lost(error: BaseException, lost: bool) -> None:
    assert is_lost(error) is lost


def test_a_wrong_stanza_is_not_recoverable() -> None:
    assert not is_recoverable(ConfigError("x"))
    assert is_recoverable(PortLostError("x"))


class Axis:
    def __init__(self) -> None:
        self._at = 0.0

    @property
    def position(self) -> float:
        """The position in millimeters."""
        return self._at

    @position.setter
    def position(self, value: float) -> None:
        self._at = value

    def home(self) -> str:
        return "homed"


class Stage:
    def __init__(self) -> None:
        self.x = Axis()
        self.speed = 1.0
        self._secret = 1


def test_dotted_names_reach_into_axes_and_channels() -> None:
    stage = Stage()
    set_member(stage, "x.position", 4.0)
    assert read_member(stage, "x.position") == 4.0
    assert find_method(stage, "x.home")() == "homed"
    assert has_member(stage, "x.home")
    assert not has_member(stage, "y.home")


@pytest.mark.parametrize("name", ["_secret", "__class__", "x._at", "", "x.", "a b"])
def test_private_and_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(RefusedError):
        read_member(Stage(), name)


def test_a_value_is_not_called_as_a_method() -> None:
    with pytest.raises(RefusedError, match="not a method"):
        find_method(Stage(), "speed")


def test_members_are_enumerated_with_units_and_without_reading_any() -> None:
    members = {member.name: member for member in members_of(Stage())}
    assert members["x.position"].unit == "mm"
    assert members["x.home"].callable
    assert members["speed"].settable
    assert not any("_" in name[0] for name in members)


@pytest.mark.parametrize(
    ("doc", "unit"),
    [("Control the voltage in Volts.", "V"), ("in nanometers (float)", "nm"), ("Rate in Hz", "Hz"), ("in use", "")],
)
def test_the_unit_is_taken_from_the_docstring(doc: str, unit: str) -> None:
    assert unit_of_doc(doc) == unit


def test_a_state_changes_only_as_the_table_allows_and_is_told_once() -> None:
    told: list[InstrumentStatus] = []
    keeper = StateKeeper(stanza(), told.append, lambda: None)
    with pytest.raises(LifecycleError):
        keeper.change(InstrumentState.READY)
    keeper.change(InstrumentState.CONNECTING)
    keeper.change(InstrumentState.READY)
    since = keeper.status.since_ns
    keeper.change(InstrumentState.READY, "again")
    assert [status.state for status in told] == [InstrumentState.CONNECTING, InstrumentState.READY]
    assert (keeper.status.since_ns, keeper.status.message) == (since, "again")
