"""A recording is killed at any moment: what was acknowledged is there, and right."""

from __future__ import annotations

import importlib.util
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.faults.fault_table import JOURNAL

import duodaq
from duodaq.storage import Gap, JournalReader, recover, unfinished_runs

WRITER = Path(__file__).with_name("journal_writer.py")
ACKNOWLEDGED_S = 0.05

spec = importlib.util.spec_from_file_location("journal_writer", WRITER)
assert spec is not None
assert spec.loader is not None
writer: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    """The program that makes recordings and kills them; it has loaded all that they need."""
    program = subprocess.Popen([sys.executable, WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield program
    program.communicate()
    assert program.returncode == 0


def killed(
    nursery: subprocess.Popen[str], path: Path, level: str, life_s: float, since: str
) -> tuple[int, int, list[float]]:
    """Let a recording live so long since it was `begun`, or a row of it `acknowledged`; the newest row and frame it was
    promised, and how long each promise took.
    """
    (path.parent / "acks").write_bytes(writer.ACKS.pack(-1, -1, 0) + bytes(writer.ACKS_BYTES - writer.ACKS.size))
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(f"{path} {level} {life_s} {since}\n")
    nursery.stdin.flush()
    assert nursery.stdout.readline() == "dead\n"
    told = (path.parent / "acks").read_bytes()
    row, frame, count = writer.ACKS.unpack_from(told)
    return row, frame, np.frombuffer(told, np.float64, count, writer.ACKS.size).tolist()


def named(gaps: list[Gap]) -> list[Gap]:
    """Without rows that the kernel had and of which the entry was not written yet: they were never acknowledged."""
    return [gap for gap in gaps if gap.reason != "unconfirmed"]


def check(path: Path, row: int, frame: int) -> None:
    """All up to the newest that was promised is there, without a gap, and every value is right."""
    for finished in (False, True):
        reader = JournalReader(path)
        assert reader.finished == finished
        assert named(reader.gaps()) == []
        if any(reader.batches("dmm.voltage")):  # a file that was begun may hold none yet
            table = reader.table("dmm.voltage")
            numbers = table.column("sequence").to_numpy()
            np.testing.assert_array_equal(numbers, np.arange(len(numbers), dtype=np.uint64))
            np.testing.assert_array_equal(table.column("value").to_numpy(), writer.values_of(numbers))
            assert len(numbers) > row
        else:
            assert row == -1
        frames = 0
        for batch in reader.batches("cam.frames"):
            for pixels in batch.column("pixels").to_numpy_ndarray():
                np.testing.assert_array_equal(pixels, writer.pixels_of(frames))
                frames += 1
        assert frames > frame
        run = duodaq.open_run(path)
        for stream, promised in (("dmm.voltage", row), ("cam.frames", frame)):
            found = run[stream].to_arrow().num_rows if stream in run else 0
            assert found == sum(batch.num_rows for batch in reader.batches(stream)) > promised
        if not finished:
            found = recover(path)
            assert named(found.gaps) == []


def kill_some(nursery: subprocess.Popen[str], tmp_path: Path, level: str, kills: int, timed: bool) -> None:
    """Where nobody is timed, every second one lives on from its first promise: there is one on a busy machine, too."""
    luck = random.Random()
    took: list[float] = []
    promised = 0
    for n in range(kills):
        path = tmp_path / f"run{n}"
        life_s = 0.05 + 0.35 * (n + luck.random()) / kills  # short ones and long ones, as many each time
        since = "begun" if timed or n % 2 else "acknowledged"
        row, frame, latencies = killed(nursery, path, level, life_s, since)
        assert row >= 0 or since == "begun"
        if path.exists() and unfinished_runs(path):
            check(path, row, frame)
        else:
            assert (row, frame) == (-1, -1)
        promised += row + 1
        took += latencies
        shutil.rmtree(path, ignore_errors=True)
    assert promised > 5000 * kills or not timed
    late_s = statistics.quantiles(took, n=20)[18]
    told = f"{kills} kills, {level}: {promised} rows acknowledged, all there and right"
    sys.stdout.write(f"\n{told}; acknowledged after {late_s * 1e3:.1f} ms at p95\n")
    assert late_s <= ACKNOWLEDGED_S or not timed


levels = pytest.mark.parametrize("level", ["durable", "kernel"])


@levels
@pytest.mark.fault("recording left", by=JOURNAL)
def test_whatever_was_acknowledged_survives_a_kill(nursery: subprocess.Popen[str], tmp_path: Path, level: str) -> None:
    kill_some(nursery, tmp_path, level, 10, timed=False)


@pytest.mark.alone("judges how long acknowledgements take")
@levels
@pytest.mark.fault("recording left", by=JOURNAL)
def test_what_is_acknowledged_is_acknowledged_soon(nursery: subprocess.Popen[str], tmp_path: Path, level: str) -> None:
    kill_some(nursery, tmp_path, level, 3, timed=True)


@pytest.mark.soak
@levels
@pytest.mark.fault("recording left", by=JOURNAL)
def test_whatever_was_acknowledged_survives_a_thousand_kills(
    nursery: subprocess.Popen[str], tmp_path: Path, level: str
) -> None:
    kill_some(nursery, tmp_path, level, 500, timed=True)
