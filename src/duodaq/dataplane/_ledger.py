from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

DEPARTED = "(departed)"
"""The subscriber under which the books of many who left long ago are added up."""


class LedgerRow(msgspec.Struct, frozen=True):
    """What became of one stream at one subscriber, in weight (rows, for batches), since it joined.

    `produced` counts what the hub took of this stream since then; `skipped` is what the subscriber's filter does not
    ask for. The rest was offered, and is delivered, dropped for a stated reason, or in flight.
    """

    hub: str
    stream: str
    subscriber: str
    produced: int
    skipped: int
    offered: int
    delivered: int
    in_flight: int
    dropped: dict[str, int] = {}

    @property
    def lost(self) -> int:
        """Everything dropped, whatever the reason."""
        return sum(self.dropped.values())

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing and nothing is counted twice."""
        return (
            self.produced == self.skipped + self.offered
            and self.offered == self.delivered + self.lost + self.in_flight
            and min(self.skipped, self.delivered, self.in_flight, *self.dropped.values(), 0) >= 0
        )

    def plus(self, other: LedgerRow) -> LedgerRow:
        """Two accounts of the same stream and subscriber as one."""
        dropped = {k: self.dropped.get(k, 0) + other.dropped.get(k, 0) for k in {**self.dropped, **other.dropped}}
        return LedgerRow(
            hub=self.hub,
            stream=self.stream,
            subscriber=self.subscriber,
            produced=self.produced + other.produced,
            skipped=self.skipped + other.skipped,
            offered=self.offered + other.offered,
            delivered=self.delivered + other.delivered,
            in_flight=self.in_flight + other.in_flight,
            dropped=dropped,
        )


class Ledger(msgspec.Struct, frozen=True):
    """The books of one hub, or of several merged, as they stood at one moment.

    `produced` maps hub → stream → how much was ever published there, subscribers or not.
    """

    produced: dict[str, dict[str, int]] = {}
    entries: tuple[LedgerRow, ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether every row is, and no subscriber claims more than its hub took."""
        return all(
            row.balanced and (row.subscriber == DEPARTED or row.produced <= self.produced_of(row.stream, row.hub))
            for row in self.entries
        )

    def produced_of(self, stream: str, hub: str | None = None) -> int:
        """How much of `stream` was published, at one hub or at all of them."""
        hubs = self.produced.values() if hub is None else [self.produced.get(hub, {})]
        return sum(streams.get(stream, 0) for streams in hubs)

    def rows(self) -> list[LedgerRow]:
        """The rows sorted by hub, stream and subscriber."""
        return sorted(self.entries, key=lambda row: (row.hub, row.stream, row.subscriber))

    def row(self, stream: str, subscriber: str, hub: str | None = None) -> LedgerRow:
        """The one row of `stream` at `subscriber`.

        Raises:
            KeyError: There is none.
        """
        for row in self.entries:
            if row.stream == stream and row.subscriber == subscriber and hub in (None, row.hub):
                return row
        raise KeyError((stream, subscriber))

    def merge(self, *others: Ledger) -> Ledger:
        """These books and others as one; rows of the same hub, stream and subscriber are added up."""
        produced: dict[str, dict[str, int]] = {}
        for ledger in (self, *others):
            for hub, streams in ledger.produced.items():
                into = produced.setdefault(hub, {})
                for stream, count in streams.items():
                    into[stream] = into.get(stream, 0) + count
        return Ledger(produced, sum_rows(row for ledger in (self, *others) for row in ledger.entries))

    def to_dict(self) -> dict[str, Any]:
        """The books as plain values, for JSON."""
        rows = [{**msgspec.to_builtins(row), "balanced": row.balanced} for row in self.rows()]
        return {"balanced": self.balanced, "produced": self.produced, "rows": rows}


def sum_rows(rows: Iterable[LedgerRow]) -> tuple[LedgerRow, ...]:
    """The rows, with those of the same hub, stream and subscriber added up."""
    summed: dict[tuple[str, str, str], LedgerRow] = {}
    for row in rows:
        key = (row.hub, row.stream, row.subscriber)
        summed[key] = summed[key].plus(row) if key in summed else row
    return tuple(summed.values())
