"""How quickly one side answers while the other is in trouble, against how quickly it answers in peace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from duodaq.clock import monotonic_s, pause
from duodaq.testing.coexistence._bench import outcome

EVERY_S = 0.004
PEACE_S = 0.12
FLOOR_S = 0.005
LONGEST_S = 0.1
ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: `strike` makes it happen and sees that it did, `mend` ends it, and sees that too."""

    name: str
    strike: Callable[[], Awaitable[None]]
    mend: Callable[[], Awaitable[None]]


@dataclass
class Pulse:
    """Asks again and again; an answer's time counts from when the question was due, so that no pause goes unseen.

    Each fault strikes up to `ROUNDS` times, and its quietest strike counts: a busy machine may spoil one strike; what
    the fault itself does spoils every one.
    """

    ask: Callable[[int], Awaitable[Any]]
    peace_s: list[float] = field(default_factory=list[float])
    strikes_s: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])
    wrong: list[Any] = field(default_factory=list[Any])
    _asked: int = 0

    async def through(self, faults: tuple[Fault, ...]) -> None:
        """Ask before, during and after each fault."""
        for fault in faults:
            self.peace_s += await self._while(pause(PEACE_S))
            self.strikes_s.setdefault(fault.name, []).append(await self._while(_whole(fault)))

    @property
    def trouble_s(self) -> list[float]:
        """The times of all answers beside the quietest strike of each fault."""
        return [took_s for strikes in self.strikes_s.values() for took_s in min(strikes, key=_p99)]

    def p99_s(self) -> tuple[float, float]:
        """The 99th percentile of the answers' times: in peace, in trouble."""
        return _p99(self.peace_s), _p99(self.trouble_s)

    def longest_s(self) -> tuple[float, float]:
        """The longest time of an answer: in peace, in trouble."""
        return max(self.peace_s), max(self.trouble_s)

    @property
    def undisturbed(self) -> bool:
        """Whether trouble on the other side costs no more than twice the time in peace, or 5 ms; a single pause no
        more than 100 ms.
        """
        peace_s, trouble_s = self.p99_s()
        longest_peace_s, longest_trouble_s = self.longest_s()
        return trouble_s <= max(2 * peace_s, FLOOR_S) and longest_trouble_s <= max(2 * longest_peace_s, LONGEST_S)

    async def _while(self, work: Awaitable[None]) -> list[float]:
        task, times_s = asyncio.ensure_future(work), list[float]()
        while not task.done() or not times_s:
            due_s = monotonic_s() + EVERY_S
            await pause(EVERY_S)
            self._asked += 1
            answer = await outcome(self.ask(self._asked))
            times_s.append(monotonic_s() - due_s)
            if answer != self._asked:
                self.wrong.append(answer)
        await task
        return times_s


async def withstands(
    ask: Callable[[int], Awaitable[Any]], faults: tuple[Fault, ...], afresh: Callable[[], Awaitable[None]]
) -> Pulse:
    """The pulse through all faults; they strike again, after `afresh`, while it was disturbed."""
    pulse = Pulse(ask)
    await pulse.through(faults)
    for _ in range(ROUNDS - 1):
        if pulse.undisturbed or pulse.wrong:
            break
        await afresh()
        await pulse.through(faults)
    return pulse


async def _whole(fault: Fault) -> None:
    await fault.strike()
    await fault.mend()


def _p99(times_s: list[float]) -> float:
    ordered = sorted(times_s)
    return ordered[int(0.99 * (len(ordered) - 1))] if ordered else float("inf")
