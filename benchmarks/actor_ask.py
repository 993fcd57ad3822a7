"""How long an ask takes, beside the same round trip through a plain asyncio queue and future.

Deadlines, links and metrics are on. Prints ratios within one run; the goals are for the medians:
on asyncio at most 1.5 × the plain baseline on asyncio; on uvloop at most 0.8 × the plain baseline on asyncio
(the ratio to the baseline on uvloop itself is printed too).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from duodaq.v4 import Actor, ActorSystem, handler

Factory = Callable[[], asyncio.AbstractEventLoop]


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


def on(factory: Factory, measure: Callable[[int], Coroutine[Any, Any, float]], rounds: int) -> float:
    """Run one measurement on a fresh loop."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(measure(rounds))


def main() -> None:
    """Measure in turns, so that a noisy machine disturbs all alike; take the best of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    loops: dict[str, Factory] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    except ImportError:
        pass
    best: dict[str, float] = {}
    for _ in range(options.turns):
        for loop, factory in loops.items():
            for what, measure in (("plain", plain_us), ("actor", actor_us)):
                key = f"{what} on {loop}"
                best[key] = min(best.get(key, 1e9), on(factory, measure, options.rounds))
    ratios = {"ask on asyncio / plain on asyncio": (best["actor on asyncio"] / best["plain on asyncio"], 1.5)}
    if "uvloop" in loops:
        ratios["ask on uvloop / plain on asyncio"] = (best["actor on uvloop"] / best["plain on asyncio"], 0.8)
        ratios["ask on uvloop / plain on uvloop"] = (best["actor on uvloop"] / best["plain on uvloop"], 1.5)
    for what, (ratio, goal) in ratios.items():
        print(f"{what}: {ratio:.2f} (goal ≤ {goal})")
    print(json.dumps({"p50_us": {key: round(value, 2) for key, value in best.items()}}))


if __name__ == "__main__":
    main()
