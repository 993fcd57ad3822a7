"""What every benchmark here shares: its options, the event loops there are, and how a goal is printed and judged.

A goal is printed for people; on a machine-readable line beside it, ``goals {json}``, for `run.py`, which shows one
table at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

MARK = "goals "
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True)
class Goal:
    """One figure with what it shall be: a ratio, or a number in `unit`.

    `relation` is "≤" or "≥"; `limit` None prints the figure without a judgement.
    """

    what: str
    value: float
    relation: str = ""
    limit: float | None = None
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of its limit."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.relation == "≤" else self.value >= self.limit

    def row(self, *, judged: bool) -> str:
        """One line of a table; in a quick run nothing is judged."""
        asked = "" if self.limit is None else f"{self.relation} {_figure(self.limit)} {self.unit}"
        verdict = "" if self.limit is None else "not judged" if not judged else "met" if self.met else "MISSED"
        return f"{self.what:58} {_figure(self.value) + ' ' + self.unit:>16}   {asked:16} {verdict}".rstrip()


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="small counts: only whether it is right, no judgement")
    return made


def loops() -> dict[str, LoopFactory]:
    """The event loops that are installed, by name."""
    found: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop

        found["uvloop"] = uvloop.new_event_loop
    except ImportError:
        pass
    return found


def report(goals: Sequence[Goal], *, quick: bool) -> None:
    """Print the figures, for people and for `run.py`."""
    for goal in goals:
        print(goal.row(judged=not quick))
    print(MARK + json.dumps([asdict(goal) for goal in goals], ensure_ascii=False))


def goals_of(line: str) -> list[Goal]:
    """The goals of a machine-readable line."""
    return [Goal(**facts) for facts in json.loads(line.removeprefix(MARK))]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
