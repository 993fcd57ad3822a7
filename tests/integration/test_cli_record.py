"""`duodaq record` as a person uses it: until Ctrl-C, or detached and ended by name."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import duodaq

LAB = """
[lab]
name = "NAME"
[runtimes.v2]
worker = "thread"
[instruments.room]
runtime = "v2"
driver = "./room.py:Room"
poll.temperature = { call = "temperature", unit = "degC", every = "20 ms" }
"""


@pytest.fixture
def running_lab(tmp_path: Path, start_program: Callable[..., Any]) -> str:
    name = f"rec{os.getpid()}"
    (tmp_path / "room.py").write_text(
        "class Room:\n    def temperature(self):\n        return 21.5\n", encoding="utf-8"
    )
    (tmp_path / "lab.toml").write_text(LAB.replace("NAME", name), encoding="utf-8")
    start_program("-m", "duodaq.cli", "run", tmp_path / "lab.toml").wait_for("Attach with")
    return name


def test_a_lab_records_chosen_channels_until_ctrl_c_or_until_it_is_told_by_name(
    running_lab: str, tmp_path: Path, start_program: Callable[..., Any], duodaq_command: Callable[..., Any]
) -> None:
    there = ("--lab", running_lab, "--out", tmp_path / "logs")
    recording = start_program("-m", "duodaq.cli", "record", "room.*", "--name", "room", "--rotate", "daily", *there)
    recording.wait_for("until Ctrl-C")
    with duodaq.connect(running_lab) as lab:
        assert [log["name"] for log in lab.logs()] == ["room"]
        again = duodaq_command("record", "--name", "room", *there)
        assert again.returncode == 2
        assert "a log called room is under way" in again.stderr
        reading = lab.room.read("temperature")
        recording.interrupt(signal.SIGINT)
        assert recording.end() == 0
        assert "rows in" in recording.said
        (run,) = duodaq.runs(tmp_path / "logs", log="room")
        assert reading.t_ns in run["room.temperature"].to_arrow().column("timestamp").cast("int64").to_pylist()

        begun = duodaq_command("record", "--detach", "--name", "told", "--json", *there)
        assert (begun.returncode, json.loads(begun.stdout)["lab"]) == (0, running_lab), begun.stderr
        ended = duodaq_command("record", "--stop", "--name", "told", "--json", "--lab", running_lab)
        told = json.loads(ended.stdout)
        assert (ended.returncode, told["complete"], told["name"], told["error"]) == (0, True, "told", None)
        assert told["directory"] == json.loads(begun.stdout)["directory"]
        assert told["files"]["room.temperature.arrows"] > 0

        begun = duodaq_command("record", "--detach", *there)
        assert begun.returncode == 0, begun.stderr
        assert "duodaq record --stop --name log" in begun.stdout
        ended = duodaq_command("record", "--stop", "--lab", running_lab)
        assert ended.returncode == 0, ended.stderr
        assert "before it" not in ended.stdout
        assert lab.logs() == []
    wrong = duodaq_command("record", "--rotate", "dayly", "--lab", running_lab)
    assert wrong.returncode == 2
    assert "dayly" in wrong.stderr
    assert "no such" not in duodaq_command("runs", "log=room", "--dir", tmp_path / "logs").stdout.lower()
