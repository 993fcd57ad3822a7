"""Who looks at the parameter table from within either runtime, and what each tells of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from duodaq.clock import block, pause, utc_ns
from duodaq.errors import LifecycleError
from duodaq.model import Parameters
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.testing.coexistence._within import parts_of
from duodaq.v4 import handler
from duodaq.v4.instruments import InstrumentActor

CONTESTED = 100

Key = tuple[str, str]
_WATCHED_V2: tuple[Key, ...] = (("stage", "x.velocity"), ("stage", "x.position"))
_WATCHED_V4: tuple[Key, ...] = (("meter", "wavelength"),)


class Onlooker:
    """Looks at entries again and again, and notes every change: what it sees now, since when, and until which look it
    still saw what was there before.
    """

    def __init__(self, evidence: str, entries: tuple[Key, ...]) -> None:
        self._evidence = Evidence(evidence)
        self._entries = entries
        self._seen: dict[Key, tuple[tuple[Any, bool], int]] = {}

    def look(self, table: Parameters) -> None:
        """Look at all entries now."""
        for instrument, name in self._entries:
            t_ns = utc_ns()
            entry = table.get(instrument, name)
            if entry is None:
                continue
            shown, (before, until_ns) = (entry.value, entry.stale), self._seen.get((instrument, name), (None, 0))
            if shown != before:
                self._evidence.note("saw", entry=[instrument, name], shown=shown, before=before, until_ns=until_ns)
            self._seen[instrument, name] = shown, t_ns


class Sightings:
    """What an onlooker saw of the other side's entries, by its notes."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def saw(self, instrument: str, name: str, value: Any, stale: bool = False) -> bool:
        """Whether it saw this."""
        return any(note["shown"] == [value, stale] for note in self._of(instrument, name))

    def values(self, instrument: str, name: str) -> list[Any]:
        """Every value that it saw, in order."""
        return [note["shown"][0] for note in self._of(instrument, name)]

    def overdue_ns(self, instrument: str, name: str, value: Any, changed_ns: int) -> int:
        """How long after `changed_ns` a look was begun that still showed `value`."""
        last = [note["until_ns"] for note in self._of(instrument, name) if note["before"] == [value, False]]
        return last[-1] - changed_ns if last else 0

    def _of(self, instrument: str, name: str) -> Iterable[Any]:
        return [note for note in self.evidence.read("saw") if note["entry"] == [instrument, name]]


class Claim(msgspec.Struct, frozen=True):
    """Write a foreign entry, and then race for entries that nobody owns yet."""


class Won(msgspec.Struct, frozen=True):
    """Which of the contested entries are yours?"""


class Observer(InstrumentActor):
    """Looks at V2's entries from within V4, and claims what is not its own."""

    operations: ClassVar = {"claim": Claim, "won": Won}

    async def connect(self) -> None:
        """Begin to look."""
        self.run_beside(self._observe())

    async def _observe(self) -> None:
        onlooker = Onlooker(self.definition.args["evidence"], _WATCHED_V4)
        while True:
            onlooker.look(self.context.parameters)
            await pause(0.001)

    @handler(Claim)
    async def claim(self, message: Claim) -> dict[str, Any]:
        """What came of it so far."""
        refusal, accepted = _claim(self.context.parameters, "v4", "meter", "wavelength")
        return {"refusal": refusal, "accepted": accepted}

    @handler(Won)
    async def won(self, message: Won) -> list[str]:
        """Which of the contested entries are V4's, as it sees them now."""
        return _owned(self.context.parameters, "v4")


class Watcher:
    """Looks at V4's entries from within V2, until it has ended."""

    def __init__(self, evidence: str, ended: str) -> None:
        self._onlooker = Onlooker(evidence, _WATCHED_V2)
        self._ended = Gate(ended)

    def watch(self) -> None:
        """Look until it has ended."""
        while not self._ended.is_open:
            self._onlooker.look(parts_of("v2").parameters)
            block(0.001)


class Rival:
    """Claims from within V2 what is not its own."""

    def claim(self) -> dict[str, Any]:
        """What came of it so far."""
        refusal, accepted = _claim(parts_of("v2").parameters, "v2", "stage", "x.velocity")
        return {"refusal": refusal, "accepted": accepted}

    def won(self) -> list[str]:
        """Which of the contested entries are V2's, as it sees them now."""
        return _owned(parts_of("v2").parameters, "v2")


class LateActor(InstrumentActor):
    """Joins V4 when everything is under way."""

    async def connect(self) -> None:
        """Note what it is given."""
        args = self.definition.args
        _note_present("v4", self.context.parameters, args["evidence"], args["names"])


class LateDriver:
    """Joins V2 when everything is under way."""

    def __init__(self, evidence: str, names: list[list[str]]) -> None:
        _note_present("v2", parts_of("v2").parameters, evidence, names)


def _claim(table: Parameters, owner: Any, instrument: str, name: str) -> tuple[str, list[str]]:
    """Try to write another's entry, then to be the first at each of some that nobody owns: the refusal of the one, and
    which of the others were not refused.
    """
    refusal = ""
    try:
        table.put(owner, instrument, name, -1)
    except LifecycleError as error:
        refusal = str(error)
    accepted: list[str] = []
    for number in range(CONTESTED):
        with contextlib.suppress(LifecycleError):
            table.put(owner, "shared", f"entry {number}", owner)
            accepted.append(f"entry {number}")
    return refusal, accepted


def _owned(table: Parameters, owner: str) -> list[str]:
    """Which of the contested entries are this side's, as it sees them."""
    names = [f"entry {number}" for number in range(CONTESTED)]
    return [name for name in names if getattr(table.get("shared", name), "owner", "") == owner]


def _note_present(side: str, table: Any, evidence: str, names: list[list[str]]) -> None:
    """Note what a new watcher of the table is given without any further change; where the table itself is elsewhere
    and only its mirror is here, what that has from the beginning.
    """
    if hasattr(table, "watch"):
        with contextlib.closing(table.watch(f"late joiner of {side}")) as changes:
            entries = [changes.get_nowait() for _ in range(changes.occupancy)]
    else:
        entries = [entry for name in names if (entry := table.get(*name)) is not None]
    Evidence(evidence).note("joined", side=side, entries=[[e.instrument, e.name, e.value] for e in entries])
