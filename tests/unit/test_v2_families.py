"""How families find what a driver is made of, and in which unit it reads: on the libraries' own soft devices."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duodaq.clock import Deadline, pause
from duodaq.config import _driver_lookup
from duodaq.errors import ConfigError, RefusedError, ReplyTimeoutError
from duodaq.model import (
    DriverMember,
    Execute,
    GetParameter,
    InstrumentDefinition,
    PollDefinition,
    SetParameter,
    install_command,
)
from duodaq.units import same_unit
from duodaq.v2._host import DriverHost
from duodaq.v2.families import family_of, imported_by, load_driver
from duodaq.v2.families._described import field_of, limits_of, member_of


@contextmanager
def hosted(driver: Callable[..., Any], *polls: PollDefinition, **args: Any) -> Iterator[DriverHost]:
    """A driver in the thread of the test."""
    definition = InstrumentDefinition("dev", "v2", driver, args=args, polls=polls)
    host = DriverHost(definition, lambda port, holder: None)
    host.connect()
    try:
        yield host
    finally:
        host.close()


def member(host: DriverHost, name: str) -> Any:
    return next(one for one in host.members if one.name == name)


# --- units and names


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("V", "V", True),
        ("Volts", "V", True),
        ("Ohm", "Ω", True),
        ("kOhm", "kΩ", True),
        ("um", "µm", True),
        ("μm", "µm", True),
        ("degrees", "deg", True),
        ("°", "deg", True),
        (" mm ", "millimeter", True),
        ("degC", "°C", True),
        ("mV", "V", False),
        ("uV", "mV", False),
        ("MHz", "mHz", False),
        ("C", "°C", False),
        ("u", "µ", False),
    ],
)
def test_a_unit_is_the_same_however_it_is_spelled(one: str, other: str, same: bool) -> None:
    assert same_unit(one, other) is same
    assert same_unit(other, one) is same


class Without:
    """What is installed, but for one package."""

    def __init__(self, package: str, *finders: Any) -> None:
        self.package = package
        self.finders = finders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] == self.package:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("qcodes", "pip install 'duodaq[qcodes]'"),
        ("ophyd", "pip install 'duodaq[ophyd]'"),
        ("ophyd_async", "pip install 'duodaq[ophyd]'"),
        ("pyvisa", "pip install 'duodaq[visa]'"),
        ("thorlabs_elliptec", "pip install thorlabs-elliptec"),
        ("pymeasure", "pip install pymeasure"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_what_installs_it(
    package: str, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert install_command(f"{package}.part") == command
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(package, *sys.meta_path)])
    (tmp_path / "own.py").write_text(f"import {package}\n")
    for driver in (f"{package}.drivers:Meter", "./own.py:Meter"):
        with pytest.raises(ConfigError) as caught:
            load_driver(InstrumentDefinition("dev", "v2", driver, base_dir=tmp_path))
        assert command in str(caught.value)
        assert "instruments.dev.driver" in str(caught.value)
    with pytest.raises(_driver_lookup.DriverMissingError) as missing:
        _driver_lookup.find_driver(f"{package}.drivers:Meter", tmp_path)
    assert command in missing.value.remedy


def test_what_a_file_imports_is_told_from_its_text_but_for_what_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit")
    (tmp_path / "ours").mkdir()
    (tmp_path / "dev.py").write_text(
        "import json, email.message as m\nimport mine\nfrom ours.deep import it\nfrom . import near\n"
        "from concurrent.futures import Future\nif True:\n    import ast\nraise SystemExit\n"
    )
    (tmp_path / "bad.py").write_text("import (")
    for driver, found in {
        "./dev.py:Dev": ("json", "email.message", "concurrent.futures"),
        "./bad.py:Dev": (),
        "./gone.py:Dev": (),
        "json:JSONDecoder": (),
    }.items():
        assert imported_by(InstrumentDefinition("dev", "v2", driver, base_dir=tmp_path)) == found
    assert imported_by(InstrumentDefinition("dev", "v2", Path)) == ()


def test_limits_and_choices_are_read_from_either_way_of_describing_them() -> None:
    old = {"units": "mm", "lower_ctrl_limit": 0, "upper_ctrl_limit": 5.0, "enum_strs": ("a", "b")}
    new = {"units": "mm", "limits": {"control": {"low": 0, "high": 5.0}}, "choices": ["a", "b"]}
    for key in (old, new):
        made = member_of("x", key, settable=True)
        assert (made.unit, made.limits, made.choices) == ("mm", (0.0, 5.0), ("a", "b"))
    assert limits_of({"lower_ctrl_limit": 0.0, "upper_ctrl_limit": 0.0}) is None
    assert limits_of({"limits": {"control": {"low": None, "high": 3}}}) == (None, 3.0)
    assert limits_of({}) is None


def test_the_field_that_a_device_means_is_its_only_one_or_the_only_one_it_hints_at() -> None:
    assert field_of("x", ["x_a"], []) == "x_a"
    assert field_of("x", ["x_a", "x_b"], ["x_b", "gone"]) == "x_b"
    for fields, hinted in ((["x_a", "x_b"], []), (["x_a", "x_b"], ["x_a", "x_b"]), ([], [])):
        with pytest.raises(RefusedError, match="name one of them" if fields else "reads nothing"):
            field_of("x", fields, hinted)


# --- QCoDeS


@pytest.fixture(scope="module")
def soft_instrument() -> Any:
    pytest.importorskip("qcodes")
    from qcodes.instrument import ChannelList, Instrument, InstrumentChannel
    from qcodes.parameters import Parameter, ParameterWithSetpoints
    from qcodes.validators import Arrays, Enum, Numbers

    class Trace(ParameterWithSetpoints):
        def get_raw(self) -> Any:
            self.unit = "W"
            return np.arange(3.0) + 1

    class Soft(Instrument):
        def __init__(self, name: str, broken: bool = False, **kwargs: Any) -> None:
            super().__init__(name, **kwargs)
            self.broken = broken
            self.sent: list[float] = []
            self.add_parameter("volt", unit="V", label="Voltage", get_cmd=lambda: 1.5)
            self.add_parameter("level", unit="A", get_cmd=False, set_cmd=self.sent.append, vals=Numbers(0, 2))
            self.add_parameter("mode", get_cmd=None, set_cmd=None, initial_value="slow", vals=Enum("slow", "fast"))
            self.add_parameter("nothing", unit="NA", get_cmd=lambda: 0.0)
            axis = self.add_parameter("axis", unit="nm", get_cmd=lambda: np.arange(3.0), vals=Arrays(shape=(3,)))
            self.add_parameter("trace", parameter_class=Trace, setpoints=(axis,), unit="NA", vals=Arrays(shape=(3,)))
            self.add_function("reset", call_cmd=lambda: "done")
            channels = ChannelList(self, "outputs", InstrumentChannel)
            for letter in "AB":
                channel = InstrumentChannel(self, letter)
                channel.add_parameter("power", unit="mW", get_cmd=lambda letter=letter: ord(letter))
                channels.append(channel)
            self.add_submodule("outputs", channels.to_channel_tuple())

        def close(self) -> None:
            if self.broken:
                raise OSError("the line is gone")
            super().close()

    assert Parameter
    return Soft


def test_qcodes_parameters_say_what_they_are(soft_instrument: Any) -> None:
    assert family_of(soft_instrument).name == "qcodes"
    with hosted(soft_instrument) as host:
        volt, level, mode = (member(host, name) for name in ("volt", "level", "mode"))
        assert (volt.unit, volt.doc, volt.readable, volt.settable) == ("V", "Voltage", True, False)
        assert (level.unit, level.readable, level.settable, level.limits) == ("A", False, True, (0.0, 2.0))
        assert (mode.choices, mode.limits) == (("fast", "slow"), None)
        assert member(host, "outputs.B.power").unit == "mW"
        assert member(host, "nothing").unit == ""


def test_qcodes_parameters_are_read_set_and_called(soft_instrument: Any) -> None:
    with hosted(soft_instrument) as host:
        assert host.perform(GetParameter("outputs.B.power")) == 66
        assert host.perform(GetParameter("mode")) == "slow"
        assert host.perform(SetParameter("mode", "fast")) == "fast"
        assert host.perform(GetParameter("mode", part=True)) == DriverMember("parameter")
        assert host.perform(GetParameter("outputs.A", part=True)) == DriverMember("object")
        assert host.perform(GetParameter("volt.unit")) == "V"
        assert host.perform(Execute("mode", ("slow",))) is None
        assert host.perform(Execute("mode")) == "slow"
        assert host.perform(Execute("reset")) == "done"
        assert host.perform(SetParameter("level", 1)) == 1
        refused: dict[Any, str] = {
            GetParameter("level"): "can be set, but not read",
            SetParameter("volt", 1): "can be read, but not set",
            GetParameter("outputs.A.powr"): "did you mean 'outputs.A.power'",
            GetParameter("outputs.C"): "has no 'outputs.C'",
        }
        for command, words in [*refused.items(), (Execute("label"), "is a value, not a method")]:
            with pytest.raises(RefusedError, match=words):
                host.perform(command)
        with pytest.raises(ValueError, match="must be between 0 and 2"):
            host.perform(SetParameter("level", 3))
        assert host._required().driver.sent == [1]


def test_a_parameter_over_setpoints_is_a_spectrum_in_the_unit_it_has_when_it_is_read(soft_instrument: Any) -> None:
    with hosted(soft_instrument) as host:
        reading = host.read("trace")
        assert (reading.kind, reading.unit, reading.axis_unit) == ("spectrum", "W", "nm")
        assert reading.axis is not None
        assert [*reading.axis, *reading.value] == [0, 1, 2, 1, 2, 3]


def test_a_polled_channel_takes_its_unit_from_the_driver_and_another_one_is_refused(soft_instrument: Any) -> None:
    silent, spelled = PollDefinition("a", 1, read="volt"), PollDefinition("b", 1, "volts", read="volt")
    own, late = PollDefinition("c", 1, "%", read="nothing"), PollDefinition("d", 1, "mW", read="trace")
    with hosted(soft_instrument, silent, spelled, own, late) as host:
        assert host.units == {"a": "V", "b": "volts", "c": "%", "d": "mW"}
        assert [host.read(name).unit for name in "abc"] == ["V", "volts", "%"]
        with pytest.raises(ConfigError, match='reads in "mW", and the driver says "W"'):
            host.read("d")
    for poll, words in {
        PollDefinition("a", 1, "mV", read="volt"): r'instruments.dev.poll.a.unit: .*"mV".*says "V".*write unit = "V"',
        PollDefinition("a", 1, read="volts"): "instruments.dev.poll.a.read: .*has no 'volts'; did you mean 'volt'",
    }.items():
        with pytest.raises(ConfigError, match=words), hosted(soft_instrument, poll):
            pass


def test_the_name_of_a_qcodes_instrument_is_free_again_whatever_became_of_it(soft_instrument: Any) -> None:
    from qcodes.instrument import Instrument

    with hosted(soft_instrument, broken=True) as first, hosted(soft_instrument) as second:
        assert Instrument.find_instrument("dev") is second._required().driver
        assert first.perform(GetParameter("mode")) == "slow"  # given up, not closed
    assert not Instrument.exist("dev")
    with hosted(soft_instrument, broken=True) as host:
        kept = host._required().driver
    assert kept.name == "dev"  # its close has failed
    assert not Instrument.exist("dev")

    mine = soft_instrument("dev")
    with pytest.raises(ConfigError, match=r"instruments.dev.args.name: .*\"dev\" in this process already"):
        hosted(soft_instrument).__enter__()
    with hosted(soft_instrument, name="other") as host:
        assert host.perform(GetParameter("name")) == "other"
    assert Instrument.find_instrument("dev") is mine
    mine.close()
    gc.collect()


def test_arguments_that_no_class_of_it_takes_are_a_mistake_in_the_stanza(soft_instrument: Any) -> None:
    for args, words in {
        ("colour", "red"): "instruments.dev.args.colour: Soft takes no 'colour'",
        ("label", "Meter"): "",
    }.items():
        definition = InstrumentDefinition("dev", "v2", soft_instrument, args=dict([args]))
        host = DriverHost(definition, lambda port, holder: None)
        if not words:
            host.connect()
            assert host.perform(GetParameter("label")) == "Meter"
            host.close()
            continue
        with pytest.raises(ConfigError, match=words):
            host.connect()
        assert replace(definition, args={}).args == {}


# --- ophyd


def test_an_ophyd_positioner_means_its_own_field_and_keeps_to_its_limits() -> None:
    pytest.importorskip("ophyd")
    from ophyd import SoftPositioner

    assert family_of(SoftPositioner).name == "ophyd"
    poll = PollDefinition("position", 1, read="dev")
    with hosted(SoftPositioner, poll, egu="mm", limits=(0, 10), init_pos=1.0) as host:
        assert host.units == {"position": "mm"}
        reading = host.read("position")
        assert (reading.value, reading.unit) == (1.0, "mm")
        assert host.perform(SetParameter("dev", 2.5)) == 2.5
        assert host.perform(GetParameter("egu")) == "mm"
        with pytest.raises(ValueError, match="within"):
            host.perform(SetParameter("dev", 25))


def test_parts_of_an_ophyd_device_are_found_by_name_and_by_field_and_statuses_are_waited_for() -> None:
    pytest.importorskip("ophyd")
    from ophyd import Component, Device, DeviceStatus, Signal, SignalRO

    class Arm(Device):
        angle = Component(Signal, value=3.0, kind="hinted")
        load = Component(SignalRO, value=7.0)

    class Robot(Device):
        arm = Component(Arm, "")
        speed = Component(Signal, value=1.0, kind="config")
        triggers = 0

        def trigger(self) -> Any:
            self.triggers += 1
            return super().trigger()

        def move(self, done: bool) -> Any:
            status = DeviceStatus(self)
            if done:
                status.set_finished()
            return status

    with hosted(Robot) as host:
        assert {one.name for one in host.members} == {"arm.angle", "arm.load", "speed"}
        assert (member(host, "arm.load").settable, member(host, "speed").settable) == (False, True)
        assert host.read("arm.angle").value == host.read("dev_arm_angle").value == host.read("arm").value == 3.0
        assert host.read("dev").value == 3.0
        assert host.perform(GetParameter("triggers")) == 1
        assert host.perform(GetParameter("arm")) == {"dev_arm_angle": 3.0, "dev_arm_load": 7.0}
        assert host.perform(SetParameter("arm.angle", 4.0)) == 4.0
        assert host.perform(GetParameter("arm.angle", part=True)) == DriverMember("object")
        assert host.perform(Execute("move", (True,))) is None
        assert host.perform(Execute("arm.angle.get")) == 4.0
        with pytest.raises(RefusedError, match="can be read, but not set"):
            host.perform(SetParameter("arm.load", 1.0))
        host.deadline = Deadline(0.05)
        with pytest.raises(ReplyTimeoutError, match="not done in time"):
            host.perform(Execute("move", (False,)))


# --- ophyd-async


def test_parts_of_an_ophyd_async_device_are_found_by_name_and_by_field() -> None:
    pytest.importorskip("ophyd_async")
    from ophyd_async.core import DeviceVector, StandardReadable, StandardReadableFormat, soft_signal_rw

    class Rack(StandardReadable):
        def __init__(self, name: str = "") -> None:
            with self.add_children_as_readables(StandardReadableFormat.HINTED_SIGNAL):
                self.total = soft_signal_rw(float, 6.0, units="W")
            with self.add_children_as_readables():
                self.slots = DeviceVector({n: soft_signal_rw(float, float(n), units="mW") for n in (1, 2)})
            super().__init__(name)

        async def double(self, value: float) -> float:
            return 2 * value

    assert family_of(Rack).name == "ophyd_async"
    with hosted(Rack, PollDefinition("total", 1, read="dev")) as host:
        assert host.units == {"total": "W"}
        assert {one.name: one.unit for one in host.members} == {"total": "W", "slots.1": "mW", "slots.2": "mW"}
        assert (host.read("total").value, host.read("slots.2").unit, host.read("dev-slots-2").value) == (6.0, "mW", 2.0)
        assert host.perform(SetParameter("slots.1", 5.0)) == 5.0
        assert host.perform(GetParameter("slots")) == DriverMember("object")
        assert host.perform(GetParameter("dev")) == {"dev-total": 6.0, "dev-slots-1": 5.0, "dev-slots-2": 2.0}
        assert host.perform(Execute("double", (4.0,))) == 8.0
        assert host.perform(Execute("total.get_value")) == 6.0
        for command, words in {
            GetParameter("slots.3"): "'slots.3' is not the name",
            GetParameter("totel"): "did you mean 'total'",
            SetParameter("slots", 1): "can be read, but not set",
        }.items():
            with pytest.raises(RefusedError, match=words):
                host.perform(command)


def test_what_an_ophyd_async_device_watches_goes_on_between_the_calls_and_ends_with_it() -> None:
    pytest.importorskip("ophyd_async")
    import asyncio

    from ophyd_async.core import Device

    class Ticking(Device):
        ticks = 0
        ended = False

        async def begin(self) -> None:
            self.task = asyncio.create_task(self.run())

        async def run(self) -> None:
            try:
                while True:
                    await pause(0.001)
                    self.ticks += 1
            finally:
                self.ended = True

    with hosted(Ticking) as host:
        host.perform(Execute("begin"))
        limit = Deadline(5)
        while host.perform(GetParameter("ticks")) < 3:
            assert not limit.passed
        device = host._required().driver
    assert device.ended
