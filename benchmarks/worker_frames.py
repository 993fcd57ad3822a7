"""Camera frames from an instrument in a process of its own to a subscriber of the manager's hub, against memcpy.

A frame is 2048 × 2048 uint16, 8.4 MB: published by an actor in a worker process as any other batch, received from the
hub as a record batch whose pixels lie in the ring, which is checked: nobody writes to them, and they are no copy. What
is measured is throughput: the actor publishes a few hundred frames as fast as they are taken, and the time from the
command to its answer is divided by their number. So one frame is copied while the one before is on its way.

The baseline is memcpy of such a frame between warm buffers by one thread, in turns with the rest. How many buffers are
written in turns decides what the processor's cache can do, for memcpy as for the ring, where two places are in use or
three: one is written while another is looked at. So it is judged against memcpy to two buffers; against one is shown
beside. Beside stand also what there is without the rest: the ring alone, of which two processes and a socket are all
that is left (`ring_frames.py`), and the same actor inline, where nothing is copied; and the time that each of the two
processes computes for a frame, of which the longer one is the least that a frame can take.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
from _harness import Goal, parser, report
from ring_frames import Consumer, producer

from duodaq.clock import utc_ns
from duodaq.dataplane import Policy
from duodaq.dual import DualRuntimeManager
from duodaq.link import BlobRef, RingReader
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, RuntimeDefinition
from duodaq.schema import frame_batch, pixels_of
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor
from duodaq.workers._inbox import Inbox
from duodaq.workers._messages import Batch

SHAPE = (2048, 2048)


def a_frame() -> np.ndarray[Any, Any]:
    """The same frame in every process."""
    return np.random.default_rng(1).integers(0, 60_000, SHAPE, np.uint16)


class Show(msgspec.Struct, frozen=True):
    """Publish so many frames, as fast as they are taken."""

    count: int


class Camera(InstrumentActor):
    """A camera that always has its next frame."""

    operations: ClassVar = {"show": Show}

    async def connect(self) -> None:
        self.frame = a_frame()

    @handler(Show, operation=True)
    async def show(self, message: Show) -> float:
        begun = time.thread_time()
        for _ in range(message.count):
            number = self.streams.sequence("frames")
            facts: dict[str, Any] = {"instrument": self.definition.id, "channel": "frames", "t_ns": utc_ns()}
            batch = frame_batch(self.frame, sequence=number, frame_number=number, **facts)
            await self.streams.deliver("frames", batch)
        return time.thread_time() - begun


@dataclass
class Seen:
    """What came of a run: seconds a frame, those computed here and there, and how the frames had come."""

    seconds: float = 0.0
    here_s: float = 0.0
    there_s: float = 0.0
    views: int = 0
    by_value: int = 0
    copies: int = 0


@contextmanager
def watched(seen: Seen) -> Iterator[None]:
    """Count on the manager's side which frames are views into a ring, are copied there, or found no room in it."""
    view, batch = RingReader.view, Inbox._batch

    def counted_view(self: RingReader, ref: BlobRef) -> np.ndarray[Any, Any]:
        before = self.copies
        found = view(self, ref)
        seen.copies += self.copies - before
        seen.views += self.copies == before
        return found

    def counted_batch(self: Inbox, message: Batch) -> Any:
        seen.by_value += message.blob is None
        return batch(self, message)

    RingReader.view, Inbox._batch = counted_view, counted_batch
    try:
        yield
    finally:
        RingReader.view, Inbox._batch = view, batch


async def stream(kind: str, count: int) -> Seen:
    """Take `count` frames of an actor in a worker of this kind."""
    seen, expected = Seen(), a_frame()
    definition = RuntimeDefinition("v4", kind)
    lab = LabDefinition("bench", instruments=(InstrumentDefinition("cam", "v4", Camera),), v4=definition)
    manager = DualRuntimeManager(lab)
    await manager.start()
    try:
        with contextlib.closing(manager.v4_data.subscribe("eye", capacity=2, policy=Policy.BLOCK)) as frames:
            await _take(manager, frames, 8, expected)  # what is used is warm on both sides
            with watched(seen):
                begun, computed = time.perf_counter(), time.thread_time()
                seen.there_s = await _take(manager, frames, count, expected) / count
                seen.here_s = (time.thread_time() - computed) / count
                seen.seconds = (time.perf_counter() - begun) / count
    finally:
        await manager.shutdown(5.0)
    return seen


async def _take(manager: DualRuntimeManager, frames: Any, count: int, expected: np.ndarray[Any, Any]) -> float:
    showing = asyncio.ensure_future(manager.command("cam", Execute("show", (count,)), 60.0))
    for _ in range(count):
        look(await frames.get(10.0), expected)
    return float(await showing)


def look(batch: Any, expected: np.ndarray[Any, Any]) -> None:
    """Compare the corners of a frame; it is gone afterwards."""
    pixels = pixels_of(batch)[0]
    assert not pixels.flags.owndata
    assert not pixels.flags.writeable
    assert pixels[0, 0] == expected[0, 0]
    assert pixels[-1, -1] == expected[-1, -1]


def memcpy_s(count: int, targets: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds a copy of a frame takes to warm buffers in turns, on that clock."""
    frame = a_frame()
    buffers = [frame.copy() for _ in range(targets)]
    begun = clock()
    for number in range(count):
        np.copyto(buffers[number % targets], frame)
    return (clock() - begun) / count


def main() -> None:
    """Measure in turns, and print medians over the turns."""
    quick = parser(__doc__).parse_args().quick
    count, turns = (10, 1) if quick else (300, 7)
    logging.getLogger("duodaq").addHandler(logging.NullHandler())
    logging.getLogger("duodaq").propagate = False
    columns: dict[str, list[float]] = defaultdict(list)
    total = Seen()
    with producer("ring", 2) as (link, _):
        ring = Consumer(link)
        ring.take(4)  # what is used is warm on both sides
        for _ in range(turns):
            columns["one"].append(memcpy_s(count, 1))
            columns["two"].append(memcpy_s(count, 2))
            columns["two computed"].append(memcpy_s(count, 2, time.thread_time))
            columns["ring"].append(ring.take(count) / count)
            for kind in ("process", "inline"):
                seen = asyncio.run(stream(kind, count))
                columns[kind].append(seen.seconds)
                columns[f"{kind} here"].append(seen.here_s)
                columns[f"{kind} there"].append(seen.there_s)
                total.views += seen.views
                total.by_value += seen.by_value
                total.copies += seen.copies
        ring.reader.close()
    took = {name: statistics.median(column) for name, column in columns.items()}
    frames = turns * count
    goals = [
        Goal("8.4 MB frames from a process worker / memcpy to 2", took["two"] / took["process"], "≥", 0.6),
        Goal("the same / memcpy to 1", took["one"] / took["process"]),
        Goal("the ring alone, 2 in flight / memcpy to 2", took["two"] / took["ring"]),
        Goal("the same in processor time, of the worker", took["two computed"] / took["process there"]),
        Goal("frames a second", 1 / took["process"], unit="fps"),
        Goal("frames that were views into the ring, of all", total.views / frames, "≥", 1, "×"),
        Goal("frames copied by the reader", total.copies, "≤", 0, ""),
        Goal("frames that went by value", total.by_value, "≤", 0, ""),
        Goal("memcpy of a frame to 1 buffer", took["one"] * 1e3, unit="ms"),
        Goal("memcpy of a frame to 2 buffers in turns", took["two"] * 1e3, unit="ms"),
        Goal("a frame through the ring alone", took["ring"] * 1e3, unit="ms"),
        Goal("a frame from the same actor inline, not copied", took["inline"] * 1e3, unit="ms"),
        Goal("a frame from the process", took["process"] * 1e3, unit="ms"),
        Goal("of it computed in the worker, the copy included", took["process there"] * 1e3, unit="ms"),
        Goal("meanwhile computed in the manager", took["process here"] * 1e3, unit="ms"),
    ]
    report(goals, quick=quick)


if __name__ == "__main__":
    main()
