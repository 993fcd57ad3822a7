from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pyarrow as pa
from pyarrow import ipc

from duodaq.errors import StorageError
from duodaq.model import WireRecord
from duodaq.schema._schemas import SCHEMA_KEY
from duodaq.schema._wire import LAB_KEY, PORTS_KEY, WIRE_NAME, wire_records

WIRE_FILE = "wire.arrows"


class WirelogFile:
    """A recorded wire log: what the ports were, and every record that is whole.

    Args:
        path: The file, ``wire.arrows``, or the folder of the recording that holds it. It may still be growing, or have
            been left by a program that was killed: what is whole is read, and `torn` says whether more follows.

    Raises:
        StorageError: There is no such file, or it holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        given = Path(path)
        self.path = given / WIRE_FILE if given.is_dir() else given
        self.torn = False
        try:
            with pa.OSFile(os.fspath(self.path)) as file:
                batches, schema = self._read(file)
        except FileNotFoundError:
            raise StorageError(f"there is no wire log {self.path}") from None
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{self.path} is no wire log: {error}") from None
        self._table: Any = cast("Any", pa.Table).from_batches(batches, schema)  # its types are not known

    def _read(self, file: Any) -> tuple[list[pa.RecordBatch], pa.Schema]:
        reader: Any = ipc.open_stream(file)
        facts: dict[bytes, bytes] = reader.schema.metadata or {}
        if facts.get(SCHEMA_KEY, b"").decode() != WIRE_NAME:
            raise StorageError(f"{self.path} is no wire log of this version: {facts.get(SCHEMA_KEY, b'?').decode()}")
        self.lab = facts.get(LAB_KEY, b"").decode()
        self.ports: dict[str, dict[str, Any]] = msgspec.json.decode(facts.get(PORTS_KEY, b"{}"))
        return [*self._whole(reader)], reader.schema

    def _whole(self, reader: Any) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                yield reader.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowInvalid):
                self.torn = True
                return

    def to_arrow(self, port: str | None = None) -> pa.Table:
        """All records, or those of one port, oldest first: the columns of ``wire/1``."""
        return (
            self._table
            if port is None
            else self._table.filter([name == port for name in self._table["port"].to_pylist()])
        )

    def records(self, port: str | None = None) -> list[WireRecord]:
        """The same as values."""
        return wire_records(self.to_arrow(port))

    def lost(self) -> dict[str, int]:
        """How many records are missing between the first and the last, by port: the disk, or a full queue."""
        bounds = self._table.group_by("port").aggregate([("sequence", "min"), ("sequence", "max"), ("port", "count")])
        return {
            row["port"]: row["sequence_max"] - row["sequence_min"] + 1 - row["port_count"] for row in bounds.to_pylist()
        }

    def __len__(self) -> int:
        return self._table.num_rows

    def __repr__(self) -> str:
        return f"<wire log {self.path}: {len(self)} records of {', '.join(self.ports) or 'no port'}>"


def open_wirelog(path: str | Path) -> WirelogFile:
    """A recorded wire log, from its file or the folder of its recording; see WirelogFile."""
    return WirelogFile(path)
