"""Reads a journal, finished or growing: every batch and every frame is checked, and what is missing is named."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa

from duodaq.storage.journal._catalog import Catalog, SegmentFacts, frame_type
from duodaq.storage.journal._check import Batch, FramesCheck, RowsCheck
from duodaq.storage.journal._encode import decode
from duodaq.storage.journal._events import Event
from duodaq.storage.journal._layout import FRAMES, GAP, ROWS
from duodaq.storage.journal._parquet import parquet_batches, parquet_of, rows_expected
from duodaq.storage.journal._run import RunPage
from duodaq.storage.journal._stream import PIXELS, REFERENCES, tensors
from duodaq.storage.journal._succession import Succession

_AT_ONCE_BYTES = 4 * 2**20


class Gap(NamedTuple):
    """Rows of a stream that are not there.

    Attributes:
        stream: The stream.
        reason: ``damage``, or what the event log says: ``overflow``, ``disk``, ``missing``.
        rows: How many; None if nobody knows.
        after: The sequence number of the last row before; None if there is none.
        before: The sequence number of the first row behind; None if there is none.
        file: The file in which damage was found.
        entries: The first and the last entry of its index that it hit.
    """

    stream: str
    reason: str
    rows: int | None
    after: int | None = None
    before: int | None = None
    file: str | None = None
    entries: tuple[int, int] | None = None


class JournalReader:
    """One run as its journal has it now; make another to see what has come since.

    Args:
        path: The run's directory.

    Raises:
        StorageError: It holds no journal.
    """

    def __init__(self, path: str | Path) -> None:
        self._catalog = Catalog(path)
        self.path = self._catalog.path

    @property
    def page(self) -> RunPage | None:
        """What the run is; None if neither copy of that is whole."""
        return self._catalog.page

    @property
    def labels(self) -> dict[str, Any]:
        """Sample, operator, note and tags, as far as given."""
        return self._catalog.labels

    @property
    def events(self) -> list[Event]:
        """What happened, oldest first."""
        return self._catalog.events

    @property
    def finished(self) -> bool:
        """Whether the run was stopped in order, or repaired."""
        return self._catalog.finished

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams, in the order in which they began."""
        return tuple(dict.fromkeys(facts.stream for facts in self._catalog.segments))

    def segments(self, stream: str) -> tuple[SegmentFacts, ...]:
        """The files of a stream, in order."""
        return tuple(facts for facts in self._catalog.segments if facts.stream == stream)

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """What was recorded of a stream, as it was published, frames included: batches that passed their check."""
        return (item for item in self.items(stream) if not isinstance(item, Gap))

    def table(self, stream: str) -> pa.Table:
        """All of a stream as a table; metadata that some batches had of their own is left out.

        Raises:
            KeyError: There is nothing of that stream.
        """
        batches = [*self.batches(stream)]
        if not batches:
            raise KeyError(stream)
        schema = batches[0].schema
        fitting = [batch.replace_schema_metadata(schema.metadata) for batch in batches]
        return cast("Any", pa.Table).from_batches(fitting, schema)

    def gaps(self, stream: str | None = None) -> list[Gap]:
        """What is missing: found by checking everything now, and before that by whoever recorded."""
        streams = self.streams if stream is None else (stream,)
        found = [item for one in streams for item in self.items(one) if isinstance(item, Gap)]
        return found + [gap for gap in self._told_gaps() if gap.stream in streams or stream is None]

    def _rows(self, stream: str) -> Iterator[pa.RecordBatch | Gap]:
        """The rows of a stream and the gaps between them; what is merged meanwhile is read on where it is then."""
        catalog, read = self._catalog, Succession()
        while True:
            facts, skip = read.next_of(catalog, stream)
            if facts is None:
                return
            if parquet_of(catalog.path, facts) is not None:
                yield from self._in_parquet(stream)
                return
            rows, now = 0, None
            for item in _rows_of(RowsCheck(catalog, facts)):
                if not isinstance(item, Gap):
                    rows += item.num_rows
                    if rows > skip:
                        yield item.slice(max(0, item.num_rows - (rows - skip)))
                elif (now := self._if_merged(catalog, facts)) is None:
                    yield item
                else:
                    break
            now = now or self._if_merged(catalog, facts)
            if now is None:
                read.whole(facts.span, rows)
            else:
                read.part_of(facts.span, rows)
                catalog = now

    def _in_parquet(self, stream: str) -> Iterator[pa.RecordBatch | Gap]:
        """The rows of a stream that have left the journal, and what is missing of them by what was counted then."""
        catalog = self._catalog
        rows, readable = 0, True
        for facts in self.segments(stream):
            if not _is(facts, ROWS):
                continue
            final = parquet_of(catalog.path, facts)
            found = _rows_of(RowsCheck(catalog, facts)) if final is None else parquet_batches(final)
            file = facts.file if final is None else final.name
            for item in found:
                if isinstance(item, pa.RecordBatch):
                    rows += item.num_rows
                    yield item
                    continue
                gap = item if isinstance(item, Gap) else Gap("", "damage", item, file=file)
                readable = readable and gap.rows is not None
                rows += gap.rows or 0
                yield gap
        expected = rows_expected(catalog, stream)
        if readable and expected is not None and rows < expected:
            yield Gap("", "damage", expected - rows)

    def _if_merged(self, catalog: Catalog, facts: SegmentFacts) -> Catalog | None:
        """How things are now, if a segment is not there any more because another one stands for it."""
        if (catalog.path / facts.file).exists():
            return None
        now = Catalog(self.path)
        return None if any(one.id == facts.id for one in now.segments) else now

    def items(self, stream: str, *, frames: bool = True) -> Iterator[pa.RecordBatch | Gap]:
        """Batches and gaps of a stream, in order.

        Args:
            stream: The stream.
            frames: Whether frames are read and checked, too; if not, batches say only where they are.
        """
        last: int | None = None
        waiting: list[Gap] = []
        pixels = {facts.id: FramesCheck(self._catalog, facts) for facts in self.segments(stream) if _is(facts, FRAMES)}
        if self.segments(stream):
            for item in self._rows(stream):
                for part in _with_pixels(item, pixels) if frames and not isinstance(item, Gap) else [item]:
                    if isinstance(part, Gap):
                        waiting.append(part._replace(stream=stream, after=last))
                        continue
                    first, newest = _sequences(part)
                    yield from (gap._replace(before=first) for gap in waiting)
                    waiting.clear()
                    last = newest if newest is not None else last
                    yield part
        yield from waiting

    def _told_gaps(self) -> list[Gap]:
        told = [event.doc for event in self.events if event.name == "gap" and event.doc.get("reason") != "damage"]
        return [Gap(d["stream"], d["reason"], d["rows"], d.get("after"), d.get("before"), d.get("file")) for d in told]


def _is(facts: SegmentFacts, kind: int) -> bool:
    return facts.header.kind == kind


def _rows_of(check: RowsCheck) -> Iterator[pa.RecordBatch | Gap]:
    """The batches of a segment, many decoded at once, and what is missing between them."""
    file = check.facts.file
    if check.head is None:
        if check.numbers:
            yield Gap("", "damage", None, file=file, entries=(0, check.numbers - 1))
        return
    run: list[Batch] = []
    size = rows = 0
    missing: list[int] = []
    for place in check.batches():
        if place.data is None and place.is_end:
            continue
        if not place.is_rows and (place.data is None or _is_gap(place)):
            missing.append(place.number)
            continue
        assert place.entry is not None
        if missing:
            rows = yield from _decoded(check.head, run, rows)
            size = 0
            yield Gap("", "damage", place.entry.first_row - rows or None, file=file, entries=(missing[0], missing[-1]))
            missing = []
            rows = place.entry.first_row
        if place.is_rows:
            run.append(place)
            size += place.entry.length
        if size >= _AT_ONCE_BYTES:
            rows = yield from _decoded(check.head, run, rows)
            size = 0
    yield from _decoded(check.head, run, rows)
    if missing:
        yield Gap("", "damage", None, file=file, entries=(missing[0], missing[-1]))


def _is_gap(place: Batch) -> bool:
    return not place.is_rows and place.entry is not None and bool(place.entry.flags & GAP)


def _decoded(head: bytes, run: list[Batch], rows: int) -> Generator[pa.RecordBatch, None, int]:
    """The batches of `run`, which is empty then; returns how many rows of the segment stand before what follows."""
    if run:
        batches = decode(head, [place.data for place in run if place.data is not None])
        first = run[0].entry
        rows = (0 if first is None else first.first_row) + sum(batch.num_rows for batch in batches)
        run.clear()
        yield from batches
    return rows


def _with_pixels(batch: pa.RecordBatch, segments: dict[int, FramesCheck]) -> Iterator[pa.RecordBatch | Gap]:
    """A batch of frames as it was published, from its rows and its frames; parts of it where some are damaged."""
    if REFERENCES[0].name not in batch.schema.names:
        yield batch
        return
    places = zip(*(batch.column(field.name).to_pylist() for field in REFERENCES), strict=True)
    rows = batch.drop_columns([field.name for field in REFERENCES])
    found = [(segment, segments[segment].read(frame) if segment in segments else None) for segment, frame in places]
    start = 0
    for (segment, sound), group in itertools.groupby(found, lambda one: (one[0], one[1] is not None)):
        data = [frame for _, frame in group]
        facts = segments[segment].facts if segment in segments else None
        if sound and facts is not None and facts.dtype:  # of what shape they were is lost without it
            frames = b"".join([frame for frame in data if frame is not None])
            yield _appended(rows.slice(start, len(data)), tensors(frames, *frame_type(facts)))
        else:
            yield Gap("", "damage", len(data), file=None if facts is None else facts.file)
        start += len(data)


def _appended(batch: pa.RecordBatch, pixels: Any) -> pa.RecordBatch:
    schema = batch.schema.append(pa.field(PIXELS, pixels.type, nullable=False))
    return pa.RecordBatch.from_arrays([*batch.columns, pixels], schema=schema)


def _sequences(batch: pa.RecordBatch) -> tuple[int | None, int | None]:
    place = batch.schema.get_field_index("sequence")
    if place < 0 or not batch.num_rows:
        return None, None
    column = batch.column(place)
    return column[0].as_py(), column[-1].as_py()
