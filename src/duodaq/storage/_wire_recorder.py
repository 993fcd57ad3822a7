"""Writes the wire log of a lab's ports into one file while it goes on.

The ports keep the last of their records in memory, numbered. A thread takes what is new there every `FLUSH_S`, makes
one batch of it and hands that to the kernel whole. So recording costs the wire nothing but the thread's own work, and a
`kill -9` costs what came since the last batch; a disk that stands still for longer than the ports' memory lasts costs
records, which are counted, and leave a gap in the numbers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import ipc

from duodaq import clock
from duodaq.errors import LifecycleError, StorageError
from duodaq.model import WireRecord
from duodaq.schema import wire, wire_batch
from duodaq.storage._turn import storage_error
from duodaq.storage._whole_file import WholeFile
from duodaq.telemetry import get_logger

FLUSH_S = 0.05
Source = Callable[[int], list[WireRecord]]
"""What gives the records of one port behind a number, as far as they are kept; from any thread."""

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
    """Writes what ports record to `path`, as an Arrow IPC stream of schema ``wire/1``.

    Args:
        path: The file; must not exist.
        sources: Where the records of each port are, by name.
        ports: What each port is, by name, as plain values; goes into the schema's metadata.
        lab: The lab's name.
        remembered: Whether what the ports still keep in memory goes into the file first, as drivers' opening questions.
    """

    def __init__(
        self,
        path: str | Path,
        sources: Mapping[str, Source],
        ports: Mapping[str, Mapping[str, Any]] | None = None,
        lab: str = "",
        *,
        remembered: bool = False,
    ) -> None:
        self.path = Path(path)
        self._schema = wire(ports, lab)
        self._sources = dict(sources)
        self._remembered = remembered
        self._taken: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._written = 0
        self._error: StorageError | None = None
        self._opened = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self, timeout_s: float = 5.0) -> None:
        """Make the file; what the ports record from now on goes into it, behind what they remember if that is wanted.

        Raises:
            StorageError: It cannot be made, or is there already. Nothing is recorded.
        """
        for port, source in self._sources.items():
            kept = source(0)
            first = kept[0 if self._remembered else -1].sequence if kept else 0
            self._taken[port] = first - 1 if kept and self._remembered else first
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

    async def stop(self, timeout_s: float = 5.0) -> WireSummary:
        """Write what is new and end the file. May be called again.

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
        elif self._error is not None:
            self._take()  # counted as lost
        error = None if self._error is None else str(self._error)
        return WireSummary(str(self.path), self._written, dict(self._lost), error)

    # --- in the thread

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = WholeFile(self.path, "xb")
        except OSError as error:
            left = "nothing is recorded"
            if isinstance(error, FileExistsError) and self.path.exists():
                self._fail(StorageError(f"{self.path} is there already: name another file", left=left))
            else:
                self._fail(storage_error(error, f"cannot record the wire to {self.path}", left))
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
            ending = False
            while not ending:
                ending = clock.block(FLUSH_S, self._ending)
                whole = os.fstat(file.fileno()).st_size
                self._write_new(writer)
            whole = os.fstat(file.fileno()).st_size
            writer.close()
        except (OSError, pa.ArrowException) as error:
            self._fail(storage_error(error, f"could not write {self.path}", "what was written before can be read"))
            os.truncate(self.path, whole)
            self._opened.set()

    def _write_new(self, writer: Any) -> None:
        records = self._take()
        if not records:
            return
        try:
            writer.write_batch(wire_batch(records, self._schema))
        except BaseException:
            for record in records:
                self._lose(record.port, 1)
            raise
        self._written += len(records)

    def _take(self) -> list[WireRecord]:
        """What is new at all ports, in the order of time; what is no longer kept there is lost."""
        found: list[WireRecord] = []
        for port, source in self._sources.items():
            new = source(self._taken[port])
            if not new:
                continue
            if missing := new[0].sequence - self._taken[port] - 1:
                self._lose(port, missing)
            self._taken[port] = new[-1].sequence
            if self._error is not None:
                self._lose(port, len(new))
            found += new
        if len(self._sources) > 1:
            found.sort(key=lambda record: record.t_ns)
        return found

    def _fail(self, error: StorageError) -> None:
        if self._error is None:
            self._error = error
            _log.error("recording of the wire is incomplete", path=str(self.path), error=str(error))

    def _lose(self, port: str, count: int) -> None:
        if not self._lost:
            _log.error("records of the wire are lost to their file", path=str(self.path), port=port)
        self._lost[port] = self._lost.get(port, 0) + count
