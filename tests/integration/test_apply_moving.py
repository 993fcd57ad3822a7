"""What becomes of a move that is under way while a lab file is applied that changes its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from duodaq.app import Lab
from duodaq.clock import Deadline, pause
from duodaq.errors import OutOfRangeError, StoppedError
from duodaq.model import Execute, Fate
from duodaq.testing import RailActor

LAB = """\
[lab]
name = "rails"

[runtimes.v4]
worker = "inline"

[instruments.rail]
runtime = "v4"
driver = "duodaq.testing:RailActor"
axes.x = { number = 1, unit = "mm", limits = [0, 10] }

[flight_recorder]
keep = 0
"""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    (tmp_path / "lab.toml").write_text(LAB)
    RailActor.all.clear()
    async with Lab.from_file(tmp_path / "lab.toml") as lab:
        yield lab


def narrow(file: Path | str) -> None:
    Path(file).write_text(LAB.replace("[0, 10]", "[0, 2]"))


async def move_and_narrow(lab: Lab) -> tuple[dict[str, Any], asyncio.Task[Any]]:
    """Begin to move to 5 mm, and have the limits end at 2 mm before it is there."""
    moving = asyncio.create_task(lab.command("rail", Execute("move", ("x", 5.0))))
    deadline = Deadline(5.0)
    while not RailActor.all["rail"].has["x"]:
        assert not deadline.passed
        await pause(0.001)
    file = lab.definition.file
    assert file is not None
    narrow(file)
    report = (await lab.changes.apply()).to_dict()
    await asyncio.wait({moving})
    return report, moving


async def test_a_move_ends_with_the_limits_it_began_with_and_the_next_one_has_the_new_ones(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RailActor, "step_s", 0.02)
    report, moving = await move_and_narrow(lab)
    assert report["complete"]
    assert report["units"][0]["stands"] == {}
    assert moving.exception() is None
    assert RailActor.all["rail"].has["x"] == 5.0
    with pytest.raises(OutOfRangeError, match="beyond 0 to 2"):
        await lab.command("rail", Execute("move", ("x", 5.0)))


async def test_a_move_that_is_too_long_to_wait_for_is_cut_off_and_its_axis_stopped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RailActor, "step_s", 1.0)
    monkeypatch.setattr("duodaq.v4._cell.DRAIN_SHARE", 0.02)
    first = RailActor.all["rail"]
    report, moving = await move_and_narrow(lab)
    error = moving.exception()
    assert isinstance(error, StoppedError)
    assert error.fate == Fate.UNKNOWN
    assert "its axes were stopped" in report["units"][0]["stands"]["rail"]
    assert RailActor.all["rail"] is not first
    assert RailActor.all["rail"].stopped.is_set()
