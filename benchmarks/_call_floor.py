"""The least that a call into another process can cost with two event loops: what `worker_calls.py` is held against.

The frame is the one that crosses for a call, with the same codec; each end is a loop with a reader on its socket, a
future for the answer, and nothing of duodaq's promises: no deadline, no fate, no queue, no state. The far end answers
from a task of its own, as a V4 worker does; or from a thread to which the call is handed over and back, as V2 promises.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from _harness import loops

from duodaq.model import Execute
from duodaq.workers import _messages as words

_LENGTH = struct.Struct("<I")
_CHUNK = 65536


async def floor_us(kind: str, rounds: int, pin: Callable[[int], None] | None) -> float:
    """The median of an exchange with an end that answers from a "task" or a "thread", in µs."""
    loop, waiting, took = asyncio.get_running_loop(), dict[int, asyncio.Future[Any]](), [0] * rounds
    with far_end(kind) as (pid, ours):

        def readable() -> None:
            answer = words.decode_from_worker(ours.recv(_CHUNK)[_LENGTH.size :])
            waiting.pop(answer.number).set_result(answer.body)

        ours.setblocking(False)
        loop.add_reader(ours, readable)
        try:
            for number in range(-rounds // 10, rounds):
                begun = time.perf_counter_ns()
                answer = waiting[number + rounds] = loop.create_future()
                ours.send(framed(number + rounds, kind, number))
                assert await answer == number
                took[number] = time.perf_counter_ns() - begun
                if number == -1 and pin is not None:
                    pin(pid)  # by now it has all of its threads
        finally:
            loop.remove_reader(ours)
    return statistics.median(took) / 1000


@contextmanager
def far_end(kind: str) -> Iterator[tuple[int, socket.socket]]:
    """A process that answers, and this end of its socket, with which it ends."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [sys.executable, __file__, kind, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        try:
            yield process.pid, ours
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            process.wait(5.0)


def framed(number: int, kind: str = "task", value: Any = 1.0) -> bytes:
    """The order that a far end answers with `value`, as bytes."""
    return _framed(words.Order(number, kind, Execute("ping", (value,)), 5.0))


def _framed(message: Any) -> bytes:
    body = words.encode(message)
    return _LENGTH.pack(len(body)) + body


class FarEnd:
    """Answers each order with its argument, until the other end closes."""

    def __init__(self, kind: str, end: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.end = end
        self.loop = loop
        self.work = self.in_a_thread if kind == "thread" else self.at_once
        self.tasks: set[asyncio.Task[None]] = set()
        self.bell, self.hear = _bell()
        self.given: tuple[words.Order, asyncio.Future[Any]] | None = None
        if kind == "thread":
            threading.Thread(target=self.thread, daemon=True).start()
        end.setblocking(False)
        loop.add_reader(end, self.readable)

    def readable(self) -> None:
        data = self.end.recv(_CHUNK)
        if not data:
            self.loop.stop()
            return
        task = self.loop.create_task(self.answer(words.decode_from_manager(data[_LENGTH.size :])))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, order: words.Order) -> None:
        self.end.send(_framed(words.Answer(order.number, await self.work(order))))

    async def at_once(self, order: words.Order) -> Any:
        return _result(order)

    async def in_a_thread(self, order: words.Order) -> Any:
        returned = self.loop.create_future()
        self.given = order, returned
        self.bell()
        return await returned

    def thread(self) -> None:
        while True:
            self.hear()
            assert self.given is not None
            order, returned = self.given
            self.loop.call_soon_threadsafe(returned.set_result, _result(order))


def _result(order: words.Order) -> Any:
    assert isinstance(order.command, Execute)
    return order.command.args[0]


def _bell() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """How to wake the thread, and how it waits for that; the cheapest there is."""
    if hasattr(os, "eventfd"):
        fd = os.eventfd(0)
        return lambda: os.eventfd_write(fd, 1), lambda: os.eventfd_read(fd)
    rings: queue.SimpleQueue[None] = queue.SimpleQueue()
    return lambda: rings.put(None), rings.get


def main() -> None:
    """Be the far end, on the loop that a worker has."""
    kind, fd = sys.argv[1:]
    found = loops()
    loop = found.get("uvloop", found["asyncio"])()
    with socket.socket(fileno=int(fd)) as end:
        FarEnd(kind, end, loop)
        loop.run_forever()
        loop.remove_reader(end)
    loop.close()


if __name__ == "__main__":
    main()
