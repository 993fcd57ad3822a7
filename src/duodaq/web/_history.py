"""What every stream of numbers was lately, thinned and bounded: what a browser that has just come is shown at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

KEPT = 4096
"""Points of a stream: 50 s of whatever is faster than 80 a second, an hour of what comes once a second."""
MOST_STREAMS = 512
_POINTS_PER_S = 80.0
_LEAST = 4
_THINNED_EVERY_S = 0.5
"""What came since is thinned together: ten times seldomer than it comes, at a tenth of the work."""
_MOST_WAITING = 65536


class Past(NamedTuple):
    """A stretch of one stream: UTC ns and values, the oldest first."""

    unit: str
    t_ns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


class History:
    """The last points of each stream; of more than `MOST_STREAMS` the one that was silent for longest is forgotten."""

    def __init__(self) -> None:
        self._rings: dict[str, _Ring] = {}

    def add(
        self, stream: str, unit: str, t_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64], span_s: float
    ) -> None:
        """Keep what came within the last `span_s`. A new unit begins anew: one curve has one unit."""
        ring = self._rings.get(stream)
        if ring is None or ring.unit != unit:
            if ring is None and len(self._rings) >= MOST_STREAMS:
                del self._rings[min(self._rings, key=lambda name: self._rings[name].newest_ns)]
            ring = self._rings[stream] = _Ring(unit)
        ring.add(t_ns, values, span_s)

    def of(self, stream: str) -> Past | None:
        """What is kept of a stream, copied; None if nothing is."""
        ring = self._rings.get(stream)
        return None if ring is None else ring.past()


class _Ring:
    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.newest_ns = 0
        self._t_ns = np.empty(2 * KEPT, np.int64)
        self._values = np.empty(2 * KEPT, np.float64)
        self._end = 0
        self._new: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
        self._new_rows = 0
        self._new_s = 0.0

    def add(self, t_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64], span_s: float) -> None:
        """Copied: what came may lie in memory that a worker waits for. What came late was made in all of that time."""
        self._new.append((t_ns.copy(), values.copy()))
        self._new_rows += len(values)
        self._new_s += max(span_s, (int(t_ns[-1]) - (self.newest_ns or int(t_ns[0]))) / 1e9)
        self.newest_ns = int(t_ns[-1])
        if self._new_s >= _THINNED_EVERY_S or self._new_rows >= _MOST_WAITING:
            self._thin()

    def past(self) -> Past:
        self._thin()
        part = slice(max(0, self._end - KEPT), self._end)
        return Past(self.unit, self._t_ns[part].copy(), self._values[part].copy())

    def _thin(self) -> None:
        if not self._new:
            return
        t_ns = np.concatenate([part[0] for part in self._new])
        values = np.concatenate([part[1] for part in self._new])
        most = min(KEPT, max(_LEAST, int(_POINTS_PER_S * self._new_s)))
        self._new, self._new_rows, self._new_s = [], 0, 0.0
        if len(values) > most:
            t_ns, values = thinned(t_ns, values, most)
        self._keep(t_ns[-KEPT:], values[-KEPT:])

    def _keep(self, t_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        count = len(values)
        if self._end + count > 2 * KEPT:
            kept = KEPT - count
            for ring in (self._t_ns, self._values):
                ring[:kept] = ring[self._end - kept : self._end]
            self._end = kept
        self._t_ns[self._end : self._end + count] = t_ns
        self._values[self._end : self._end + count] = values
        self._end += count


def thinned(
    t_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64], most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """At most `most` points of a curve, in their order: of equal stretches the least and the greatest value."""
    places = extremes(values, most)
    return t_ns[places], values[places]


def extremes(values: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.intp]:
    """Where at most `most` points of a curve lie that show it: of equal stretches the least and the greatest value.

    The last stretch is shorter. What is no number is neither, unless there is nothing else.
    """
    length = -(-len(values) * 2 // max(2, most - 3))
    whole = len(values) // length * length
    starts = np.arange(0, whole, length)
    none = np.isnan(values)
    low, high = np.where(none, np.inf, values), np.where(none, -np.inf, values)
    places = [starts + low[:whole].reshape(-1, length).argmin(1), starts + high[:whole].reshape(-1, length).argmax(1)]
    if whole < len(values):
        places.append(whole + np.array([low[whole:].argmin(), high[whole:].argmax()]))
    return np.unique(np.concatenate([*places, [len(values) - 1]]))
