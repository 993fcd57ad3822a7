"""Every entry of a segment against the bytes that it covers: what is sound, and what is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from duodaq.storage.journal._catalog import Catalog, SegmentFacts
from duodaq.storage.journal._layout import (
    END,
    ENTRY_BYTES,
    GAP,
    HEAD,
    FrameEntry,
    RowsEntry,
    frame_is_sound,
    rows_are_sound,
)


class Batch(NamedTuple):
    """A batch that is as it was written, with its bytes; or a place where there ought to be one (`data` is None).

    `entry` of such a place: what a whole copy of its entry says; None if there is none.
    """

    number: int
    entry: RowsEntry | None
    data: bytes | None
    packed: bytes = b""

    @property
    def is_end(self) -> bool:
        """Whether the segment ends here, whatever became of its end mark."""
        return self.entry is not None and bool(self.entry.flags & END)

    @property
    def is_rows(self) -> bool:
        """Whether these are rows, and not the head, the end, a filler, or damaged."""
        return self.data is not None and self.entry is not None and not self.entry.flags & (HEAD | END | GAP)


class Frame(NamedTuple):
    """A frame that is as it was written (`sound`), or a place where there ought to be one."""

    number: int
    entry: FrameEntry | None
    sound: bool
    packed: bytes = b""


class RowsCheck:
    """The batches of a segment of rows, each checked as it is read.

    Args:
        catalog: Of the run.
        facts: The segment.
    """

    def __init__(self, catalog: Catalog, facts: SegmentFacts) -> None:
        self.facts = facts
        self._own, self._mirror = catalog.entries(facts)
        self.path = catalog.path / facts.file
        self.numbers = _count(self._own, self._mirror, facts.limit)
        self.head = self._head()

    def batches(self, first: int = 1) -> Iterator[Batch]:
        """All places behind the head, in order, from entry `first` on."""
        with _Bytes(self.path) as file:
            for number in range(first, self.numbers):
                yield self._look(number, file.read)

    def _look(self, number: int, read: Callable[[int, int], bytes]) -> Batch:
        mirrored = self._mirror.get(number)
        for packed in self._copies(number):
            entry = RowsEntry.unpack(packed)
            if entry.number != number:
                continue
            data = read(entry.offset, entry.length)
            if len(data) == entry.length and rows_are_sound(packed, data, self.facts.header.salt):
                return Batch(number, entry, data, packed)
        return Batch(number, None if mirrored is None else RowsEntry.unpack(mirrored), None)

    def _copies(self, number: int) -> Iterator[bytes]:
        if number < len(self._own):
            yield self._own[number]
        if number in self._mirror and (number >= len(self._own) or self._mirror[number] != self._own[number]):
            yield self._mirror[number]

    def _head(self) -> bytes | None:
        """What every batch needs to be read: from the file, or from the descriptor."""
        with _Bytes(self.path) as file:
            found = self._look(0, file.read)
        if found.data is not None:
            return found.data
        return self.facts.head  # that line has a checksum of its own


class FramesCheck:
    """The frames of a segment, each checked as it is read."""

    def __init__(self, catalog: Catalog, facts: SegmentFacts) -> None:
        self.facts = facts
        self._own, self._mirror = catalog.entries(facts)
        self._path = catalog.path / facts.file
        self.numbers = _count(self._own, self._mirror, facts.limit)

    def frames(self) -> Iterator[Frame]:
        """All places, in order; the end among them."""
        with _Bytes(self._path) as file:
            for number in range(self.numbers):
                yield self._look(number, file)[0]

    def read(self, number: int) -> bytes | None:
        """The bytes of one frame; None if it is not as it was written."""
        with _Bytes(self._path) as file:
            frame, data = self._look(number, file)
        usable = frame.sound and frame.entry is not None and not frame.entry.flags & (END | GAP)
        return data if usable else None

    def _look(self, number: int, file: _Bytes) -> tuple[Frame, bytes]:
        header, mirrored = self.facts.header, self._mirror.get(number)
        copies = [self._own[number]] if number < len(self._own) else []
        if mirrored is not None and mirrored not in copies:
            copies.append(mirrored)
        data: bytes | None = None
        for packed in copies:
            entry = FrameEntry.unpack(packed)
            if entry.number != number:
                continue
            if not entry.flags & (END | GAP) and data is None:
                data = file.read(header.data_start + number * header.frame_bytes, header.frame_bytes)
            covered = b"" if entry.flags & (END | GAP) else data or b""
            if frame_is_sound(packed, covered, header.salt):
                return Frame(number, entry, True, packed), covered
        return Frame(number, None if mirrored is None else FrameEntry.unpack(mirrored), False), b""


class _Bytes:
    """A file of which ranges are read; one that is not there has none."""

    def __init__(self, path: os.PathLike[str]) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def size(self) -> int:
        """How long it is."""
        return os.fstat(self._file).st_size if self._file >= 0 else 0

    def read(self, offset: int, length: int) -> bytes:
        """What is there of these bytes."""
        if self._file < 0 or offset >= (size := self.size):
            return b""
        length = min(length, size - offset)
        parts: list[bytes] = []
        while length:
            part = os.pread(self._file, min(length, 2**30), offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts) if len(parts) != 1 else parts[0]


_NOTHING = bytes(ENTRY_BYTES)


def _count(own: list[bytes], mirror: dict[int, bytes], limit: int | None) -> int:
    """How many entries there are, by either copy; zeros at the end of an index are none."""
    count = len(own)
    while count and own[count - 1] == _NOTHING:
        count -= 1
    count = max(count, max(mirror, default=-1) + 1)
    return count if limit is None else min(count, limit)
