"""Whole messages over a real socketpair, in order, from any thread; and one end, told once, with its reason."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from time import process_time
from typing import Any

import pytest

from duodaq.clock import Deadline, monotonic_s, pause
from duodaq.errors import DataError, DeliveryError
from duodaq.link import Pipe


class End:
    """One end as a pipe, and what it heard."""

    def __init__(self, end: socket.socket, **limits: Any) -> None:
        self.heard: list[bytes] = []
        self.lost: list[str] = []
        self.react: Callable[[bytes], None] = self.heard.append
        self.pipe = Pipe(end, bytes, bytes, lambda message: self.react(message), self.lost.append, **limits)
        self.pipe.open()


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


async def until(condition: Callable[[], Any], limit_s: float = 10.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        await pause(0.001)


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in messages)


async def test_messages_arrive_whole_and_in_order_both_ways(sockets) -> None:
    one, other = map(End, sockets)
    sent = [b"", b"a", b"b" * 70_000, b"c" * 300_000, b"d"]
    for message in sent:
        one.pipe.send(message)
        other.pipe.send(message[::-1])
    await until(lambda: len(one.heard) == len(other.heard) == 5)
    assert other.heard == sent
    assert one.heard == [message[::-1] for message in sent]
    assert one.pipe.backlog == 0
    one.pipe.close()
    await until(lambda: other.lost == [""])
    assert one.lost == []


async def test_many_threads_at_once_lose_nothing_and_keep_each_their_order(sockets) -> None:
    one, other = map(End, sockets)

    def say(thread: int) -> None:
        for number in range(300):
            one.pipe.send(b"%d %d " % (thread, number) + b"x" * (number * 37 % 9000))

    threads = [threading.Thread(target=say, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    await until(lambda: len(other.heard) == 1800, 30.0)
    for thread in threads:
        thread.join()
    for thread in range(6):
        numbers = [int(m.split()[1]) for m in other.heard if int(m.split()[0]) == thread]
        assert numbers == list(range(300))
    one.pipe.close()
    other.pipe.close()


async def test_sending_never_waits_for_a_reader_and_all_arrives_when_it_reads(sockets) -> None:
    one = End(sockets[0])
    began_s = monotonic_s()
    for number in range(40):
        one.pipe.send(b"%03d" % number + b"x" * 200_000)
    assert monotonic_s() - began_s < 1.0
    assert one.pipe.backlog > 1_000_000
    other = End(sockets[1])
    await until(lambda: len(other.heard) == 40)
    assert [int(message[:3]) for message in other.heard] == list(range(40))
    one.pipe.close()
    other.pipe.close()


async def test_what_was_said_before_it_was_opened_goes_out_when_it_is(sockets) -> None:
    heard: list[bytes] = []
    pipe = Pipe(sockets[0], bytes, bytes, heard.append, lambda _: None)
    pipe.send(b"x" * 2_000_000)
    other = End(sockets[1])
    pipe.open()
    await until(lambda: other.heard)
    assert len(other.heard[0]) == 2_000_000
    pipe.close()
    other.pipe.close()


async def test_a_reader_that_never_reads_is_given_up_at_the_bound(sockets) -> None:
    one = End(sockets[0], backlog_limit=2_000_000)

    def say_much() -> None:
        for _ in range(100):
            one.pipe.send(b"x" * 100_000)

    with pytest.raises(DeliveryError, match="reads nothing"):
        say_much()
    assert one.pipe.backlog <= 2_000_000
    await until(lambda: one.lost)
    assert one.lost == ["the other end reads nothing"]
    with pytest.raises(DeliveryError) as caught:
        one.pipe.send(b"x")
    assert caught.value.fate == "not done"


async def test_an_end_that_says_on_and_on_and_hears_nothing_is_given_up_too(sockets) -> None:
    one, going = End(sockets[0], backlog_limit=100_000), threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not going.wait(0):
                sockets[1].sendall(framed(b"x" * 60_000) * 4)

    thread = threading.Thread(target=flood)
    thread.start()
    with contextlib.suppress(DeliveryError):
        for _ in range(100):
            one.pipe.send(b"x" * 20_000)
    await until(lambda: one.lost, 5.0)
    going.set()
    await asyncio.to_thread(thread.join, 5.0)
    assert one.lost == ["the other end reads nothing"]


async def test_a_message_too_long_is_refused_and_nothing_of_it_sent(sockets) -> None:
    one, other = End(sockets[0], max_message=1000), End(sockets[1])
    with pytest.raises(DataError, match="1001 bytes"):
        one.pipe.send(b"x" * 1001)
    one.pipe.send(b"y" * 1000)
    await until(lambda: other.heard)
    assert other.heard == [b"y" * 1000]
    one.pipe.close()
    other.pipe.close()


async def test_a_message_announced_too_long_ends_it_before_it_comes(sockets) -> None:
    one = End(sockets[0], max_message=1000)
    sockets[1].sendall(framed(b"good") + struct.pack("<I", 1001))
    await until(lambda: one.lost)
    assert one.heard == [b"good"]
    assert "1001 bytes was announced" in one.lost[0]


async def test_half_a_message_and_then_the_end_is_said(sockets) -> None:
    one = End(sockets[0])
    sockets[1].sendall(framed(b"whole", b"half")[:-2])
    sockets[1].close()
    await until(lambda: one.lost)
    assert one.heard == [b"whole"]
    assert one.lost == ["it ended in the middle of a message"]


async def test_what_had_come_is_heard_before_it_is_lost(sockets) -> None:
    one = End(sockets[0])
    one.react = lambda message: one.heard.append(message) if not one.lost else pytest.fail("heard after it was lost")
    sockets[1].sendall(framed(*[b"%d" % n for n in range(1000)]))
    sockets[1].close()
    with contextlib.suppress(DeliveryError):
        for _ in range(50):  # the writes notice the death first
            one.pipe.send(b"x")
    assert one.lost == []
    await until(lambda: one.lost)
    assert len(one.heard) == 1000
    await pause(0.02)
    assert len(one.lost) == 1


async def test_it_is_lost_once_whoever_notices_first(sockets) -> None:
    one = End(sockets[0])
    sockets[1].close()

    def say() -> None:
        for _ in range(50):
            with contextlib.suppress(DeliveryError):
                one.pipe.send(b"x")

    threads = [threading.Thread(target=say) for _ in range(4)]
    for thread in threads:
        thread.start()
    await until(lambda: one.lost)
    for thread in threads:
        thread.join()
    await pause(0.02)
    assert len(one.lost) == 1
    assert one.pipe.closed


@pytest.mark.parametrize(
    "error", [DataError("no"), RecursionError(), KeyError(1), OSError("gone"), RuntimeError("bug"), MemoryError()]
)
async def test_whatever_a_message_raises_ends_it_and_nothing_more_is_heard(sockets, error: Exception) -> None:
    one = End(sockets[0])

    def refuse(message: bytes) -> None:
        one.heard.append(message)
        if message == b"bad":
            raise error

    one.react = refuse
    sockets[1].sendall(framed(b"good", b"bad", b"later"))
    await until(lambda: one.lost)
    assert one.heard == [b"good", b"bad"]
    assert one.lost[0].startswith(f"what came makes no sense: {type(error).__name__}")


async def test_closing_within_a_message_hears_no_further(sockets) -> None:
    one = End(sockets[0])

    def leave(message: bytes) -> None:
        one.heard.append(message)
        one.pipe.close()
        one.pipe.close()

    one.react = leave
    sockets[1].sendall(framed(b"1", b"2"))
    await until(lambda: one.heard)
    await pause(0.01)
    assert one.heard == [b"1"]
    assert one.lost == []


class Interrupted(socket.socket):
    """A socket in whose `send`, which takes part of the data, something else comes between."""

    between: Callable[[], None] | None = None

    def send(self, data: Any, *rest: Any) -> int:
        between, self.between = self.between, None
        if between is None:
            return super().send(data, *rest)
        sent = super().send(data[:10], *rest)
        between()
        return sent


async def test_what_is_said_in_the_middle_of_saying_comes_behind_it(sockets) -> None:
    # as when the garbage collector ends a driver's call inside of `send`
    with Interrupted(fileno=sockets[0].detach()) as end:
        one, other = End(end), End(sockets[1])
        end.between = lambda: one.pipe.send(b"second")
        one.pipe.send(b"first" * 10)
        await until(lambda: len(other.heard) == 2)
        assert other.heard == [b"first" * 10, b"second"]
        one.pipe.close()
        other.pipe.close()


async def test_a_large_message_takes_time_in_proportion_to_its_size(sockets) -> None:
    one, other = map(End, sockets)

    async def took_s(size: int) -> float:  # of this process's own time: both ends are in it, and nobody else
        begin_s, heard = process_time(), len(other.heard)
        one.pipe.send(b"x" * size)
        await until(lambda: len(other.heard) > heard, 30.0)
        assert len(other.heard[-1]) == size
        return process_time() - begin_s

    await took_s(36_000_000)  # so large that memory for both is fetched anew and given back each time
    small_s = min([await took_s(36_000_000) for _ in range(2)])
    large_s = min([await took_s(108_000_000) for _ in range(2)])
    assert large_s < 6 * small_s  # in proportion: 3 times; quadratic: 9 times
    one.pipe.close()
    other.pipe.close()


class Poor(socket.socket):
    """A socket that has no memory for what comes, so many times; or none for what could not be sent."""

    refusals = 0
    asked = 0

    def recv(self, *size: Any) -> bytes:
        self.asked += 1
        if self.asked <= self.refusals:
            raise MemoryError
        return super().recv(*size)


async def test_where_there_is_no_memory_for_a_moment_reading_pauses_and_nothing_is_lost(sockets) -> None:
    with Poor(fileno=sockets[0].detach()) as end:
        end.refusals = 3
        one = End(end)
        sockets[1].sendall(framed(b"1", b"2"))
        await until(lambda: one.heard)
        assert one.heard == [b"1", b"2"]
        assert end.asked == 4  # it did not turn in circles meanwhile
        one.pipe.close()


async def test_where_there_is_no_memory_for_long_it_ends_and_says_so(sockets) -> None:
    with Poor(fileno=sockets[0].detach()) as end:
        end.refusals = 10**9
        one = End(end)
        sockets[1].sendall(framed(b"1"))
        await until(lambda: one.lost, 3.0)
        assert one.lost == ["no memory to read what comes"]
        assert end.asked < 100
        assert one.heard == []


async def test_it_may_be_closed_while_reading_pauses(sockets) -> None:
    with Poor(fileno=sockets[0].detach()) as end:
        end.refusals = 10**9
        one = End(end)
        sockets[1].sendall(framed(b"1"))
        await until(lambda: end.asked)
        one.pipe.close()
        await pause(0.1)
        assert (end.asked, one.lost) == (1, [])
