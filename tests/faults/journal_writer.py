"""A program whose children record 100,000 rows and 30 frames a second, and are killed when it is told to.

On each line of its input, ``directory level life_s``, it forks a child that records into the directory, kills it that
many seconds later, and says ``dead``. What the child was promised is in the file `acks` beside the directory: shared
memory, which no kill takes back.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from duodaq import schema
from duodaq.clock import monotonic_s, pause, utc_ns
from duodaq.dataplane import Hub
from duodaq.model import Scalar
from duodaq.storage import Recorder

ROWS, FRAME = 100, (512, 512)
EVERY_S, ROWS_PER_S, FRAMES_PER_S = 0.01, 100_000, 30
LONGEST_S = 60.0
MOST_LATENCIES = 4096
ACKS = struct.Struct("<qqq")  # the newest acknowledged row and frame, and how many latencies follow
ACKS_BYTES = ACKS.size + 8 * MOST_LATENCIES
PATTERN = np.random.default_rng(1).integers(0, 2**16, FRAME, np.uint16)
ONE = schema.scalar_batch([Scalar("dmm", "voltage", "V", utc_ns(), n, 0.0, "v4") for n in range(ROWS)])


def values_of(sequence: Any) -> Any:
    """What is measured as number `sequence`."""
    return (sequence * 2654435761 % 2**32) / 7.0


def rows(first: int) -> pa.RecordBatch:
    """`ROWS` rows from number `first` on."""
    numbers = np.arange(first, first + ROWS, dtype=np.uint64)
    times = pa.array(np.full(ROWS, utc_ns())).cast(pa.timestamp("ns"))
    new = {"timestamp": times, "sequence": pa.array(numbers), "value": pa.array(values_of(numbers))}
    return pa.RecordBatch.from_arrays(
        [new.get(f.name, ONE.column(i)) for i, f in enumerate(ONE.schema)], schema=ONE.schema
    )


def pixels_of(number: int) -> Any:
    """The frame of that number."""
    return PATTERN + np.uint16(number)


def frame(number: int) -> pa.RecordBatch:
    return schema.frame_batch(
        pixels_of(number), instrument="cam", channel="frames", t_ns=utc_ns(), sequence=number, frame_number=number
    )


class Acks:
    """What was promised, where a kill does not reach it."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ACKS_BYTES)
        self._newest = [-1, -1]
        self._count = 0

    def note(self, kind: int, sequence: int, took_s: float) -> None:
        struct.pack_into("<d", self._memory, ACKS.size + 8 * (self._count % MOST_LATENCIES), took_s)
        self._count += 1
        self._newest[kind] = max(self._newest[kind], sequence)
        ACKS.pack_into(self._memory, 0, *self._newest, min(self._count, MOST_LATENCIES))


async def live(directory: Path, level: Any) -> None:
    hub: Hub[pa.RecordBatch] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    acks = Acks(directory.with_name("acks"))
    recorder = Recorder(directory, hub, level=level)
    await recorder.start()
    waiting: set[asyncio.Task[None]] = set()

    async def await_ack(kind: int, stream: str, sequence: int) -> None:
        begun = monotonic_s()
        if await recorder.acknowledged(stream, sequence):
            acks.note(kind, sequence, monotonic_s() - begun)

    def watch(*what: Any) -> None:
        task = asyncio.create_task(await_ack(*what))
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    start, row, number = monotonic_s(), 0, 0
    while True:
        passed = monotonic_s() - start
        while row < passed * ROWS_PER_S:
            hub.publish(rows(row))
            row += ROWS
        watch(0, "dmm.voltage", row - 1)
        while number < passed * FRAMES_PER_S:
            hub.publish(frame(number))
            watch(1, "cam.frames", number)
            number += 1
        await pause(EVERY_S)


def wait_for_ack(path: Path) -> None:
    ends_s = time.monotonic() + LONGEST_S
    while ACKS.unpack_from(path.read_bytes())[0] < 0:
        assert time.monotonic() < ends_s, "no row was acknowledged"
        time.sleep(0.002)


def main() -> None:
    rows(0), frame(0)  # loads what the first batch needs, once for all children
    for line in sys.stdin:
        directory, level, life_s, since = line.split()
        child = os.fork()
        if not child:
            asyncio.run(live(Path(directory), level))
        if since == "acknowledged":
            wait_for_ack(Path(directory).with_name("acks"))
        time.sleep(float(life_s))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sys.stdout.write("dead\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
