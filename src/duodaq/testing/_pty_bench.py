"""What ports are tried on with blocking drivers: a real pty with a device behind it, threads, both ends of a link."""

from __future__ import annotations

import asyncio
import os
import threading
import tty
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from duodaq import clock
from duodaq.ports import BlockingSession, Broker
from duodaq.testing._linked_broker import LinkedBroker

T = TypeVar("T")


class PtyDevice:
    """A line device on a pty, in a thread: ``X?`` → ``X=ok``; ``SLOW ms?`` takes its time; ``MUTE?`` is silent."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.lines: list[bytes] = []
        self.heard_at: dict[bytes, int] = {}
        self._thread = threading.Thread(target=self._serve, name="pty device")
        self._thread.start()

    def _serve(self) -> None:
        held = b""
        while True:
            held += os.read(self._master, 4096)
            while b"\n" in held:
                line, held = held.split(b"\n", 1)
                if line == b"QUIT":
                    return
                self.lines.append(line)
                self.heard_at.setdefault(line, clock.utc_ns())
                self._answer(line)

    def _answer(self, line: bytes) -> None:
        if line.startswith(b"SLOW"):
            threading.Timer(int(line[5:-1]) / 1000, os.write, (self._master, b"slow\n")).start()
        elif line.endswith(b"?") and line != b"MUTE?":
            os.write(self._master, line[:-1] + b"=ok\n")

    def say(self, data: bytes) -> None:
        """Say something that nobody asked."""
        os.write(self._master, data)

    def close(self) -> None:
        """End the device and its pty."""
        os.write(self._slave, b"")
        with open(self.path, "wb", buffering=0) as end:
            end.write(b"QUIT\n")
        self._thread.join(5)
        os.close(self._master)
        os.close(self._slave)


@asynccontextmanager
async def used_from(where: str, broker: Broker) -> AsyncGenerator[Broker | LinkedBroker]:
    """The broker as those users see it; closed in the end."""
    sessions: list[BlockingSession] = []
    made = broker.session

    def session(*args: Any, **options: Any) -> BlockingSession:
        sessions.append(made(*args, **options))
        return sessions[-1]

    broker.session = session  # so that each is closed, as a runtime does
    try:
        if where == "here":
            yield broker
            return
        linked = LinkedBroker(broker)
        await linked.open()
        try:
            yield linked
        finally:
            await linked.aclose()
    finally:
        for one in sessions:
            one.close()
        await broker.aclose()


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """The result of blocking `work`, in a thread that is gone when this returns."""
    loop, ended = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            result = work(*args)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - carried to the one who awaits it
            loop.call_soon_threadsafe(ended.set_exception, error)
        else:
            loop.call_soon_threadsafe(ended.set_result, result)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return await ended
    finally:
        thread.join(5)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for 5 s at most until it holds."""
    async with asyncio.timeout(5):
        while not condition():
            await clock.pause(0.002)


def holder_of(broker: Broker | LinkedBroker) -> str | None:
    """Who holds the first port."""
    return broker.status()[0].holder
