"""Takes out of the files that all streams share what they say of segments that are gone; in any thread.

Rules for whoever edits this: what is left is on the disk, whole, in its place, before what it was taken from is
removed. In between, and after a loss of power, a record or an event may be in two files, which is no matter: both say
the same under the same number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import numpy as np

from duodaq.errors import DataError
from duodaq.storage.journal._disk import Disk, write_whole
from duodaq.storage.journal._events import segment_of, unpack_event
from duodaq.storage.journal._layout import (
    HEADER_BYTES,
    LOG_SUFFIX,
    RECORD_BYTES,
    Header,
    pack_record,
    unpack_record,
)

_RECORD = np.dtype([("segment", "<u4"), ("rest", "V36")])


def prune(disk: Disk, path: str, parts: Sequence[str], gone: Set[int]) -> list[str]:
    """Take what is said of segments that are gone out of closed files; all that is left of a kind goes into the first
    of that kind, and the others are removed.

    Args:
        disk: What to write with.
        path: The run's directory.
        parts: Names of indices of the run, and of event logs, that nobody writes any more.
        gone: The numbers of the segments.

    Returns:
        The parts that are left.

    Raises:
        OSError: The disk refused.
        DataError: One of them is damaged; it is left to a repair.
    """
    logs = [part for part in parts if part.endswith(LOG_SUFFIX)]
    indices = [part for part in parts if part not in logs]
    left: list[str] = []
    if indices:
        left.append(_put(disk, path, indices, _index_of_what_is_left(Path(path), indices, gone)))
    if logs:
        left.append(_put(disk, path, logs, b"".join(line for log in logs for line in _lines(Path(path) / log, gone))))
    return left


def _put(disk: Disk, path: str, parts: Sequence[str], data: bytes) -> str:
    directory = disk.open_directory(path)
    try:
        write_whole(disk, directory, parts[0], data)
        for part in parts[1:]:
            disk.remove(directory, part)
        disk.sync_directory(directory)
    finally:
        disk.close(directory)
    return parts[0]


def _lines(path: Path, gone: Set[int]) -> Iterator[bytes]:
    """The lines of an event log but for descriptors of segments that are gone; what cannot be read stays as it is."""
    for line in path.read_bytes().splitlines(keepends=True):
        event = unpack_event(line)
        if event is None or segment_of(event.name, event.doc) not in gone:
            yield line


def _index_of_what_is_left(folder: Path, parts: Sequence[str], gone: Set[int]) -> bytes:
    kept = [record for part in parts for record in _records_left(folder / part, gone)]
    header = _header(parts[0], (folder / parts[0]).read_bytes())
    return b"".join([header.pack(), *(pack_record(n, *record, header.salt) for n, record in enumerate(kept))])


def _records_left(path: Path, gone: Set[int]) -> Iterator[tuple[int, bytes]]:
    data = path.read_bytes()
    salt = _header(path.name, data).salt
    records = np.frombuffer(data, _RECORD, (len(data) - HEADER_BYTES) // RECORD_BYTES, HEADER_BYTES)
    left = np.flatnonzero(~np.isin(records["segment"], np.fromiter(gone, np.uint32, len(gone))))
    for n in left.tolist():
        start = HEADER_BYTES + n * RECORD_BYTES
        record = unpack_record(n, data[start : start + RECORD_BYTES], salt)
        if record is not None:
            yield record


def _header(name: str, data: bytes) -> Header:
    header = Header.unpack(data)
    if header is None:
        raise DataError(f"{name} is damaged; it is left to a repair")
    return header
