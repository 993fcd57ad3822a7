"""Where a curve over time is broken, since nothing is known of the time between two values. The page decides alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from duodaq.storage.reading._moments import moment_ns
from duodaq.storage.reading._outages import Outage

_LEAST_NS = 2_000_000_000
_MUCH = 4
_BESIDE = 8
_KNOWN = 3

Places = npt.NDArray[np.int64]


def silences(times_ns: npt.NDArray[np.int64], outages: Iterable[Outage] = ()) -> Places:
    """The places of the values before which nothing came for much longer than is usual beside them, in order.

    Args:
        times_ns: When each value was.
        outages: When its instrument was lost: one that lies between two values, however far they are apart, counts too.
    """
    distances = np.diff(times_ns)
    long = np.flatnonzero(distances > _LEAST_NS)
    near = np.arange(1, _BESIDE + 1)
    before, is_long_for_before = _compared(distances, long, long[:, None] - near)
    after, is_long_for_after = _compared(distances, long, long[:, None] + near)
    told_before, told_after = before > 0, after >= _KNOWN
    is_silence = (told_before | told_after) & (is_long_for_before | ~told_before) & (is_long_for_after | ~told_after)
    return np.union1d(long[is_silence] + 1, _lost(times_ns, outages)).astype(np.int64)


def _compared(distances: Places, long: Places, beside: Places) -> tuple[Places, npt.NDArray[np.bool_]]:
    """How many distances there are beside each long one, and whether it is much longer than most of them."""
    there = (beside >= 0) & (beside < len(distances))
    small = there & (_MUCH * distances[np.where(there, beside, 0)] < distances[long][:, None])
    known = there.sum(axis=1)
    return known, 2 * small.sum(axis=1) > known


def _lost(times_ns: npt.NDArray[np.int64], outages: Iterable[Outage]) -> list[int]:
    whole = [(one.since, one.until) for one in outages if one.since is not None and one.until is not None]
    ends = [(np.searchsorted(times_ns, moment_ns(a)), np.searchsorted(times_ns, moment_ns(b))) for a, b in whole]
    return [int(first) for first, last in ends if first == last and 0 < first < len(times_ns)]
