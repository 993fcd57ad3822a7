"""What the index of a segment says by itself: how much there is and from when. Reads no data but the last batch, and
not even that of a segment that was ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple, cast

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.journal._catalog import SegmentFacts
from duodaq.storage.journal._encode import decode
from duodaq.storage.journal._layout import (
    END,
    END_MARK,
    ENTRY_BYTES,
    GAP,
    HEAD,
    HEADER_BYTES,
    Header,
    RowsEntry,
    index_name,
    rows_are_sound,
)

_AT_ONCE_BYTES = 8 * 2**20
_ENTRY = np.dtype(
    [("number", "<u4"), ("length", "<u4"), ("place", "<u8"), ("t_ns", "<i8"), ("first_row", "<u4"), ("crc", "<u4")]
)
assert _ENTRY.itemsize == ENTRY_BYTES


class Extent(NamedTuple):
    """How many rows a segment has, and the times of the first and the last; 0 where there is none."""

    rows: int
    first_ns: int = 0
    last_ns: int = 0


class RowsIndex:
    """The index of a segment of rows, as its own file has it; whoever needs certainty checks what it covers.

    Args:
        folder: The run's.
        facts: The segment.
    """

    def __init__(self, folder: Path, facts: SegmentFacts) -> None:
        self._path = folder / facts.file
        self._facts = facts
        self._salt = facts.header.salt
        self._raw, self._entries = _entries(folder / index_name(facts.file), facts)
        self._flags = (self._entries["place"] >> 48).astype(np.int64)
        self._offsets = (self._entries["place"] & 0xFFFFFFFFFFFF).astype(np.int64)
        self._ends = self._offsets + self._entries["length"]

    def first_entry(self, start_ns: int | None) -> int:
        """The number of the first entry that can hold rows from `start_ns` on; 1 if that is not known."""
        if start_ns is None or len(self._entries) < 2:
            return 1
        times = self._entries["t_ns"][1:]
        if not _never_decreases(times, self._entries["place"][1:] >> 48):
            return 1
        known = times[: _last_batch(self._entries)]
        before = max(1, int(np.searchsorted(known, start_ns, side="left")))
        return before if self._batch_is_sound(before) else 1

    def rows_before(self, entry: int) -> int:
        """How many rows of the segment stand before an entry, as far as that is known."""
        return int(self._entries["first_row"][entry]) if 0 < entry < len(self._entries) else 0

    def extent(self, head: bytes) -> Extent | None:
        """How much there is; None if the index does not say."""
        last = _last_batch(self._entries)
        if not last:
            return Extent(0) if len(self._entries) else None
        first = next((int(t) for t in self._entries["t_ns"][1 : last + 1] if t), 0)
        ended = self._end(last + 1)
        if ended is not None and ended.t_ns:
            return Extent(ended.first_row, first, ended.t_ns)
        batch = self._batch(last, head)
        if batch is None or int(self._entries["number"][last]) != last:
            return None
        rows = int(self._entries["first_row"][last]) + batch.num_rows
        place = batch.schema.get_field_index("timestamp")
        last_ns = 0
        if place >= 0 and batch.num_rows:
            last_ns = _ns(batch.column(place)[batch.num_rows - 1])
        return Extent(rows, first, last_ns)

    def _end(self, number: int) -> RowsEntry | None:
        """The last entry of a segment that was ended, if it has this number and is sound."""
        if number != len(self._entries) - 1:
            return None
        entry = self._entries[number].tobytes()
        told = RowsEntry.unpack(entry)
        if not told.flags & END or told.number != number or not rows_are_sound(entry, END_MARK, self._salt):
            return None
        return told

    def portions(self, first: int, stop_ns: int | None) -> Generator[bytes, None, int | None]:
        """The messages of sound batches from entry `first` on and before `stop_ns`, many at once.

        Returns:
            None when the segment was closed and all of it was read, or `stop_ns` was reached. Otherwise the number of
            the first entry that was not read: something is wrong with it, or this index has no more.
        """
        number, count = max(first, 1), len(self._entries)
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(self._path, "rb", buffering=0))
            except OSError:
                return number
            while number < count:
                behind = self._group_from(number, stop_ns)
                data = self._read(file.fileno(), number, behind)
                sound = self._sound_until(number, behind, data)
                if sound > number:
                    yield data[: int(self._ends[sound - 1] - self._offsets[number])]
                if sound < behind or behind == number:
                    return self._verdict(sound, stop_ns)
                number = behind
        return number

    def is_sound(self, *, growing: bool = False) -> bool:
        """Whether all that was written passes its check; of a segment that was not ended only if it is `growing`."""
        portions = self.portions(1, None)
        while True:
            try:
                next(portions)
            except StopIteration as end:
                return end.value is None or (growing and end.value == len(self._entries))

    def _group_from(self, number: int, stop_ns: int | None) -> int:
        """The entry behind the batches that lie behind one another from `number` on, and are read at once."""
        until = int(self._offsets[number]) + _AT_ONCE_BYTES
        most = int(np.searchsorted(self._ends, until, side="right"))
        behind = max(number + 1, min(most, len(self._entries)))
        wrong: npt.NDArray[Any] = self._flags[number:behind] & (HEAD | END | GAP) != 0
        wrong[1:] |= self._offsets[number + 1 : behind] != self._ends[number : behind - 1]
        wrong |= self._entries["number"][number:behind] != np.arange(number, behind)
        if stop_ns is not None:
            wrong |= self._entries["t_ns"][number:behind] >= stop_ns
        found = np.flatnonzero(wrong)
        return number + int(found[0]) if len(found) else behind

    def _read(self, file: int, number: int, behind: int) -> bytes:
        if behind == number:
            return b""
        start = int(self._offsets[number])
        return os.pread(file, int(self._ends[behind - 1]) - start, start)

    def _sound_until(self, number: int, behind: int, data: bytes) -> int:
        """The first entry from `number` on whose bytes are not as they were written; `behind` if all are."""
        salt, raw, part = self._salt, self._raw, pa.py_buffer(data).slice
        start = 0
        extend = cast("Any", google_crc32c).extend
        bounds = (self._ends[number:behind] - self._offsets[number]).tolist()
        sums: list[int] = self._entries["crc"][number:behind].tolist()
        for i, (end, wanted) in enumerate(zip(bounds, sums, strict=True), number):
            place = HEADER_BYTES + i * ENTRY_BYTES
            if end > len(data) or extend(extend(salt, raw[place : place + 28]), part(start, end - start)) != wanted:
                return i
            start = end
        return behind

    def _verdict(self, number: int, stop_ns: int | None) -> int | None:
        """What to do about an entry that is no sound batch: nothing, if it is the end, or too late."""
        entry = self._entries[number : number + 1]
        if not len(entry):
            return number
        told = RowsEntry.unpack(entry.tobytes())
        if told.flags & END and told.number == number and rows_are_sound(entry.tobytes(), END_MARK, self._salt):
            return None
        late = stop_ns is not None and told.number == number and told.t_ns >= stop_ns and not told.flags & (END | GAP)
        return None if late and self._batch_is_sound(number) else number

    def first_batch(self, head: bytes) -> Any:
        """The first batch, if it is sound; else None."""
        return self._batch(1, head) if _last_batch(self._entries) else None

    def _batch(self, number: int, head: bytes) -> Any:
        data = self._sound_bytes(number)
        return None if data is None else decode(head, [data])[0]

    def _batch_is_sound(self, number: int) -> bool:
        return self._sound_bytes(number) is not None

    def _sound_bytes(self, number: int) -> bytes | None:
        """The bytes of a batch; None if they, or the entry, are not as they were written."""
        entry = self._entries[number : number + 1].tobytes()
        told = RowsEntry.unpack(entry)
        if told.flags & (GAP | HEAD | END):
            return None
        try:
            with open(self._path, "rb") as file:
                file.seek(told.offset)
                data = file.read(told.length)
        except OSError:
            return None
        return data if len(data) == told.length and rows_are_sound(entry, data, self._salt) else None


def _entries(path: Path, facts: SegmentFacts) -> tuple[bytes, npt.NDArray[Any]]:
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if Header.unpack(data) is None:
        return b"", np.empty(0, _ENTRY)
    whole = (len(data) - HEADER_BYTES) // ENTRY_BYTES
    entries = np.frombuffer(data, _ENTRY, whole, HEADER_BYTES)[: facts.limit]
    written = np.flatnonzero(entries["length"])
    return data, entries[: written[-1] + 1] if len(written) else entries[:0]


def _last_batch(entries: npt.NDArray[Any]) -> int:
    """The number of the last entry that is a batch of rows; 0 if there is none."""
    last = len(entries) - 1
    while last > 0 and int(entries["place"][last]) >> 48 & (END | GAP | HEAD):
        last -= 1
    return max(last, 0)


def _never_decreases(times: npt.NDArray[Any], flags: npt.NDArray[Any]) -> bool:
    own = times[(flags & (END | GAP)) == 0]
    return bool(len(own) and own[0] and np.all(own[1:] >= own[:-1])) and not np.any(flags & GAP)


def _ns(value: Any) -> int:
    per = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
    return (value.value or 0) * per[value.type.unit]
