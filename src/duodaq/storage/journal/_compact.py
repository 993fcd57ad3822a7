"""Slow channels in large batches: closed stretches of a journal are merged while the run goes on; see the reference.

A batch of one row costs 300 bytes and its two entries 72; a row in a compressed batch of thousands costs 10 to 20.

Rules for whoever edits this:

* Only what is closed, committed and sound is merged, and never across a place where the disk refused. What cannot be
  merged stays as it is: nothing depends on a merge.
* The new segment is on the disk, whole and under its name, before its index gets its own, by one rename. From then
  on it counts, and what it `replaces` does not: its header says so, and so does its descriptor.
* What was replaced is removed only when the descriptor and the records of the new segment are committed. So at any
  moment, and after a loss of power at any moment, each row is in exactly one segment that counts, with two copies of
  every entry.
* `merge` is given files that nobody writes any more, and may run in any thread. `plan`, and what becomes
  of a merge, belong to the thread of the journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import ipc

from duodaq.errors import DataError
from duodaq.storage.journal._disk import Disk
from duodaq.storage.journal._encode import decode
from duodaq.storage.journal._layout import (
    END,
    ENTRY_BYTES,
    GAP,
    HEAD,
    HEADER_BYTES,
    Header,
    RowsEntry,
    index_name,
    rows_are_sound,
)
from duodaq.storage.journal._rows import RowsSegment

STRETCH_ENTRIES = 8192
"""A slow segment is ended, to be merged, when it has so many batches."""
LEAST_ENTRIES = 64
SLOW_ROWS = 32
"""A segment with fewer rows in a batch, at the mean, is slow."""
FAN_IN = 16
"""So many merged segments of one size, side by side, are merged into one."""
BATCH_ROWS = 2**13
"""Of a merged batch: to learn when a segment ends, its last one has to be decoded."""
ASIDE = ".part"
_OWN = b"duodaq."


class Stretch(NamedTuple):
    """A segment that was ended: which ones of the stream it is, or stands for, and whether it may be merged.

    `level`: 0 as it was recorded, then how often it was merged.
    """

    id: int
    name: str
    first: int
    last: int
    level: int
    rows: int
    schema: pa.Schema
    header: Header
    may_merge: bool = True


class Merge(NamedTuple):
    """What is to be merged, and what it becomes."""

    stream: str
    sources: tuple[Stretch, ...]
    name: str
    header: Header

    @property
    def level(self) -> int:
        """That of the result."""
        return self.sources[0].level + 1


class Merged(NamedTuple):
    """A merged segment that is on the disk, under its name."""

    merge: Merge
    segment: RowsSegment
    entries: list[bytes]

    @property
    def stretch(self) -> Stretch:
        """What there is in place of the sources."""
        sources = self.merge.sources
        header = self.segment.header
        place = (header.segment, self.merge.name, sources[0].first, sources[-1].last, self.merge.level)
        return Stretch(*place, self.segment.rows, self.segment.encoder.schema, header)


class NotWorthItError(Exception):
    """The batches differ so much that merging them gains nothing."""


def is_slow(segment: RowsSegment) -> bool:
    """Whether a segment has so few rows in a batch that merging is worth it."""
    return segment.entries > LEAST_ENTRIES and segment.rows < SLOW_ROWS * segment.entries


def plan(closed: Sequence[Stretch], fan_in: int = FAN_IN) -> tuple[Stretch, ...]:
    """What of a stream's ended segments, in order, is to be merged next; nothing if nothing is."""
    run: list[Stretch] = []
    for stretch in closed:
        if not stretch.may_merge:
            run.clear()
            continue
        if stretch.level == 0:
            return (stretch,)
        if run and (run[-1].level != stretch.level or not _same(run[-1].schema, stretch.schema)):
            run.clear()
        run.append(stretch)
        if len(run) == fan_in:
            return tuple(run)
    return ()


def merge(disk: Disk, path: str, asked: Merge) -> Merged:
    """Write the rows of ended segments into one of larger batches, and give it its name.

    Raises:
        DataError: Something in them is not as it was written; they are left to readers and repairs.
        NotWorthItError: See there.
        OSError, pa.ArrowException: It could not be written. What is there counts, as before.
    """
    batches = [*_batches(Path(path), asked.sources)]
    directory = disk.open_directory(path)
    try:
        segment = RowsSegment(disk, directory, asked.name, asked.header, batches[0], aside=ASIDE, compress=True)
        try:
            entries = [segment.write_head()]
            written, refused = segment.write(batches)
            if refused or segment.rows != sum(source.rows for source in asked.sources):
                raise DataError(f"{asked.name} would not hold what its sources do")
            entries += [*written, segment.end()]
        finally:
            segment.close()
        disk.rename(directory, asked.name + ASIDE, asked.name)
        disk.sync_directory(directory)  # names may come to the disk in any order, and with that of the index it counts
        disk.rename(directory, index_name(asked.name) + ASIDE, index_name(asked.name))
        disk.sync_directory(directory)
    finally:
        disk.close(directory)
    return Merged(asked, segment, entries)


def remove(disk: Disk, path: str, names: Sequence[str]) -> None:
    """Remove segments that others stand for: the data first, so that whoever misses the index misses it, too.

    Raises:
        OSError: The disk refused; those that are left do not count.
    """
    directory = disk.open_directory(path)
    try:
        for name in names:
            for one in (name, index_name(name)):
                try:
                    disk.remove(directory, one)
                except FileNotFoundError:
                    continue
        disk.sync_directory(directory)
    finally:
        disk.close(directory)


def _batches(folder: Path, sources: Sequence[Stretch]) -> Iterator[pa.RecordBatch]:
    """The rows of the sources in few batches, each of rows that were published with the same metadata."""
    tables: list[tuple[Any, Any]] = []
    for source in sources:
        head, parts = _sound_parts(folder, source)
        tables += _tables(head, parts)
        if source.level == 0 and len(tables) > len(parts) / 2:
            raise NotWorthItError(source.name)
    for metadata, group in groupby(tables, key=lambda one: one[0]):
        whole = pa.concat_tables([table for _, table in group]).replace_schema_metadata(metadata)
        for first in range(0, whole.num_rows, BATCH_ROWS):
            yield whole.slice(first, BATCH_ROWS).combine_chunks().to_batches()[0]


def _tables(head: bytes, parts: list[bytes]) -> list[tuple[Any, Any]]:
    """The rows of batches as tables, each with the metadata that all of its rows share."""
    if not any(_OWN in part for part in parts):
        reader: Any = ipc.open_stream(pa.py_buffer(b"".join([head, *parts])))
        return [(reader.schema.metadata, reader.read_all())]
    groups = groupby(decode(head, parts), key=lambda batch: batch.schema.metadata)
    table: Any = pa.Table
    return [(metadata, table.from_batches([*group])) for metadata, group in groups]


def _sound_parts(folder: Path, source: Stretch) -> tuple[bytes, list[bytes]]:
    """The head and the batches of an ended segment.

    Raises:
        DataError: Any of them is not as it was written.
    """
    index = (folder / index_name(source.name)).read_bytes()
    data = memoryview((folder / source.name).read_bytes())
    if Header.unpack(index) != source.header:
        raise DataError(f"the index of {source.name} is not as it was written")
    head, parts, ended, rows = b"", list[bytes](), False, 0
    for number, start in enumerate(range(HEADER_BYTES, len(index) - ENTRY_BYTES + 1, ENTRY_BYTES)):
        packed = index[start : start + ENTRY_BYTES]
        entry = RowsEntry.unpack(packed)
        part = bytes(data[entry.offset : entry.end])
        if entry.number != number or entry.flags & GAP or not rows_are_sound(packed, part, source.header.salt):
            raise DataError(f"batch {number} of {source.name} is not as it was written")
        if entry.flags & HEAD:
            head = part
        elif entry.flags & END:
            ended, rows = True, entry.first_row
        else:
            parts.append(part)
    if not head or not ended or rows != source.rows:
        raise DataError(f"{source.name} was not ended")
    return head, parts


def _same(one: pa.Schema, other: pa.Schema) -> bool:
    return one.equals(other) and [f.metadata for f in one] == [f.metadata for f in other]
