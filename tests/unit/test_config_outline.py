"""What a class offers is read from its source: its own members, those of its bases, and what can be set."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.app import panel_of
from duodaq.config import offers_of
from duodaq.model import AxisDefinition, InstrumentDefinition

METER = """
class Meter:
    def ask(self, text): ...

    def set_wavelength(self, nm: float): ...

    @property
    def volts(self): ...

    @volts.setter
    def volts(self, value): ...

    @property
    def temperature(self): ...
"""


MINE = """
from outlined_meter import Meter as Plain


class Meter(Plain):
    def ask(self, other): ...
"""


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "outlined_meter.py").write_text(METER, encoding="utf-8")
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    offers = offers_of("./mine.py:Meter", tmp_path)
    assert len({offer.name for offer in offers}) == len(offers)
    assert [offer.arguments[0][0] for offer in offers if offer.name == "ask"] == ["other"]
    return {offer.name: offer.kind for offer in offers}


def test_a_base_class_of_another_file_is_followed(kinds: dict[str, str]) -> None:
    assert set(kinds) == {"ask", "set_wavelength", "volts", "temperature"}


def test_a_property_with_a_setter_can_be_set(kinds: dict[str, str]) -> None:
    assert (kinds["volts"], kinds["temperature"]) == ("setting", "reading")


def test_the_machinery_of_a_library_is_no_offer_of_its_drivers(tmp_path: Path) -> None:
    offers = {offer.name: offer.kind for offer in offers_of("pymeasure.instruments.hp:HP34401A", tmp_path)}
    assert offers["nplc"] == "setting"
    assert "add_child" not in offers


def test_defaults_that_are_written_out_are_known(tmp_path: Path) -> None:
    (tmp_path / "psu.py").write_text(
        "class Psu:\n    def output(self, level, on=True, wait_s=0.5, unit=UNIT):\n        pass\n"
    )
    (offer,) = offers_of("./psu.py:Psu", tmp_path)
    assert offer.defaults == (("on", True), ("wait_s", 0.5))
    definition = InstrumentDefinition("psu", "v2", "./psu.py:Psu", base_dir=tmp_path)
    (operation,) = panel_of(definition)["operations"]
    assert [argument.get("default") for argument in operation["arguments"]] == [None, True, 0.5, None]


BATH = "class Bath:\n    def move(self, axis, position): ...\n    def setpoint(self): ...\n"


@pytest.mark.parametrize(
    ("driver", "does"),
    [
        ("./bath.py:Bath", ["move"]),
        ("./own.py:Plain", ["move"]),
        ("./own.py:Homed", ["move", "home"]),
        ("./own.py:Odd", ["move", "move_relative", "home"]),
        ("elsewhere.drivers:Stage", ["move", "move_relative", "home"]),
    ],
)
def test_an_axis_is_offered_the_motions_that_its_class_has_or_all_if_nobody_can_tell(
    tmp_path: Path, driver: str, does: list[str]
) -> None:
    (tmp_path / "bath.py").write_text(BATH, encoding="utf-8")
    (tmp_path / "own.py").write_text(
        "from bath import Bath as Theirs\nfrom nowhere import Base\n\n\nclass Plain(Theirs): ...\n\n\n"
        "class Homed(Theirs):\n    def home(self, axis): ...\n\n\nclass Odd(Base): ...\n",
        encoding="utf-8",
    )
    definition = InstrumentDefinition("bath", "v2", driver, base_dir=tmp_path, axes=(AxisDefinition("t", 1, "degC"),))
    assert panel_of(definition)["axes"][0]["does"] == does


@pytest.mark.parametrize(
    ("axes", "names"), [((AxisDefinition("t", 1),), ["setpoint"]), ((), ["move", "setpoint"])], ids=["axis", "none"]
)
def test_a_motion_of_an_axis_is_no_operation_besides(
    tmp_path: Path, axes: tuple[AxisDefinition, ...], names: list[str]
) -> None:
    (tmp_path / "bath.py").write_text(BATH, encoding="utf-8")
    definition = InstrumentDefinition("bath", "v2", "./bath.py:Bath", base_dir=tmp_path, axes=axes)
    assert [one["name"] for one in panel_of(definition)["operations"]] == names


def test_an_actor_is_offered_its_motions() -> None:
    definition = InstrumentDefinition("stage", "v4", "duodaq:Esp300", port="stage", axes=(AxisDefinition("x", 1),))
    assert panel_of(definition)["axes"][0]["does"] == ["move", "move_relative", "home"]
