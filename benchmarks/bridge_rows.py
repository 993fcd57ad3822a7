"""Rows a second over the bridge, V2 → V4, against a plain asyncio queue and against one RecordBatch a row.

Run it: ``python benchmarks/bridge_rows.py`` (``--quick`` for a correctness run with small counts and no judgement).
All figures are of one run on one machine; read the ratios.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine

import numpy as np
import pyarrow as pa
from _harness import Goal, parser, report

from duodaq import schema
from duodaq.bridge import Bridge
from duodaq.dataplane import Hub
from duodaq.model import Measurement, Scalar
from duodaq.telemetry import configure_logging

GOAL_ROWS_S = 300_000
T = 1_790_000_000_000_000_000


def readings(count: int) -> list[Scalar]:
    """Readings of one channel, as a V2 instrument publishes them."""
    return [Scalar("dmm", "voltage", "V", T + n, n, n * 0.5, "v2") for n in range(count)]


def make_hubs() -> tuple[Hub[Measurement], Hub[pa.RecordBatch]]:
    """The two runtimes' hubs."""
    return Hub("v2"), Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)


async def bridge_alone(rows: list[Scalar]) -> float:
    """Rows that wait at the bridge already: taken, made into batches, published and read in V4."""
    v2, v4 = make_hubs()
    bridge = Bridge(v2, v4, capacity=len(rows))
    reader = v4.subscribe("reader", capacity=len(rows))
    await bridge.start()
    for row in rows:
        v2.publish(row)
    began = time.perf_counter()
    await read_rows(reader, rows)
    took = time.perf_counter() - began
    await bridge.stop()
    assert v2.ledger().balanced
    assert v4.ledger().balanced
    return len(rows) / took


async def end_to_end(rows: list[Scalar]) -> float:
    """The same with the publishing thread in the measurement, beside the bridge in one process."""
    v2, v4 = make_hubs()
    bridge = Bridge(v2, v4, capacity=len(rows))
    reader = v4.subscribe("reader", capacity=len(rows))
    await bridge.start()
    producer = threading.Thread(target=lambda: [v2.publish(row) for row in rows])
    began = time.perf_counter()
    producer.start()
    await read_rows(reader, rows)
    took = time.perf_counter() - began
    producer.join()
    await bridge.stop()
    row = v2.ledger().row("dmm.voltage", "bridge")
    assert row.delivered == row.produced == len(rows)
    return len(rows) / took


async def read_rows(reader, rows: list[Scalar]) -> None:
    """Read all rows in V4 and check that each arrived once, in order and unchanged."""
    sequences: list[np.ndarray] = []
    got = 0
    while got < len(rows):
        for batch in await reader.get_many(1000, 10):
            sequences.append(batch.column("sequence").to_numpy())
            got += batch.num_rows
            last = batch
    np.testing.assert_array_equal(np.concatenate(sequences), np.arange(len(rows)))
    assert schema.scalars_of(last)[-1] == rows[-1]


async def plain_queue(rows: list[Scalar]) -> float:
    """The baseline: every row through an asyncio.Queue, one put and one get, with no batch at the end."""
    queue: asyncio.Queue[Scalar] = asyncio.Queue()

    async def produce() -> None:
        for row in rows:
            await queue.put(row)

    began = time.perf_counter()
    task = asyncio.create_task(produce())
    for _ in rows:
        await queue.get()
    await task
    return len(rows) / (time.perf_counter() - began)


async def batch_per_row(rows: list[Scalar]) -> float:
    """What batching saves: a RecordBatch for every row, put into an asyncio.Queue."""
    queue: asyncio.Queue[pa.RecordBatch] = asyncio.Queue()
    began = time.perf_counter()
    for row in rows:
        queue.put_nowait(schema.scalar_batch([row]))
        queue.get_nowait()
    return len(rows) / (time.perf_counter() - began)


async def raw_columns(rows: list[Scalar], size: int = 256) -> float:
    """The floor: the same columns built from lists of rows, with no hub on either side."""
    began = time.perf_counter()
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        pa.record_batch(
            {
                "timestamp": pa.array(np.array([row.t_ns for row in part], np.int64).view("datetime64[ns]")),
                "sequence": pa.array(np.array([row.sequence for row in part], np.uint64)),
                "value": pa.array(np.array([row.value for row in part], np.float64)),
            }
        )
    return len(rows) / (time.perf_counter() - began)


def best(measure: Callable[[list[Scalar]], Coroutine[None, None, float]], rows: list[Scalar], repeats: int) -> float:
    """The best of several runs, in rows a second."""
    return max(asyncio.run(measure(rows)) for _ in range(repeats))


def main() -> None:
    """Print the figures and their ratios; the exit code says whether rows arrived, not how fast."""
    configure_logging("CRITICAL")  # the queues are filled on purpose
    quick = parser(__doc__).parse_args().quick
    rows, repeats = readings(5_000 if quick else 300_000), 1 if quick else 3
    bridge, whole = best(bridge_alone, rows, repeats), best(end_to_end, rows, repeats)
    queue, columns = best(plain_queue, rows, repeats), best(raw_columns, rows, repeats)
    single = best(batch_per_row, rows[: len(rows) // 20], repeats)
    goals = [
        Goal("bridge V2 → V4, rows waiting", bridge, "≥", GOAL_ROWS_S, "rows/s"),
        Goal("bridge V2 → V4, with the publishing thread", whole, "≥", GOAL_ROWS_S, "rows/s"),
        Goal("bridge / plain asyncio.Queue, no batches", bridge / queue),
        Goal("bridge / raw columns of 256 rows, no hubs", bridge / columns),
        Goal("bridge / one RecordBatch a row", bridge / single),
    ]
    report(goals, quick=quick)


if __name__ == "__main__":
    main()
