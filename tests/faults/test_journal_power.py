"""The power goes at any moment: every row and frame that was acknowledged as durable is there, and right."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.faults.fault_table import JOURNAL

import duodaq
from duodaq import schema
from duodaq.model import Scalar
from duodaq.storage import JournalReader, recover
from duodaq.storage.journal import Journal, RunPage
from duodaq.testing import QuickDisk, TracedDisk, after_power_loss

T = 1_790_000_000_000_000_000
STREAMS = ("dmm.voltage", "cam.frames")


def rows(first: int, count: int) -> pa.RecordBatch:
    return schema.scalar_batch(
        [Scalar("dmm", "voltage", "V", T + n, n, n / 7, "v4", None) for n in range(first, first + count)]
    )


def frame(number: int, shape: tuple[int, int]) -> pa.RecordBatch:
    pixels = (np.arange(shape[0] * shape[1]) * 31 + number * 7 + 1).astype(np.uint16).reshape(shape)
    return schema.frame_batch(
        pixels, instrument="cam", channel="frames", t_ns=T + number, sequence=number, frame_number=number
    )


def shape_of(number: int) -> tuple[int, int]:
    """Whole blocks at first, then frames that share them."""
    return (64, 64) if number < 8 else (17, 23) if number < 16 else (9, 200)


class Failing(TracedDisk):
    """One whose sync fails once, after which nobody knows what the disk has."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    def sync(self, file: int) -> None:
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(file)


class Trace:
    """A recording as the disk saw it; `promised` says after how many steps what was acknowledged."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.disk = Failing()
        self.promised: list[tuple[int, int, int]] = [(0, 0, 0)]
        luck = random.Random(seed)
        journal = Journal(str(path), RunPage.of_now(path, level="durable", provenance={"lab": "bench"}), self.disk)
        row = number = 0
        for turn in range(24):
            batches: list[pa.RecordBatch] = []
            for _ in range(luck.randrange(3)):
                count = luck.choice((1, 3, 40))
                batches.append(rows(row, count))
                row += count
            for _ in range(luck.randrange(1, 3)):
                batches.append(frame(number, shape_of(number)))
                number += 1
            self.disk.fails = turn % 7 == 5
            try:
                journal.write(batches)
                journal.commit()
            except OSError:
                journal.give_up()
                journal.resume()
            self.promised.append((len(self.disk.steps), row, number))
        journal.close({})
        self.promised.append((len(self.disk.steps), row, number))
        self.rows, self.frames = row, number

    def promises(self, steps: int) -> tuple[int, int]:
        """How many rows and frames had been acknowledged after so many steps."""
        return max((rows, frames) for at, rows, frames in self.promised if at <= steps)


def check(path: Path, row: int, number: int, trace: Trace) -> None:
    reader, run = JournalReader(path), duodaq.open_run(path)
    found: dict[str, list[Any]] = {stream: [] for stream in STREAMS}
    for stream in STREAMS:
        for batch in reader.batches(stream):
            found[stream] += batch.column("sequence").to_pylist()
            first = batch.column("sequence")[0].as_py()
            wanted = rows(first, batch.num_rows) if stream == "dmm.voltage" else frame(first, shape_of(first))
            assert batch == wanted
    for stream, promised, all_of_it in (("dmm.voltage", row, trace.rows), ("cam.frames", number, trace.frames)):
        assert found[stream] == sorted(set(found[stream])), "nothing is there twice, and all is in order"
        assert found[stream][:promised] == [*range(promised)]
        assert set(found[stream]) <= {*range(all_of_it)}
        read = run[stream].to_arrow() if stream in run else pa.table({})
        numbers = read.column("sequence").to_pylist() if read.num_columns else []  # nothing may be left of its schema
        assert numbers[:promised] == [*range(promised)]


def lose_power(trace: Trace, tmp_path: Path, luck: random.Random) -> None:
    steps = luck.randrange(1, len(trace.disk.steps) + 1)
    row, number = trace.promises(steps)
    image = tmp_path / "image"
    shutil.rmtree(image, ignore_errors=True)
    if not after_power_loss(trace.disk.steps[:steps], trace.path, image, luck):
        assert (row, number) == (0, 0)
        return
    if not row and not number and not (image / "run.json").exists() and not (image / "events.jsonl").exists():
        return  # it had not even begun
    check(image, row, number, trace)
    found = recover(image, disk=QuickDisk())
    assert found.rows.get("dmm.voltage", 0) >= row
    check(image, row, number, trace)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Trace]:
    return [Trace(tmp_path_factory.mktemp("trace") / "run", seed) for seed in range(3)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.fault("recording left", by=JOURNAL)
def test_what_was_durable_survives_a_loss_of_power(traces: Sequence[Trace], tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    for _ in range(12):
        lose_power(traces[seed % len(traces)], tmp_path, luck)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 200))
@pytest.mark.fault("recording left", by=JOURNAL)
def test_what_was_durable_survives_ten_thousand_losses_of_power(
    traces: Sequence[Trace], tmp_path: Path, seed: int
) -> None:
    luck = random.Random(seed)
    for _ in range(100):
        lose_power(traces[seed % len(traces)], tmp_path, luck)
