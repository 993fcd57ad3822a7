"""Whose last word returns a credit, and what a ring refuses to stand on or to take."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from duodaq import clock, schema
from duodaq.errors import DataError, LifecycleError
from duodaq.link import BlobRef, RingReader, RingWriter
from duodaq.link._ring_memory import HUGE
from duodaq.testing._leaks import open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux's")

SIZE = 1 << 20
PIXELS = np.arange(64 * 100, dtype=np.uint16).reshape(64, 100)


class Ring:
    """Both ends in one process."""

    def __init__(self, size: int = SIZE, quota_bytes: int = SIZE) -> None:
        self.writer = RingWriter(size)
        self.credits: list[int] = []
        self.reader = RingReader(self.writer.fd, self.credits.append, quota_bytes)

    def send(self, blob: np.ndarray | bytes = PIXELS) -> BlobRef:
        ref = self.writer.write(blob)
        assert ref is not None
        return ref

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    yield made
    made.close()


def batch_of(pixels: np.ndarray) -> pa.RecordBatch:
    facts = {"instrument": "cam", "channel": "frames", "t_ns": 1, "sequence": 0, "frame_number": 1}
    return schema.frame_batch(pixels, **facts)


def test_credit_comes_with_the_last_of_many_views(ring: Ring) -> None:
    view = ring.reader.view(ring.send())
    views = [
        view[3:],
        view.T,
        view.reshape(-1),
        view.view(np.uint8),
        memoryview(view),
        np.asarray(view),
        pa.py_buffer(view),
    ]
    del view
    while views:
        assert ring.credits == []
        views.pop(0)
    assert ring.credits == [1]


def test_frame_batch_shares_the_ring_and_returns_the_credit_when_its_last_slice_is_gone(ring: Ring) -> None:
    view = ring.reader.view(ring.send())
    address = view.ctypes.data
    batch = batch_of(view)
    del view
    pixels = schema.pixels_of(batch)
    assert pixels.ctypes.data == address
    piece = batch.slice(0, 1).column("pixels")
    del batch, pixels
    other = batch_of(PIXELS)
    image = schema.frames_of(pa.RecordBatch.from_arrays([*other.columns[:-1], piece], schema=other.schema))
    del piece
    np.testing.assert_array_equal(image[0].pixels, PIXELS)
    assert image[0].pixels.ctypes.data == address
    assert ring.credits == []
    del image
    assert ring.credits == [1]


def test_arrow_that_computes_on_it_holds_it_only_while_it_does(ring: Ring) -> None:
    table = pa.table({"pixels": pa.array(ring.reader.view(ring.send()).reshape(-1))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    assert ring.credits == []
    del table, stream
    assert ring.credits == [1]


def test_credit_comes_from_whichever_thread_drops_the_last_view(ring: Ring) -> None:
    threads: list[int] = []
    reader = RingReader(ring.writer.fd, lambda _: threads.append(threading.get_ident()), SIZE)
    box = [reader.view(ring.send())]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert threads == [thread.ident]
    reader.close()


def test_views_in_cycles_are_returned_whenever_the_collector_comes(ring: Ring) -> None:
    thresholds, count = gc.get_threshold(), 300
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(count):
            cycle: list[object] = [ring.reader.view(ring.send(PIXELS[number % 8]))]
            cycle.append(cycle)
    finally:
        gc.set_threshold(*thresholds)
    del cycle
    gc.collect()
    assert sorted(ring.credits) == list(range(1, count + 1))
    assert ring.reader.held_bytes == 0


def test_last_view_may_go_while_the_reader_is_in_the_middle_of_a_call(ring: Ring) -> None:
    view = ring.reader.view(ring.send())
    with ring.reader._guard:  # as when the garbage collector runs there
        del view
    assert ring.credits == [1]
    assert ring.reader.held_bytes == 0


def test_many_threads_write_view_and_drop_and_every_byte_comes_back() -> None:
    ring, wrong, limit = Ring(quota_bytes=SIZE // 4), [], clock.Deadline(20)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(300):
            sent = random.integers(0, 255, int(random.integers(0, 30_000)), np.uint8)
            ref = ring.writer.write(sent)
            while ref is None and not limit.passed:
                credit()
                ref = ring.writer.write(sent)
            if ref is None or not np.array_equal(ring.reader.view(ref), sent):
                wrong.append(ref)
            credit()

    def credit() -> None:
        with contextlib.suppress(IndexError):  # another thread took the last one
            ring.writer.release(ring.credits.pop())

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while ring.credits:
        credit()
    assert not wrong
    assert (ring.writer.free_bytes, ring.writer.unknown_credits, ring.reader.held_bytes) == (SIZE, 0, 0)
    ring.close()


def test_reader_over_its_quota_gets_a_copy_and_the_place_is_free_at_once() -> None:
    ring = Ring(quota_bytes=PIXELS.nbytes)
    first, second = ring.reader.view(ring.send()), ring.reader.view(ring.send(PIXELS + 1))
    assert ring.credits == [2]
    assert ring.reader.copies == 1
    ring.writer.release(2)
    ring.send(PIXELS * 0)
    np.testing.assert_array_equal(first, PIXELS)
    np.testing.assert_array_equal(second, PIXELS + 1)
    assert not second.flags.writeable
    del second
    assert ring.credits == [2]
    ring.close()


def test_closed_reader_keeps_its_views_and_still_returns_their_credits() -> None:
    before, ring = open_files(), Ring()
    view, late = ring.reader.view(ring.send()), ring.send()
    ring.close()
    ring.close()
    with pytest.raises(LifecycleError, match="closed"):
        ring.reader.view(late)
    with pytest.raises(LifecycleError, match="closed"):
        ring.writer.write(PIXELS)
    del ring.reader
    np.testing.assert_array_equal(view, PIXELS)
    assert ring.credits == []
    del view
    assert ring.credits == [1]
    ring.writer.release(1)
    assert open_files() == before


def test_nobody_makes_a_view_writable(ring: Ring) -> None:
    view = ring.reader.view(ring.send())
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    assert memoryview(view).readonly
    assert not pa.py_buffer(view).is_mutable


def test_reader_cannot_map_the_ring_writable_nor_write_to_it(ring: Ring) -> None:
    again = os.open(f"/proc/self/fd/{ring.reader.fd}", os.O_RDWR)
    try:
        for fd in (ring.writer.fd, ring.reader.fd, again):
            with pytest.raises(PermissionError):
                mmap.mmap(fd, SIZE)
            with pytest.raises(OSError, match=r"not permitted|Bad file"):
                os.write(fd, b"x")
    finally:
        os.close(again)
    view = ring.reader.view(ring.send())
    page = ctypes.c_void_p(view.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE)
    assert ctypes.CDLL(None).mprotect(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == -1


def test_size_is_sealed_for_everybody(ring: Ring) -> None:
    again = os.open(f"/proc/self/fd/{ring.writer.fd}", os.O_RDWR)
    try:
        for size in (0, 4096, 2 * SIZE):
            with pytest.raises(PermissionError):
                os.ftruncate(again, size)
    finally:
        os.close(again)


def test_reader_refuses_memory_whose_size_is_not_sealed(tmp_path: Path) -> None:
    memory, (end, other) = os.memfd_create("unsealed"), os.pipe()
    os.ftruncate(memory, SIZE)
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.truncate(SIZE)
        for fd in (memory, file.fileno(), end, 12345):
            with pytest.raises(DataError, match="is no ring"):
                RingReader(fd, lambda _: None, SIZE)
    for fd in (memory, end, other):
        os.close(fd)


def test_python_objects_and_records_do_not_travel(ring: Ring) -> None:
    for blob in (np.array([object()]), np.zeros(3, [("x", "f8"), ("y", "i4")]), np.zeros(3, "V4")):
        with pytest.raises(DataError, match="does not travel"):
            ring.writer.write(blob)
    assert ring.writer.free_bytes == SIZE


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"offset": 32}, "outside"),
        ({"offset": SIZE}, "outside"),
        ({"offset": SIZE - 64}, "outside"),
        ({"offset": -64}, "negative"),
        ({"number": -1}, "negative"),
        ({"number": True}, "broken"),
        ({"shape": (-64, -100)}, "negative"),
        ({"shape": (64, 101)}, "are no"),
        ({"shape": (64, 100, *[1] * 31)}, "are no"),
        ({"length": PIXELS.nbytes + 64}, "are no"),
        ({"dtype": "<f8"}, "are no"),
        ({"dtype": "|O"}, "does not travel"),
        ({"dtype": "<u2,<u2"}, "does not travel"),
        ({"dtype": "<i3"}, "not understood"),
    ],
    ids=str,
)
def test_forged_descriptor_is_refused_with_the_reason_and_the_true_one_still_works(
    ring: Ring, changed: dict[str, Any], why: str
) -> None:
    ref = ring.send()
    with pytest.raises(DataError, match=why):
        ring.reader.view(msgspec.structs.replace(ref, **changed))
    assert ring.credits == []
    np.testing.assert_array_equal(ring.reader.view(ref), PIXELS)
    assert ring.credits == [ref.number]


def test_end_of_a_process_returns_no_credit_for_what_is_still_in_view() -> None:
    program = """
import numpy as np
from duodaq.link import RingReader, RingWriter
writer = RingWriter(4096)
reader = RingReader(writer.fd, lambda number: print("credit", number, flush=True), 4096)
first, kept = (reader.view(writer.write(np.arange(9))) for _ in range(2))
del first
"""
    command = [sys.executable, "-W", "error", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.stdout, result.stderr) == ("credit 1\n", "")


def test_blob_without_room_is_not_taken_and_credits_make_room(ring: Ring) -> None:
    half = bytes(SIZE // 2)
    first, second = ring.send(half), ring.send(half)
    assert ring.writer.write(b"") is None
    ring.writer.release(second.number)
    ring.writer.release(second.number)
    ring.writer.release(99)
    assert ring.writer.unknown_credits == 2
    assert ring.writer.write(bytes(SIZE // 2 + 1)) is None
    assert ring.send(half).offset == second.offset
    assert first.offset == 0


def test_places_are_taken_from_the_bottom_so_that_few_pages_are_made(ring: Ring) -> None:
    for _ in range(100):
        ring.writer.release(ring.send(bytes(100_000)).number)
    assert os.stat(ring.writer.fd).st_blocks * 512 <= 102_400
    assert {ring.send(bytes(64)).offset for _ in range(3)} == {0, 64, 128}


def huge_bytes() -> dict[str, int]:
    """How much of the rings mapped here lies on huge pages, by the mapping's rights."""
    found: dict[str, int] = {}
    rights, name = "", ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            rights, name = words[1], line
        elif words[0] == "ShmemPmdMapped:" and "duodaq-ring" in name:
            found[rights] = found.get(rights, 0) + int(words[1]) * 1024
    return found


def collapses() -> bool:
    """Whether this kernel makes huge pages when it is asked: Linux 6.1 and later, if they are compiled in."""
    with mmap.mmap(-1, 2 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(2 * HUGE))
        with contextlib.suppress(OSError):
            memory.madvise(25)
            return True
    return False


@pytest.mark.skipif(not collapses(), reason="this kernel makes no huge pages when it is asked")
def test_large_blobs_lie_on_huge_pages_on_both_sides_and_what_lay_there_stays() -> None:
    before = huge_bytes()
    ring = Ring(5 * HUGE + 3 * mmap.PAGESIZE, 5 * HUGE)
    small = ring.reader.view(ring.send())
    assert sum(huge_bytes().values()) == sum(before.values())
    large = np.arange(HUGE, dtype=np.uint16)
    views = [ring.reader.view(ring.send(large)) for _ in range(2)]
    np.testing.assert_array_equal(small, PIXELS)
    for view in views:
        np.testing.assert_array_equal(view, large)
    made = {rights: count - before.get(rights, 0) for rights, count in huge_bytes().items()}
    assert made == {"r--s": 5 * HUGE, "rw-s": 5 * HUGE}
    ring.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOMEM])
def test_blobs_travel_where_no_huge_page_is_to_be_had(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    asked: list[int] = []

    class Refusing(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            asked.append(option)
            raise OSError(number, "no")

    monkeypatch.setattr("duodaq.link._ring_memory.mmap.mmap", Refusing)
    ring = Ring(8 * HUGE, 8 * HUGE)
    large = np.arange(HUGE, dtype=np.uint16)
    views = [ring.reader.view(ring.send(large)) for _ in range(3)]
    for view in views:
        np.testing.assert_array_equal(view, large)
    assert len(asked) == (1 if number == errno.EINVAL else 3)
    ring.close()


def test_view_costs_no_memory_of_its_own() -> None:
    ring = Ring(16 << 20, 16 << 20)
    ref = ring.send(np.zeros((2048, 2048), np.uint16))
    tracemalloc.start()
    try:
        view = ring.reader.view(ref)
        batch = batch_of(view)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    del view, batch
    ring.close()
