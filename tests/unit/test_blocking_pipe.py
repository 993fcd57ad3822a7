"""Messages over a real socketpair for threads without a loop: whoever waits hears for all, and nobody is forgotten."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from duodaq.clock import Deadline, block, monotonic_s
from duodaq.errors import DataError, DeliveryError
from duodaq.link import BlockingPipe, News


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in messages)


def until(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        block(0.001)


class Waiter:
    """A thread that waits until its own name has been heard, or for `limit_s`."""

    def __init__(self, line: Line, name: bytes, limit_s: float = 20.0) -> None:
        self.news = News()
        self.heard = False
        self.woken = 0
        self._line = line
        self._limit = Deadline(limit_s)
        line.waiters[name] = self
        self._thread = threading.Thread(target=self._wait)

    def start(self) -> Waiter:
        """Begin to wait; returns when it does."""
        before = self._line.busy
        self._thread.start()
        until(lambda: self._line.busy > before or self.ended)
        return self

    @property
    def ended(self) -> bool:
        return self.woken > 0 and not self._thread.is_alive()

    def _wait(self) -> None:
        with self.news:
            while not (self.heard or self._limit.passed or self._line.lost):
                self._line.pipe.await_news(self.news, self._limit.left_s)
                self.woken += 1
        self.news.close()

    def tell(self) -> None:
        with self.news:
            self.heard = True
            self.news.notify_all()

    def join(self) -> bool:
        self._thread.join(10)
        return not self._thread.is_alive()


class Line:
    """The pipe under test and a bare socket at its other end."""

    def __init__(self) -> None:
        self.far, near = socket.socketpair()
        self.heard: list[bytes] = []
        self.lost: list[str] = []
        self.waiters: dict[bytes, Waiter] = {}
        self.pipe = BlockingPipe(near, bytes, bytes, self._hear, self.lost.append)

    @property
    def busy(self) -> int:
        """How many wait here, whoever reads included."""
        return len(self.pipe._waiting) + self.pipe._reading

    def _hear(self, message: bytes) -> None:
        if message == b"break":
            raise ValueError("no")
        if message == b"gorge":
            raise MemoryError
        self.heard.append(message)
        if (waiter := self.waiters.get(message)) is not None:
            waiter.tell()

    def waiter(self, name: bytes, limit_s: float = 20.0) -> Waiter:
        return Waiter(self, name, limit_s).start()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.pipe.close()
    made.far.close()


def test_messages_are_heard_whole_and_in_order_however_they_come(line: Line) -> None:
    sent = [b"", b"a", b"b" * 70_000, b"c" * 300_000, b"last"]
    waiter = line.waiter(b"last")
    whole, pieces = framed(*sent), (1, 2, 3, 5, 60_000, 100_000)
    for size in pieces:
        line.far.sendall(whole[:size])
        whole = whole[size:]
    line.far.sendall(whole)
    assert waiter.join()
    assert line.heard == sent


def test_one_reads_for_all_and_passes_its_turn_on_to_one_that_sleeps(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[News] = []
    monkeypatch.setattr(News, "nudge", lambda news: (nudged.append(news), nudge(news)))
    waiters = [line.waiter(b"%d" % number) for number in range(5)]
    line.far.sendall(framed(b"3"))
    assert waiters[3].join()
    assert nudged == []  # the first reads on: what came was not for him
    line.far.sendall(framed(b"0"))
    assert waiters[0].join()
    assert nudged == [waiters[1].news]
    for number in (4, 1, 2):
        line.far.sendall(framed(b"%d" % number))
        assert waiters[number].join()
    assert nudged == [waiters[1].news, waiters[2].news]
    assert [waiter.woken for waiter in waiters] == [1, 1, 1, 1, 1]


nudge = News.nudge


def test_who_gets_the_turn_in_the_moment_in_which_he_leaves_passes_it_on(line: Line) -> None:
    reader, second, third = (line.waiter(name) for name in (b"1", b"2", b"3"))
    with second.news:
        line.far.sendall(framed(b"1"))
        until(lambda: line.busy == 2)  # the turn is the second's, who cannot know it yet
        second.heard = True
        second.news.notify_all()
    assert reader.join()
    assert second.join()
    line.far.sendall(framed(b"3"))
    assert third.join()


def test_who_gives_up_passes_the_turn_on(line: Line) -> None:
    first = line.waiter(b"1", limit_s=0.3)
    second = line.waiter(b"2")
    assert first.join()
    assert not first.heard
    line.far.sendall(framed(b"2"))
    assert second.join()
    assert second.heard


def test_who_gave_up_while_another_read_is_not_waited_for(line: Line) -> None:
    first, second = line.waiter(b"1"), line.waiter(b"2", limit_s=0.1)
    assert second.join()
    assert line.busy == 1
    line.far.sendall(framed(b"1"))
    assert first.join()


@pytest.mark.parametrize("reads", [True, False])
def test_who_is_told_from_elsewhere_wakes_at_once_whether_he_reads_or_not(line: Line, reads: bool) -> None:
    other = None if reads else line.waiter(b"other")
    waiter = line.waiter(b"me")
    began = monotonic_s()
    waiter.tell()
    assert waiter.join()
    assert monotonic_s() - began < 5
    if other is not None:
        line.far.sendall(framed(b"other"))
        assert other.join()


def test_without_bells_of_the_kernel_it_is_heard_all_the_same(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.eventfd")
    first, second, third = (line.waiter(name) for name in (b"1", b"2", b"3"))
    first.tell()
    assert first.join()
    line.far.sendall(framed(b"3", b"2"))
    assert second.join()
    assert third.join()


def test_many_threads_hear_each_its_own(line: Line) -> None:
    wrong: list[bytes] = []

    def use(number: int) -> None:
        for turn in range(200):
            name = b"%d-%d" % (number, turn)
            waiter = Waiter(line, name)
            line.pipe.send(name)
            waiter._wait()
            if not waiter.heard:
                wrong.append(name)
            del line.waiters[name]

    def echo() -> None:
        while data := line.far.recv(1000):
            line.far.sendall(data)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    echoing = threading.Thread(target=echo)
    for thread in (*threads, echoing):
        thread.start()
    for thread in threads:
        thread.join(30)
    line.pipe.close()
    echoing.join(5)
    assert wrong == []
    assert len(line.heard) == 1200


def test_a_look_hears_what_nobody_waits_for_and_leaves_it_to_one_who_does(line: Line) -> None:
    line.pipe.look()
    line.far.sendall(framed(b"a", b"b"))
    line.pipe.look()
    assert line.heard == [b"a", b"b"]
    waiter = line.waiter(b"me")
    line.pipe.look()
    assert line.busy == 1
    line.far.sendall(framed(b"me"))
    assert waiter.join()


def test_a_look_for_which_there_is_no_memory_hears_it_the_next_time(line: Line) -> None:
    class Full:
        def recv(self, size: int) -> bytes:
            raise MemoryError

    line.far.sendall(framed(b"a"))
    end, line.pipe._end = line.pipe._end, Full()
    line.pipe.look()
    line.pipe._end = end
    assert line.heard == []
    line.pipe.look()
    assert line.heard == [b"a"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (framed(b"break"), "what came makes no sense: ValueError: no"),
        (framed(b"gorge"), "no memory for what came"),
        (b"\xff\xff\xff\xff", "what came makes no sense"),
        (b"", ""),
    ],
)
def test_whatever_ends_it_ends_it_for_all_and_is_told_once(line: Line, said: bytes, why: str) -> None:
    waiters = [line.waiter(b"%d" % number) for number in range(3)]
    line.far.sendall(said)
    if not said:
        line.far.shutdown(socket.SHUT_WR)
    assert all(waiter.join() for waiter in waiters)
    assert len(line.lost) == 1
    assert line.lost[0].startswith(why)
    assert bool(why) == bool(line.lost[0])
    assert not line.pipe.alive
    with pytest.raises(DeliveryError, match="over"):
        line.pipe.send(b"x")
    assert line.pipe._end.fileno() == -1


def test_closing_wakes_who_waits_and_tells_nobody(line: Line) -> None:
    waiters = [line.waiter(b"%d" % number) for number in range(3)]
    line.lost = ["so that they do not wait again"]
    line.pipe.close()
    assert all(waiter.join() for waiter in waiters)
    assert line.lost == ["so that they do not wait again"]
    assert line.pipe._end.fileno() == -1


def test_who_waits_on_when_it_is_over_leaves_the_lock_to_whoever_tells_him(line: Line) -> None:
    waiter = Waiter(line, b"me")
    line.pipe.close()
    waiter._thread.start()
    until(lambda: waiter.woken > 1)
    assert waiter.news._lock.acquire(timeout=5)
    waiter.news._lock.release()
    waiter.tell()
    assert waiter.join()
    assert waiter.woken < 1000  # it did not ask without a rest


def test_what_is_longer_than_the_sockets_buffer_is_sent_whole(line: Line) -> None:
    message, came = b"x" * 3_000_000, bytearray()

    def take() -> None:
        while len(came) < len(message) + 4:
            came.extend(line.far.recv(100_000))

    taking = threading.Thread(target=take)
    taking.start()
    line.pipe.send(message)
    taking.join(10)
    assert bytes(came) == framed(message)


def test_an_end_that_takes_nothing_is_given_up(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duodaq.link._blocking_pipe._SEND_S", 0.1)
    with pytest.raises(DeliveryError, match="nothing was taken"):
        line.pipe.send(b"x" * 3_000_000)
    assert len(line.lost) == 1


def test_a_message_that_is_too_long_is_refused_and_the_rest_goes_on(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duodaq.link._blocking_pipe.MAX_FRAME", 10)
    with pytest.raises(DataError, match="at most 10"):
        line.pipe.send(b"x" * 11)
    line.pipe.send(b"y")
    assert line.far.recv(100) == framed(b"y")
