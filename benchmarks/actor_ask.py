"""How long an ask takes, beside the same round trip through a plain asyncio queue and future.

Deadlines, links and metrics are on. Prints ratios within one run; the goals are for the medians:
on asyncio at most 1.5 × the plain baseline on asyncio; on uvloop at most 0.8 × the plain baseline on asyncio
(the ratio to the baseline on uvloop itself is printed too).
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from _harness import Goal, LoopFactory, loops, parser, report

from duodaq.v4 import Actor, ActorSystem, handler


class Echo(Actor):
    @handler(int)
    async def echo(self, number: int) -> int:
        return number


class Peer(Actor):
    """Something to be linked to."""


async def plain_us(rounds: int) -> float:
    """Median of one round trip through asyncio.Queue and a future, in µs."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue(64)

    async def serve() -> None:
        while True:
            number, reply = await queue.get()
            reply.set_result(number)

    server = loop.create_task(serve())

    async def ask(number: int) -> int:
        reply: asyncio.Future[int] = loop.create_future()
        await queue.put((number, reply))
        return await reply

    median = await median_us(ask, rounds)
    server.cancel()
    await asyncio.wait((server,))
    return median


async def actor_us(rounds: int) -> float:
    """Median of one ask of a linked actor, in µs."""
    system = ActorSystem("bench")
    peer = await system.spawn(Peer)
    echo = await system.spawn(Echo, links=(peer,))
    median = await median_us(lambda number: echo.ask(number, 5.0), rounds)
    assert echo.metrics.handled >= rounds
    await system.stop()
    return median


async def median_us(ask: Callable[[int], Coroutine[Any, Any, int]], rounds: int) -> float:
    """The median duration of `ask`, in µs."""
    clock, took = time.perf_counter_ns, [0] * rounds
    for index in range(rounds):
        begun = clock()
        await ask(index)
        took[index] = clock() - begun
    return statistics.median(took) / 1000


def on(factory: LoopFactory, measure: Callable[[int], Coroutine[Any, Any, float]], rounds: int) -> float:
    """Run one measurement on a fresh loop."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(measure(rounds))


def main() -> None:
    """Measure in turns, so that a noisy machine disturbs all alike; take the best of each."""
    quick = parser(__doc__).parse_args().quick
    rounds, turns = (200, 1) if quick else (20_000, 5)
    best: dict[str, float] = {}
    for _ in range(turns):
        for loop, factory in loops().items():
            for what, measure in (("plain", plain_us), ("actor", actor_us)):
                key = f"{what} on {loop}"
                best[key] = min(best.get(key, 1e9), on(factory, measure, rounds))
    print(", ".join(f"{key} {value:.2f} µs" for key, value in best.items()))
    report(_ratios(best), quick=quick)


def _ratios(p50_us: dict[str, float]) -> list[Goal]:
    plain = p50_us["plain on asyncio"]
    ratios = [Goal("ask p50 on asyncio / plain queue + future", p50_us["actor on asyncio"] / plain, "≤", 1.5)]
    if "actor on uvloop" in p50_us:
        ratios.append(Goal("ask p50 on uvloop / plain queue + future", p50_us["actor on uvloop"] / plain, "≤", 0.8))
        ratios.append(
            Goal("ask p50 on uvloop / the same on uvloop", p50_us["actor on uvloop"] / p50_us["plain on uvloop"])
        )
    return ratios


if __name__ == "__main__":
    main()
