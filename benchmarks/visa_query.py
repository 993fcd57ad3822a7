"""What a query costs on a shared port, beside a bare socket to the same simulator in the same turn.

The simulator is the 34465A, a process of its own that answers each of its clients; the query is ``*OPC?``. In turns:

* a blocking round trip over a bare TCP socket: the baseline;
* lease and query on the broker's own loop;
* `query` of a PyVISA resource by ``@duodaq``, in a driver that a V2 worker process hosts;
* the same in a program outside, over the lab's control socket, where each write waits until it is on the wire.

What a way costs is its median less the baseline's of the same turn, and of these the median over all turns. The rate is
that of four users of one port, who keep its queue full, beside the bare socket's.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _harness import Goal, parser, report

from duodaq import sim
from duodaq.clock import new_loop
from duodaq.dual import DualRuntimeManager
from duodaq.link import LAB_PROTOCOL, LabLock, LinkServer
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, PortDefinition, RuntimeDefinition
from duodaq.ports import Broker, Gate

QUERY, REPLY = b"*OPC?\n", b"1\n"
USERS = 4
OUTSIDE = """
import sys, time, pyvisa
manager = pyvisa.ResourceManager(sys.argv[1])
dmm = manager.open_resource("dmm", read_termination="\\n", write_termination="\\n")
for line in sys.stdin:
    took = []
    for _ in range(int(line)):
        begun = time.perf_counter_ns()
        assert dmm.query("*OPC?") == "1"
        took.append(time.perf_counter_ns() - begun)
    print(sorted(took)[len(took) // 2] / 1000, flush=True)
"""


class Meter:
    """A driver that opens its resource by PyVISA, and knows how long its queries take."""

    def __init__(self, address: str) -> None:
        import pyvisa

        manager = pyvisa.ResourceManager("@duodaq")
        self.resource = manager.open_resource(address, read_termination="\n", write_termination="\n")

    def median_us(self, rounds: int) -> float:
        """The median duration of a query, in µs."""
        took: list[int] = []
        for _ in range(rounds):
            begun = time.perf_counter_ns()
            assert self.resource.query("*OPC?") == "1"
            took.append(time.perf_counter_ns() - begun)
        return statistics.median(took) / 1000

    def pid(self) -> int:
        return os.getpid()


class Bare:
    """A blocking socket to the simulator."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.line = socket.create_connection((host, int(port)))
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> None:
        self.line.sendall(QUERY)
        assert self.line.recv(64) == REPLY

    def median_us(self, rounds: int) -> float:
        took: list[int] = []
        for _ in range(rounds):
            begun = time.perf_counter_ns()
            self.ask()
            took.append(time.perf_counter_ns() - begun)
        return statistics.median(took) / 1000

    def rate(self, rounds: int) -> float:
        begun = time.perf_counter()
        for _ in range(rounds):
            self.ask()
        return rounds / (time.perf_counter() - begun)


async def leased_us(broker: Broker, rounds: int) -> float:
    """The median duration of a lease with one query, in µs."""
    took: list[int] = []
    port = broker.port("dmm")
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        async with port.lease("bench") as lease:
            assert await lease.exchange(QUERY) == REPLY
        took.append(time.perf_counter_ns() - begun)
    return statistics.median(took) / 1000


async def shared_rate(broker: Broker, rounds: int) -> float:
    """Exchanges per second of several users of one port."""
    port = broker.port("dmm")

    async def use(name: str) -> None:
        for _ in range(rounds // USERS):
            assert await port.exchange(QUERY, holder=name) == REPLY

    begun = time.perf_counter()
    await asyncio.gather(*(use(f"user {number}") for number in range(USERS)))
    return rounds // USERS * USERS / (time.perf_counter() - begun)


class Outside:
    """A program of its own that queries by the control socket."""

    def __init__(self, address: str) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-c", OUTSIDE, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def median_us(self, rounds: int) -> float:
        return await asyncio.to_thread(self._ask, rounds)

    def _ask(self, rounds: int) -> float:
        stdin, stdout = self._program.stdin, self._program.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{rounds}\n")
        stdin.flush()
        return float(stdout.readline())

    def close(self) -> None:
        self._program.communicate()


async def measure(address: str, turns: int, rounds: int) -> list[dict[str, float]]:
    """One dictionary for each turn."""
    name = f"bench{os.getpid()}"
    lab = LabDefinition(
        name,
        ports=(PortDefinition("dmm", tcp=address, codec="scpi"),),
        instruments=(InstrumentDefinition("meter", "v2", Meter, port="dmm", args={"address": "{visa}"}, passive=True),),
        v2=RuntimeDefinition("v2", "process"),
    )
    manager, lock, bare = DualRuntimeManager(lab), LabLock(name), Bare(address)
    await manager.start()
    talks = {"ports": Gate(manager.broker).talk}
    server = LinkServer(lock.socket, _nothing, version=LAB_PROTOCOL, talks=talks)
    await server.start()
    outside = Outside(f"{name}@duodaq")
    try:
        assert await manager.command("meter", Execute("pid"), 5.0) != os.getpid()
        found: list[dict[str, float]] = []
        for turn in range(turns + 1):
            one = {
                "bare": await asyncio.to_thread(bare.median_us, rounds),
                "leased": await leased_us(manager.broker, rounds),
                "worker": await manager.command("meter", Execute("median_us", (rounds,)), 60.0),
                "outside": await outside.median_us(rounds),
                "bare/s": await asyncio.to_thread(bare.rate, rounds),
                "shared/s": await shared_rate(manager.broker, rounds),
            }
            if turn:
                found.append(one)
        return found
    finally:
        await asyncio.to_thread(outside.close)
        await server.aclose()
        lock.release()
        await manager.shutdown(5.0)
        bare.line.close()


async def _nothing(op: str, params: dict[str, object]) -> None:
    raise ValueError(op)


def main() -> None:
    options = parser(__doc__).parse_args()
    turns, rounds = (2, 40) if options.quick else (15, 400)
    with (
        tempfile.TemporaryDirectory(prefix="duodaq-bench-") as own,
        sim.launch("scpi-dmm", tcp=True, model="34465A") as dmm,
    ):
        Path(own).chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = own
        with asyncio.Runner(loop_factory=new_loop) as runner:  # as `duodaq run` does
            found = runner.run(measure(dmm.address, turns, rounds))

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    bare = median([one["bare"] for one in found])
    more = {way: median([one[way] - one["bare"] for one in found]) for way in ("leased", "worker", "outside")}
    ratio = median([one["shared/s"] / one["bare/s"] for one in found])
    rate = median([one["shared/s"] for one in found])
    print(f"one query over a bare TCP socket: {bare:.0f} µs; one port with {USERS} users: {rate:,.0f} exchanges/s")
    report(
        [
            Goal("lease + query in the manager, over a raw TCP round trip", more["leased"], "≤", 60, "µs"),
            Goal("query by @duodaq in a process worker, over the same", more["worker"], "≤", 200, "µs"),
            Goal("query by @duodaq in a program outside, over the same", more["outside"], unit="µs"),
            Goal("exchanges/s on one TCP port beside a bare ping-pong", ratio, "≥", 0.5),
        ],
        quick=options.quick,
    )


if __name__ == "__main__":
    main()
