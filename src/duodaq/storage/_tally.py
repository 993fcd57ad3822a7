"""What passes the recorder: numbers that are missing, rows that were lost, and steps of the wall clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from duodaq import clock
from duodaq.errors import DataError
from duodaq.schema import stream_of
from duodaq.storage._watermark import Watermark

_STEP_NS = 20_000_000
"""What NTP slews between two looks is far less; a step by a person or at a start of NTP is far more."""


class Tally:
    """Counts batches on their way to the disk. Belongs to the recorder's thread."""

    def __init__(self) -> None:
        self.unexplained: dict[str, int] = {}
        self._seen: dict[str, Watermark] = {}
        self._lost: dict[str, int] = {}
        self._latest: set[str] = set()

    def look(self, batches: Sequence[pa.RecordBatch]) -> list[dict[str, Any]]:
        """Count batches in; the gaps before them, as the event log says it."""
        gaps: list[dict[str, Any]] = []
        self._latest = set()
        for batch in batches:
            try:
                stream = stream_of(batch)
            except DataError:
                continue
            self._latest.add(stream)
            seen = self._seen.get(stream)
            first, last = _numbers(batch)
            if seen is not None and first is not None and seen.sequence >= 0 and first > seen.sequence + 1:
                gaps.append(self._gap(stream, seen.sequence, first))
            rows = batch.num_rows + (0 if seen is None else seen.rows)
            newest = last if last is not None else (-1 if seen is None else seen.sequence)
            self._seen[stream] = Watermark(rows, newest)
        return gaps

    def marks(self) -> dict[str, Watermark]:
        """The watermarks of the streams in the batches last looked at, once these are all acknowledged."""
        return {stream: self._seen[stream] for stream in self._latest}

    def note_losses(self, dropped: dict[str, int]) -> None:
        """Learn how many rows of each stream the queue has lost in all; they explain gaps that are seen later."""
        for stream, rows in dropped.items():
            new = rows - self._lost.get(stream, 0)
            if new > 0:
                self._lost[stream] = rows
                self.unexplained[stream] = self.unexplained.get(stream, 0) + new

    def rest(self) -> list[dict[str, Any]]:
        """Gaps for losses of which no number told, such as those at the end."""
        gaps = [
            {"stream": stream, "rows": rows, "reason": "overflow", "after": self._after(stream), "before": None}
            for stream, rows in self.unexplained.items()
        ]
        self.unexplained.clear()
        return gaps

    def _after(self, stream: str) -> int | None:
        seen = self._seen.get(stream)
        return None if seen is None or seen.sequence < 0 else seen.sequence

    def _gap(self, stream: str, after: int, before: int) -> dict[str, Any]:
        rows = before - after - 1
        known = self.unexplained.pop(stream, 0)
        if known > rows:
            self.unexplained[stream] = known - rows
        reason = "overflow" if known else "missing"
        return {"stream": stream, "rows": rows, "reason": reason, "after": after, "before": before}


class WallClock:
    """Sees when the wall clock is stepped; the run's own clock never is."""

    def __init__(self) -> None:
        self._apart_ns = self._distance_ns()

    def step(self) -> dict[str, int] | None:
        """The step since the last look, as the event log says it; None if there was none."""
        before, self._apart_ns = self._apart_ns, self._distance_ns()
        step = self._apart_ns - before
        return {"step_ns": step, "offset_ns": self._apart_ns} if abs(step) >= _STEP_NS else None

    def _distance_ns(self) -> int:
        return wall_ns() - clock.utc_ns()


def wall_ns() -> int:
    """The wall clock: UTC nanoseconds, which a person or NTP may step."""
    return time.time_ns()


def _numbers(batch: pa.RecordBatch) -> tuple[int | None, int | None]:
    place = batch.schema.get_field_index("sequence")
    rows = batch.num_rows
    if place < 0 or not rows:
        return None, None
    column = batch.column(place)
    first = column[0].as_py()
    last = first if rows == 1 else column[rows - 1].as_py()
    return (first, last) if isinstance(first, int) and isinstance(last, int) else (None, None)
