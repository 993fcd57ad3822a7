from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for what takes milliseconds to seconds."""


class Histogram:
    """How often something took how long. Written by one thread, read by any; noting costs a bisection."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.total = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def note(self, value: float) -> None:
        """It took `value` this time."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How often there was one."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """How many took at most each bound, as Prometheus wants it: the bound's text and the count so far."""
        found: list[tuple[str, float]] = []
        so_far = 0
        for bound, count in zip((*self.bounds, float("inf")), tuple(self._counts), strict=True):
            so_far += count
            found.append(("+Inf" if bound == float("inf") else f"{bound:g}", so_far))
        return found
