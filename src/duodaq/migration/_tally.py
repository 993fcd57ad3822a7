"""What was compared already: a shadow may look for a week, and its report must not become a burden. Pure.

Each measurement and each order is compared when it comes, against the few that still wait for a counterpart. So what a
report costs depends on those few, and not on how long the shadow has looked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from duodaq.migration._compare import (
    Finding,
    Tolerances,
    Value,
    Written,
    compare_orders,
    compare_values,
    means_the_same,
)

T = TypeVar("T")
_WAITING = 128
"""So many measurements or orders of a side wait for a counterpart at most."""


@dataclass(slots=True)
class _Waiting:
    value: Value
    compared: bool = False


class Found:
    """Findings: each kind and subject once, with its first example and how often."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[Finding, int]] = {}

    def add(self, findings: Iterable[Finding]) -> None:
        """Take findings."""
        for one in findings:
            first, count = self._rows.get((one.kind, one.subject), (one, 0))
            self._rows[one.kind, one.subject] = (first, count + 1)

    def rows(self) -> list[tuple[Finding, int]]:
        """What was found."""
        return [*self._rows.values()]


class ValueTally:
    """Pairs measurements of both sides that were made of the same reply, and keeps what differed.

    Attributes:
        compared: How many pairs there were.
        same: How many of them were the same.
        channels: Of each side, those that had a measurement.
        paired: The channels that had a pair.
        counts: How many measurements of V2's each channel had.
        last: Of each side, the exchanges that the last measurement of each channel was made of.
    """

    def __init__(self, tolerances: Tolerances) -> None:
        self.compared = self.same = 0
        self.channels: dict[str, set[str]] = {"v2": set(), "v4": set()}
        self.paired: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.last: dict[str, dict[str, frozenset[int]]] = {"v2": {}, "v4": {}}
        self.found = Found()
        self._tolerances = tolerances
        self._v2: dict[tuple[str, int], Value] = {}
        self._v4: dict[tuple[str, int], list[_Waiting]] = {}

    def add_v2(self, value: Value) -> None:
        """A measurement of V2's."""
        self.channels["v2"].add(value.channel)
        self.counts[value.channel] += 1
        self.last["v2"][value.channel] = value.exchanges
        for number in value.exchanges:
            key = (value.channel, number)
            _keep(self._v2, key, value)
            for waiting in self._v4.pop(key, ()):
                self._compare(value, waiting)

    def add_v4(self, value: Value) -> None:
        """A measurement of V4's."""
        self.channels["v4"].add(value.channel)
        self.last["v4"][value.channel] = value.exchanges
        waiting = _Waiting(value)
        keys = [(value.channel, number) for number in value.exchanges]
        made_of_the_same = [self._v2[key] for key in keys if key in self._v2]
        if made_of_the_same:
            self._compare(made_of_the_same[-1], waiting)
            return
        for key in keys:
            _keep(self._v4, key, [*self._v4.get(key, ()), waiting])

    def _compare(self, v2: Value, waiting: _Waiting) -> None:
        if waiting.compared:
            return
        waiting.compared = True
        finding = compare_values(v2, waiting.value, self._tolerances)
        self.compared += 1
        self.same += finding is None
        self.paired.add(v2.channel)
        self.found.add([] if finding is None else [finding])


class OrderTally:
    """Pairs the orders of both sides, and keeps what differed once nothing can come that changes it.

    Orders that mean the same leave at once, in pairs; the others wait for as long as a counterpart may come.
    """

    def __init__(self, tolerances: Tolerances) -> None:
        self.waiting: dict[str, list[Written]] = {"v2": [], "v4": []}
        self._tolerances = tolerances
        self._window_ns = tolerances.window_s * 1e9
        self._counts = {"matched": 0, "missing": 0, "extra": 0}
        self._found = Found()

    def add(self, side: str, order: Written) -> None:
        """An order of ``v2`` or ``v4``."""
        others = self.waiting["v4" if side == "v2" else "v2"]
        for other in others:
            if means_the_same(order, other, self._tolerances):
                others.remove(other)
                self._counts["matched"] += 1
                return
        mine = self.waiting[side]
        mine.append(order)
        if len(mine) > _WAITING:
            self._settle(mine[len(mine) // 2].t_ns)

    def so_far(self, now_ns: int) -> tuple[dict[str, int], list[tuple[Finding, int]]]:
        """How many are matched, missing and extra, and what differs. What may still come is not missed yet."""
        self._settle(int(now_ns - 2 * self._window_ns))
        counts, found = dict(self._counts), Found()
        matched, findings = compare_orders(self.waiting["v2"], self.waiting["v4"], self._tolerances)
        known = [f for f in findings if f.kind not in counts or now_ns - f.t_ns > self._window_ns]
        counts["matched"] += len(matched)
        for finding in known:
            if finding.kind in counts:
                counts[finding.kind] += 1
        found.add(known)
        return counts, [*self._found.rows(), *found.rows()]

    def _settle(self, before_ns: int) -> None:
        """Judge for good what is older than that."""
        matched, _ = compare_orders(self.waiting["v2"], self.waiting["v4"], self._tolerances)
        stay = {id(o) for pair in matched if max(o.t_ns for o in pair) >= before_ns for o in pair}
        stay |= {id(o) for orders in self.waiting.values() for o in orders if o.t_ns >= before_ns}
        old = {side: [o for o in orders if id(o) not in stay] for side, orders in self.waiting.items()}
        self.waiting = {side: [o for o in orders if id(o) in stay] for side, orders in self.waiting.items()}
        matched, findings = compare_orders(old["v2"], old["v4"], self._tolerances)
        self._counts["matched"] += len(matched)
        for finding in findings:
            if finding.kind in self._counts:
                self._counts[finding.kind] += 1
        self._found.add(findings)


def _keep(kept: dict[tuple[str, int], T], key: tuple[str, int], what: T) -> None:
    kept[key] = what
    if len(kept) > _WAITING:
        del kept[next(iter(kept))]
