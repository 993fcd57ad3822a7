"""The blob ring between real processes: handed on without another copy, and unharmed by whatever its producer does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from duodaq.link import BlobRef, FrameDecoder, RingReader, encode

linux = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux's")

SIZE = 16 << 20
FRAME = np.arange(2048 * 1024, dtype=np.uint16).reshape(2048, 1024)

PRODUCER = """
import ctypes, mmap, os, socket, sys
import numpy as np
from duodaq.link import FrameDecoder, RingWriter, encode

link, decoder = socket.socket(fileno=int(sys.argv[1])), FrameDecoder()
frame = np.arange(2048 * 1024, dtype=np.uint16).reshape(2048, 1024)
ring = RingWriter(16 << 20)
socket.send_fds(link, [encode("ring")], [ring.fd])
for what, number in (order for data in iter(lambda: link.recv(65536), b"") for order in decoder.feed(data)):
    if what == "write":
        answer = ring.write(frame + number)
    elif what == "credit":
        ring.release(number)
        answer = ring.free_bytes
    elif what == "shrink":
        fd, answer = os.open(f"/proc/self/fd/{ring.fd}", os.O_RDWR), []
        for attack in (
            lambda: os.ftruncate(fd, 0),
            lambda: os.posix_fallocate(fd, 0, 64 << 20),
            lambda: ring._memory.buffer.madvise(mmap.MADV_REMOVE),
        ):
            try:
                attack()
                answer.append("done")
            except OSError as error:
                answer.append(error.strerror)
    elif what == "scribble":
        np.frombuffer(ring._memory.buffer, np.uint8)[:] = 0xEE
        answer = None
    elif what == "segfault":
        ctypes.string_at(0)
    link.sendall(encode(answer))
"""

THIRD = """
import os, socket, sys
import numpy as np
from duodaq.link import BlobRef, FrameDecoder, RingReader, encode

link, decoder, credits = socket.socket(fileno=int(sys.argv[1])), FrameDecoder(), []
data, (fd,), _, _ = socket.recv_fds(link, 65536, 1)
(wire,) = decoder.feed(data)
reader = RingReader(fd, credits.append, 16 << 20)
os.close(fd)
view = reader.view(BlobRef.from_wire(wire))
link.sendall(encode([os.fstat(reader.fd).st_ino, int(view.sum(dtype=np.uint64)), reader.copies, list(credits)]))
link.recv(1)
del view
link.sendall(encode(credits))
"""


class Program:
    """A child process that is talked to over a socket."""

    def __init__(self, source: str) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(30)
        with theirs:
            command = [sys.executable, "-c", source, str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        self.decoder = FrameDecoder()

    def hear(self) -> Any:
        while True:
            for value in self.decoder.feed(self.socket.recv(65536)):
                return value

    def order(self, what: str, number: int = 0) -> Any:
        self.socket.sendall(encode((what, number)))
        return self.hear()

    def frame(self, number: int = 0) -> BlobRef:
        return BlobRef.from_wire(self.order("write", number))

    def end(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


class Consumer:
    """This process's end of the ring of a producer."""

    def __init__(self, producer: Program, quota_bytes: int = SIZE) -> None:
        data, (fd,), _, _ = socket.recv_fds(producer.socket, 65536, 1)
        assert list(FrameDecoder().feed(data)) == ["ring"]
        self.credits: list[int] = []
        self.reader = RingReader(fd, self.credits.append, quota_bytes)
        os.close(fd)


@pytest.fixture
def producer() -> Iterator[Program]:
    with program(PRODUCER) as running:
        yield running


@pytest.fixture
def consumer(producer: Program) -> Iterator[Consumer]:
    made = Consumer(producer)
    yield made
    made.reader.close()


@contextlib.contextmanager
def program(source: str) -> Iterator[Program]:
    running = Program(source)
    try:
        yield running
    finally:
        running.end()


@linux
def test_frames_of_another_process_arrive_and_their_places_return(producer: Program, consumer: Consumer) -> None:
    for number in range(10):  # more than fit at once
        view = consumer.reader.view(producer.frame(number))
        np.testing.assert_array_equal(view, FRAME + np.uint16(number))
        assert consumer.credits == []
        del view
        assert producer.order("credit", consumer.credits.pop()) == SIZE


@linux
def test_full_ring_says_so_and_goes_on_after_a_credit(producer: Program, consumer: Consumer) -> None:
    views = [consumer.reader.view(producer.frame(number)) for number in range(4)]
    assert producer.order("write") is None
    del views[2]
    assert producer.order("credit", consumer.credits.pop()) == FRAME.nbytes
    views.append(consumer.reader.view(producer.frame(9)))
    for view, number in zip(views, (0, 1, 3, 9), strict=True):
        np.testing.assert_array_equal(view, FRAME + np.uint16(number))


@linux
def test_third_process_sees_the_same_memory_while_the_second_holds_it(producer: Program, consumer: Consumer) -> None:
    ref = producer.frame()
    view = consumer.reader.view(ref)
    with program(THIRD) as third:
        socket.send_fds(third.socket, [encode(ref)], [consumer.reader.fd])
        inode, total, copies, credits = third.hear()
        assert inode == os.fstat(consumer.reader.fd).st_ino
        assert total == int(view.sum(dtype=np.uint64))
        assert (copies, credits) == (0, [])
        third.socket.sendall(b"x")
        assert third.hear() == [ref.number]
    assert consumer.credits == []
    del view
    assert consumer.credits == [ref.number]


@linux
@pytest.mark.parametrize("death", ["kill", "segfault"])
def test_view_outlives_its_producer_the_reader_and_the_descriptor(
    producer: Program, consumer: Consumer, death: str
) -> None:
    view = consumer.reader.view(producer.frame(3))
    if death == "kill":
        producer.process.kill()
    else:
        producer.socket.sendall(encode(("segfault", 0)))
    assert producer.process.wait(30) in (-signal.SIGKILL, -signal.SIGSEGV)
    consumer.reader.close()
    np.testing.assert_array_equal(view, FRAME + np.uint16(3))
    assert consumer.credits == []
    del view
    assert consumer.credits == [1]


@linux
def test_producer_cannot_take_the_memory_from_under_a_view(producer: Program, consumer: Consumer) -> None:
    view = consumer.reader.view(producer.frame())
    assert producer.order("shrink") == ["Operation not permitted"] * 3
    np.testing.assert_array_equal(view, FRAME)


@linux
def test_producer_that_scribbles_makes_wrong_pixels_and_nothing_else(producer: Program, consumer: Consumer) -> None:
    view = consumer.reader.view(producer.frame())
    producer.order("scribble")
    assert (view == 0xEEEE).all()
    del view
    assert producer.order("credit", consumer.credits.pop()) == SIZE
    np.testing.assert_array_equal(consumer.reader.view(producer.frame(5)), FRAME + np.uint16(5))


NAMED = """
import multiprocessing, sys
import numpy as np
from duodaq.errors import DataError
from duodaq.link import RingReader, RingWriter
from duodaq.link._ring_named import NamedMemory

def read(name, ref, pipe):
    credits = []
    reader = RingReader(name, credits.append, 1 << 20)
    view = reader.view(ref)
    reader.close()
    pipe.send((int(view.sum()), view.flags.writeable, list(credits)))
    del view
    pipe.send(credits)

if __name__ == "__main__":
    writer = RingWriter(1 << 20, memory=NamedMemory.make(1 << 20))
    ref = writer.write(np.arange(1000))
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=read, args=[writer.handle, ref, theirs])
    child.start()
    assert ours.recv() == (499500, False, [])
    assert ours.recv() == [ref.number]
    child.join()
    assert child.exitcode == 0
    writer.release(ref.number)
    assert (writer.free_bytes, writer.fd) == (writer.size, -1)
    held = []
    reader = RingReader(writer.handle, held.append, 1 << 20)
    view = reader.view(writer.write(np.arange(10)))
    name = writer.handle
    reader.close()
    writer.close()
    assert view.sum() == 45
    try:
        RingReader(name, held.append, 1)
    except DataError:
        print("gone by name, in view until the end")
"""


def test_ring_on_named_shared_memory_keeps_the_same_promises(tmp_path: Any) -> None:
    script = tmp_path / "named.py"
    script.write_text(NAMED)
    command = [sys.executable, "-W", "error", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.stdout, result.stderr) == ("gone by name, in view until the end\n", "")
