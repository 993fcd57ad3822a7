"""`duodaq migrate convert`: shows, and writes only when told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from duodaq.app import Lab
from duodaq.app._channel import LocalChannel
from duodaq.app._client import _client
from duodaq.cli._app import app
from duodaq.config import load_lab
from duodaq.errors import StorageError
from duodaq.testing._scripted_port import Answer, ScriptedTransport

LAB = """\
[ports.meter]
tcp = "127.0.0.1:5001"
codec = "newport1830c"

[instruments.meter]
runtime = "v2"
driver = "duodaq.cli.demo.power_meter:PowerMeter"
port = "meter"
poll.power = { call = "read_power", unit = "W", every = "20 ms" }
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


@pytest.fixture
def running(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A lab with a scripted meter in a thread, to which the commands connect."""
    file.write_text(LAB.replace("[ports", "[runtimes.v2]\nworker = 'inline'\n\n[ports", 1).replace(
        'poll.odd = { call = "oddity" }\n', 'passive = true\nkill_after = "9 s"\n'))  # fmt: skip
    lab = Lab(load_lab(file), transports={"meter": ScriptedTransport(answer, "meter")})
    lab.migration.least_shadow_s = 0.0
    channel = LocalChannel(lab)
    client = _client(channel)
    monkeypatch.setattr("duodaq.cli._moving.connect", lambda _: nullcontext(client))
    yield client
    client.close()


def answer(line: bytes) -> Answer | None:
    if not line.endswith(b"?"):
        return None
    return Answer({b"D?": b"5E-9\n", b"Q?": b"128\n", b"U?": b"1\n"}.get(line, b"0633\n"))


def run(*words: str) -> tuple[int, str]:
    said = CliRunner().invoke(app, ["migrate", *words])
    assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
    return said.exit_code, said.stdout


def test_the_whole_way_on_the_command_line(running: Any, file: Path, tmp_path: Path) -> None:
    code, said = run("cutover", "meter", "--by", "anna")
    assert (code, "checklist is not met" in said, "v2 has it" in said) == (1, True, True)
    report = tmp_path / "report.md"
    code, said = run("shadow", "meter", "--for", "1 s", "--report", str(report))
    assert code == 0, said
    assert report.read_text().startswith("# Shadow of meter: within tolerance")
    assert run("tick", "meter", "config", "--by", "anna")[0] == 0
    code, said = run("status", "meter")
    assert "[x] shadow: nothing differed" in said
    assert "anna answers for it" in said
    code, said = run("cutover", "meter", "--by", "anna", "--write")
    assert (code, "meter is in v4 now; it was moved 1 time so far" in said) == (0, True)
    assert 'runtime = "v4"' in file.read_text()
    assert running.meter.runtime == "v4"
    assert running.plan(file)["units"] == [], "what was moved is no change that is still to come"
    assert running.meter.read("power").value == 5e-9
    code, said = run("rollback", "meter", "--by", "anna", "--write")
    assert (code, "meter is in v2 now; it was moved 2 times so far" in said) == (0, True)
    assert 'runtime = "v4"' not in file.read_text().replace("#v2", "")
    assert running.meter.call("read_power") == 5e-9
    assert '"stage": "v2"' in run("status", "--json")[1]


def test_a_lab_file_that_cannot_be_written_is_told_beside_the_move(running: Any, file: Path) -> None:
    assert run("status", "meter")[0] == 0
    file.write_text("oops\n")
    code, said = run("cutover", "meter", "--force", "--write")
    assert (code, "meter is in v4 now; it was moved 1 time so far" in said) == (1, True)
    assert "It has moved, but the lab file does not say so" in said


def test_a_report_that_cannot_be_written_is_shown_all_the_same(running: Any, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "report.md"
    said = CliRunner().invoke(app, ["migrate", "shadow", "meter", "--for", "200 ms", "--report", str(nowhere)])
    assert "# Shadow of meter" in said.stdout
    assert isinstance(said.exception, StorageError)
    assert str(nowhere) in str(said.exception)


def test_a_shadow_from_a_recording_needs_no_lab(running: Any, file: Path, tmp_path: Path) -> None:
    for _ in range(5):
        running.meter.read("power")
    path = running.record_wire(tmp_path / "wire.arrows")
    running.stop_wire()
    code, said = run("shadow", "meter", "--replay", str(path), "--file", str(file))
    assert code == 0, said
    assert "# Shadow of meter: within tolerance" in said


def test_a_move_that_the_lab_file_does_not_say_tells_where_the_next_start_is(running: Any) -> None:
    code, said = run("cutover", "meter", "--force")
    assert (code, "The lab file still says v2, and the next start is in v2: with --write" in said) == (0, True)
    code, said = run("rollback", "meter")
    assert (code, "still says" in said) == (0, False)
    code, said = run("cutover", "meter", "--force", "--write")
    assert (code, "still says" in said) == (0, False)
    code, said = run("rollback", "meter")
    assert (code, "The lab file still says v4, and the next start is in v4: with --write" in said) == (0, True)


def test_a_move_is_told_to_programs_as_it_ended(running: Any) -> None:
    code, said = run("cutover", "meter", "--json")
    told = json.loads(said)
    assert (code, told["moved"], told["id"], "checklist is not met" in told["error"]) == (1, False, "meter", True)
    code, said = run("tick", "meter", "config", "--by", "anna", "--json")
    assert (code, json.loads(said)) == (0, {"id": "meter", "item": "config", "by": "anna"})
    code, said = run("cutover", "meter", "--force", "--json")
    told = json.loads(said)
    assert (code, told["moved"], told["owner"], told["epoch"], told["gap_s"] > 0) == (0, True, "v4", 1, True)
    code, said = run("rollback", "meter", "--json")
    assert (code, json.loads(said)["owner"]) == (0, "v2")
