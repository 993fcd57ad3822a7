"""What the index of a segment says by itself: how much there is and from when. Reads no data but the last batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from duodaq.storage.journal._catalog import SegmentFacts
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
        self._entries = _entries(folder / index_name(facts.file), facts)

    def first_entry(self, start_ns: int | None) -> int:
        """The number of the first entry that can hold rows from `start_ns` on; 1 if that is not known."""
        if start_ns is None or len(self._entries) < 2:
            return 1
        times = self._entries["t_ns"][1:]
        if not _never_decreases(times, self._entries["place"][1:] >> 48):
            return 1
        known = times[: _last_batch(self._entries)]
        return max(1, int(np.searchsorted(known, start_ns, side="left")))

    def extent(self, head: bytes) -> Extent | None:
        """How much there is; None if the index does not say."""
        last = _last_batch(self._entries)
        if not last:
            return Extent(0) if len(self._entries) else None
        batch = self._batch(last, head)
        if batch is None or int(self._entries["number"][last]) != last:
            return None
        rows = int(self._entries["first_row"][last]) + batch.num_rows
        place = batch.schema.get_field_index("timestamp")
        last_ns = 0
        if place >= 0 and batch.num_rows:
            last_ns = _ns(batch.column(place)[batch.num_rows - 1])
        first = next((int(t) for t in self._entries["t_ns"][1 : last + 1] if t), 0)
        return Extent(rows, first, last_ns)

    def first_batch(self, head: bytes) -> Any:
        """The first batch, if it is sound; else None."""
        return self._batch(1, head) if _last_batch(self._entries) else None

    def _batch(self, number: int, head: bytes) -> Any:
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
        if len(data) != told.length or not rows_are_sound(entry, data, self._facts.header.salt):
            return None
        return decode(head, [data])[0]


def _entries(path: Path, facts: SegmentFacts) -> npt.NDArray[Any]:
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if Header.unpack(data) is None:
        return np.empty(0, _ENTRY)
    whole = (len(data) - HEADER_BYTES) // ENTRY_BYTES
    entries = np.frombuffer(data, _ENTRY, whole, HEADER_BYTES)[: facts.limit]
    written = np.flatnonzero(entries["length"])
    return entries[: written[-1] + 1] if len(written) else entries[:0]


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
