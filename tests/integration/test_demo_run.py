"""The demonstration, as a newcomer runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("pymeasure")
pytest.importorskip("pyvcam")
pytestmark = pytest.mark.serial


def width_off(said: str) -> float:
    found = re.search(r"off by ([+-][\d.]+)%", said)
    assert found is not None, said
    return abs(float(found[1])) / 100


def table_of(said: str, title: str) -> list[list[str]]:
    """The rows of a table that was printed, cell by cell."""
    lines = said.split(title)[1].split("──\n" if "──\n" in said else "── \n", 1)[1].splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return rows[: rows.index([""])]


def test_the_demo_finds_the_beam_balances_its_books_and_leaves_all_safe(
    duodaq_program: Callable[..., Any], tmp_path: Path
) -> None:
    ended = duodaq_program("demo", "--headless", "--points", "21", "--migrate", "--out", tmp_path, limit_s=110)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    moved = re.findall(r"Moved the power meter to (V\d) in the middle", ended.stdout)
    assert moved == ["V4", "V2"]
    assert ended.stderr == ""
    assert width_off(ended.stdout) < 0.02
    assert "\x1b" not in ended.stdout
    assert "the shutter is closed, nothing moves" in ended.stdout
    counted = table_of(ended.stdout, "Beside the devices' own counts")
    assert [row[0] for row in counted] == ["meter.power", "dmm.reference", "camera.frames"]
    for _, _, sent, measured, lost in counted:
        assert int(sent) == int(measured) + int(lost) > 0
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    files = {row[0]: int(row[1]) for row in table_of(ended.stdout, "read back with plain pyarrow and numpy")}
    frames = files.pop("camera.frames.npy")
    assert len(np.load(folder / "camera.frames.npy", mmap_mode="r")) == frames == files["camera.frames.arrows"]
    brightest = int(np.load(folder / "camera.frames.npy", mmap_mode="r").max())
    assert 2**16 / 16 < brightest < 2**16 / 2, "the beam is to be seen, and not cut off"
    assert set(files) == {f"{s}.arrows" for s in ("camera.frames", "dmm.reference", "meter.power", "stage.x")}
    for name, rows in files.items():
        with pa.OSFile(str(folder / name)) as source:
            assert pa.ipc.open_stream(source).read_all().num_rows == rows
    *_, stop = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    assert (stop["name"], stop["doc"]["exit_status"]) == ("stop", "success")
    assert stop["doc"]["ledger"]["balanced"]
    assert json.loads((folder / "run.json").read_text())["provenance"]["instruments"].keys() >= {"camera", "dmm"}


def test_pulling_the_meters_cable_is_said_stops_safely_and_fails(
    duodaq_program: Callable[..., Any], tmp_path: Path
) -> None:
    ended = duodaq_program("demo", "--headless", "--points", "21", "--out", tmp_path, "--unplug-at", "5", limit_s=110)
    assert ended.returncode == 1
    assert "Scan failed after 5 of 21 points: meter" in ended.stdout
    assert "there is no such device" in ended.stdout
    assert "the shutter is closed, nothing moves" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.timeout(180)
def test_over_twenty_seeds_the_width_is_within_two_percent(
    seed: int, duodaq_program: Callable[..., Any], tmp_path: Path
) -> None:
    ended = duodaq_program("demo", "--headless", "--seed", str(seed), "--out", tmp_path, limit_s=170)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert width_off(ended.stdout) < 0.02
