"""`duodaq ports` looks at a running lab as a separate program."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import duodaq

pytest.importorskip("pymeasure")
pytestmark = pytest.mark.serial


def test_the_ports_of_a_running_lab_are_shown_watched_and_recorded(
    simulated_lab: Any, start_program: Callable[..., Any], duodaq_command: Callable[..., Any], tmp_path: Path
) -> None:
    name = simulated_lab.name
    simulated_lab.rewrite('codec = "esp300"', 'codec = "esp300"\nvirtual = { pty = "run/esp" }')
    host = start_program("-m", "duodaq.cli", "run", simulated_lab.file)
    host.wait_for("Attach with")

    shown = duodaq_command("ports", "--lab", name, "--once").stdout
    for part in ("stage", "dmm", "shutter", "open", "ex/s", "programs outside find it at", "run/esp"):
        assert part in shown
    told = {p["name"]: p for p in json.loads(duodaq_command("ports", "--lab", name, "--once", "--json").stdout)}
    assert told["stage"]["virtual"] == [str(tmp_path / "run" / "esp")]
    assert told["dmm"]["exchanges_per_s"] >= 0

    watching = start_program("-m", "duodaq.cli", "ports", "tail", "stage", "--lab", name, "--last", "0")
    watching.wait_for("since last")
    recording = start_program("-m", "duodaq.cli", "ports", "record", tmp_path / "wire", "--lab", name)
    recording.wait_for("Recording the wire")
    with duodaq.connect(name) as lab:
        lab.stage.x.read_position()
        kept = lab.wire_tail("stage")["records"]
        assert 0 < len(kept) <= 20
        assert any(record.data == b"1TP\r" for record in kept)
    watching.wait_for("axis 1: position?")
    watching.interrupt()
    assert watching.end() == 0
    recording.interrupt(signal.SIGINT)
    assert recording.end() == 0
    assert "records in" in recording.said

    last = duodaq_command("ports", "tail", "stage", "--lab", name, "--once", "--last", "500", "--json").stdout
    records = [json.loads(line) for line in last.splitlines()]
    assert any(r["data"] == "1TP\r" and r["holder"] == "v4.stage" for r in records)
    filed = duodaq_command("ports", "tail", "stage", "--file", tmp_path / "wire").stdout
    assert "1TP" in filed
    ended = duodaq_command("ports", "tail", "stage", "--file", tmp_path / "wire", "--json", "--last", "2").stdout
    assert [json.loads(line)["sequence"] for line in ended.splitlines()] == [
        record.sequence for record in duodaq.open_wirelog(tmp_path / "wire").records("stage")[-2:]
    ]
    nothing = duodaq_command("ports", "tail", "stage", "--file", tmp_path / "wire", "--json", "--last", "0")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "axis 1: position = " in filed

    for arguments in (("--lab", name), ("--file", tmp_path / "wire")):
        refused = duodaq_command("ports", "tail", "stag", "--once", *arguments)
        assert refused.returncode == 2
        assert "stage" in refused.stderr
    assert duodaq_command("ports", "record", tmp_path / "wire", "--lab", name).returncode == 1
    told = start_program("-m", "duodaq.cli", "ports", "record", tmp_path / "told", "--lab", name, "--json")
    told.wait_for('"path"')
    told.interrupt(signal.SIGTERM)
    assert told.end() == 0
    begun, ended = (json.loads(line) for line in told.said.splitlines())
    assert (begun["lab"], begun["path"], ended["path"]) == (name, *[str(tmp_path / "told")] * 2)
    assert (ended["records"] > 0, ended["lost"], ended["error"]) == (True, {}, None)

    left = start_program("-m", "duodaq.cli", "ports", "record", tmp_path / "left", "--lab", name)
    left.wait_for("Recording the wire")
    host.interrupt()
    assert host.end() == 0
    assert left.end() == 1  # it does not wait for a lab that is gone
    assert "the file ended with it" in left.said
    assert duodaq.open_wirelog(tmp_path / "left").records("stage")
