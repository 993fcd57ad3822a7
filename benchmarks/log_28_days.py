"""What weeks of slow channels cost: on the disk, and until they can be read.

20 channels at 1 Hz for 28 days, with the stamps of these days, go through the journal and its merging as a recorder has
them done, in one run. A channel's last rows, which are not merged yet, are written as they come in a lab, a batch for
each; those before in batches of 1024 rows, which leaves the same once it is merged (`--whole`: all row by row).
Printed are the bytes for each row of all that is in the directory, how long it takes to open the run and ask every
channel for its length and its times, and what a row takes that is not merged. The disk is not waited for: no figure is
about that.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _harness import Goal, parser, report

import duodaq
from duodaq.model import Scalar
from duodaq.schema import scalar_batch
from duodaq.storage.journal import Disk, Journal, RunPage, _compact
from duodaq.storage.journal._compact import STRETCH_ENTRIES, merge, remove
from duodaq.storage.journal._prune import prune
from duodaq.testing import QuickDisk

T0 = 1_780_000_000_000_000_000
SECOND = 1_000_000_000
LARGE = 1024
_PLAIN = 2


class Channels:
    """What the channels measure: a slow drift with noise, at whole seconds with some jitter."""

    def __init__(self, count: int, rows: int) -> None:
        rng = np.random.default_rng(1)
        self.names = [f"room{n}.temperature" for n in range(count)]
        self._models = [
            scalar_batch([Scalar(*name.split("."), "degC", 0, 0, 0.0, "v2")] * LARGE) for name in self.names
        ]
        self._noise = np.round(21 + np.cumsum(rng.normal(scale=0.002, size=rows)), 4)
        numbers = np.arange(rows)
        self._numbers = pa.array(numbers.astype(np.uint64))
        self._times = pa.array(T0 + SECOND * numbers + rng.integers(0, 2_000_000, rows)).cast(pa.timestamp("ns"))

    def batch(self, channel: int, first: int, count: int) -> pa.RecordBatch:
        """`count` rows of a channel from number `first` on."""
        model = self._models[channel].slice(0, count)
        values = pa.array(self._noise[first : first + count] + channel)
        times, numbers = self._times.slice(first, count), self._numbers.slice(first, count)
        columns = [times, numbers, *model.columns[2:4], values, model.columns[5]]
        return pa.RecordBatch.from_arrays(columns, schema=model.schema)


def tidy(journal: Journal, disk: Disk) -> None:
    """Merge what is worth it, as the recorder has it done beside its thread."""
    while (asked := journal.next_merge()) is not None:
        journal.adopt(merge(disk, journal.path, asked))
        journal.commit()
        gone, parts, dead = journal.take_replaced()
        remove(disk, journal.path, [stretch.name for stretch in gone])
        journal.pruned(parts, prune(disk, journal.path, parts, dead))


def record(path: Path, channels: Channels, rows: int, *, whole: bool, merging: bool) -> None:
    """Record `rows` rows of each channel, and leave the run as a killed program does."""
    disk = QuickDisk()
    journal = Journal(str(path), RunPage.of_now(path, level="kernel", provenance={}), disk)
    if not whole:  # what the stretches between consist of is to be merged, too
        _compact.SLOW_ROWS, _compact.LEAST_ENTRIES = 2 * LARGE, 4
    at = 0
    while at < rows:
        single = whole or at >= rows - rows % STRETCH_ENTRIES
        journal._stretch = STRETCH_ENTRIES if single else STRETCH_ENTRIES // LARGE + 1
        behind = min(at + (64 if single else LARGE), rows)
        for channel in range(len(channels.names)):
            if single:
                journal.write([channels.batch(channel, n, 1) for n in range(at, behind)])
            else:
                journal.write([channels.batch(channel, at, behind - at)])
        at = behind
        journal.commit()
        if merging:
            tidy(journal, disk)
    journal.abandon()


def look(path: Path) -> list[tuple[int, Any, Any]]:
    """Open a run and ask every stream for its length and its times."""
    return [(len(stream), stream.start, stream.stop) for stream in duodaq.open_run(path)]


def per_row(path: Path, rows: int) -> float:
    """The bytes of everything in a directory, for each of so many rows."""
    return sum(file.stat().st_size for file in path.iterdir()) / rows


def main() -> None:
    asking = parser(__doc__)
    asking.add_argument("--whole", action="store_true", help="every row in a batch of its own; takes half an hour")
    asked = asking.parse_args()
    count, rows = (2, 20_000) if asked.quick else (20, 28 * 86_400)
    channels = Channels(count, rows)
    with tempfile.TemporaryDirectory() as folder:
        log, plain = Path(folder) / "log", Path(folder) / "plain"
        record(log, channels, rows, whole=asked.whole, merging=True)
        record(plain, Channels(_PLAIN, STRETCH_ENTRIES), STRETCH_ENTRIES, whole=True, merging=False)
        took: list[float] = []
        for _ in range(3):
            begun = time.perf_counter()
            found = look(log)
            took.append(time.perf_counter() - begun)
            assert [n for n, *_ in found] == [rows] * count
        begun = time.perf_counter()
        day = duodaq.open_run(log)[channels.names[0]].between(T0 + 3600 * SECOND, T0 + 7200 * SECOND).to_arrow()
        hour_ms = (time.perf_counter() - begun) * 1e3
        assert day.num_rows == 3600
        size, unmerged = per_row(log, rows * count), per_row(plain, STRETCH_ENTRIES * _PLAIN)
        goals = [
            Goal(
                f"open {rows * count:,} rows of {count} channels, with length and times",
                min(took) * 1e3,
                "≤",
                1000,
                "ms",
            ),
            Goal("its size, a row", size, "≤", 40, "B"),
            Goal("the same rows unmerged, a row (baseline)", unmerged, unit="B"),
            Goal("so much smaller", unmerged / size, "≥", 1 if asked.quick else 8),
            Goal("an hour of one channel", hour_ms, unit="ms"),
        ]
    report(goals, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
