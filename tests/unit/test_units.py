"""What is given with a unit is converted, or refused: never its bare number, and never radians for degrees."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from duodaq.app import Reading
from duodaq.errors import OutOfRangeError
from duodaq.model import InstrumentDefinition, SetParameter, check_limits
from duodaq.units import convert, is_known, number_in, unit_meant


def reading(value: Any, unit: str) -> Reading:
    return Reading("stage", "x.position", value, unit, 0, 0)


@pytest.mark.parametrize("given", [5, 5.0, np.float64(5), np.array(5.0), Decimal(5), reading(5.0, "mm")])
def test_a_bare_number_is_in_the_unit_already(given: Any) -> None:
    assert number_in("mm", given) == 5.0


@pytest.mark.parametrize(
    ("value", "unit", "target", "expected"),
    [(2500.0, "um", "mm", 2.5), (2500.0, "μm", "mm", 2.5), (0.5, "m", "mm", 500.0), (3.0, "Ohm", "Ω", 3.0)],
)
def test_a_reading_is_converted(value: float, unit: str, target: str, expected: float) -> None:
    assert number_in(target, reading(value, unit)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("unit", "target", "times", "parts"),
    [
        ("mm", "um", 1000, 1),
        ("um", "mm", 1, 1000),
        ("nW", "W", 1, 10**9),
        ("GHz", "MHz", 1000, 1),
        ("m", "pm", 10**12, 1),
    ],
)
def test_a_prefix_is_a_power_of_ten_to_the_last_bit(unit: str, target: str, times: int, parts: int) -> None:
    wrong = [one for one in range(-5000, 5000) if convert(one, unit, target) != one * times / parts]
    assert wrong == []


@pytest.mark.parametrize(
    ("magnitude", "unit", "target", "expected"),
    [(180, "deg", "deg", 180.0), (180, "deg", "°", 180.0), (np.pi, "rad", "deg", 180.0), (2.5, "cm", "mm", 25.0)],
)
def test_a_quantity_of_pint_is_converted(magnitude: float, unit: str, target: str, expected: float) -> None:
    pint = pytest.importorskip("pint")
    assert number_in(target, pint.UnitRegistry().Quantity(magnitude, unit)) == pytest.approx(expected)


def test_a_point_of_xarray_is_converted() -> None:
    xarray = pytest.importorskip("xarray")
    points = xarray.DataArray([1000.0, 2000.0], attrs={"units": "um"})
    assert number_in("mm", points[1]) == 2.0


@pytest.mark.parametrize("given", ["5", "5 mm", True, None, [5.0], np.array([5.0]), 5j, reading(5.0, "V")])
def test_what_is_no_number_of_that_kind_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"is no number|cannot be told in mm"):
        number_in("mm", given)


@pytest.mark.parametrize(("unit", "target"), [("V", "mm"), ("", "mm"), ("deg", "mm"), ("mm", "deg"), ("mm", "steps")])
def test_a_quantity_of_another_kind_is_refused(unit: str, target: str) -> None:
    pint = pytest.importorskip("pint")
    with pytest.raises(TypeError, match=f"cannot be told in {target}"):
        number_in(target, pint.UnitRegistry().Quantity(5.0, unit))


class Quantity(float):
    """What pint's looks like from outside; one without a unit, or of an angle, compares with bare numbers."""

    magnitude = 4


def test_a_quantity_does_not_pass_limits_by_its_bare_number() -> None:
    supply = InstrumentDefinition("supply", "v2", "a:B", limits={"voltage": (0.0, 5.0)})
    check_limits(supply, SetParameter("voltage", 4))
    with pytest.raises(OutOfRangeError, match="True is outside the limits"):
        check_limits(supply, SetParameter("voltage", True))
    with pytest.raises(OutOfRangeError, match="has a unit, and the limits 0 … 5 have none"):
        check_limits(supply, SetParameter("voltage", Quantity(4)))


@pytest.mark.parametrize(
    "unit",
    ["", "W", "mW", "uW", "µm", "mm/s", "1/s", "V/√Hz", "nm", "degC", "°C", "Ohm", "kOhm", "Volts", "watt", "m^2",
     "cm-1", "mW/cm²", "W m^-2", "counts", "kcounts", "e-", "%", "dBm", "mbar", "arb. u.", "rad/s", "deg/s", "px"],
)  # fmt: skip
def test_what_laboratories_measure_in_is_known(unit: str) -> None:
    assert unit_meant(unit) is None
    assert is_known(unit)


@pytest.mark.parametrize(
    ("unit", "meant"),
    [("Wat", "W"), ("HZ", "Hz"), ("Vlots", "V"), ("ohmm", "Ω"), ("w", "W"), ("KHz", "kHz"), ("milimeter", "mm")],
)
def test_a_misspelling_says_what_was_meant(unit: str, meant: str) -> None:
    assert unit_meant(unit) == meant


@pytest.mark.parametrize("unit", ["clicks", "Schritte", "fringes", "another unit", "bananas"])
def test_a_unit_of_ones_own_is_no_misspelling(unit: str) -> None:
    assert unit_meant(unit) is None
    assert not is_known(unit)
