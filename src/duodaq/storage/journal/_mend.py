"""Puts one segment right where it lies, so that any reader can read it to its end; see Repair in the reference.

Rules for whoever edits this: what is damaged is copied to `damage/` before a byte of it is changed; a new index
replaces the old one only after what it describes is on the disk; so a repair that is interrupted is simply begun again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from duodaq.storage.journal._catalog import Catalog, SegmentFacts, frame_type
from duodaq.storage.journal._check import Batch, Frame, FramesCheck, RowsCheck
from duodaq.storage.journal._disk import Disk, write_whole
from duodaq.storage.journal._encode import decode, filler, schema_of
from duodaq.storage.journal._frames import npy_header
from duodaq.storage.journal._layout import (
    DAMAGE,
    DATA_START,
    END,
    END_MARK,
    FRAMES,
    GAP,
    HEAD,
    ROWS,
    SUFFIX,
    index_name,
    pack_frame,
    pack_rows,
)

_PIECE_BYTES = 64 * 2**20


class Mended(NamedTuple):
    """What was done to one file: damaged places that were filled, entries and bytes that were cut from its end.

    `unconfirmed`: it has rows behind all that any entry covers. `kept`: where in `damage/` bytes of it are now.
    """

    file: str
    filled: int = 0
    cut_entries: int = 0
    cut_bytes: int = 0
    unconfirmed: bool = False
    kept: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was wrong."""
        return bool(self.filled or self.cut_entries or self.cut_bytes)


class UnsoundError(Exception):
    """Something would have to be mended."""


class Infirmary:
    """Mends the segments of one run.

    Args:
        catalog: Of the run.
        disk: What to write with.
        directory: A descriptor of the run's.
        looking: Change nothing: `UnsoundError` where something would have to be.
    """

    def __init__(self, catalog: Catalog, disk: Disk, directory: int, *, looking: bool = False) -> None:
        self._catalog = catalog
        self._disk = disk
        self._directory = directory
        self._looking = looking

    def mend_rows(self, facts: SegmentFacts) -> Mended:
        """Put a segment of rows right.

        Raises:
            OSError: The disk refused. Begin again.
        """
        check = RowsCheck(self._catalog, facts)
        if check.head is None:
            return Mended(facts.file, unconfirmed=holds_rows(check.path))  # nothing is made of it; it stays as it is
        places = [_Place.of(place) for place in check.batches() if place.data is not None or not place.is_end]
        last = max((i for i, place in enumerate(places) if place.sound), default=-1)
        kept, cut = places[: last + 1], places[last + 1 :]
        kept_in: list[str] = []
        unconfirmed = False
        with self._opened(facts.file) as file:
            size = file.size
            entries = [pack_rows(0, 0, HEAD, 0, 0, [check.head], len(check.head), facts.header.salt)]
            if file.read(0, len(check.head)) != check.head:
                self._keep(facts.file, file, 0, len(check.head))
                file.put(check.head, 0)
            filled, rows, end = self._fill(check, kept, file, entries)
            if not (kept and kept[-1].flags & END):
                kept_in = self._keep_tail(facts, file, end, size, bool(cut))
                unconfirmed = bool(kept_in) and not cut and _has_rows(file.read(end, _PIECE_BYTES))
                entries += [_nothing_at(len(entries) + i, end, rows, facts.header.salt) for i in range(len(cut))]
                file.put(END_MARK, end)
                salt = facts.header.salt
                entries.append(pack_rows(len(entries), end, END, 0, rows, [END_MARK], len(END_MARK), salt))
                end += len(END_MARK)
            file.cut(end)
            file.sync()
        self._write_index(facts, entries)
        return Mended(facts.file, filled, len(cut), max(0, size - end), unconfirmed, tuple(kept_in))

    def _fill(self, check: RowsCheck, kept: list[_Place], file: _Patient, entries: list[bytes]) -> tuple[int, int, int]:
        """Fill what is damaged among `kept`; how many places, how many rows and bytes there are then."""
        assert check.head is not None
        head, salt = check.head, check.facts.header.salt
        schema = schema_of(head)
        filled, rows, end = 0, 0, len(head)
        before: _Place | None = None
        for i, place in enumerate(kept):
            if place.sound:
                entries.append(place.packed)
                before, end, rows = place, place.end, place.first_row
                continue
            if before is not None and before.sound:
                rows = before.first_row + self._rows_in(head, file, before)
            start = end
            end = next(later.offset for later in kept[i:] if later.sound)
            length = end - start
            self._keep(check.facts.file, file, start, length)
            message = filler(schema, length)
            if message is not None:
                file.put(message, start)
            covered = file.read(start, length)
            entries.append(pack_rows(len(entries), start, GAP, 0, rows, [covered], length, salt))
            filled += 1
            before = None
        if before is not None and not before.flags & END:
            rows = before.first_row + self._rows_in(head, file, before)
        return filled, rows, end

    def _rows_in(self, head: bytes, file: _Patient, place: _Place) -> int:
        if place.flags & (GAP | END):
            return 0
        return sum(batch.num_rows for batch in decode(head, [file.read(place.offset, place.end - place.offset)]))

    def mend_frames(self, facts: SegmentFacts) -> Mended:
        """Put a segment of frames right.

        Raises:
            OSError: The disk refused. Begin again.
        """
        header = facts.header
        places = [*FramesCheck(self._catalog, facts).frames()]
        frames = [place for place in places if not _ends(place)]
        last = max((i for i, place in enumerate(frames) if place.sound), default=-1)
        kept, cut = frames[: last + 1], frames[last + 1 :]
        filled = 0
        entries: list[bytes] = []
        end = header.data_start + len(kept) * header.frame_bytes
        with self._opened(facts.file) as file:
            size = file.size
            for place in kept:
                if place.sound:
                    entries.append(place.packed)
                    continue
                start = header.data_start + place.number * header.frame_bytes
                self._keep(facts.file, file, start, header.frame_bytes)
                file.put(bytes(header.frame_bytes), start)
                told = (0, 0) if place.entry is None else (place.entry.sequence, place.entry.t_ns)
                entries.append(pack_frame(place.number, GAP, *told, b"", header.salt))
                filled += 1
            kept_in = self._keep_tail(facts, file, end, size, bool(cut))
            file.cut(end)
            shape, dtype = frame_type(facts)
            file.put(npy_header((len(kept), *shape), dtype), 0)
            file.sync()
        entries.append(pack_frame(len(entries), END, 0, 0, b"", header.salt))
        self._write_index(facts, entries)
        return Mended(facts.file, filled, len(cut), max(0, size - end), kept=tuple(kept_in))

    def keep(self, name: str, data: bytes) -> None:
        """Put damaged bytes away, unless that was done before."""
        if self._looking:
            raise UnsoundError
        with contextlib.suppress(FileExistsError):
            os.mkdir(DAMAGE, dir_fd=self._directory)
        place = self._disk.open_directory(str(self._catalog.path / DAMAGE))
        try:
            if name not in os.listdir(place):
                write_whole(self._disk, place, name, data)
        finally:
            self._disk.close(place)

    def _keep(self, name: str, file: _Patient, offset: int, length: int) -> None:
        self.keep(f"{name}@{offset}", file.read(offset, length))

    def _keep_tail(self, facts: SegmentFacts, file: _Patient, start: int, end: int, damaged: bool) -> list[str]:
        """Put away what no entry covers before it is cut; in which files of `damage/` it is.

        What a segment that was given up has there is again in the one that follows it. Zeros are space made ahead.
        """
        if facts.limit is not None and not damaged:
            return []
        kept: list[str] = []
        for offset in range(start, end, _PIECE_BYTES):
            piece = file.read(offset, min(_PIECE_BYTES, end - offset))
            told = piece.rstrip(b"\0")
            if not told or (offset == start and END_MARK.startswith(told)):
                continue
            self.keep(f"{facts.file}@{offset}", piece if facts.header.kind == ROWS else told)
            kept.append(f"{facts.file}@{offset}")
        return kept

    @contextlib.contextmanager
    def _opened(self, name: str) -> Generator[_Patient]:
        try:
            if self._looking:
                file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
            else:
                file = self._disk.open(self._directory, name)
        except FileNotFoundError:
            if self._looking:
                raise UnsoundError from None
            file = self._disk.create(self._directory, name)
        try:
            yield _Patient(self._disk, file, looking=self._looking)
        finally:
            self._disk.close(file)

    def _write_index(self, facts: SegmentFacts, entries: list[bytes]) -> None:
        page = self._catalog.page
        header = facts.header if page is None else facts.header._replace(run=page.uid.bytes)
        wanted = header.pack() + b"".join(entries)
        if self._catalog.read(index_name(facts.file)) != wanted:
            if self._looking:
                raise UnsoundError
            write_whole(self._disk, self._directory, index_name(facts.file), wanted)


class _Patient:
    """A file that is changed only where it must be."""

    def __init__(self, disk: Disk, file: int, *, looking: bool = False) -> None:
        self._disk = disk
        self._file = file
        self._looking = looking
        self._changed = False

    @property
    def size(self) -> int:
        return os.fstat(self._file).st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file, length, offset)

    def put(self, data: bytes, offset: int) -> None:
        if self.read(offset, len(data)) != data:
            self._change()
            self._disk.write(self._file, [data], offset)

    def cut(self, length: int) -> None:
        if self.size != length:
            self._change()
            self._disk.truncate(self._file, length)

    def _change(self) -> None:
        if self._looking:
            raise UnsoundError
        self._changed = True

    def sync(self) -> None:
        if self._changed:
            self._disk.sync(self._file)


class _Place(NamedTuple):
    number: int
    sound: bool
    offset: int = 0
    end: int = 0
    first_row: int = 0
    flags: int = 0
    packed: bytes = b""

    @classmethod
    def of(cls, batch: Batch) -> _Place:
        entry = batch.entry
        if batch.data is None or entry is None:
            return cls(batch.number, False)
        return cls(batch.number, True, entry.offset, entry.end, entry.first_row, entry.flags, batch.packed)


def _nothing_at(number: int, offset: int, rows: int, salt: int) -> bytes:
    """The entry of a batch that is not there, and of which not even the place is."""
    return pack_rows(number, offset, GAP, 0, rows, [b""], 0, salt)


def _has_rows(tail: bytes) -> bool:
    """Whether Arrow finds a whole batch at the beginning of `tail`."""
    messages: Any = pa.ipc.MessageReader.open_stream(pa.py_buffer(tail))
    try:
        while True:
            if messages.read_next_message().type == "record batch":
                return True
    except (StopIteration, OSError, pa.ArrowException):
        return False


def holds_rows(path: Path) -> bool:
    """Whether there is at least one whole batch in a file, or room for a frame, whatever an index says of it."""
    try:
        with open(path, "rb") as file:
            if path.suffix == SUFFIX[FRAMES]:
                return os.fstat(file.fileno()).st_size > DATA_START
            return _has_rows(file.read(_PIECE_BYTES))
    except OSError:
        return False


def _ends(frame: Frame) -> bool:
    return frame.entry is not None and bool(frame.entry.flags & END)
