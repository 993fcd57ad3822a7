"""How far an export is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a stream, how many of its rows or frames are done, and how many there are."""


class Counting:
    """Adds up the rows of several parts of a stream."""

    def __init__(self, progress: Progress, stream: str, total: int) -> None:
        self._progress = progress
        self._stream = stream
        self._total = total
        self._done = 0

    def part_begins_at(self, done: int) -> None:
        """`done` rows are in the parts before."""
        self._done = done

    def __call__(self, rows: int) -> None:
        self._progress(self._stream, self._done + rows, self._total)


def silent(stream: str, done: int, total: int) -> None:
    """Tell nobody."""
