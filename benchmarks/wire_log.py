"""What it costs to record the wire: exchanges per second with nothing recorded, with the ring, and with the file.

The far end is a child process at the other end of a TCP connection that answers each line at once. One broker carries
all exchanges of a run, in blocks of each way by turns, so that whatever else the machine does falls on all alike; a
block is long enough for several batches of the file. Compared are the blocks of a turn; printed is the median of the
turns. The file is written to the folder of temporary files.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _harness import Goal, parser, report

from duodaq.clock import new_loop
from duodaq.drivers import codec
from duodaq.model import PortDefinition
from duodaq.ports import Broker
from duodaq.schema import open_wirelog
from duodaq.storage import WireRecorder

ANSWERING = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    line, _ = listener.accept()
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while line.recv(4096):
        line.sendall(b"+1.23456789E+00\\n")
"""
QUERY = b"READ?\n"
BLOCK = 2000


def nothing(*_: object) -> None:
    """Record nothing."""


async def measure(port: int, folder: Path, turns: int, count: int) -> dict[str, list[float]]:
    """Seconds per exchange of each way, block by block."""
    broker = Broker()
    await broker.add(PortDefinition("dmm", tcp=f"127.0.0.1:{port}", codec="scpi"), codec("scpi"))
    await broker.open("dmm")
    books: Any = broker.owner("dmm").books
    ways_in = (books._record, books.written, books.heard)
    recorders: list[WireRecorder] = []
    dmm = broker.port("dmm")

    async def block(record: bool, file: bool) -> float:
        books._record, books.written, books.heard = ways_in if record else (nothing,) * 3
        if file:
            recorders.append(WireRecorder(folder / f"{len(recorders)}.arrows", {"dmm": broker.log_source("dmm")}))
            await recorders[-1].start()
        begun = time.perf_counter()
        for _ in range(count):
            await dmm.exchange(QUERY, holder="bench")
        took = (time.perf_counter() - begun) / count
        if file:
            assert (await recorders[-1].stop()).records == 2 * count
        return took

    ways = {"nothing recorded": (False, False), "ring in memory": (True, False), "ring and file": (True, True)}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            took[name].append(await block(*way))
    await broker.aclose()
    assert all(open_wirelog(recorder.path).lost() == {"dmm": 0} for recorder in recorders)
    return took


def main() -> None:
    quick = parser(__doc__).parse_args().quick
    with (
        subprocess.Popen([sys.executable, "-c", ANSWERING], stdout=subprocess.PIPE, text=True) as far,
        tempfile.TemporaryDirectory() as folder,
    ):
        assert far.stdout is not None
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:  # as `duodaq run` does
                work = measure(int(far.stdout.readline()), Path(folder), *((2, 100) if quick else (25, BLOCK)))
                took = runner.run(work)
        finally:
            far.terminate()
    bare = took["nothing recorded"]
    for name, values in took.items():
        seconds = statistics.median(values)
        fastest = f"{1e6 * min(values):8.1f} µs in the fastest block"
        print(f"{name:20} {1e6 * seconds:8.1f} µs an exchange {1 / seconds:10,.0f} a second {fastest}")

    def rate(name: str) -> float:
        return statistics.median(off / on for off, on in zip(bare, took[name], strict=True))

    report(
        [
            Goal("exchange rate with the wire in memory, to none recorded", rate("ring in memory")),
            Goal("exchange rate with the wire in a file, to none recorded", rate("ring and file"), "≥", 0.95),
        ],
        quick=quick,
    )


if __name__ == "__main__":
    main()
