"""One stream's data on disk: plain Arrow IPC stream files that end after a whole batch, whatever happens."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import ipc

from duodaq.errors import StorageError, StorageFullError


class WholeFile(io.FileIO):
    """An unbuffered file whose `write` writes everything or raises."""

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += super().write(view[written:]) or 0
        return written


class StreamFile:
    """The file of one stream; a schema with other fields (another frame shape, say) begins a new part.

    What a batch's schema metadata says differently from its file's goes with the batch as Arrow's custom metadata.
    """

    def __init__(self, directory: Path, stream: str) -> None:
        self.stream = stream
        self.parts: dict[str, int] = {}
        self._directory = directory
        self._schema: pa.Schema | None = None
        self._file: WholeFile | None = None
        self._writer: Any = None
        self._path = directory

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one batch; afterwards the kernel has it whole.

        Raises:
            StorageError: The disk did not take it (StorageFullError: no space or no right). The file ends after the
                batch before this one and is closed; the next batch begins a new part.
        """
        whole = 0
        try:
            if self._schema is None or not self._schema.equals(batch.schema):
                self.close()
                self._open(batch.schema)
            whole = self._size()
            self._writer.write_batch(batch, custom_metadata=self._differing(batch.schema))
        except (OSError, pa.ArrowException) as error:
            self._abandon(whole)
            raise storage_error(error, f"could not write {self.stream} to {self._path}", "the batch is lost") from error
        self.parts[self._path.name] += batch.num_rows

    def close(self) -> None:
        """End the present part: it is complete and readable.

        Raises:
            StorageError: The end mark could not be written. All batches are there; readers stop after the last.
        """
        if self._file is None:
            return
        whole = self._size()
        try:
            self._writer.close()
        except (OSError, pa.ArrowException) as error:
            self._abandon(whole)
            raise storage_error(error, f"could not end {self._path}", "its batches are whole") from error
        self._file.close()
        self._file = self._writer = self._schema = None

    def _open(self, schema: pa.Schema) -> None:
        number = len(self.parts) + 1
        stem = quote(self.stream, safe=" ()+,-._@").replace("~", "%7E")  # a tilde is ours: it counts the parts
        name = stem + (f"~{number}" if number > 1 else "") + ".arrows"
        self._path = self._directory / name
        self._file = WholeFile(self._path, "xb")
        self.parts[name] = 0
        self._schema = schema
        self._writer = ipc.new_stream(self._file, schema)

    def _size(self) -> int:
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size

    def _differing(self, schema: pa.Schema) -> dict[bytes, bytes] | None:
        ours = (self._schema.metadata if self._schema is not None else None) or {}
        theirs = schema.metadata or {}
        if ours == theirs:
            return None
        return {key: theirs.get(key, b"") for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}

    def _abandon(self, whole: int) -> None:
        file, self._file, self._writer, self._schema = self._file, None, None, None
        if file is None:
            return
        try:
            file.truncate(whole)
            if whole == 0:  # nothing in it yet, not even its schema
                self._path.unlink()
                del self.parts[self._path.name]
        except OSError:
            return  # a torn batch stays at its end; Arrow readers stop with an error there, having given all before
        finally:
            file.close()


def storage_error(error: Exception, what: str, left: str) -> StorageError:
    """The disk's complaint as ours."""
    kind = StorageFullError if isinstance(error, OSError) else StorageError
    return kind(f"{what}: {error}", left=left)
