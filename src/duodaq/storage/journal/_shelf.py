"""Files of a run that all streams share and that nobody writes any more: indices of the run, and event logs.

What they say of segments that are gone is not needed: when it is half of a file, what is left goes into another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

NO_SEGMENT = 0
"""Lines that are about no segment: they stay."""


class ClosedPart(NamedTuple):
    """A file that nobody writes any more: how many lines, or records, it has of each segment.

    `folded`: what was left of several was put into it.
    """

    name: str
    counts: Mapping[int, int]
    folded: bool = False

    def left(self, gone: Set[int]) -> dict[int, int]:
        """Its lines but those of segments that are gone."""
        return {segment: count for segment, count in self.counts.items() if segment not in gone}


class Shelf:
    """The closed parts of one kind.

    Args:
        most: How many lines a part may have that others are put into.
    """

    def __init__(self, most: int) -> None:
        self.parts: list[ClosedPart] = []
        self._most = most

    def add(self, name: str, counts: Mapping[int, int]) -> None:
        """A part was closed."""
        self.parts.append(ClosedPart(name, counts))

    def clear(self) -> None:
        """There are none any more."""
        self.parts.clear()

    def worth_pruning(self, gone: Set[int]) -> list[str]:
        """Parts of which half or more is of segments that are gone; first the one that takes what is left there."""
        chosen: list[ClosedPart] = []
        left = 0
        for part in self.parts:
            kept = sum(part.left(gone).values())
            if _is_spent(part, gone) and (not chosen or left + kept <= self._most):
                chosen.append(part)
                left += kept
        if not chosen:
            return []
        for part in self.parts:
            if part.folded and part not in chosen and left + sum(part.counts.values()) <= self._most:
                return [part.name, *(one.name for one in chosen)]
        return [part.name for part in chosen]

    def pruned(self, parts: Sequence[str], left: Sequence[str], gone: Set[int]) -> None:
        """What is left of `parts` is in the one of `left`; if there is none, they stay as they are, for good."""
        ours = [part for part in self.parts if part.name in parts]
        if not ours:
            return
        self.parts[:] = [part for part in self.parts if part not in ours]
        into = [part.name for part in ours if part.name in left]
        if len(into) == 1:
            counts: Counter[int] = Counter()
            for part in ours:
                counts.update(part.left(gone))
            self.parts.append(ClosedPart(into[0], counts, folded=True))


def _is_spent(part: ClosedPart, gone: Set[int]) -> bool:
    """Whether half of what it says of segments is of such that are gone."""
    kept, said = _of_segments(part.left(gone).items()), _of_segments(part.counts.items())
    return bool(said) and 2 * kept <= said


def _of_segments(counts: Iterable[tuple[int, int]]) -> int:
    return sum(count for segment, count in counts if segment != NO_SEGMENT)
