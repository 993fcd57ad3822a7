"""One segment of rows: an Arrow IPC stream and its index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from duodaq.storage.journal._disk import Disk
from duodaq.storage.journal._encode import BatchEncoder
from duodaq.storage.journal._file import GrowingFile, new_index
from duodaq.storage.journal._layout import (
    DICTIONARIES,
    END,
    END_MARK,
    ENTRY_BYTES,
    HEAD,
    HEADER_BYTES,
    LONGEST_BATCH,
    Header,
    index_name,
    pack_rows,
)

_TO_NS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}


class RowsSegment:
    """Writes batches of one schema. `entries` and `rows` count what the kernel has, `safe` the entries that count.

    Args:
        disk: What to write with.
        directory: The run's.
        name: The file.
        header: Of its index.
        first: A batch; the schema and the dictionaries of the head are its own. It is not written.
        encoder: Made of such a batch, if there is one.
        aside: What its files are called besides as long as they do not count.
        compress: Whether the buffers of batches are compressed.
    """

    def __init__(
        self,
        disk: Disk,
        directory: int,
        name: str,
        header: Header,
        first: pa.RecordBatch,
        *,
        encoder: BatchEncoder | None = None,
        aside: str = "",
        compress: bool = False,
    ) -> None:
        self.name = name
        self.header = header
        self.entries = self.safe = self.rows = 0
        self.encoder = encoder or BatchEncoder(first, compress=compress)
        self._time, self._to_ns = _time_column(first.schema)
        self._safe_bytes = 0
        self._newest: pa.RecordBatch | None = None
        self.file = GrowingFile(disk, directory, name + aside)
        try:
            self._index = new_index(disk, directory, index_name(name) + aside, header)
        except OSError:
            self.file.close()
            raise

    def write_head(self) -> bytes:
        """Write what the file begins with; its entry."""
        head = self.encoder.head
        entry = pack_rows(0, 0, HEAD, 0, 0, [head], len(head), self.header.salt)
        self._put([head], len(head), [entry], 0)
        return entry

    def write(self, batches: Sequence[pa.RecordBatch]) -> tuple[list[bytes], list[int]]:
        """Write batches whose schema fits; their entries, and which of the batches Arrow has no form for.

        Raises:
            OSError: The disk refused. Nothing of this call counts.
        """
        together = self.encoder.encode_all(batches) if len(batches) > 1 else None
        if together is not None and together[1][-1] <= LONGEST_BATCH:
            return self._write_together(batches, *together), []
        parts: list[Any] = []
        entries: list[bytes] = []
        refused: list[int] = []
        rows, offset = self.rows, self.file.size
        for place, batch in enumerate(batches):
            try:
                part, own = self.encoder.encode(batch)
            except Exception:  # noqa: BLE001 - whatever it is, it is about this batch: nothing has been asked of the disk yet
                refused.append(place)
                continue
            length = len(part)
            if length > LONGEST_BATCH:
                refused.append(place)
                continue
            number, flags = self.entries + len(entries), DICTIONARIES if own else 0
            entries.append(pack_rows(number, offset, flags, self._t_ns(batch), rows, [part], length, self.header.salt))
            parts.append(part)
            rows += batch.num_rows
            offset += length
        if entries:
            self._put(parts, offset - self.file.size, entries, rows - self.rows)
            self._newest = next(b for i, b in reversed([*enumerate(batches)]) if i not in refused)
        return entries, refused

    def _write_together(self, batches: Sequence[pa.RecordBatch], data: Any, ends: list[int]) -> list[bytes]:
        entries: list[bytes] = []
        rows, begin, number, offset, salt = self.rows, 0, self.entries, self.file.size, self.header.salt
        for batch, end in zip(batches, ends, strict=True):
            part, t_ns = data.slice(begin, end - begin), self._t_ns(batch)
            entries.append(pack_rows(number, offset + begin, 0, t_ns, rows, [part], end - begin, salt))
            number += 1
            begin = end
            rows += batch.num_rows
        self._put([data], begin, entries, rows - self.rows)
        self._newest = batches[-1]
        return entries

    def sync(self) -> None:
        """Return when the disk has all batches.

        Raises:
            OSError: Nobody knows what it has. The segment must be given up.
        """
        self.file.sync()

    def settle(self) -> None:
        """All that was written so far counts."""
        self.safe, self._safe_bytes = self.entries, self.file.size

    def end(self) -> bytes:
        """End the stream and sync it and its index; the entry of the end. All before must count already.

        Raises:
            OSError: The disk refused. All batches are there; Arrow's readers stop after the last.
        """
        t_ns = 0 if self._newest is None else self._t_ns(self._newest, -1)
        place, length = self.file.size, len(END_MARK)
        entry = pack_rows(self.entries, place, END, t_ns, self.rows, [END_MARK], length, self.header.salt)
        self._put([END_MARK], len(END_MARK), [entry], 0)
        self.file.sync()
        self._index.sync()
        return entry

    def is_there(self) -> bool:
        """Whether its files still have names."""
        return self.file.is_there() and self._index.is_there()

    def give_up(self) -> None:
        """Cut what does not count, if the disk lets us, and close."""
        try:
            self._index.truncate(HEADER_BYTES + self.safe * ENTRY_BYTES)
            self.file.truncate(self._safe_bytes)
        except OSError:
            return  # the header of the segment that follows says what counts
        finally:
            self.close()

    def close(self) -> None:
        """Close the files as they are. Idempotent."""
        self.file.close()
        self._index.close()

    def _put(self, parts: list[Any], length: int, entries: list[bytes], rows: int) -> None:
        before = self.file.size
        self.file.append(parts, length)
        try:
            self._index.append([b"".join(entries)], sum(map(len, entries)))
        except OSError:
            self.file.size = before
            raise
        self.entries += len(entries)
        self.rows += rows

    def _t_ns(self, batch: pa.RecordBatch, row: int = 0) -> int:
        if self._time < 0 or not batch.num_rows:
            return 0
        return (batch.column(self._time)[row].value or 0) * self._to_ns


def _time_column(schema: pa.Schema) -> tuple[int, int]:
    place = schema.get_field_index("timestamp")
    if place < 0 or not pa.types.is_timestamp(schema.field(place).type):
        return -1, 1
    return place, _TO_NS[schema.field(place).type.unit]
