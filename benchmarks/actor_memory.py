"""How much memory an idle actor takes, after it has handled a message and come to rest. The goal is at most 4 kB.

Both figures are printed: what Python allocated (tracemalloc) and what the process grew by (resident set).
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

from _harness import Goal, parser, report

from duodaq.clock import pause
from duodaq.v4 import Actor, ActorRef, ActorSystem, handler


class Idle(Actor):
    def __init__(self) -> None:
        self.count = 0

    @handler(int)
    async def read(self, number: int) -> int:
        self.count += number
        return self.count


def resident_bytes() -> int:
    """The resident set of this process, in bytes; 0 where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


async def populate(system: ActorSystem, count: int) -> list[ActorRef]:
    """Spawn `count` actors, ask each once, and wait until they are idle."""
    refs = [await system.spawn(Idle) for _ in range(count)]
    for ref in refs:
        await ref.ask(1)
    while len(asyncio.all_tasks()) > 1:
        await pause(0.2)
    gc.collect()
    return refs


async def measure(count: int) -> dict[str, float]:
    """Bytes for each of `count` idle actors."""
    system = ActorSystem("bench")
    warm = await populate(system, 100)
    before = resident_bytes()
    refs = await populate(system, count)
    resident = (resident_bytes() - before) / count
    tracemalloc.start()
    traced_before = tracemalloc.get_traced_memory()[0]
    more = await populate(system, count // 10)
    allocated = (tracemalloc.get_traced_memory()[0] - traced_before) / (count // 10)
    tracemalloc.stop()
    assert len(system.registry) == len(warm) + len(refs) + len(more)
    await system.stop(60)
    return {"resident": resident, "allocated": allocated}


def main() -> None:
    """Measure and print."""
    quick = parser(__doc__).parse_args().quick
    figures = asyncio.run(measure(100 if quick else 5000))
    report(
        [Goal(f"memory of an idle actor, {what}", size, "≤", 4096, "B") for what, size in figures.items()], quick=quick
    )


if __name__ == "__main__":
    main()
