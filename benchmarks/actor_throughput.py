"""How many asks a second 100 callers get, beside pykka and xoscar on the same work; and how many tells go through.

Goals: at 100 callers at least 3 × pykka's rate (5 × on uvloop) and 8 × xoscar's; tells at least a million a second on
uvloop, from the first sent to the last handled; as that depends on the machine of the moment, the time of a tell is
also given in bare awaits. Deadlines, links and metrics are on.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from _harness import Goal, LoopFactory, loops, parser, report

from duodaq.v4 import Actor, ActorSystem, handler

CALLERS = 100


class Echo(Actor):
    @handler(int)
    async def echo(self, number: int) -> int:
        return number


class Sink(Actor):
    @handler(int)
    def count(self, number: int) -> None:
        pass

    @handler(str)
    async def done(self, _: str) -> str:
        return "done"


class Peer(Actor):
    """Something to be linked to."""


async def duodaq_asks(each: int) -> float:
    """Asks a second, by 100 callers."""
    system = ActorSystem("bench")
    ref = await system.spawn(Echo, links=(await system.spawn(Peer),), mailbox=CALLERS)

    async def caller() -> None:
        for index in range(each):
            assert await ref.ask(index, 5.0) == index

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    rate = CALLERS * each / (time.perf_counter() - begun)
    await system.stop()
    return rate


async def duodaq_tells(count: int) -> float:
    """Tells a second from one sender, from the first sent to the last handled."""
    system = ActorSystem("bench")
    ref = await system.spawn(Sink, links=(await system.spawn(Peer),), mailbox=256)
    tell = ref.tell
    begun = time.perf_counter()
    for index in range(count):
        await tell(index)
    await ref.ask("done", 60)
    rate = count / (time.perf_counter() - begun)
    assert ref.metrics.handled == count + 1
    await system.stop()
    return rate


async def plain_awaits(count: int) -> float:
    """Awaits a second of a coroutine that does nothing: what a tell costs beside the least it could cost."""

    async def nothing() -> None:
        pass

    begun = time.perf_counter()
    for _ in range(count):
        await nothing()
    return count / (time.perf_counter() - begun)


def pykka_asks(each: int) -> float:
    """The same by 100 threads, which is what pykka's callers are."""
    import pykka

    class PykkaEcho(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return message

    ref = PykkaEcho.start()

    def caller() -> None:
        for index in range(each):
            assert ref.ask(index, timeout=30.0) == index

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = CALLERS * each / (time.perf_counter() - begun)
    ref.stop()
    return rate


async def xoscar_asks(each: int) -> float:
    """The same on xoscar, in one process, which is its fastest way."""
    import xoscar

    class XoscarEcho(xoscar.Actor):
        async def echo(self, number: int) -> int:
            return number

    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
    async with pool:
        ref = await xoscar.create_actor(XoscarEcho, address=pool.external_address, uid="echo")

        async def caller() -> None:
            for index in range(each):
                assert await ref.echo(index) == index

        begun = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return CALLERS * each / (time.perf_counter() - begun)


def best(factory: LoopFactory, measure: Callable[[int], Any], count: int) -> float:
    """The best of three runs, each on a fresh loop."""
    rates: list[float] = []
    for _ in range(3):
        with asyncio.Runner(loop_factory=factory) as runner:
            rates.append(runner.run(measure(count)))
    return max(rates)


PEERS = {("pykka", "asyncio"): 3, ("pykka", "uvloop"): 5, ("xoscar", "asyncio"): 8, ("xoscar", "uvloop"): 8}
"""The goals: how many times the peer's rate, on which loop of ours."""


def main() -> None:
    """Measure, and print ratios."""
    quick = parser(__doc__).parse_args().quick
    each, tells = (5, 2000) if quick else (500, 200_000)
    peers = _peers(each)
    goals: list[Goal] = []
    for loop, factory in loops().items():
        asks, told = best(factory, duodaq_asks, each), best(factory, duodaq_tells, tells)
        print(f"on {loop}: {asks:,.0f} asks/s by {CALLERS} callers, {told:,.0f} tells/s")
        for peer, rate in peers.items():
            goals.append(Goal(f"asks/s of {CALLERS} callers on {loop} / {peer}", asks / rate, "≥", PEERS[peer, loop]))
        limit = 1_000_000 if loop == "uvloop" else None
        goals.append(Goal(f"tells on {loop}", told, "≥", limit, "/s"))
        goals.append(Goal(f"a tell on {loop} / a bare await", best(factory, plain_awaits, tells) / told))
    report(goals, quick=quick)


def _peers(each: int) -> dict[str, float]:
    rates = {"pykka": max(pykka_asks(max(1, each // 10)) for _ in range(3))}
    try:
        rates["xoscar"] = best(asyncio.new_event_loop, xoscar_asks, max(1, each // 5))
    except ImportError:
        sys.stderr.write("xoscar is not installed; its ratio is left out\n")
    print(", ".join(f"{peer} {rate:,.0f} asks/s" for peer, rate in rates.items()))
    return rates


if __name__ == "__main__":
    main()
