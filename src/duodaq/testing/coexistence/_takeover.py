"""How long it takes until an instrument answers again whose process was killed, where nothing else is the matter.

It is no test and judges nothing. The isolation tests strike again and again, sooner than the product keeps a spare
worker warm, and later strikes wait for its back-off; here each kill meets a lab that has just been started.
"""

from __future__ import annotations

from duodaq.testing.coexistence._bench import Bench, Mode
from duodaq.testing.coexistence._figures import Figure
from duodaq.testing.coexistence._fragile import FragileActor, FragileDriver, Trouble
from duodaq.testing.coexistence._sufferer import Sufferer

ROUNDS = 3
TAKEOVER = "takeover"


async def measure_takeover(rounds: int = ROUNDS) -> list[Figure]:
    """Kill the process of an instrument of V2, then of V4, `rounds` times each.

    Returns:
        For each kill the figure `TAKEOVER`: milliseconds from the process's last act to the first reading of the device
        by another process.

    Raises:
        FeatureFailure: One did not come back.
    """
    figures: list[Figure] = []
    for number in range(2 * rounds):
        async with Bench(Mode("process", "process", "process")) as bench:
            figures += await _one(bench, v2=number % 2 == 0)
    return figures


async def _one(bench: Bench, *, v2: bool) -> list[Figure]:
    device, trouble = await bench.simulator("newport1830c"), Trouble(bench.room("trouble"))
    if v2:
        fragile = bench.own_class("fragile", FragileDriver, "bad", args=trouble.args)
    else:
        fragile = bench.own_actor("fragile", FragileActor, "bad", args=trouble.args)
    manager = bench.manager([fragile], [bench.serial_port("bad", device, "newport1830c")])
    await manager.start()
    side = Sufferer("v2" if v2 else "v4", "process", manager, device, trouble, bench.figures)
    await side.killed_at_full_strength()
    return [Figure(TAKEOVER, one.value, one.unit, {"side": one.of["side"]}) for one in bench.figures.measured]
