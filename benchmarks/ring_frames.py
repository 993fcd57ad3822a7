"""Camera frames from another process through the blob ring, against memcpy and an Arrow stream over a socket.

A frame is 2048 × 2048 uint16, 8.4 MB. The producer copies it into the ring and sends its descriptor over a socket; the
consumer makes a view, looks at its corners and drops it; the credit goes back. The baseline is memcpy of the same frame
between warm buffers, in turns with the rest. How many buffers are written in turns decides what the processor's cache
can do, for memcpy as for the ring: so two frames in flight, where nobody waits for anybody, are judged against memcpy
to two buffers. The rows beside compare with memcpy to one.

Besides: an Arrow stream over a socket, frames whose pages are new, what a view costs, and what a ring of 50 MB, written
whole and mapped here, adds to the time from a producer's SIGKILL to its end.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from _harness import Goal, parser, report

from duodaq.link import BlobRef, FrameDecoder, RingReader, RingWriter, encode
from duodaq.schema import frame_batch, pixels_of

SHAPE = (2048, 2048)
FRAME_BYTES = SHAPE[0] * SHAPE[1] * 2
RING_BYTES = 50_000_000
FACTS = {"instrument": "cam", "channel": "frames", "t_ns": 1, "sequence": 0, "frame_number": 0}


def a_frame() -> np.ndarray:
    """The same frame in every process."""
    return np.random.default_rng(1).integers(0, 60_000, SHAPE, np.uint16)


# ── the producer's process


def produce_ring(link: socket.socket, limit: int) -> None:
    """Send `count` frames for each order ``count``; not more than `limit` are in flight."""
    frame, decoder, ring = a_frame(), FrameDecoder(), RingWriter(RING_BYTES)
    socket.send_fds(link, [b"r"], [ring.fd])
    to_send = 0
    for data in iter(lambda: link.recv(65536), b""):
        for kind, number in decoder.feed(data):
            if kind == "credit":
                ring.release(number)
            else:
                to_send += number
        while to_send and ring.in_flight < limit and (ref := ring.write(frame)) is not None:
            link.sendall(encode(ref))
            to_send -= 1


def produce_arrow(link: socket.socket, count: int) -> None:
    """Send one Arrow stream of `count` frames."""
    batch = frame_batch(a_frame(), **FACTS)
    with link.makefile("wb", buffering=0) as file, pa.ipc.new_stream(file, batch.schema) as stream:
        for _ in range(count):
            stream.write_batch(batch)


def produce_nothing(link: socket.socket, size: int) -> None:
    """Fill a ring of `size` bytes, if any, and wait to be killed."""
    if size:
        ring = RingWriter(size)
        ring.write(np.ones(ring.size, np.uint8))
        socket.send_fds(link, [b"r"], [ring.fd])
    else:
        link.sendall(b"-")
    link.recv(1)


PRODUCERS = {"ring": produce_ring, "arrow": produce_arrow, "nothing": produce_nothing}


# ── the consumer's


@contextmanager
def producer(kind: str, number: int) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A process that produces, and this end of its socket; it is ended at the end."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [sys.executable, __file__, "--produce", kind, str(theirs.fileno()), str(number)]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        try:
            yield ours, process
        finally:
            process.kill()
            process.wait()


class Consumer:
    """Views the frames of a producer and returns their credits."""

    def __init__(self, link: socket.socket) -> None:
        _, (fd,), _, _ = socket.recv_fds(link, 1, 1)
        self.link, self.decoder, self.frame = link, FrameDecoder(), a_frame()
        self.credits: list[int] = []
        self.reader = RingReader(fd, self.credits.append, RING_BYTES)
        os.close(fd)

    def take(self, count: int) -> float:
        """Seconds until `count` frames were here."""
        begun = time.perf_counter()
        self.link.sendall(encode(("more", count)))
        while count:
            for wire in self.decoder.feed(self.link.recv(65536)):
                self.look(self.reader.view(BlobRef.from_wire(wire)))
                self.link.sendall(b"".join(encode(("credit", number)) for number in self.credits))
                del self.credits[:]
                count -= 1
        assert not self.reader.copies
        return time.perf_counter() - begun

    def look(self, view: np.ndarray) -> None:
        """Compare the corners of a frame; the view is gone afterwards."""
        assert view[0, 0] == self.frame[0, 0]
        assert view[-1, -1] == self.frame[-1, -1]


def memcpy_s(count: int, targets: int = 1) -> float:
    """Seconds for `count` copies of a frame to warm buffers in turns."""
    frame = a_frame()
    buffers = [frame.copy() for _ in range(targets)]
    begun = time.perf_counter()
    for number in range(count):
        np.copyto(buffers[number % targets], frame)
    return time.perf_counter() - begun


def arrow_s(count: int) -> float:
    """Seconds a frame over an Arrow IPC stream, without its start."""
    with producer("arrow", count + 1) as (link, _), link.makefile("rb") as file, pa.ipc.open_stream(file) as stream:
        expected = a_frame()
        stream.read_next_batch()
        begun = time.perf_counter()
        for _ in range(count):
            assert pixels_of(stream.read_next_batch())[0, -1, -1] == expected[-1, -1]
        return time.perf_counter() - begun


def fresh_s() -> float:
    """Seconds for a frame into pages that do not exist yet."""
    frame, ring = a_frame(), RingWriter(RING_BYTES)
    begun = time.perf_counter()
    ring.write(frame)
    took = time.perf_counter() - begun
    ring.close()
    return took


def view_us(count: int) -> float:
    """Microseconds to make a view and to drop it, credit included."""
    ring, credits = RingWriter(1 << 20), []
    reader = RingReader(ring.fd, credits.append, RING_BYTES)
    refs = [ring.write(bytes(64)) for _ in range(count)]
    begun = time.perf_counter()
    for ref in refs:
        reader.view(ref)
    took = time.perf_counter() - begun
    assert len(credits) == count
    reader.close()
    ring.close()
    return took / count * 1e6


def end_ms(size: int) -> float:
    """Milliseconds from SIGKILL to the end of a process that had filled a ring of `size` bytes (0: that has none)."""
    with producer("nothing", size) as (link, process):
        _, fds, _, _ = socket.recv_fds(link, 1, 1)
        reader = RingReader(fds[0], lambda _: None, size) if fds else None
        pidfd = os.pidfd_open(process.pid)
        begun = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [])
        took = time.perf_counter() - begun
        for fd in (pidfd, *fds):
            os.close(fd)
        if reader is not None:
            reader.close()
    return took * 1e3


def in_turns(turns: int, measures: list[Callable[[], float]]) -> list[float]:
    """The median of each measure, all taken in turns, so that what disturbs one disturbs all."""
    rows = [[measure() for measure in measures] for _ in range(turns)]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def main() -> None:
    """Print the ratios."""
    options = parser(__doc__)
    options.add_argument("--produce", nargs=3, metavar=("KIND", "FD", "NUMBER"), help="be the producer (internal)")
    asked = options.parse_args()
    if asked.produce:
        kind, fd, number = asked.produce
        PRODUCERS[kind](socket.socket(fileno=int(fd)), int(number))
        return
    count, turns, kills = (5, 1, 1) if asked.quick else (200, 5, 20)
    with producer("ring", 1) as (one_link, _), producer("ring", 2) as (two_link, _):
        one, two = Consumer(one_link), Consumer(two_link)
        for consumer in (one, two):
            consumer.take(4)  # what is used is warm on both sides
        ways = [
            lambda: memcpy_s(count),
            lambda: one.take(count),
            lambda: memcpy_s(count, 2),
            lambda: two.take(count),
            lambda: arrow_s(count),
        ]
        memcpy, single, memcpy_two, double, arrow = in_turns(turns, ways)
        one.reader.close()
        two.reader.close()
    (fresh,) = in_turns(turns, [fresh_s])
    bare, filled = in_turns(kills, [lambda: end_ms(0), lambda: end_ms(RING_BYTES)])
    goals = [
        Goal("8.4 MB frames by the ring, 2 in flight / memcpy to 2", memcpy_two / double, "≥", 0.6),
        Goal("the same, 2 in flight / memcpy to 1", memcpy / double),
        Goal("the same, 1 in flight / memcpy to 1", memcpy / single),
        Goal("the same over an Arrow stream on a socket / memcpy to 1", memcpy / arrow),
        Goal("memcpy of a frame to 1 buffer", memcpy / count * 1e3, unit="ms"),
        Goal("a frame into pages that are new / memcpy to 1", fresh / (memcpy / count)),
        Goal("a view made and dropped, with its credit", view_us(count), unit="µs"),
        Goal("what a 50 MB ring adds to a killed producer's end", filled - bare, "≤", 4, "ms"),
        Goal("the end of a killed producer without a ring", bare, unit="ms"),
    ]
    report(goals, quick=asked.quick)


if __name__ == "__main__":
    main()
