"""Parquet files every byte of which is checked when it is read: the rows of a run have no other copy later on.

Parquet's own checksums cover the bodies of pages only. So ours say in their footer, under `KEY`, ``crc32c:`` and then
in hexadecimal digits: for each row group the offset at which it ends (16) and the checksum of its bytes (8), from the
end of the group before on; and at last the checksum (8) of the footer itself, with zeros in place of these digits.
Each is a CRC-32C that goes on from the seed of the journal. A file without them is read with what checks it has.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from duodaq.errors import StorageError, TornFileError
from duodaq.storage.journal._layout import SEED, crc32c

KEY = b"duodaq-crc32c"
_MARK = b"crc32c:"
_SEAL = re.compile(re.escape(KEY) + rb"\x18[\x00-\xff]{1,5}?" + _MARK + rb"((?:[0-9a-f]{24})*[0-9a-f]{8})")
_BEGIN, _TAIL = 4, 8
_AT_ONCE_BYTES = 4 * 2**20


def room_for_seal(groups: int) -> dict[bytes, bytes]:
    """What a file of so many row groups must say in its footer when it is written, for `seal` to fill in."""
    return {KEY: _MARK + b"0" * (24 * groups + 8)}


def seal(path: Path) -> None:
    """Fill in the checksums of a file that was written with `room_for_seal`.

    Raises:
        OSError: The disk refused.
        StorageError: It is not as it was written.
    """
    with open(path, "r+b") as file:
        start, footer = _footer(file.fileno())
        found = [*_SEAL.finditer(footer)]
        with importlib.import_module("pyarrow.parquet").ParquetFile(path) as written:
            ends = _ends(written.metadata, start)
        if len(found) != 1 or len(found[0][1]) != 24 * len(ends) + 8 or found[0][1].strip(b"0"):
            raise StorageError(f"{path.name} is not as it was written", left="the journal is untouched")
        begins = [_BEGIN, *ends][: len(ends)]
        sums = [_crc(file.fileno(), begin, end) for begin, end in zip(begins, ends, strict=True)]
        told = "".join(f"{end:016x}{crc:08x}" for end, crc in zip(ends, sums, strict=True)).encode()
        file.seek(start + found[0].start(1))
        zeroed = footer[: found[0].start(1)] + told + b"0" * 8 + footer[found[0].end(1) :]
        file.write(told + f"{crc32c(SEED, zeroed):08x}".encode())


class SealedParquet:
    """A Parquet file, each row group against its checksum when it is read, and the footer now.

    Args:
        path: The file.

    Raises:
        TornFileError: It is damaged, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._source: Any = pa.OSFile(str(path))
        except OSError as error:
            raise self._torn(error) from error
        try:
            self._groups = self._seal()
            pq = importlib.import_module("pyarrow.parquet")
            self._file: Any = pq.ParquetFile(self._source, page_checksum_verification=True)
            if self._groups is not None and len(self._groups) != self.num_row_groups:
                raise self._torn("its row groups are not those that were written")
        except (OSError, pa.ArrowException) as error:
            self._source.close()
            raise self._torn(error) from error
        except BaseException:
            self._source.close()
            raise

    @property
    def metadata(self) -> Any:
        """What the footer says."""
        return self._file.metadata

    @property
    def num_row_groups(self) -> int:
        """How many there are."""
        return self._file.num_row_groups

    @property
    def schema_arrow(self) -> pa.Schema:
        """Of the rows."""
        schema = self._file.schema_arrow
        return schema.with_metadata(_without_seal(schema.metadata))

    def read_row_group(self, number: int, columns: list[str] | None = None) -> Any:
        """The rows of a group as a table.

        Raises:
            TornFileError: It is damaged.
        """
        if self._groups is not None:
            begin, end, crc = self._groups[number]
            if _crc(self._source.fileno(), begin, end) != crc:
                raise self._torn(f"row group {number} is not as it was written")
        try:
            table = self._file.read_row_group(number, columns)
        except (OSError, pa.ArrowException) as error:
            raise self._torn(error) from error
        return table.replace_schema_metadata(_without_seal(table.schema.metadata))

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()
        self._source.close()

    def __enter__(self) -> SealedParquet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _seal(self) -> list[tuple[int, int, int]] | None:
        """The first byte, the end and the checksum of each row group; None if the file says none."""
        _, footer = _footer(self._source.fileno())
        found = _SEAL.search(footer)
        if found is None:
            return None
        told, place = found[1], found.end(1) - 8
        zeroed = footer[:place] + b"0" * 8 + footer[place + 8 :]
        if crc32c(SEED, zeroed) != int(told[-8:], 16):
            raise self._torn("its footer is not as it was written")
        each = [told[i : i + 24] for i in range(0, len(told) - 8, 24)]
        ends = [int(one[:16], 16) for one in each]
        begins = [_BEGIN, *ends][: len(ends)]
        return [(b, e, int(one[16:], 16)) for b, e, one in zip(begins, ends, each, strict=True)]

    def _torn(self, why: object) -> TornFileError:
        return TornFileError(f"{self._path} is damaged: {why}", left="no rows were taken from the damaged part")


def _without_seal(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes]:
    return {key: value for key, value in (metadata or {}).items() if key != KEY}


def _ends(metadata: Any, footer: int) -> list[int]:
    """Where each row group ends: where the next one begins."""
    firsts = [_first_byte(metadata.row_group(number)) for number in range(1, metadata.num_row_groups)]
    return [*firsts, footer][: metadata.num_row_groups]


def _first_byte(group: Any) -> int:
    columns = [group.column(number) for number in range(group.num_columns)]
    return min(one.dictionary_page_offset or one.data_page_offset for one in columns)


def _footer(file: int) -> tuple[int, bytes]:
    """Where the footer begins, and its bytes; none if there is none."""
    size = os.fstat(file).st_size
    length = int.from_bytes(os.pread(file, 4, max(0, size - _TAIL)), "little")
    start = max(0, size - _TAIL - length)
    return start, os.pread(file, size - _TAIL - start, start) if size >= _TAIL else b""


def _crc(file: int, begin: int, end: int) -> int:
    crc = SEED
    while begin < end:
        part = os.pread(file, min(end - begin, _AT_ONCE_BYTES), begin)
        if not part:
            return -1
        crc = crc32c(crc, part)
        begin += len(part)
    return crc
