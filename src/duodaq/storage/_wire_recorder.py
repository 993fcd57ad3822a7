"""Writes the wire log of a lab's ports into one file while it goes on.

Records come in on the broker's loop, where nothing may take long: `add` only appends. A thread takes what has come
every `FLUSH_S`, makes one batch of it and hands that to the kernel whole. So a `kill -9` costs what came since the last
batch, and a disk that is too slow costs records, which are counted and leave a gap in their numbers, but no time on the
wire.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import ipc

from duodaq import clock
from duodaq.errors import LifecycleError, StorageError
from duodaq.model import WireRecord
from duodaq.schema import wire, wire_batch
from duodaq.storage._stream_file import WholeFile, storage_error
from duodaq.telemetry import get_logger

FLUSH_S = 0.05
_log = get_logger("storage")


class WireSummary(msgspec.Struct, frozen=True):
    """What a recording of the wire came to: records in the file, records lost by port, and the disk's error, if any."""

    path: str
    records: int
    lost: dict[str, int] = {}
    error: str | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing was lost."""
        return self.error is None and not any(self.lost.values())


class WireRecorder:
    """Writes what `add` is given to `path`, as an Arrow IPC stream of schema ``wire/1``.

    Args:
        path: The file; must not exist.
        ports: What each port is, by name, as plain values; goes into the schema's metadata.
        lab: The lab's name.
        max_records: How many records may wait for the disk.
        max_bytes: The most data they may hold.
    """

    def __init__(
        self,
        path: str | Path,
        ports: Mapping[str, Mapping[str, Any]],
        lab: str = "",
        *,
        max_records: int = 500_000,
        max_bytes: int = 64 * 2**20,
    ) -> None:
        self.path = Path(path)
        self._schema = wire(ports, lab)
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._waiting: list[WireRecord] = []
        self._waiting_bytes = 0
        self._lost: dict[str, int] = {}
        self._written = 0
        self._error: StorageError | None = None
        self._opened = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def start(self, timeout_s: float = 5.0) -> None:
        """Make the file; from now on `add` may be called.

        Raises:
            StorageError: It cannot be made, or is there already. Nothing is recorded.
        """
        self._thread = threading.Thread(target=self._run, name="wire recorder", daemon=True)
        self._thread.start()
        deadline = clock.Deadline(timeout_s)
        while not self._opened.is_set() and not deadline.passed:
            await clock.pause(0.001)
        if not self._opened.is_set():
            self._ending.set()
            raise StorageError(f"{self.path} could not be made within {timeout_s:g} s", left="nothing is recorded")
        if self._error is not None:
            raise self._error

    def add(self, record: WireRecord) -> None:
        """Take one record; from any thread, and never waiting."""
        with self._lock:
            full = len(self._waiting) >= self._max_records or self._waiting_bytes > self._max_bytes
            if full or self._error is not None or self._ending.is_set():
                self._lose(record.port, 1)
                return
            self._waiting.append(record)
            self._waiting_bytes += len(record.data)

    async def stop(self, timeout_s: float = 5.0) -> WireSummary:
        """Write what waits and end the file. May be called again.

        Raises:
            LifecycleError: It was never started.
        """
        if self._thread is None:
            raise LifecycleError("this wire recorder was never started")
        self._ending.set()
        deadline = clock.Deadline(timeout_s)
        while self._thread.is_alive() and not deadline.passed:
            await clock.pause(0.002)
        if self._thread.is_alive():
            self._fail(StorageError(f"the disk did not take the wire log within {timeout_s:g} s"))
        with self._lock:
            error = None if self._error is None else str(self._error)
            return WireSummary(str(self.path), self._written, dict(self._lost), error)

    # --- in the thread

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = WholeFile(self.path, "xb")
        except OSError as error:
            self._fail(storage_error(error, f"cannot record the wire to {self.path}", "nothing is recorded"))
            self._opened.set()
            return
        with file:
            self._write(file)

    def _write(self, file: WholeFile) -> None:
        whole = 0
        try:
            writer: Any = ipc.new_stream(file, self._schema)
            writer.write_batch(wire_batch([], self._schema))  # before the first batch Arrow writes nothing at all
            self._opened.set()
            while not self._ending.is_set():
                clock.block(FLUSH_S, self._ending)
                whole = os.fstat(file.fileno()).st_size
                self._write_waiting(writer)
            whole = os.fstat(file.fileno()).st_size
            self._write_waiting(writer)
            writer.close()
        except (OSError, pa.ArrowException) as error:
            left = "what was written before can be read"
            self._fail(storage_error(error, f"could not write {self.path}", left))
            os.truncate(self.path, whole)
            self._opened.set()

    def _write_waiting(self, writer: Any) -> None:
        with self._lock:
            records, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not records:
            return
        try:
            writer.write_batch(wire_batch(records, self._schema))
        except BaseException:
            with self._lock:
                for record in records:
                    self._lose(record.port, 1)
            raise
        self._written += len(records)

    def _fail(self, error: StorageError) -> None:
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            for record in self._waiting:
                self._lose(record.port, 1)
            self._waiting.clear()
        _log.error("recording of the wire is incomplete", path=str(self.path), error=str(error))

    def _lose(self, port: str, count: int) -> None:
        if not self._lost:
            _log.error("records of the wire are lost to their file", path=str(self.path), port=port)
        self._lost[port] = self._lost.get(port, 0) + count
