"""Which commands arm an instrument or have a laser emit, as their names tell."""

from __future__ import annotations

from typing import Any

import pytest

from duodaq.model import Execute, InstrumentDefinition, SetParameter, arms

SOURCE = InstrumentDefinition("src", "v2", "./drivers.py:Source")
LASER = InstrumentDefinition("laser", "v2", "./drivers.py:Diode")
BY_CLASS = InstrumentDefinition("red", "v2", "./drivers.py:RedLaser")
MAITAI = InstrumentDefinition("laser", "v4", "duodaq:MaiTai")


def call(name: str, *args: Any, **kwargs: Any) -> Execute:
    return Execute(name, args, kwargs)


@pytest.mark.parametrize(
    ("definition", "command"),
    [
        (SOURCE, call("arm")),
        (SOURCE, call("head.arm")),
        (SOURCE, call("arm_laser")),
        (SOURCE, call("armLaser", 0)),
        (SOURCE, call("set_emission", True)),
        (SOURCE, call("emission_on")),
        (SOURCE, call("laser_on")),
        (SOURCE, call("laserOn")),
        (SOURCE, call("laseron")),
        (SOURCE, call("enable_laser")),
        (SOURCE, call("is_armed", True)),
        (SOURCE, SetParameter("armed", True)),
        (SOURCE, SetParameter("emission", 1)),
        (SOURCE, SetParameter("laser_state", "RUN")),
        (SOURCE, SetParameter("laser", 1)),
        (LASER, call("on")),
        (LASER, call("turn_on")),
        (LASER, call("switchon")),
        (LASER, SetParameter("output", "on")),
        (BY_CLASS, SetParameter("enabled", True)),
        (MAITAI, call("arm")),
    ],
)
def test_what_arms_is_known_by_its_words(definition: InstrumentDefinition, command: Any) -> None:
    assert arms(definition, command)


@pytest.mark.parametrize(
    ("definition", "command"),
    [
        (SOURCE, call("disarm")),
        (SOURCE, call("laser_off")),
        (SOURCE, call("stop_emission")),
        (SOURCE, call("set_emission", False)),
        (SOURCE, call("set_emission", 0)),
        (SOURCE, call("is_armed")),
        (SOURCE, call("read_emission")),
        (SOURCE, SetParameter("armed", False)),
        (SOURCE, SetParameter("emission", "off")),
        (SOURCE, SetParameter("alarm", 1)),
        (SOURCE, SetParameter("output", True)),
        (SOURCE, call("turn_on")),
        (SOURCE, call("harmless")),
        (LASER, SetParameter("laser_current", 20.0)),
        (LASER, SetParameter("output_power", 0.5)),
        (LASER, call("close_shutter")),
        (MAITAI, call("switch_on")),
        (MAITAI, call("open_shutter")),
        (MAITAI, SetParameter("wavelength_nm", 800.0)),
    ],
)
def test_what_reads_disarms_or_is_none_of_it_is_free(definition: InstrumentDefinition, command: Any) -> None:
    assert not arms(definition, command)
