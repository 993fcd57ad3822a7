"""Rows on the disk: duodaq's journal against QCoDeS's dataset, h5py, and a plain write of the same bytes.

The work is the same for all: rows of a time, a sequence number and a value, 100 a batch, in a new file or directory on
the same disk. It is done in two ways:

* *each durable*: the next batch is not taken before the disk has the one before it. QCoDeS commits a transaction of
  SQLite (WAL, synchronous=FULL) for each, h5py flushes and the file is synced, the plain file is written and synced.
* *grouped*: batches come as fast as they are taken, and the disk must have them within 10 ms of being written. duodaq
  does this itself: batches are published at a hub, and the clock stops when the last is acknowledged. The plain file is
  synced every 10 ms. QCoDeS and h5py have nothing of the kind: for them it is each batch again.

What the peers do not do: none of them has a checksum, an index, or an order of writes by which a torn file is mended
(SQLite has for its WAL). h5py and the plain file do not note a schema. h5py's file is lost if the program is killed
between two flushes. Peers alternate, and of each the best round counts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _harness import Goal, parser, report

from duodaq import schema
from duodaq.clock import new_loop
from duodaq.model import Scalar
from duodaq.storage import Recorder
from duodaq.storage.journal import Journal, RunPage
from duodaq.v4 import DataPublisher

ROWS = 100
GROUP_S = 0.01
T0 = 1_780_000_000_000_000_000
MODEL = schema.scalar_batch([Scalar("meter", "power", "W", T0, 0, 0.0, "v4")] * ROWS)
HOME = Path(__file__).parents[1] / "build"

Writer = Callable[[Path, list[Any]], float]
"""Writes batches into a new directory; seconds, without opening and closing."""


def numbers(batch: int) -> tuple[Any, Any, Any]:
    """Times, sequence numbers and values of one batch."""
    sequence = np.arange(batch * ROWS, (batch + 1) * ROWS, dtype=np.uint64)
    return T0 + 1000 * sequence.astype(np.int64), sequence, np.sin(sequence / 7.0)


def arrow(batch: int) -> pa.RecordBatch:
    """One batch as it is published."""
    times, sequence, values = numbers(batch)
    new = {
        "timestamp": pa.array(times).cast(pa.timestamp("ns")),
        "sequence": pa.array(sequence),
        "value": pa.array(values),
    }
    columns = [new.get(field.name, MODEL.column(i)) for i, field in enumerate(MODEL.schema)]
    return pa.RecordBatch.from_arrays(columns, schema=MODEL.schema)


def journal_each(folder: Path, batches: list[Any]) -> float:
    """The journal, committed after each batch."""
    journal = Journal(str(folder / "run"), RunPage.of_now(folder / "run", level="durable", provenance={}))
    journal.write(batches[:1])
    journal.commit()
    begun = time.perf_counter()
    for batch in batches[1:]:
        journal.write([batch])
        journal.commit()
    took = time.perf_counter() - begun
    journal.close({"exit_status": "success"})
    assert journal.counts == {"meter.power": len(batches) * ROWS}
    return took


def recorder_grouped(folder: Path, batches: list[Any]) -> float:
    """A recorder at a hub, until the last row is acknowledged as durable."""

    async def record() -> float:
        hub = DataPublisher("v4")
        recorder = Recorder(folder / "run", hub, level="durable")
        await recorder.start()
        hub.publish(batches[0])
        await recorder.flush()
        begun = time.perf_counter()
        for batch in batches[1:]:
            hub.publish(batch)
        assert await recorder.acknowledged("meter.power", len(batches) * ROWS - 1, timeout_s=60)
        took = time.perf_counter() - begun
        summary = await recorder.stop()
        assert summary.complete
        assert summary.rows == {"meter.power": len(batches) * ROWS}
        return took

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(record())


def raw(folder: Path, batches: list[Any], group_s: float) -> float:
    """The same bytes into a plain file, synced every `group_s`."""
    ready = [batch.serialize() for batch in batches]
    file = os.open(folder / "raw", os.O_CREAT | os.O_WRONLY)
    os.write(file, ready[0])
    os.fsync(file)
    begun = last = time.perf_counter()
    for data in ready[1:]:
        os.write(file, data)
        if not group_s or time.perf_counter() - last >= group_s:
            os.fdatasync(file)
            last = time.perf_counter()
    os.fdatasync(file)
    took = time.perf_counter() - begun
    os.close(file)
    return took


def raw_each(folder: Path, batches: list[Any]) -> float:
    """A plain file, synced after each batch."""
    return raw(folder, batches, 0.0)


def raw_grouped(folder: Path, batches: list[Any]) -> float:
    """A plain file, synced every 10 ms."""
    return raw(folder, batches, GROUP_S)


def hdf5(folder: Path, batches: list[Any], *, sync: bool) -> float:
    """Three datasets that grow with each batch, flushed, and synced if it shall be."""
    import h5py

    with h5py.File(folder / "rows.h5", "w", libver="latest") as file:
        columns = [
            file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(4096,))
            for name, dtype in (("timestamp", "i8"), ("sequence", "u8"), ("value", "f8"))
        ]
        handle = file.id.get_vfd_handle()
        work = [numbers(n) for n in range(len(batches))]
        begun = time.perf_counter()
        for n, arrays in enumerate(work):
            for column, values in zip(columns, arrays, strict=True):
                column.resize(((n + 1) * ROWS,))
                column[n * ROWS :] = values
            file.flush()
            if sync:
                os.fdatasync(handle)
        return (time.perf_counter() - begun) * (len(batches) - 1) / len(batches)


def hdf5_each(folder: Path, batches: list[Any]) -> float:
    """h5py, flushed and synced after each batch."""
    return hdf5(folder, batches, sync=True)


def hdf5_flushed(folder: Path, batches: list[Any]) -> float:
    """h5py, flushed after each batch and never synced: the kernel has the rows, the disk does not."""
    return hdf5(folder, batches, sync=False)


@contextmanager
def qcodes_saver(folder: Path) -> Iterator[Any]:
    """A QCoDeS measurement that saves what it is given when it is told to."""
    from qcodes.dataset import Measurement, initialise_or_create_database_at, load_or_create_experiment

    initialise_or_create_database_at(folder / "peers.db")
    measurement = Measurement(exp=load_or_create_experiment("peers", "rows"))
    measurement.write_period = 1e6  # only when it is flushed
    measurement.register_custom_parameter("timestamp")
    measurement.register_custom_parameter("sequence")
    measurement.register_custom_parameter("value", setpoints=("timestamp", "sequence"))
    with measurement.run(write_in_background=False) as saver:
        (level,) = saver.dataset.conn.execute("PRAGMA synchronous").fetchone()
        assert level == 2, f"SQLite syncs at level {level}, not FULL"
        yield saver


def qcodes_each(folder: Path, batches: list[Any]) -> float:
    """QCoDeS's dataset, one transaction for each batch of rows."""
    with qcodes_saver(folder) as saver:
        work = [[array.tolist() for array in numbers(n)] for n in range(len(batches))]
        begun = time.perf_counter()
        for times, sequence, values in work:
            for t_ns, number, value in zip(times, sequence, values, strict=True):
                saver.add_result(("timestamp", t_ns), ("sequence", number), ("value", value))
            saver.flush_data_to_database()
        took = time.perf_counter() - begun
        assert saver.dataset.number_of_results == len(batches) * ROWS
    return took * (len(batches) - 1) / len(batches)


WRITERS: dict[str, tuple[Writer, int]] = {
    "journal, each durable": (journal_each, 400),
    "plain file, each durable": (raw_each, 400),
    "h5py, flushed and synced": (hdf5_each, 400),
    "h5py, flushed": (hdf5_flushed, 400),
    "QCoDeS": (qcodes_each, 100),
    "recorder, grouped": (recorder_grouped, 20_000),
    "plain file, grouped": (raw_grouped, 20_000),
}


def measure(rounds: int, part: float) -> dict[str, float]:
    """Rows a second of each writer, the best of `rounds`."""
    best = dict.fromkeys(WRITERS, 0.0)
    counts = {name: max(5, int(count * part)) for name, (_, count) in WRITERS.items()}
    batches = [arrow(n) for n in range(max(counts.values()))]
    HOME.mkdir(exist_ok=True)
    for _ in range(rounds):
        for name, (write, _) in WRITERS.items():
            folder = Path(tempfile.mkdtemp(dir=HOME))
            try:
                took = write(folder, batches[: counts[name]])
            finally:
                shutil.rmtree(folder)
            best[name] = max(best[name], (counts[name] - 1) * ROWS / took)
    return best


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    found = measure(1 if quick else 5, 0.02 if quick else 1.0)
    ours, grouped, raw_one = (
        found["journal, each durable"],
        found["recorder, grouped"],
        found["plain file, each durable"],
    )
    goals = [Goal(f"rows durable a second: {name}", rate, unit="rows/s") for name, rate in found.items()]
    goals += [
        Goal("as they come: ours against QCoDeS", grouped / found["QCoDeS"], "≥", 20),
        Goal("as they come: ours against h5py, synced", grouped / found["h5py, flushed and synced"], "≥", 10),
        Goal("as they come: ours against h5py, only flushed", grouped / found["h5py, flushed"]),
        Goal(
            "as they come: ours against plain writes, grouped alike", grouped / found["plain file, grouped"], "≥", 0.3
        ),
        Goal("each durable: ours against QCoDeS", ours / found["QCoDeS"]),
        Goal("each durable: ours against h5py, synced", ours / found["h5py, flushed and synced"]),
        Goal("each durable: ours against a plain write and sync", ours / raw_one, "≥", 0.3),
    ]
    report(goals, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
