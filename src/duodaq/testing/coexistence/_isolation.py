"""One side in trouble, the other at work: two of the twelve."""

from __future__ import annotations

import asyncio
from typing import Any

from duodaq import sim
from duodaq.clock import monotonic_s, pause
from duodaq.dataplane import Policy
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError, ReplyTimeoutError
from duodaq.model import Execute, PortDefinition, Recover, StopAcquisition
from duodaq.schema import scalars_of
from duodaq.testing.coexistence._bench import Bench, outcome, until
from duodaq.testing.coexistence._fragile import Calm, Steady, Trouble, Witness, fragile_actor, fragile_class
from duodaq.testing.coexistence._proof import proves
from duodaq.testing.coexistence._strain import Fault, Pulse, withstands

RECOVERS_S = 3.0
RESTARTS = 2
LEAST = 50
_ALL = 1 << 16


async def test_v2_error_does_not_crash_v4(bench: Bench) -> None:
    """Whatever goes wrong in V2, V4 loses no reading and answers as quickly; V2 comes back within its limit."""
    good, bad = await asyncio.gather(*(bench.simulator("newport1830c", label=name) for name in ("good", "bad")))
    trouble = Trouble()
    witness = bench.own_actor("witness", Witness, "good", args={"rate_hz": 100}, options={"acquire": True})
    fragile = bench.own_class("fragile", fragile_class(trouble), "bad", kill_after_s=0.2)
    manager = bench.manager([witness, fragile], _ports(bench, good, bad))
    judge = manager.v4_data.subscribe("judge", capacity=_ALL, policy=Policy.DROP_NEWEST, streams=("witness.power",))
    await manager.start()
    side = _Sufferer("v2", manager, bad, trouble)

    pulse = await withstands(lambda n: manager.command("witness", Execute("ping", (n,)), 2.0), side.v2_faults())

    await outcome(manager.command("witness", Execute("finish"), 2.0))
    await outcome(manager.command("witness", StopAcquisition(), 2.0))
    numbers = [row.sequence for batch in await judge.get_many(_ALL, 0.5) for row in scalars_of(batch)]
    _proves_whole("v4", good, manager.v4_data.ledger().produced_of("witness.power"), numbers)
    _proves_undisturbed("v4", pulse)


async def test_v4_error_does_not_crash_v2(bench: Bench) -> None:
    """Whatever goes wrong in V4, V2 loses no reading and answers as quickly; V4 comes back, as often as it may."""
    good, bad = await asyncio.gather(*(bench.simulator("newport1830c", label=name) for name in ("good", "bad")))
    trouble, doomed = Trouble(), Trouble()
    often = {"restart_limit": 100, "stop_timeout_s": 0.3}
    manager = bench.manager(
        [
            bench.polled("steady", Steady, "power", "power", "W", 0.01, port="good"),
            bench.own_class("calm", Calm),
            bench.own_actor("fragile", fragile_actor(trouble), "bad", options=often),
            bench.own_actor("blocked", fragile_actor(trouble), "bad", options=often, worker="own"),
            bench.own_actor("doomed", fragile_actor(doomed), options={"restart_limit": RESTARTS}),
        ],
        _ports(bench, good, bad),
    )
    judge = manager.v2_data.subscribe("judge", capacity=_ALL, accepts=lambda m: m.instrument == "steady")
    await manager.start()
    side = _Sufferer("v4", manager, bad, trouble)
    faults = side.v4_faults(threads=bench.mode.v4 == "thread")

    pulse = await withstands(lambda n: manager.command("calm", Execute("ping", (n,)), 2.0), faults)

    await _proves_restart_limit(manager, doomed)
    await outcome(manager.command("steady", StopAcquisition(), 2.0))
    numbers = [measurement.sequence for measurement in await judge.get_many(_ALL, 0.5)]
    _proves_whole("v2", good, manager.v2_data.ledger().produced_of("steady.power"), numbers)
    _proves_undisturbed("v2", pulse)


class _Sufferer:
    """The fragile instrument of one side, on a simulator of its own: its faults, and how it comes back from each."""

    def __init__(self, name: str, manager: DualRuntimeManager, bad: sim.SimProcess, trouble: Trouble) -> None:
        self._name = name
        self._manager = manager
        self._bad = bad
        self._trouble = trouble

    def v2_faults(self) -> tuple[Fault, ...]:
        """What every mode promises of V2."""
        start = Fault("start failure", self._failing_start, self._recovers)
        return (*self._alike(), start, Fault("blocked call", self._blocked, self._unblocked))

    def v4_faults(self, *, threads: bool) -> tuple[Fault, ...]:
        """What every mode promises of V4; and, with `threads`, a blocking call in an actor."""
        own = (
            Fault("crash", self._crash, self._recovers),
            Fault("start failure", self._failing_start, self._told_to_recover),
            Fault("hang that awaits", self._hang, self._restarted),
        )
        return (*self._alike(), *own, *((Fault("blocked actor", self._blocked_actor, self._freed_actor),) * threads))

    def _alike(self) -> tuple[Fault, ...]:
        return (
            Fault("exception", self._exception, self._recovers),
            Fault("unplugged port", self._unplugged, self._replugged),
            Fault("garbled port", self._garbled, self._ungarbled),
        )

    async def _exception(self) -> None:
        for _ in range(3):
            self._struck("exception", await self._ask("fail"))

    async def _unplugged(self) -> None:
        await asyncio.to_thread(self._bad.unplug)
        for _ in range(2):
            self._struck("unplugged port", await self._ask("read_power"))

    async def _replugged(self) -> None:
        await asyncio.to_thread(self._bad.replug)
        await self._recovers()

    async def _garbled(self) -> None:
        await asyncio.to_thread(self._bad.fault, garble=1.0)
        for _ in range(3):
            self._struck("garbled port", await self._ask("read_power"))

    async def _ungarbled(self) -> None:
        await asyncio.to_thread(self._bad.fault)
        await self._recovers()

    async def _failing_start(self) -> None:
        self._trouble.failing_starts, starts = 1, self._trouble.starts
        error = await outcome(self._manager.restart_instrument("fragile"))
        self._struck("start failure", error)
        proves("faults strike", self._trouble.starts > starts, "it was started and failed", starts=self._trouble.starts)

    async def _told_to_recover(self) -> None:
        await outcome(self._manager.command("fragile", Recover(), 2.0))
        await self._recovers()

    async def _blocked(self) -> None:
        self._trouble.inside.clear()
        self._trouble.freed.clear()
        began_s = monotonic_s()
        error = await self._ask("hang", deadline_s=0.2)
        self._freed_in_time(error, monotonic_s() - began_s)
        await until(lambda: self._state("fragile") == "hung", 1.0)
        refused = await self._ask("read_power", deadline_s=0.5)
        proves("hung", self._state("fragile") == "hung", "it is shown as Hung", state=self._state("fragile"))
        self._struck("blocked call", refused)

    async def _unblocked(self) -> None:
        self._trouble.after_hang = None
        self._trouble.freed.set()
        await until(lambda: self._trouble.after_hang is not None, 1.0)
        seen = self._trouble.after_hang
        proves("handles revoked", seen is not None, "the call that came back could not write", raised=seen)
        await self._recovers()

    async def _crash(self) -> None:
        starts = self._trouble.starts
        await self._ask("crash")
        again = await until(lambda: self._trouble.starts > starts, 1.0)
        proves("v4 recovers", again, "a crashed actor is started again", starts=self._trouble.starts)

    async def _hang(self) -> None:
        self._trouble.inside.clear()
        began_s = monotonic_s()
        error = await self._ask("hang", deadline_s=0.2)
        self._freed_in_time(error, monotonic_s() - began_s)

    async def _restarted(self) -> None:
        await outcome(self._manager.restart_instrument("fragile"))
        await self._recovers()

    async def _blocked_actor(self) -> None:
        self._trouble.inside.clear()
        self._trouble.freed.clear()
        began_s = monotonic_s()
        error = await self._ask("hang", True, instrument="blocked", deadline_s=0.2)
        self._freed_in_time(error, monotonic_s() - began_s)
        beside = await self._ask("read_power")
        proves("others go on", isinstance(beside, float), "an actor in another thread answers", answer=beside)

    async def _freed_actor(self) -> None:
        self._trouble.freed.set()
        await self._recovers("blocked")

    async def _recovers(self, instrument: str = "fragile") -> None:
        began_s, heard, answer = monotonic_s(), await self._heard(), None
        while not isinstance(answer, float) and monotonic_s() - began_s < RECOVERS_S:
            answer = await self._ask("read_power", instrument=instrument, deadline_s=0.5)
            await pause(0.01)
        back = isinstance(answer, float) and await self._heard() > heard
        proves(f"{self._name} recovers", back, f"it reads its device again within {RECOVERS_S} s", answer=answer)

    async def _ask(self, what: str, *args: Any, instrument: str = "fragile", deadline_s: float = 1.0) -> Any:
        return await outcome(self._manager.command(instrument, Execute(what, args), deadline_s))

    def _struck(self, fault: str, error: Any) -> None:
        typed = isinstance(error, DuodaqError) or (isinstance(error, Exception) and self._name == "v4")
        proves("faults strike", typed, f"{fault}: whoever asked is told", got=error)

    def _freed_in_time(self, error: Any, took_s: float) -> None:
        proves("faults strike", self._trouble.inside.is_set(), "the call was inside", got=error)
        freed = isinstance(error, ReplyTimeoutError) and took_s < 1.0
        proves("caller is freed", freed, "at its deadline of 0.2 s, with a typed error", got=error, took_s=took_s)

    async def _heard(self) -> int:
        report = await asyncio.to_thread(self._bad.report)  # the loop must go on: it is being timed
        return report["produced"].get("D", 0)

    def _state(self, instrument: str) -> str:
        return next((str(s.state) for s in self._manager.instruments() if s.id == instrument), "")


async def _proves_restart_limit(manager: DualRuntimeManager, doomed: Trouble) -> None:
    for crash in range(1, RESTARTS + 2):
        await outcome(manager.command("doomed", Execute("crash"), 1.0))
        await until(lambda n=crash: doomed.starts > n, 0.5)
    proves("restart limit", doomed.starts == 1 + RESTARTS, "it was restarted as often as it may", starts=doomed.starts)
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


def _proves_undisturbed(name: str, pulse: Pulse) -> None:
    proves(f"{name} answers", not pulse.wrong, "every question got its own answer", wrong=pulse.wrong[:5])
    proves(
        f"{name} stays quick",
        pulse.undisturbed,
        "its answers take no longer beside the faults",
        p99_s=pulse.p99_s(),
        longest_s=pulse.longest_s(),
    )
