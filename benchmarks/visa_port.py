"""What a query costs through a port worker, beside PyVISA in this process on the same simulator in the same turn.

The simulator is the 34465A, by HiSLIP and by VXI-11; the query is ``*OPC?``. In turns: `query` of pyvisa-py itself;
lease and query of the broker whose port is carried by pyvisa-py in a port worker. Printed are medians over all turns,
their difference, and for how long a killed port worker's port is away.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Callable

import pyvisa
from _harness import Goal, parser, report

from duodaq import clock, sim
from duodaq.drivers import codec
from duodaq.model import PortDefinition, VisaDefinition
from duodaq.ports import Broker
from duodaq.workers import spawn_port_worker


async def measure(kind: str, turns: int, queries: int) -> list[Goal]:
    with sim.launch("scpi-dmm", model="34465A", **{kind: True}) as meter:
        broker = Broker(spawn_worker=spawn_port_worker)
        definition = PortDefinition("dmm", visa=VisaDefinition(meter.address, "@py"), codec="scpi")
        port = await broker.add(definition, codec("scpi"))
        begun_s = time.perf_counter()
        await broker.open("dmm", 30.0)
        opened_s = time.perf_counter() - begun_s
        manager = pyvisa.ResourceManager("@py")
        bare = manager.open_resource(meter.address, read_termination="\n", write_termination="\n")
        alone: list[float] = []
        through: list[float] = []
        for _ in range(turns):
            alone.append(statistics.median(_timed(lambda: bare.query("*OPC?")) for _ in range(queries)))
            times: list[float] = []
            for _ in range(queries):
                begun_s = time.perf_counter()
                assert await port.exchange(b"*OPC?\n", holder="bench") == b"1\n"
                times.append(time.perf_counter() - begun_s)
            through.append(statistics.median(times))
        bare.close()
        manager.close()
        away_s = [await killed(broker) for _ in range(min(turns, 3))]
        await broker.aclose()
    extra = statistics.median(t - a for t, a in zip(through, alone, strict=True))
    return [
        Goal(f"{kind}: pyvisa-py alone", 1e6 * statistics.median(alone), unit="µs"),
        Goal(f"{kind}: broker and port worker, more than that", 1e6 * extra, unit="µs"),
        Goal(f"{kind}: first opened, PyVISA's import included", 1e3 * opened_s, unit="ms"),
        Goal(f"{kind}: away after its worker was killed", 1e3 * statistics.median(away_s), unit="ms"),
    ]


def _timed(work: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


async def killed(broker: Broker) -> float:
    before = broker.status()[0].reconnects
    os.kill(int(broker.status()[0].worker.rpartition(" ")[2]), signal.SIGKILL)
    begun_s = time.perf_counter()
    while broker.status()[0].reconnects == before:
        await clock.pause(0.001)
    return time.perf_counter() - begun_s


def main() -> None:
    given = parser(__doc__).parse_args()
    turns, queries = (1, 5) if given.quick else (9, 100)
    goals = [goal for kind in ("hislip", "vxi11") for goal in asyncio.run(measure(kind, turns, queries))]
    report(goals, quick=given.quick)


if __name__ == "__main__":
    main()
