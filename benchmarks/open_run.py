"""What it costs to open a run, to read it and to keep it in another form.

A run of one stream in batches of 100 rows is opened, read, and exported with its verification against the journal. One
of 20 channels over 28 days at 1 Hz, in batches as compacting makes them, is opened with the length and the times of
every channel. Printed is the best of three: the files are in the page cache then.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from _harness import Goal, parser, report

import duodaq
from duodaq.model import Scalar
from duodaq.schema import scalar_batch
from duodaq.storage.export import Format, export
from duodaq.testing import growing_run

T0 = 1_780_000_000_000_000_000


def write(path: Path, streams: list[str], rows: int, per_batch: int, step_ns: int) -> Path:
    """A run of `rows` rows in each of `streams`."""
    rng = np.random.default_rng(1)
    with growing_run(path) as journal:
        models = [scalar_batch([Scalar(*s.split("."), "W", 0, 0, 0.0, "v2")] * per_batch) for s in streams]
        for first in range(0, rows, per_batch):
            numbers = np.arange(first, first + per_batch)
            times = pa.array(T0 + step_ns * numbers).cast(pa.timestamp("ns"))
            sequence = pa.array(numbers.astype(np.uint64))
            for model in models:
                values = pa.array(np.round(np.cumsum(rng.normal(size=per_batch)), 4))
                columns = [times, sequence, *model.columns[2:4], values, model.columns[5]]
                journal.write([pa.RecordBatch.from_arrays(columns, schema=model.schema)])
            if first % (100 * per_batch) == 0:
                journal.commit()
        journal.close({"exit_status": "success"})
    return path


def best_ms(act: Callable[[], Any]) -> float:
    """Milliseconds, the best of three."""
    took: list[float] = []
    for _ in range(3):
        begun = time.perf_counter()
        act()
        took.append(time.perf_counter() - begun)
    return min(took) * 1e3


def look(path: Path) -> list[tuple[int, Any, Any]]:
    """Open a run and ask every stream for its length and its times."""
    return [(len(stream), stream.start, stream.stop) for stream in duodaq.open_run(path)]


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    many, million, days = (100_000, 10_000, 1) if quick else (10_000_000, 1_000_000, 28)
    with tempfile.TemporaryDirectory() as folder:
        large = write(Path(folder) / "large", ["meter.power"], many, 100, 10_000)
        small = write(Path(folder) / "small", ["meter.power"], million, 100, 10_000)
        channels = [f"room{n}.temperature" for n in range(20)]
        long = write(Path(folder) / "long", channels, days * 86_400, 21_600, 1_000_000_000)
        assert [rows for rows, *_ in look(long)] == [days * 86_400] * 20
        size = sum(file.stat().st_size for file in long.iterdir()) / (20 * days * 86_400)
        opened, whole = duodaq.open_run(small), f"{million:,} rows"
        goals = [
            Goal(f"open {many:,} rows, with length and times", best_ms(lambda: look(large)), "≤", 100, "ms"),
            Goal(f"open {days} days of 20 channels, likewise", best_ms(lambda: look(long)), "≤", 1000, "ms"),
            Goal("its size, a row", size, "≤", 40, "B"),
            Goal(f"read {whole} into Arrow", best_ms(opened["meter.power"].to_arrow), unit="ms"),
        ]
        for form in get_args(Format):
            took = best_ms(functools.partial(export, opened, form))
            asked = {"relation": "≤", "limit": 500} if form in ("parquet", "hdf5") else {}
            goals.append(Goal(f"{whole} to {form}, verified", took, **asked, unit="ms"))
    report(goals, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
