"""The limits of a hosted driver's axis hold for every move, from wherever it comes; nothing is called beyond them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import duodaq
from duodaq.app import Lab
from duodaq.config import load_lab
from duodaq.errors import ConfigError, OutOfRangeError
from duodaq.model import AxisDefinition, Execute, InstrumentDefinition, check_limits

DRIVER = """
class Stage:
    def __init__(self):
        self.at = {"x": 5.0, "free": 0.0, "blind": 0.0, "other": 0.0}
        self.called = []

    def move(self, axis, position):
        self.called.append(("move", axis, position))
        self.at[axis] = position

    move_absolute = move

    def move_relative(self, axis, distance):
        self.called.append(("move_relative", axis, distance))
        self.at[axis] += distance

    def where(self, axis):
        return self.at[axis]
"""
LAB = """
[lab]
name = "limits"
[runtimes.v2]
worker = "inline"
[instruments.stage]
runtime = "v2"
driver = "./stage.py:Stage"
passive = true
axes.x = { number = 1, unit = "mm", limits = [0, 10] }
axes.free = { number = 2, unit = "mm" }
axes.blind = { number = 3, unit = "mm", limits = [0, 10] }
axes.other = { number = 4, unit = "mm", limits = [0, 10] }
poll."x.position" = { call = "where", args = ["x"], unit = "mm", every = "1 h" }
poll."other.position" = { call = "where", args = ["other"], unit = "um", every = "1 h" }
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "stage.py").write_text(DRIVER)
    (tmp_path / "lab.toml").write_text(LAB)
    with duodaq.open(tmp_path / "lab.toml") as opened:
        yield opened


WAYS = {
    "of its handle": lambda stage, to: stage.x.move(to),
    "by a distance": lambda stage, to: stage.x.move_by(to - 5.0),
    "a call": lambda stage, to: stage.call("move", "x", to),
    "a call by name": lambda stage, to: stage.call("move", axis="x", position=to),
    "an absolute one": lambda stage, to: stage.call("move_absolute", "x", to),
    "a relative call": lambda stage, to: stage.call("move_relative", "x", to - 5.0),
    "the driver": lambda stage, to: stage.driver.move("x", to),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beyond", [10.001, -0.001, 1e9, float("nan")])
def test_a_move_beyond_the_limits_is_refused_and_one_within_is_made(lab: Any, way: str, beyond: float) -> None:
    with pytest.raises(OutOfRangeError, match=r"axis x: .* is outside 0 to 10 mm"):
        WAYS[way](lab.stage, beyond)
    assert lab.stage.get("called") == []
    WAYS[way](lab.stage, 10.0)
    assert lab.stage.get("at")["x"] == 10.0


def test_a_distance_is_refused_where_nobody_says_in_that_unit_where_the_axis_is(lab: Any) -> None:
    with pytest.raises(OutOfRangeError, match="nothing reads where it is"):
        lab.stage.blind.move_by(1.0)
    with pytest.raises(OutOfRangeError, match="is in mm, and its position is read in"):
        lab.stage.other.move_by(1.0)
    assert lab.stage.get("called") == []
    lab.stage.free.move_by(1e6)
    lab.stage.free.move(-1e6)
    assert len(lab.stage.get("called")) == 2


@pytest.mark.parametrize("target", ["5", None, [5.0], object(), True])
def test_what_is_no_number_is_no_place(target: Any) -> None:
    stage = InstrumentDefinition("stage", "v2", "own:Stage", axes=(AxisDefinition("x", 1, "mm", (0.0, 10.0)),))
    with pytest.raises(OutOfRangeError, match="is no number"):
        check_limits(stage, Execute("move", ("x", target)))


def test_numbers_of_numpy_and_the_only_axis_without_its_name_are_understood() -> None:
    stage = InstrumentDefinition("stage", "v2", "own:Stage", axes=(AxisDefinition("x", 1, "mm", (0.0, 10.0)),))
    for good in (("x", np.float64(5)), ("x", np.int64(5)), (5,)):
        check_limits(stage, Execute("move", good))
    for bad in (("x", np.float64(11)), ("x", np.int64(11)), (11,)):
        with pytest.raises(OutOfRangeError):
            check_limits(stage, Execute("move", bad))
    check_limits(stage, Execute("measure", (11,)))


def test_an_axis_is_understood_by_its_number_where_a_place_follows() -> None:
    axes = (AxisDefinition("x", 1, "Hz", (10.0, 5000.0)), AxisDefinition("y", 2, "mm", (0.0, 5.0)))
    for known in (axes, axes[:1]):
        stage = InstrumentDefinition("stage", "v2", "own:Stage", axes=known)
        check_limits(stage, Execute("move", (1, 4000)))
        with pytest.raises(OutOfRangeError, match="axis x: 9999 Hz"):
            check_limits(stage, Execute("move", (1, 9999)))
    with pytest.raises(OutOfRangeError, match="axis y: 9 mm"):
        check_limits(InstrumentDefinition("stage", "v2", "own:Stage", axes=axes), Execute("move", (2, 9.0)))


def test_a_safe_state_beyond_the_limits_is_told_before_the_lab_runs(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(DRIVER)
    safe = 'passive = true\nsafe = { shutdown = { call = "move", args = ["x", 11] } }\n'
    (tmp_path / "lab.toml").write_text(LAB.replace("passive = true\n", safe))
    with pytest.raises(ConfigError, match=r"instruments.stage.safe.shutdown.*axis x: 11 mm is outside 0 to 10 mm"):
        load_lab(tmp_path / "lab.toml")


def test_a_safe_state_by_a_distance_asks_nobody_where_the_axis_is(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(DRIVER)
    safe = 'passive = true\nsafe = { shutdown = { call = "move_relative", args = ["blind", 1] } }\n'
    (tmp_path / "lab.toml").write_text(LAB.replace("passive = true\n", safe))
    with duodaq.open(tmp_path / "lab.toml") as lab:
        lab.stage.call("move_relative", "blind", 1)
        assert lab.stage.get("called") == [("move_relative", "blind", 1)]


async def test_a_move_is_refused_before_it_waits_for_the_driver(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(DRIVER)
    (tmp_path / "lab.toml").write_text(LAB)
    async with Lab.from_file(tmp_path / "lab.toml") as lab:
        with pytest.raises(OutOfRangeError):
            await lab.manager.command("stage", Execute("move", ("x", 11.0)), 0.0)
