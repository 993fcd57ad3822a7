"""How far a stream was read, while what is read is merged: which segment comes next, and what of it was read before.

A merged segment holds exactly the rows of those that it stands for, in their order.
"""

from __future__ import annotations

from duodaq.storage.journal._catalog import Catalog, SegmentFacts
from duodaq.storage.journal._layout import ROWS


class Succession:
    """Counts the rows read of each segment, by the number of the first one, as it was recorded, that it stands for."""

    def __init__(self) -> None:
        self._read: dict[int, int] = {}
        self._behind = 0

    def whole(self, span: tuple[int, int], rows: int) -> None:
        """A segment was read to its end: `rows` are all there are in it, what was skipped included."""
        self.part_of(span, rows)
        self._behind = span[1]

    def part_of(self, span: tuple[int, int], rows: int) -> None:
        """So many rows of a segment were read, what was skipped included, when it was found to be merged."""
        if rows > self.read_of(span):
            for first in [first for first in self._read if span[0] <= first <= span[1]]:
                del self._read[first]
            self._read[span[0]] = rows

    def is_read(self, span: tuple[int, int]) -> bool:
        """Whether all of a segment was read."""
        return span[1] <= self._behind

    def read_of(self, span: tuple[int, int]) -> int:
        """How many rows of a segment were read before, in those that it stands for."""
        return sum(rows for first, rows in self._read.items() if span[0] <= first <= span[1])

    def next_of(self, catalog: Catalog, stream: str) -> tuple[SegmentFacts | None, int]:
        """The segment to read next, as things are now, and how many of its rows were read before; None: no more."""
        for facts in catalog.segments:
            if facts.stream == stream and facts.header.kind == ROWS and not self.is_read(facts.span):
                return facts, self.read_of(facts.span)
        return None, 0
