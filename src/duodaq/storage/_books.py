"""The books of one run: what there was for it, and what became of that, by stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from duodaq.dataplane import Hub, LedgerRow
from duodaq.errors import DataError
from duodaq.schema import stream_of

NO_STREAM = "(no stream)"


class Books:
    """Counts one run in: carried_in + produced = stored + lost (by reason) + in_flight, for each stream.

    `produced` is what the hub offered to this subscriber while the run went on; `carried_in` what waited when it began,
    and `in_flight` what waits at its end: both are nothing unless the run is one of a series.

    Args:
        hub: Where it comes from.
        subscriber: The name of the recorder's subscription.
        after: The books of the run before, frozen: what came since belongs to this one.
    """

    def __init__(self, hub: Hub[pa.RecordBatch], subscriber: str, after: Books | None = None) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._frozen: dict[str, LedgerRow] | None = None
        self._before = self._rows() if after is None else after._rows()
        self._lost: dict[str, dict[str, int]] = {}
        self._untold: dict[str, dict[str, int]] = {}
        self._refusals: dict[str, dict[str, int]] = {}

    def freeze(self) -> None:
        """What the hub does from now on is of the next run."""
        self._frozen = self._rows()

    def lose(self, reason: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Count rows that were taken and are not stored; how many."""
        total = 0
        for batch in batches:
            stream = _stream(batch)
            for book in (self._lost.setdefault(stream, {}), self._untold.setdefault(stream, {})):
                book[reason] = book.get(reason, 0) + batch.num_rows
            total += batch.num_rows
        return total

    def take_untold(self) -> list[tuple[str, int, str]]:
        """Once: stream, rows and reason of what `lose` has counted."""
        told = [(stream, rows, reason) for stream, page in self._untold.items() for reason, rows in page.items()]
        self._untold.clear()
        return [one for one in told if one[1]]

    @property
    def has_untold(self) -> bool:
        """Whether `take_untold` has something."""
        return bool(self._untold)

    def new_refusals(self, refused: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int, str]]:
        """Once: stream, rows and reason of what the journal has refused since the last look."""
        found: list[tuple[str, int, str]] = []
        for stream, page in refused.items():
            before = self._refusals.get(stream, {})
            found += [(stream, n - before.get(why, 0), why) for why, n in page.items() if n > before.get(why, 0)]
            self._refusals[stream] = {**before, **{why: max(n, before.get(why, 0)) for why, n in page.items()}}
        return found

    def dropped(self) -> dict[str, int]:
        """What the queue has lost so far, by stream."""
        rows = self._rows()
        return {name: count for name, row in rows.items() if (count := sum(self._dropped(name, row).values()))}

    def lost(self, refused: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        """Everything lost so far, by reason; `refused` is what the journal has no form for, by stream."""
        lost: dict[str, int] = {}
        for page in (*(self._dropped(name, row) for name, row in self._rows().items()), *self._lost.values()):
            _add(lost, page)
        for page in refused.values():
            _add(lost, page)
        return lost

    def page(self, stored: Mapping[str, int], refused: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Any]]:
        """The books as they stand, by stream; `stored` is what the journal has of each."""
        rows = self._rows()
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys((*rows, *stored, *self._lost, *refused)):
            now, before = rows.get(name), self._before.get(name)
            lost = {} if now is None else self._dropped(name, now)
            _add(lost, self._lost.get(name, {}))
            _add(lost, refused.get(name, {}))
            told = {
                "carried_in": 0 if before is None else before.in_flight,
                "produced": (0 if now is None else now.offered) - (0 if before is None else before.offered),
                "stored": stored.get(name, 0),
                "lost": lost,
                "in_flight": 0 if now is None else now.in_flight,
            }
            if any(told.values()):
                found[name] = {**told, "balanced": _balances(told)}
        return found

    def _rows(self) -> dict[str, LedgerRow]:
        if self._frozen is not None:
            return self._frozen
        return {row.stream: row for row in self._hub.ledger().rows() if row.subscriber == self._subscriber}

    def _dropped(self, stream: str, now: LedgerRow) -> dict[str, int]:
        before = self._before[stream].dropped if stream in self._before else {}
        return {reason: n - before.get(reason, 0) for reason, n in now.dropped.items() if n != before.get(reason, 0)}


def _balances(told: Mapping[str, Any]) -> bool:
    there = told["carried_in"] + told["produced"]
    return bool(there == told["stored"] + sum(told["lost"].values()) + told["in_flight"])


def _stream(batch: pa.RecordBatch) -> str:
    try:
        return stream_of(batch)
    except (DataError, ValueError):
        return NO_STREAM


def _add(into: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, rows in more.items():
        into[reason] = into.get(reason, 0) + rows
