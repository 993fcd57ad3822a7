"""What one exchange on a pty costs, by how the line is carried: pyserial's descriptor on the loop, serialx, a thread.

The far end is a child process that answers each line at once. Every way carries the same exchanges in the same run, in
turns (serialx where it is installed); printed are medians, and their ratios to the bare minimum (a raw descriptor with
`add_reader`). The last two rows are the whole broker, asked from its own loop and from a blocking driver thread.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import tty
from collections.abc import Awaitable, Callable

import serial

from duodaq import clock
from duodaq.model import PortDefinition
from duodaq.ports import Broker, Framing, SerialTransport, Terminated

ANSWERING = """
import os, sys
master, held = int(sys.argv[1]), b""
while True:
    try:
        held += os.read(master, 4096)
    except OSError:
        break
    while b"\\n" in held:
        line, held = held.split(b"\\n", 1)
        os.write(master, line + b"=1\\n")
"""
QUERY = b"1TP?\n"
Exchange = Callable[[], Awaitable[None]]


class Codec:
    """Every command is answered by one line."""

    name, write_terminator, abort_bytes, longest_reply_s = "bench", b"\n", b"\n", 1.0

    def expects_reply(self, written: bytes, /) -> Framing | None:
        return Terminated(b"\n")

    def is_break_in(self, written: bytes, /) -> bool:
        return False

    def moves(self, written: bytes, /) -> bool:
        return False

    def destructive(self, written: bytes, /) -> bool:
        return False

    def stop_bytes(self, axis: str | None, /) -> bytes | None:
        return None

    def probe(self) -> tuple[bytes, Framing] | None:
        return None

    def identity(self) -> tuple[bytes, Framing] | None:
        return None


class Waiting:
    """A receiver, and an asyncio.Protocol, whose `answered` is set by the end of a line."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\n"):
            self.answered.set_result(None)

    def transport_lost(self, cause: Exception | None) -> None: ...

    def connection_made(self, transport: object) -> None: ...

    def connection_lost(self, cause: Exception | None) -> None: ...

    async def ask(self, write: Callable[[bytes], object]) -> None:
        self.answered = asyncio.get_running_loop().create_future()
        write(QUERY)
        await self.answered


async def median_us(exchange: Exchange, count: int) -> float:
    times: list[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        await exchange()
        times.append((time.perf_counter() - begun) * 1e6)
    return statistics.median(times)


async def raw_us(path: str, count: int) -> float:
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    loop, waiting = asyncio.get_running_loop(), Waiting()
    loop.add_reader(descriptor, lambda: waiting.data_received(os.read(descriptor, 4096)))
    try:
        return await median_us(lambda: waiting.ask(lambda data: os.write(descriptor, data)), count)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def pyserial_loop_us(path: str, count: int) -> float:
    line, waiting = SerialTransport(path, baud=115200), Waiting()
    await line.open(waiting, 5)
    try:
        return await median_us(lambda: waiting.ask(line.write_nowait), count)
    finally:
        await line.aclose()


async def serialx_loop_us(path: str, count: int) -> float:
    serialx, waiting = importlib.import_module("serialx"), Waiting()
    transport, _ = await serialx.create_serial_connection(
        asyncio.get_running_loop(), lambda: waiting, path, 115200, exclusive=True
    )
    try:
        return await median_us(lambda: waiting.ask(transport.write), count)
    finally:
        transport.close()
        await clock.pause(0.01)


async def serialx_stream_us(path: str, count: int) -> float:
    line = importlib.import_module("serialx").async_serial_for_url(path, baudrate=115200)
    await line.open()

    async def ask() -> None:
        await line.write(QUERY)
        await line.readuntil(b"\n")

    try:
        return await median_us(ask, count)
    finally:
        await line.close()


async def pyserial_thread_us(path: str, count: int) -> float:
    def blocking(line: serial.Serial) -> None:
        line.write(QUERY)
        line.read_until(b"\n")

    with serial.Serial(path, 115200, timeout=1, exclusive=True) as line:
        return await median_us(lambda: asyncio.to_thread(blocking, line), count)


async def broker_us(path: str, count: int) -> float:
    broker = await _broker(path)
    port = broker.port("p")

    async def ask() -> None:
        await port.exchange(QUERY, holder="bench")

    try:
        return await median_us(ask, count)
    finally:
        await broker.aclose()


async def session_us(path: str, count: int) -> float:
    broker = await _broker(path)
    session = broker.session("p", "bench")

    def drive() -> float:
        times: list[float] = []
        for _ in range(count):
            begun = time.perf_counter()
            with session.call():
                session.write(QUERY)
                session.read_until(b"\n")
            times.append((time.perf_counter() - begun) * 1e6)
        return statistics.median(times)

    try:
        return await asyncio.to_thread(drive)
    finally:
        await broker.aclose()


async def _broker(path: str) -> Broker:
    broker = Broker()
    await broker.add(PortDefinition("p", serial={"path": path, "baud": 115200}), Codec())
    await broker.open("p")
    return broker


WAYS: dict[str, Callable[[str, int], Awaitable[float]]] = {
    "raw descriptor, add_reader": raw_us,
    "pyserial descriptor, add_reader": pyserial_loop_us,
    "serialx protocol": serialx_loop_us,
    "serialx stream": serialx_stream_us,
    "pyserial in a thread per exchange": pyserial_thread_us,
    "broker, async": broker_us,
    "broker, blocking session": session_us,
}
if importlib.util.find_spec("serialx") is None:
    WAYS = {name: way for name, way in WAYS.items() if "serialx" not in name}


def measure(count: int, turns: int) -> dict[str, float]:
    """The median over `turns` of each way's median, in µs."""
    master, slave = os.openpty()
    tty.setraw(slave)
    path = os.ttyname(slave)
    far = subprocess.Popen([sys.executable, "-c", ANSWERING, str(master)], pass_fds=[master])
    try:
        medians: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(turns):
            for name, way in WAYS.items():
                medians[name].append(asyncio.run(way(path, count)))  # type: ignore[arg-type] - each way is a coroutine function
        return {name: statistics.median(values) for name, values in medians.items()}
    finally:
        far.terminate()
        far.wait()
        os.close(master)
        os.close(slave)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few exchanges: for correctness, not for figures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    medians = measure(50, 1) if options.quick else measure(2000, 5)
    bare = medians["raw descriptor, add_reader"]
    ratios = {name: round(median / bare, 2) for name, median in medians.items()}
    if options.json:
        facts = {"benchmark": "serial_transport", "bare_us": round(bare, 1), "ratios": ratios}
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    for name, ratio in ratios.items():
        sys.stdout.write(f"{name:36} {medians[name]:8.1f} µs   {ratio:5.2f} ×\n")


if __name__ == "__main__":
    main()
