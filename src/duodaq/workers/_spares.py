"""Spares: workers that are there before anybody needs them.

A spare is a child whose entry point runs and waits for its first message; nothing more tells it from a worker. One is
bare, and there is one for each stanza that has been named, which has imported that stanza's modules, has rehearsed, and
has opened nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from duodaq.errors import LifecycleError
from duodaq.telemetry import get_logger
from duodaq.workers._child import Child
from duodaq.workers._starter import Starter

REFILL_AFTER_S = 0.3
"""How long after a start or a take the missing spares are made: a lab that lives shorter never pays for them."""

LONGEST_REFILL_S = 60.0
SETTLED_AFTER_S = 10.0
"""A spare that lived so long was no failure when it died."""

IMPORT_EVERY_S = 1.0
"""Spares that import do so one after the other."""

START_LIMIT_S = 30.0
_log = get_logger("workers.spares")


def refill_delay_s(failures: int) -> float:
    """How long to wait before a spare is made again whose predecessors died young so many times in a row."""
    return min(REFILL_AFTER_S * 2.0 ** min(failures, 20), LONGEST_REFILL_S)  # 2.0**1024 is an error


@dataclass(slots=True)
class _Place:
    """Where one spare stands, or is going to: `due_s` is when the next is made, if there is none."""

    preload: tuple[str, ...]
    rehearsals: tuple[str, ...]
    due_s: float
    spare: Child | None = None
    since_s: float = 0.0
    failures: int = 0


class Spares:
    """Keeps one bare spare and one for each named stanza; belongs to one event loop.

    A spare that dies is replaced, later each time if it dies young (a module that crashes when it is imported).
    """

    def __init__(self, starter: Starter, *, entry: str) -> None:
        self._starter = starter
        self._entry = entry
        self._places: dict[str | None, _Place] = {}
        self._changed = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None
        self.last_error: LifecycleError | None = None
        """Why the last spare that was wanted could not be made; None once one could."""
        self.died = 0
        """How many spares died before anybody needed them."""

    @property
    def ready(self) -> Mapping[str | None, Child]:
        """The spares that are there, by stanza; the bare one under None."""
        return {key: place.spare for key, place in self._places.items() if place.spare and not place.spare.exited}

    def start(self, stanzas: Mapping[str, Sequence[str]] | None = None) -> None:
        """Begin to keep the bare spare, and one for each of `stanzas` (its key, the modules it imports)."""
        if self._refilling is None:
            self._refilling = asyncio.get_running_loop().create_task(self._refill(), name="duodaq-spares")
        self._keep(None, ())
        for key, preload in (stanzas or {}).items():
            self._keep(key, tuple(preload))

    async def take(
        self, key: str | None = None, preload: Sequence[str] = (), rehearsals: Sequence[str] = (), *, timeout_s: float
    ) -> Child:
        """A worker at once: the stanza's own spare, else the bare one, else a new one. The caller owns it.

        The stanza is remembered, and has a spare of its own from then on until it is dropped: one that has called all
        of `rehearsals`, which a new one does not.

        Raises:
            LifecycleError: There was no spare, and none could be made.
        """
        if self._refilling is not None and key is not None:
            self._keep(key, tuple(preload), tuple(rehearsals))
        for wanted in dict.fromkeys((key, None)):
            place = self._places.get(wanted)
            if place is not None and place.spare is not None and not place.spare.exited:
                child, place.spare = place.spare, None
                place.failures = 0
                self._postpone(place)
                return child
        for place in self._places.values():
            self._postpone(place)
        return await self._starter.spawn(entry=self._entry, preload=preload, timeout_s=timeout_s)

    def drop(self, key: str) -> None:
        """Keep no spare for this stanza any more."""
        place = self._places.pop(key, None)
        if place is not None and place.spare is not None:
            place.spare.close()

    async def aclose(self) -> None:
        """End every spare and keep none any more. Idempotent."""
        task, self._refilling = self._refilling, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        spares = [place.spare for place in self._places.values() if place.spare is not None]
        self._places.clear()
        await asyncio.gather(*(spare.aclose() for spare in spares))

    def _keep(self, key: str | None, preload: tuple[str, ...], rehearsals: tuple[str, ...] = ()) -> None:
        place = self._places.get(key)
        if place is None or place.preload != preload:
            if place is not None and place.spare is not None:
                place.spare.close()
            self._places[key] = _Place(preload, rehearsals, self._now_s() + REFILL_AFTER_S)
            self._changed.set()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _postpone(self, place: _Place) -> None:
        place.due_s = max(place.due_s, self._now_s() + refill_delay_s(place.failures))
        self._changed.set()

    async def _refill(self) -> None:
        while True:
            self._changed.clear()
            for key, place in list(self._places.items()):
                self._bury(key, place)
                if place.spare is None and place.due_s <= self._now_s():
                    await self._make(key, place)
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        """Until a place is due or something has changed."""
        due = [place.due_s for place in self._places.values() if place.spare is None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(due) - self._now_s()) if due else None):
                await self._changed.wait()

    def _bury(self, key: str | None, place: _Place) -> None:
        if place.spare is not None and place.spare.exited:
            self.died += 1
            lived_s = round(self._now_s() - place.since_s, 3)
            _log.warning("a spare worker died", worker=key, pid=place.spare.pid, lived_s=lived_s)
            place.spare.close()
            place.spare = None
            place.failures = 0 if self._now_s() - place.since_s > SETTLED_AFTER_S else place.failures + 1
            place.due_s = self._now_s() + refill_delay_s(place.failures)

    async def _make(self, key: str | None, place: _Place) -> None:
        try:
            spare = await self._starter.spawn(
                entry=self._entry,
                preload=(*place.preload, *place.rehearsals),
                paced=True,
                timeout_s=START_LIMIT_S,
            )
        except LifecycleError as exc:
            self.last_error = exc
            _log.warning("no spare worker could be made", worker=key, error=str(exc))
            place.failures += 1
            place.due_s = self._now_s() + refill_delay_s(place.failures)
            return
        self.last_error = None
        if self._places.get(key) is not place:
            spare.close()  # dropped meanwhile
            return
        place.spare, place.since_s = spare, self._now_s()
        spare.gone.add_done_callback(lambda _: self._changed.set())
        for other in self._places.values() if place.preload else ():
            if other.preload:
                other.due_s = max(other.due_s, self._now_s() + IMPORT_EVERY_S)
