"""Records what V4's publisher carries (and the bridge brings V2's to it), one file a stream.

The recorder's subscription is its only queue. A publisher that can wait is slowed when it is full; one that cannot
costs nobody else any data, and what is lost here is counted as "overflow", with an error in the log. A thread of its
own takes from that queue and writes, so a slow disk never holds up an event loop. What the disk refuses is counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from duodaq import clock
from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.errors import DataError, LifecycleError, StoppedError, StorageError
from duodaq.schema import stream_of
from duodaq.storage._stream_file import StreamFile, storage_error
from duodaq.telemetry import get_logger

RUN_FILE = "run.json"
_DISK = "disk"
_NO_STREAM = "no stream"


class RecordingSummary(msgspec.Struct, frozen=True):
    """What a recording came to: rows by file, rows lost by reason, and the first error of the disk, if any.

    Times are UTC nanoseconds. `complete` says that everything offered since the start is in the files.
    """

    directory: str
    files: dict[str, int]
    start_ns: int
    stop_ns: int
    lost: dict[str, int] = {}
    error: str | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing was lost."""
        return self.error is None and not any(self.lost.values())


class Recorder:
    """Writes every batch of a hub to `directory`, as plain Arrow IPC streams named ``<instrument>.<channel>.arrows``.

    A channel whose schema changes goes on in ``…~2.arrows``. Beside them, `run.json` has the times, the files, the
    books and the provenance; it is there from the start and written anew at the end.

    Args:
        directory: Made if missing; must not hold another recording.
        hub: What to record.
        provenance: Goes into `run.json` as it is (the lab's definition, versions, a sample's name).
        capacity: How many batches may wait for the disk.
        max_bytes: The most memory they may keep.
        name: The name of its subscription.
    """

    def __init__(
        self,
        directory: str | Path,
        hub: Hub[pa.RecordBatch],
        *,
        provenance: dict[str, Any] | None = None,
        capacity: int = 1_000_000,
        max_bytes: int = 512 * 2**20,
        name: str = "recorder",
    ) -> None:
        self.directory = Path(directory)
        self.name = name
        self._hub = hub
        self._provenance = provenance or {}
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._subscription: Subscription[pa.RecordBatch] | None = None
        self._files: dict[str, StreamFile] = {}
        self._lost: dict[str, int] = {}
        self._error: StorageError | None = None
        self._thread: threading.Thread | None = None
        self._start_ns = self._stop_ns = 0
        self._summary: RecordingSummary | None = None
        self._log = get_logger("storage")

    @property
    def recording(self) -> bool:
        """Whether it takes and writes data now."""
        return self._thread is not None and self._thread.is_alive() and self._summary is None

    @property
    def error(self) -> StorageError | None:
        """The first error of the disk, if there was one; recording goes on with what still works."""
        return self._error

    async def start(self, timeout_s: float = 5.0) -> None:
        """Make the directory and record everything published from now on.

        Raises:
            LifecycleError: It was started before.
            StorageError: The directory cannot be made or written, or holds a recording. Nothing was subscribed.
        """
        if self._thread is not None:
            raise LifecycleError("this recorder was started before; make another one")
        failure: list[StorageError] = []
        self._start_ns = clock.utc_ns()
        preparing = threading.Thread(target=lambda: failure.extend(self._prepare()), name="recorder-open", daemon=True)
        preparing.start()
        if not await _until(lambda: not preparing.is_alive(), timeout_s):
            raise StorageError(f"{self.directory} did not answer within {timeout_s} s", left="nothing is recorded")
        if failure:
            raise failure[0]
        self._subscription = self._hub.subscribe(
            self.name,
            capacity=self._capacity,
            max_bytes=self._max_bytes,
            policy=Policy.BLOCK,
            sync_overflow="drop",
        )
        self._thread = threading.Thread(target=self._write, args=(self._subscription,), name="recorder", daemon=True)
        self._thread.start()

    async def stop(self, timeout_s: float = 10.0) -> RecordingSummary:
        """Take nothing new, write what waits, end the files. Idempotent.

        Returns:
            What was recorded. When the disk takes longer than `timeout_s`, `error` says so: what is still unwritten is
            counted as lost, and files of batches already written stay readable.

        Raises:
            LifecycleError: It was never started.
        """
        if self._thread is None or self._subscription is None:
            raise LifecycleError("this recorder was never started")
        if self._summary is not None:
            return self._summary
        self._subscription.finish()
        if not await _until(self._ended, timeout_s):
            left = f"{self._subscription.occupancy} batches were not written"
            self._fail(StorageError(f"the disk did not take the data within {timeout_s} s", left=left))
        self._subscription.close()
        self._stop_ns = self._stop_ns or clock.utc_ns()
        self._summary = self._summarise(self._subscription)
        return self._summary

    def _ended(self) -> bool:
        return self._thread is not None and not self._thread.is_alive()

    def _prepare(self) -> list[StorageError]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if (self.directory / RUN_FILE).exists():
                return [StorageError(f"{self.directory} already holds a recording", left="it is untouched")]
            self._write_page(None)
        except OSError as error:
            return [storage_error(error, f"cannot record to {self.directory}", "nothing is recorded")]
        return []

    def _write(self, subscription: Subscription[pa.RecordBatch]) -> None:
        while True:
            try:
                batch = subscription.get_blocking()
            except StoppedError:
                break
            self._append(batch)
        for file in self._files.values():
            try:
                file.close()
            except StorageError as error:
                self._fail(error)
        self._stop_ns = clock.utc_ns()
        try:
            self._write_page(self._summarise(subscription))
        except OSError as error:
            self._fail(storage_error(error, f"cannot write {RUN_FILE}", "the data files are complete"))

    def _append(self, batch: pa.RecordBatch) -> None:
        try:
            stream = stream_of(batch)
            file = self._files.get(stream)
            if file is None:
                file = self._files[stream] = StreamFile(self.directory, stream)
            file.write(batch)
        except StorageError as error:
            self._lose(_DISK, batch.num_rows)
            self._fail(error)
        except DataError:
            self._lose(_NO_STREAM, batch.num_rows)

    def _lose(self, reason: str, rows: int) -> None:
        if reason not in self._lost:
            self._log.error("rows are lost to the recording", directory=str(self.directory), reason=reason, rows=rows)
        self._lost[reason] = self._lost.get(reason, 0) + rows

    def _fail(self, error: StorageError) -> None:
        if self._error is None:
            self._error = error
            self._log.error("recording is incomplete", directory=str(self.directory), error=str(error))

    def _summarise(self, subscription: Subscription[pa.RecordBatch]) -> RecordingSummary:
        lost = dict(self._lost)
        for reason, rows in subscription.losses().items():
            lost[reason] = lost.get(reason, 0) + rows
        return RecordingSummary(
            directory=str(self.directory),
            files={name: rows for file in list(self._files.values()) for name, rows in file.parts.items()},
            start_ns=self._start_ns,
            stop_ns=self._stop_ns,
            lost=lost,
            error=None if self._error is None else str(self._error),
        )

    def _write_page(self, summary: RecordingSummary | None) -> None:
        streams = {name: file.stream for file in self._files.values() for name in file.parts}
        page: dict[str, Any] = {
            "format": "duodaq.recording/1",
            "start": _iso(self._start_ns),
            "stop": None if summary is None else _iso(summary.stop_ns),
            "streams": streams,
            "summary": None if summary is None else {**msgspec.to_builtins(summary), "complete": summary.complete},
            "ledger": None if summary is None else self._hub.ledger().to_dict(),
            "provenance": self._provenance,
        }
        path = self.directory / RUN_FILE
        part = path.with_suffix(".json.part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(page, enc_hook=str), indent=2))
        os.replace(part, path)


async def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = clock.Deadline(timeout_s)
    while not condition():
        if deadline.passed:
            return False
        await clock.pause(0.002)
    return True


def _iso(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns / 1e9, UTC).isoformat()
