"""What passes the recorder: numbers that are missing, rows that were lost, and steps of the wall clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from duodaq import clock
from duodaq.errors import DataError
from duodaq.schema import stream_of_schema
from duodaq.storage._watermark import Mark, Watermark

_STEP_NS = 20_000_000
"""What NTP slews between two looks is far less; a step by a person or at a start of NTP is far more."""


_MOST_STRETCHES = 1000


class _Seen:
    """What has passed of one stream: rows that are, or will be, in the recording, and which numbers are not."""

    def __init__(self) -> None:
        self.rows = 0
        self.newest = self.passed = -1
        self._lost: list[tuple[int, int]] = []

    def take(self, rows: int, first: int | None, last: int | None) -> None:
        """Count a batch in."""
        self.rows += rows
        if first is None or last is None:
            return
        if first > self.passed + 1:
            self._lose(self.passed + 1, first - 1)
        elif first <= self.passed:  # the numbers begin again
            self._lost = [(start, min(stop, first - 1)) for start, stop in self._lost if start < first]
        self.newest = self.passed = last

    def lose(self, rows: int, first: int | None, last: int | None) -> None:
        """Count a batch out again: it is not in the recording after all."""
        self.rows -= rows
        if first is None or last is None:
            return
        self._lose(first, last)
        for start, stop in reversed(self._lost):
            if start <= self.newest <= stop:
                self.newest = start - 1

    def mark(self) -> Mark:
        return Mark(Watermark(self.rows, self.newest), self.passed, tuple(self._lost))

    def _lose(self, first: int, last: int) -> None:
        """Of very many stretches the two oldest become one: better to disown a row than to promise one."""
        lost = self._lost
        before = len(lost)
        while before and lost[before - 1][0] > first:
            before -= 1
        lost.insert(before, (first, last))
        merged: list[tuple[int, int]] = []
        for start, stop in lost[max(before - 1, 0) :]:
            if merged and start <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
            else:
                merged.append((start, stop))
        lost[max(before - 1, 0) :] = merged
        if len(lost) > _MOST_STRETCHES:
            lost[:2] = [(lost[0][0], lost[1][1])]


class Tally:
    """Counts batches on their way to the disk. Belongs to the recorder's thread."""

    def __init__(self) -> None:
        self.unexplained: dict[str, int] = {}
        self._seen: dict[str, _Seen] = {}
        self._lost: dict[str, int] = {}
        self._latest: set[str] = set()
        self._known: tuple[pa.Schema, str | None, int] | None = None

    def look(self, batches: Sequence[pa.RecordBatch]) -> list[dict[str, Any]]:
        """Count batches in; the gaps before them, as the event log says it."""
        gaps: list[dict[str, Any]] = []
        self._latest = set()
        for batch in batches:
            stream, place = self._facts(batch.schema)
            if stream is None:
                continue
            self._latest.add(stream)
            seen = self._seen.get(stream)
            first, last = _numbers(batch, place)
            if seen is None:
                seen = self._seen[stream] = _Seen()
            elif first is not None and seen.passed >= 0 and first > seen.passed + 1:
                gaps.append(self._gap(stream, seen.passed, first))
            seen.take(batch.num_rows, first, last)
        return gaps

    def lose(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Count batches out again that were looked at, and are not stored."""
        for batch in batches:
            stream, place = self._facts(batch.schema)
            if stream is not None and stream in self._seen:
                self._seen[stream].lose(batch.num_rows, *_numbers(batch, place))
                self._latest.add(stream)

    def marks(self) -> dict[str, Mark]:
        """The marks of the streams in the batches last looked at, once these are all acknowledged or lost."""
        return {stream: self._seen[stream].mark() for stream in self._latest}

    def note_losses(self, dropped: dict[str, int]) -> None:
        """Learn how many rows of each stream the queue has lost in all; they explain gaps that are seen later."""
        for stream, rows in dropped.items():
            new = rows - self._lost.get(stream, 0)
            if new > 0:
                self._lost[stream] = rows
                self.unexplained[stream] = self.unexplained.get(stream, 0) + new

    def forget_losses(self) -> None:
        """From now on `note_losses` is told what another run has lost."""
        self._lost.clear()

    def rest(self) -> list[dict[str, Any]]:
        """Gaps for losses of which no number told, such as those at the end."""
        gaps = [
            {"stream": stream, "rows": rows, "reason": "overflow", "after": self._after(stream), "before": None}
            for stream, rows in self.unexplained.items()
        ]
        self.unexplained.clear()
        return gaps

    def _facts(self, schema: pa.Schema) -> tuple[str | None, int]:
        """The stream that a schema names, and its column of sequence numbers, -1 if it has none."""
        known = self._known
        if known is None or not known[0].equals(schema, check_metadata=True):
            known = self._known = (schema, _stream_in(schema), _place_of_numbers(schema))
        return known[1:]

    def _after(self, stream: str) -> int | None:
        seen = self._seen.get(stream)
        return None if seen is None or seen.passed < 0 else seen.passed

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


def _stream_in(schema: pa.Schema) -> str | None:
    try:
        return stream_of_schema(schema)
    except (DataError, ValueError):
        return None


def _place_of_numbers(schema: pa.Schema) -> int:
    place = schema.get_field_index("sequence")
    return place if place >= 0 and pa.types.is_integer(schema.field(place).type) else -1


def _numbers(batch: pa.RecordBatch, place: int) -> tuple[int | None, int | None]:
    rows = batch.num_rows
    if place < 0 or not rows:
        return None, None
    column = batch.column(place)
    first = column[0].as_py()
    last = first if rows == 1 else column[rows - 1].as_py()
    return (first, last) if isinstance(first, int) and isinstance(last, int) else (None, None)
