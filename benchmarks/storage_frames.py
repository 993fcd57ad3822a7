"""Frames on the disk: the journal at `durable` against the O_DIRECT write limit of the same disk, side by side.

The limit is a program that does nothing else: it writes the same frames from aligned memory with O_DIRECT into a file
that has its space already, and syncs as often as the journal does. Rounds of both alternate in one directory. The
journal checks each frame with XXH3 on its way, notes it in two indices and a table, and acknowledges it.

* *each*: the next frame is not taken before the disk has the one before it.
* *recorded*: frames are published at a hub as fast as they are taken, and the clock stops at the last acknowledgement.
  The limit syncs once every 10 ms.

Frames come aligned, as from the ring between processes, and from any place, as numpy gives them.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from _harness import Goal, parser, report

from duodaq import schema
from duodaq.clock import new_loop
from duodaq.storage import Recorder
from duodaq.storage.journal import Journal, RunPage
from duodaq.v4 import DataPublisher

T0 = 1_780_000_000_000_000_000
HOME = Path(__file__).parents[1] / "build"
GROUP_S = 0.01
DIFFERENT = 8


def pool(shape: tuple[int, int], offset: int) -> list[Any]:
    """A few frames of noise, each `offset` bytes behind the beginning of a page."""
    size = shape[0] * shape[1] * 2
    noise = np.random.default_rng(1).integers(0, 2**16, shape, np.uint16)
    frames: list[Any] = []
    for _ in range(DIFFERENT):
        memory = mmap.mmap(-1, size + 4096)
        frame = np.frombuffer(memory, np.uint16, size // 2, offset).reshape(shape)
        frame[:] = noise
        frames.append(frame)
    return frames


def batches_of(frames: list[Any], count: int) -> list[pa.RecordBatch]:
    """Batches of one frame each, as a camera publishes them."""
    return [
        schema.frame_batch(
            frames[n % len(frames)],
            instrument="cam",
            channel="frames",
            t_ns=T0 + n,
            sequence=n,
            frame_number=n,
        )
        for n in range(count)
    ]


def limit(folder: Path, frames: list[Any], count: int, group_s: float) -> float:
    """Seconds a frame of the plain writer."""
    size = frames[0].nbytes
    file = os.open(folder / "limit", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    os.posix_fallocate(file, 0, (count + 1) * size)
    os.pwrite(file, frames[0].data, 0)
    os.fsync(file)
    begun = last = time.perf_counter()
    for n in range(1, count):
        os.pwrite(file, frames[n % len(frames)].data, n * size)
        if time.perf_counter() - last >= group_s:
            os.fdatasync(file)
            last = time.perf_counter()
    os.fdatasync(file)
    took = time.perf_counter() - begun
    os.close(file)
    return took / (count - 1)


def each(folder: Path, batches: list[pa.RecordBatch]) -> float:
    """Seconds a frame of the journal, committed after each."""
    journal = Journal(str(folder / "run"), RunPage.of_now(folder / "run", level="durable", provenance={}))
    journal.write(batches[:1])
    journal.commit()
    begun = time.perf_counter()
    for batch in batches[1:]:
        journal.write([batch])
        journal.commit()
    took = time.perf_counter() - begun
    journal.close({"exit_status": "success"})
    return took / (len(batches) - 1)


def recorded(folder: Path, batches: list[pa.RecordBatch]) -> tuple[float, float]:
    """Seconds a frame of a recorder at a hub, and seconds of CPU of the whole program."""

    async def record() -> tuple[float, float]:
        hub = DataPublisher("v4")
        recorder = Recorder(folder / "run", hub, level="durable")
        await recorder.start()
        hub.publish(batches[0])
        await recorder.flush()
        begun, cpu = time.perf_counter(), cpu_s()
        for batch in batches[1:]:
            await hub.publish_wait(batch)
        assert await recorder.acknowledged("cam.frames", len(batches) - 1, timeout_s=100)
        took, used = time.perf_counter() - begun, cpu_s() - cpu
        assert (await recorder.stop()).complete
        return took / (len(batches) - 1), used / (len(batches) - 1)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(record())


def cpu_s() -> float:
    """What this program has used of the processors, the kernel's work for it included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(shape: tuple[int, int], count: int, rounds: int) -> dict[str, list[float]]:
    """Figures of each round, by what they are."""
    aligned, anywhere = pool(shape, 0), pool(shape, 16)
    sets = {"aligned": batches_of(aligned, count), "anywhere": batches_of(anywhere, count)}
    found: dict[str, list[float]] = {}
    HOME.mkdir(exist_ok=True)

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(rounds):
        folder = Path(tempfile.mkdtemp(dir=HOME))

        def place(name: str, folder: Path = folder) -> Path:
            made = folder / name
            made.mkdir()
            return made

        try:
            note("limit each", limit(place("a"), aligned, count, 0.0))
            note("each", each(place("b"), sets["aligned"]))
            shutil.rmtree(folder / "a")
            shutil.rmtree(folder / "b")
            note("limit", limit(place("c"), aligned, count, GROUP_S))
            for name, batches in sets.items():
                took, cpu = recorded(place(name), batches)
                note(name, took)
                note(f"{name} cpu", cpu)
                shutil.rmtree(folder / name)
        finally:
            shutil.rmtree(folder)
    return found


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    shape, count, rounds = ((256, 256), 5, 1) if quick else ((2048, 2048), 300, 7)
    found = measure(shape, count, rounds)

    def ratio(one: str, other: str) -> float:
        return median(b / a for a, b in zip(found[one], found[other], strict=True))

    megabytes = shape[0] * shape[1] * 2 / 1e6
    goals = [
        Goal(f"frames of {megabytes:.1f} MB a second: O_DIRECT limit", 1 / median(found["limit"]), unit="frames/s"),
        Goal("recorded, durable, aligned memory", 1 / median(found["aligned"]), unit="frames/s"),
        Goal("recorded, durable, any memory", 1 / median(found["anywhere"]), unit="frames/s"),
        Goal("recorded against the limit, aligned memory", ratio("aligned", "limit"), "≥", 0.85),
        Goal("recorded against the limit, any memory", ratio("anywhere", "limit"), "≥", 0.85),
        Goal("each against the limit, synced alike", ratio("each", "limit each")),
        Goal("CPU a frame, aligned memory", median(found["aligned cpu"]) * 1e3, "≤", 2, "ms"),
        Goal("CPU a frame, any memory", median(found["anywhere cpu"]) * 1e3, unit="ms"),
    ]
    report(goals, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
