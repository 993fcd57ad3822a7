"""`duodaq migrate convert`: shows, and writes only when told."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from duodaq.cli._app import app

LAB = """\
[ports.meter]
tcp = "127.0.0.1:5001"
codec = "newport1830c"

[instruments.meter]
runtime = "v2"
driver = "duodaq.cli.demo.power_meter:PowerMeter"
port = "meter"
poll.power = { call = "read_power", unit = "W", every = "200 ms" }
poll.odd = { call = "oddity" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "lab.toml"
    made.write_text(LAB)
    return made


def test_it_shows_what_would_change_and_writes_nothing(file: Path) -> None:
    said = CliRunner().invoke(app, ["migrate", "convert", str(file)])
    assert said.exit_code == 0
    assert '+runtime = "v4"' in said.stdout
    assert "meter: not turned: poll.odd" in said.stdout
    assert file.read_text() == LAB


def test_it_writes_and_turns_back(file: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["migrate", "convert", str(file), "--write"]).exit_code == 0
    assert 'runtime = "v4"' in file.read_text()
    assert runner.invoke(app, ["migrate", "convert", str(file), "--back", "--write"]).exit_code == 0
    assert file.read_text() == LAB


def test_an_instrument_that_was_named_and_left_is_an_error(file: Path) -> None:
    file.write_text(LAB.replace('codec = "newport1830c"', "idle_ms = 20"))
    said = CliRunner().invoke(app, ["migrate", "convert", str(file), "--only", "meter"])
    assert said.exit_code == 1
    assert "left as it is" in said.stdout
