"""The instrument that breaks in the isolation tests: how each fault is made to strike, and how it comes back."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any

from duodaq import sim
from duodaq.clock import Deadline, monotonic_s, pause, utc_ns
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError, ReplyTimeoutError
from duodaq.model import Execute, Recover, RuntimeName
from duodaq.testing.coexistence._bench import outcome, until
from duodaq.testing.coexistence._figures import Figures
from duodaq.testing.coexistence._fragile import PERISHING, Trouble
from duodaq.testing.coexistence._proof import proves
from duodaq.testing.coexistence._strain import Fault
from duodaq.testing.coexistence._witness import process_lives, rests

RECOVERS_S = 3.0
READY_S = 20.0


class Sufferer:
    """The fragile instrument of one side, on a simulator of its own: its faults, and how it comes back from each."""

    def __init__(
        self,
        name: RuntimeName,
        kind: str,
        manager: DualRuntimeManager,
        bad: sim.SimProcess,
        trouble: Trouble,
        figures: Figures,
        blocked: Trouble | None = None,
    ) -> None:
        self._name: RuntimeName = name
        self._kind = kind
        self._manager = manager
        self._bad = bad
        self._trouble = trouble
        self._of_blocked = blocked or trouble
        self._figures = figures
        self._lost = 0
        self._recovery = ("", "", 0)
        self._starts = 0

    def v2_faults(self) -> tuple[Fault, ...]:
        """What this mode promises of V2."""
        start = Fault("start failure", self._failing_start, self._recovers)
        mend = self._replaced if self._kind == "process" else self._unblocked
        return (*self._alike(), start, Fault("blocked call", self._blocked, mend), *self._perishing())

    def v4_faults(self) -> tuple[Fault, ...]:
        """What this mode promises of V4; a blocking call in an actor only where others have threads of their own."""
        own = (
            Fault("crash", self._crash, self._recovers),
            Fault("start failure", self._failing_start, self._told_to_recover),
            Fault("hang that awaits", self._hang, self._restarted),
        )
        blocked = (Fault("blocked actor", self._blocked_actor, self._freed_actor),) * (self._kind != "inline")
        return (*self._alike(), *own, *blocked, *self._perishing())

    async def afresh(self) -> None:
        """As a person would who has seen it break: a process may be replaced so often, and then somebody must come."""
        if self._kind == "process":
            await outcome(self._manager.restart_runtime(self._name))
            await self._recovers()

    async def killed_at_full_strength(self) -> None:
        """Its process is killed while the one that takes over stands ready; it reads its device again."""
        await self._at_full_strength()
        await self._perishes("SIGKILL")
        await self._replaced()

    def _perishing(self) -> tuple[Fault, ...]:
        """What takes the whole process along, and so only where there is one to lose."""
        ways = PERISHING if self._kind == "process" else ()
        return tuple(Fault(how, partial(self._perishes, how), self._replaced) for how in ways)

    def _alike(self) -> tuple[Fault, ...]:
        return (
            Fault("exception", self._exception, self._recovers),
            Fault("unplugged port", self._unplugged, self._replugged),
            Fault("garbled port", self._garbled, self._ungarbled),
        )

    async def _exception(self) -> None:
        for _ in range(3):
            self._struck("exception", await self._ask("fail"))
        self._recovers_from("exception", "whoever asked was told")

    async def _unplugged(self) -> None:
        await asyncio.to_thread(self._bad.unplug)
        for _ in range(2):
            self._struck("unplugged port", await self._ask("read_power"))

    async def _replugged(self) -> None:
        await asyncio.to_thread(self._bad.replug)
        self._recovers_from("unplugged port", "plugged in again")
        await self._recovers()

    async def _garbled(self) -> None:
        await asyncio.to_thread(self._bad.fault, garble=1.0)
        for _ in range(3):
            self._struck("garbled port", await self._ask("read_power"))

    async def _ungarbled(self) -> None:
        await asyncio.to_thread(self._bad.fault)
        self._recovers_from("garbled port", "the line is good again")
        await self._recovers()

    async def _failing_start(self) -> None:
        starts = self._trouble.starts
        self._trouble.next_start_fails.open()
        error = await outcome(self._manager.restart_instrument("fragile"))
        self._struck("start failure", error)
        if self._name == "v2":
            self._recovers_from("start failure", "the start failed")
        proves("faults strike", self._trouble.starts > starts, "it was started and failed", starts=self._trouble.starts)

    async def _told_to_recover(self) -> None:
        self._recovers_from("start failure", "told to recover")
        await outcome(self._manager.command("fragile", Recover(), 2.0))
        await self._recovers()

    async def _blocked(self) -> None:
        self._lost = self._trouble.started_in
        self._recovery = ("blocked call", "", 0)
        self._trouble.inside.close()
        self._trouble.freed.close()
        began_s = monotonic_s()
        error = await self._ask("hang", deadline_s=0.2)
        self._freed_in_time(error, monotonic_s() - began_s)
        if self._kind == "process":
            return  # it is not waited for: see _replaced
        await until(lambda: self._state("fragile") == "hung", 1.0)
        refused = await self._ask("read_power", deadline_s=0.5)
        proves("hung", self._state("fragile") == "hung", "it is shown as Hung", state=self._state("fragile"))
        self._struck("blocked call", refused)

    async def _unblocked(self) -> None:
        before = self._trouble.evidence.count("after hang")
        self._recovers_from("blocked call", "the call was let go")
        self._trouble.freed.open()
        await until(lambda: self._trouble.evidence.count("after hang") > before, 1.0)
        seen = self._trouble.evidence.read("after hang")[before:]
        proves("handles revoked", bool(seen), "the call that came back could not write", raised=seen)
        await self._recovers()

    async def _perishes(self, how: str) -> None:
        self._lost = self._trouble.started_in  # asked now: it may live on elsewhere before anybody is told
        before = len(self._trouble.perished_ns)
        self._struck(how, await self._ask("perish", how, deadline_s=0.5))
        died = self._trouble.perished_ns[before:]
        self._recovery = (how, "its process died", died[0]) if died else (how, "", 0)

    async def _replaced(self) -> None:
        """The process in which it broke is gone, and it lives on in another."""
        lost = self._lost
        gone = await until(lambda: not process_lives(lost), RECOVERS_S, 0.001)
        if not self._recovery[2]:
            self._recovers_from(self._recovery[0], "its process was killed")
        proves("handles revoked", gone, "the process that broke is gone, its handles with it", pid=lost)
        await self._recovers()
        now = self._trouble.started_in
        proves(f"{self._name} recovers", now not in (lost, os.getpid()), "in a process of its own", lost=lost, now=now)

    async def _crash(self) -> None:
        starts = self._trouble.starts
        await self._ask("crash")
        self._recovers_from("crash", "the actor crashed")
        again = await until(lambda: self._trouble.starts > starts, 1.0)
        proves("v4 recovers", again, "a crashed actor is started again", starts=self._trouble.starts)

    async def _hang(self) -> None:
        self._trouble.inside.close()
        began_s = monotonic_s()
        error = await self._ask("hang", deadline_s=0.2)
        self._freed_in_time(error, monotonic_s() - began_s)

    async def _restarted(self) -> None:
        self._recovers_from("hang that awaits", "told to restart")
        await outcome(self._manager.restart_instrument("fragile"))
        await self._recovers()

    async def _blocked_actor(self) -> None:
        self._starts = self._trouble.starts
        self._of_blocked.inside.close()
        self._of_blocked.freed.close()
        began_s = monotonic_s()
        error = await self._ask("hang", True, instrument="blocked", deadline_s=0.2)
        self._freed_in_time(error, monotonic_s() - began_s, self._of_blocked)
        beside = await self._ask("read_power")
        proves("others go on", isinstance(beside, float), "an actor in another thread answers", answer=beside)

    async def _freed_actor(self) -> None:
        self._recovers_from("blocked actor", "the call was let go")
        self._of_blocked.freed.open()
        await self._recovers("blocked")
        starts = self._trouble.starts
        proves("others go on", starts == self._starts, "an actor elsewhere was not started anew", starts=starts)

    async def _at_full_strength(self) -> None:
        """The worker that takes over has loaded all, as it has a moment after the last one did."""
        manager: Any = self._manager
        spares, key = manager.housing.nursery._spares, f"{self._name}-process"
        limit = Deadline(READY_S)
        while not limit.passed:
            spare = spares.ready.get(key)
            if spare is not None and await rests(spare.pid):
                return
            await pause(0.02)

    def _recovers_from(self, fault: str, since: str) -> None:
        """From now on its recovery counts: the trouble is over, and the rest is up to the product."""
        self._recovery = (fault, since, utc_ns())

    async def _recovers(self, instrument: str = "fragile") -> None:
        (fault, since, since_ns), self._recovery = self._recovery, ("", "", 0)
        limit = Deadline(RECOVERS_S)
        answer = await self._answers(instrument, limit)
        took_ms = (utc_ns() - since_ns) / 1e6
        heard = await self._heard()
        answer = await self._answers(instrument, limit)
        back = isinstance(answer, float) and await self._heard() > heard
        proves(f"{self._name} recovers", back, f"it reads its device again within {RECOVERS_S} s", answer=answer)
        if since:
            self._figures.note("recovery", took_ms, "ms", side=self._name, fault=fault, since=since)

    async def _answers(self, instrument: str, limit: Deadline) -> Any:
        """The first reading that it gives, asked every millisecond; what it answered last if there was none in time."""
        answer = None
        while not isinstance(answer, float) and not limit.passed:
            answer = await self._ask("read_power", instrument=instrument, deadline_s=0.5)
            if not isinstance(answer, float):
                await pause(0.001)
        return answer

    async def _ask(self, what: str, *args: Any, instrument: str = "fragile", deadline_s: float = 1.0) -> Any:
        return await outcome(self._manager.command(instrument, Execute(what, args), deadline_s))

    def _struck(self, fault: str, error: Any) -> None:
        typed = isinstance(error, DuodaqError) or (isinstance(error, Exception) and self._name == "v4")
        proves("faults strike", typed, f"{fault}: whoever asked is told", got=error)

    def _freed_in_time(self, error: Any, took_s: float, trouble: Trouble | None = None) -> None:
        proves("faults strike", (trouble or self._trouble).inside.is_open, "the call was inside", got=error)
        freed = isinstance(error, ReplyTimeoutError) and took_s < 1.0
        proves("caller is freed", freed, "at its deadline of 0.2 s, with a typed error", got=error, took_s=took_s)

    async def _heard(self) -> int:
        report = await asyncio.to_thread(self._bad.report)  # the loop must go on: it is being timed
        return report["produced"].get("D", 0)

    def _state(self, instrument: str) -> str:
        return next((str(s.state) for s in self._manager.instruments() if s.id == instrument), "")
