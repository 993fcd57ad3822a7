"""The bytes of an index, pure: see docs/reference/journal.md, which this file and nothing else must agree with."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from urllib.parse import quote, unquote

import xxhash
from google_crc32c import extend as _extend  # pyright: ignore[reportUnknownVariableType]  # it has no types

FORMAT = "duodaq.journal/2"
READABLE = ("duodaq.journal/1", FORMAT)
"""Format 1 had every event in its log for good; nothing else differs."""
RUN, LABELS, EVENTS, JOURNAL_INDEX, DAMAGE = "run.json", "labels.json", "events.jsonl", "journal.index", "damage"
FINALISED = "finalised.json"
LOG_SUFFIX = ".jsonl"
SEED = 0x64756F64
ROWS, FRAMES, JOURNAL = 1, 2, 3
KINDS = {ROWS: "rows", FRAMES: "frames", JOURNAL: "journal"}
SUFFIX = {ROWS: ".arrows", FRAMES: ".npy"}
HEAD, DICTIONARIES, END, GAP = 1, 2, 4, 8
DATA_START = BLOCK = 4096
MOST_ROWS = 2**32 - 1
LONGEST_BATCH = 2**32 - 1
_LONGEST_STEM, _SHORT_STEM = 200, 160
"""A file system takes 255 bytes; `~<part>`, `.arrows.index` and `.part` must find room in them, too."""
END_MARK = b"\xff\xff\xff\xff\0\0\0\0"

_MAGIC = b"DUODAQIX"
_HEADER = struct.Struct("<8sHHIIIII16sQI")
_U32 = struct.Struct("<I")
_ROWS = struct.Struct("<IIQqI")
_FRAME = struct.Struct("<IIQq")
_U64 = struct.Struct("<Q")

HEADER_BYTES = _HEADER.size + 4
ENTRY_BYTES = _ROWS.size + 4
RECORD_BYTES = ENTRY_BYTES + 8
assert (HEADER_BYTES, ENTRY_BYTES, RECORD_BYTES) == (64, 32, 40)


crc32c = cast("Callable[[int, Any], int]", _extend)
"""The CRC-32C of bytes (or of an Arrow buffer) that goes on from a seed."""


class Header(NamedTuple):
    """What an index says of itself and of its segment."""

    kind: int
    segment: int
    salt: int
    follows: int
    follows_entries: int
    run: bytes
    frame_bytes: int = 0
    data_start: int = 0

    @property
    def replaces(self) -> tuple[int, int] | None:
        """Of merged rows: the first and the last segment of the stream that they stand for."""
        if self.kind != ROWS or not self.frame_bytes:
            return None
        return self.frame_bytes & MOST_ROWS, self.frame_bytes >> 32

    def replacing(self, first: int, last: int) -> Header:
        """The same, of merged rows."""
        return self._replace(frame_bytes=first | last << 32)

    def pack(self) -> bytes:
        """The 64 bytes."""
        body = _HEADER.pack(_MAGIC, 1, self.kind, HEADER_BYTES, *self[1:])
        return body + _U32.pack(crc32c(SEED, body))

    @classmethod
    def unpack(cls, data: bytes) -> Header | None:
        """The header in these bytes; None if they hold none that is whole."""
        if len(data) < HEADER_BYTES:
            return None
        body = data[: HEADER_BYTES - 4]
        if crc32c(SEED, body) != _U32.unpack_from(data, HEADER_BYTES - 4)[0]:
            return None
        magic, version, kind, length, *rest = _HEADER.unpack(body)
        return cls(kind, *rest) if (magic, version, length) == (_MAGIC, 1, HEADER_BYTES) else None


class RowsEntry(NamedTuple):
    """One batch: where it lies, and what its checksum is."""

    number: int
    length: int
    offset: int
    flags: int
    t_ns: int
    first_row: int
    crc: int

    @classmethod
    def unpack(cls, data: bytes) -> RowsEntry:
        """What 32 bytes say, right or not."""
        number, length, place, t_ns, first_row = _ROWS.unpack_from(data)
        return cls(number, length, place & 0xFFFFFFFFFFFF, place >> 48, t_ns, first_row, _U32.unpack_from(data, 28)[0])

    @property
    def end(self) -> int:
        """Where the batch behind it lies."""
        return self.offset + self.length


def pack_rows(
    number: int, offset: int, flags: int, t_ns: int, first_row: int, parts: list[Any], length: int, salt: int
) -> bytes:
    """The entry of a batch that consists of `parts` (bytes or Arrow buffers), `length` bytes together."""
    body = _ROWS.pack(number, length, offset | flags << 48, t_ns, first_row)
    crc = crc32c(salt, body)
    for part in parts:
        crc = crc32c(crc, part)
    return body + _U32.pack(crc)


def rows_are_sound(entry: bytes, batch: Any, salt: int) -> bool:
    """Whether an entry and the bytes of its batch are as they were written."""
    crc = crc32c(crc32c(salt, entry[:28]), batch)
    return crc == _U32.unpack_from(entry, 28)[0]


class FrameEntry(NamedTuple):
    """One frame: its numbers, its time, its checksum."""

    number: int
    flags: int
    sequence: int
    t_ns: int
    xxh3: int

    @classmethod
    def unpack(cls, data: bytes) -> FrameEntry:
        """What 32 bytes say, right or not."""
        number, flags, sequence, t_ns = _FRAME.unpack_from(data)
        return cls(number, flags, sequence, t_ns, _U64.unpack_from(data, 24)[0])


def pack_frame(number: int, flags: int, sequence: int, t_ns: int, frame: Any, salt: int) -> bytes:
    """The entry of a frame (contiguous bytes)."""
    body = _FRAME.pack(number, flags, sequence, t_ns)
    return body + _U64.pack(_frame_sum(body, frame, salt))


def frame_is_sound(entry: bytes, frame: Any, salt: int) -> bool:
    """Whether an entry and the bytes of its frame (none for an end or a gap) are as they were written."""
    return _frame_sum(entry[:24], frame, salt) == _U64.unpack_from(entry, 24)[0]


def _frame_sum(body: bytes, frame: Any, salt: int) -> int:
    summed = xxhash.xxh3_64(body, salt)
    summed.update(frame)
    return summed.intdigest()


def pack_record(number: int, segment: int, entry: bytes, salt: int) -> bytes:
    """The record of an entry in the index of the whole run."""
    body = _U32.pack(segment) + entry
    return body + _U32.pack(crc32c(salt, _U32.pack(number & 0xFFFFFFFF) + body))


def unpack_record(number: int, record: bytes, salt: int) -> tuple[int, bytes] | None:
    """The segment and the entry in a record; None if it is not as it was written."""
    body = record[:36]
    if crc32c(salt, _U32.pack(number & 0xFFFFFFFF) + body) != _U32.unpack_from(record, 36)[0]:
        return None
    return _U32.unpack(body[:4])[0], body[4:]


def file_name(stream: str, part: int, kind: int) -> str:
    """The file of the `part`-th segment (from 1) of a stream; a name that is too long for one ends in a hash of it."""
    stem = quote(stream, safe=" ()+,-._@").replace("~", "%7E")  # a tilde is ours: it counts the parts
    if len(stem) > _LONGEST_STEM:
        told = re.sub(r"%[0-9A-F]?$", "", stem[:_SHORT_STEM])
        stem = f"{told}~x{hashlib.blake2b(stream.encode(errors='surrogatepass'), digest_size=8).hexdigest()}"
    return numbered(stem, part) + SUFFIX[kind]


def stream_in(name: str) -> str:
    """The stream whose file is called `name`; of a long one only its beginning, its descriptor has the rest."""
    return unquote(name.rpartition(".")[0].partition("~")[0])


def numbered(stem: str, part: int) -> str:
    """`stem`, and from the second part on its number."""
    return stem if part == 1 else f"{stem}~{part}"


def index_name(file: str) -> str:
    """The index that belongs to a segment's file."""
    return f"{file}.index"
