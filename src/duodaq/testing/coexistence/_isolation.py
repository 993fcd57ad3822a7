"""One side in trouble, the other at work: two of the twelve."""

from __future__ import annotations

import asyncio
from typing import Any

from duodaq import sim
from duodaq.dataplane import Policy
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError
from duodaq.model import Execute, PortDefinition, StopAcquisition
from duodaq.schema import scalars_of
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._figures import Figures
from duodaq.testing.coexistence._fragile import Calm, FragileActor, FragileDriver, Steady, Trouble, Witness
from duodaq.testing.coexistence._proof import proves
from duodaq.testing.coexistence._strain import Pulse, withstands
from duodaq.testing.coexistence._sufferer import Sufferer

RESTARTS = 2
LEAST = 50
_ALL = 1 << 16


async def test_v2_error_does_not_crash_v4(bench: Bench) -> None:
    """Whatever goes wrong in V2, V4 loses no reading and answers as quickly; V2 comes back within its limit."""
    good, bad = await asyncio.gather(*(bench.simulator("newport1830c", label=name) for name in ("good", "bad")))
    trouble = Trouble(bench.room("trouble"))
    witness = bench.own_actor("witness", Witness, "good", args={"rate_hz": 100}, options={"acquire": True})
    fragile = bench.own_class("fragile", FragileDriver, "bad", args=trouble.args, kill_after_s=0.2)
    manager = bench.manager([witness, fragile], _ports(bench, good, bad))
    judge = manager.v4_data.subscribe("judge", capacity=_ALL, policy=Policy.DROP_NEWEST, streams=("witness.power",))
    await manager.start()
    side = Sufferer("v2", bench.mode.v2, manager, bad, trouble, bench.figures)

    pulse = await withstands(
        lambda n: manager.command("witness", Execute("ping", (n,)), 2.0), side.v2_faults(), side.afresh
    )

    await outcome(manager.command("witness", Execute("finish"), 2.0))
    await outcome(manager.command("witness", StopAcquisition(), 2.0))
    numbers = [row.sequence for batch in await judge.get_many(_ALL, 0.5) for row in scalars_of(batch)]
    _proves_whole("v4", good, manager.v4_data.ledger().produced_of("witness.power"), numbers)
    _proves_undisturbed("v4", pulse, bench.figures)


async def test_v4_error_does_not_crash_v2(bench: Bench) -> None:
    """Whatever goes wrong in V4, V2 loses no reading and answers as quickly; V4 comes back, as often as it may."""
    good, bad = await asyncio.gather(*(bench.simulator("newport1830c", label=name) for name in ("good", "bad")))
    trouble, blocked, doomed = (Trouble(bench.room(name)) for name in ("trouble", "blocked", "doomed"))
    often: dict[str, Any] = {"options": {"restart_limit": 100, "stop_timeout_s": 0.3}, "kill_after_s": 0.2}
    manager = bench.manager(
        [
            bench.polled("steady", Steady, "power", "power", "W", 0.01, port="good"),
            bench.own_class("calm", Calm),
            bench.own_actor("fragile", FragileActor, "bad", args=trouble.args, **often),
            bench.own_actor("blocked", FragileActor, "bad", args=blocked.args, **often, worker="own"),
            bench.own_actor("doomed", FragileActor, args=doomed.args, options={"restart_limit": RESTARTS}),
        ],
        _ports(bench, good, bad),
    )
    judge = manager.v2_data.subscribe("judge", capacity=_ALL, accepts=lambda m: m.instrument == "steady")
    await manager.start()
    side = Sufferer("v4", bench.mode.v4, manager, bad, trouble, bench.figures, blocked)

    pulse = await withstands(
        lambda n: manager.command("calm", Execute("ping", (n,)), 2.0), side.v4_faults(), side.afresh
    )

    await _proves_restart_limit(manager, doomed)
    await outcome(manager.command("steady", StopAcquisition(), 2.0))
    numbers = [measurement.sequence for measurement in await judge.get_many(_ALL, 0.5)]
    _proves_whole("v2", good, manager.v2_data.ledger().produced_of("steady.power"), numbers)
    _proves_undisturbed("v2", pulse, bench.figures)


async def _proves_restart_limit(manager: DualRuntimeManager, doomed: Trouble) -> None:
    before = doomed.starts
    for crash in range(RESTARTS + 1):
        await outcome(manager.command("doomed", Execute("crash"), 1.0))
        await until(lambda n=crash: doomed.starts > before + n, 0.5)
    again = doomed.starts - before
    proves("restart limit", before > 0 and again == RESTARTS, "it was restarted as often as it may", restarts=again)
    answer = await outcome(manager.command("doomed", Execute("fail"), 0.5))
    proves("restart limit", isinstance(answer, DuodaqError), "then it is down, and says so", got=answer)


def _ports(bench: Bench, good: sim.SimProcess, bad: sim.SimProcess) -> tuple[PortDefinition, ...]:
    return (
        bench.serial_port("good", good, "newport1830c"),
        bench.serial_port("bad", bad, "newport1830c", timeout_s=0.3),
    )


def _proves_whole(name: str, device: sim.SimProcess, booked: int, numbers: list[int]) -> None:
    made = device.report()["produced"].get("D", 0)
    whole = made == booked == len(numbers) and made >= LEAST and numbers == list(range(made))
    proves(
        f"{name} loses nothing",
        whole,
        "the device's own count, the ledger and the reader agree",
        device=made,
        ledger=booked,
        reader=len(numbers),
    )


def _proves_undisturbed(name: str, pulse: Pulse, figures: Figures) -> None:
    for times, p99_s in zip(("in peace", "beside faults"), pulse.p99_s(), strict=True):
        figures.note("answers, 99th percentile", 1e3 * p99_s, "ms", side=name, when=times)
    proves(f"{name} answers", not pulse.wrong, "every question got its own answer", wrong=pulse.wrong[:5])
    proves(
        f"{name} stays quick",
        pulse.undisturbed,
        "its answers take no longer beside the faults",
        p99_s=pulse.p99_s(),
        longest_s=pulse.longest_s(),
    )
