"""How a recorder gets its journals: made in a thread of its own, and one after the other when it is rotated.

Rules for whoever edits this: a turn is begun by the recorder's thread or withdrawn by whoever waits for it, and never
both. One that was begun cannot be taken back: it ends when the disk lets it, and whoever did not wait for so long is
told later.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from duodaq import clock
from duodaq.errors import StorageError, StorageFullError
from duodaq.storage.journal import Disk, Journal, RunPage, edit_labels

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM)
_DISCARD_S = 1.0


class RecordingSummary(msgspec.Struct, frozen=True):
    """What a recording came to: rows by file, rows lost by reason, and the first refusal of the disk, if any.

    Times are UTC nanoseconds. `complete` says that everything offered since the start is in the files; a disk that
    refused for a while and then took all of it costs no completeness.
    """

    directory: str
    files: dict[str, int]
    start_ns: int
    stop_ns: int
    lost: dict[str, int] = {}
    error: str | None = None
    ended: bool = True
    uid: str = ""
    number: int = 0
    rows: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Whether nothing was lost, and the journal was ended."""
        return self.ended and not any(self.lost.values())


class Turn:
    """A run that is ready to be gone on in, and what the one before it came to once that was done."""

    def __init__(self, directory: Path, journal: Journal, provenance: dict[str, Any]) -> None:
        self.directory = directory
        self.journal = journal
        self.provenance = provenance
        self.start_ns = clock.utc_ns()
        self.summary: RecordingSummary | None = None
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._begun = self._withdrawn = self._late = False

    def begin(self) -> bool:
        """Whether it may be done: nobody has withdrawn it."""
        with self._lock:
            self._begun = not self._withdrawn
            return self._begun

    def end(self, summary: RecordingSummary | None) -> bool:
        """It is over; whether somebody still waits to be told."""
        with self._lock:
            self.summary = summary
            self.over.set()
            return not self._late

    def give_up(self) -> bool:
        """Wait no longer; whether it is withdrawn. If not, it was begun, and what it comes to is told later."""
        with self._lock:
            self._withdrawn = not self._begun
            self._late = not self.over.is_set()
            return self._withdrawn


def journal_in(
    directory: Path,
    page: Callable[[Path], RunPage],
    labels: Mapping[str, Any],
    disk: Disk | None,
) -> Journal | StorageError:
    """A journal in `directory`, or why there is none; then there is nothing of it there."""
    try:
        journal = Journal(str(directory), page(directory), disk)
    except StorageError as error:
        return error
    except OSError as error:
        return storage_error(error, f"cannot record to {directory}", "nothing is recorded to it")
    try:
        if labels:
            edit_labels(directory, **labels, disk=disk)
    except StorageError as error:
        journal.discard()
        return error
    return journal


async def prepared(directory: Path, make: Callable[[], Journal | StorageError], timeout_s: float) -> Journal:
    """What `make` does, in a thread of its own: the disk may take its time.

    Raises:
        StorageError: It cannot be made, or not within `timeout_s`; once it is made after all, it is discarded.
    """
    made: list[Journal | StorageError] = []
    lock, gone = threading.Lock(), threading.Event()

    def prepare() -> None:
        journal = make()
        with lock:
            made.append(journal)
            late = gone.is_set()
        if late and not isinstance(journal, StorageError):
            journal.discard()

    preparing = threading.Thread(target=prepare, name="recorder-open", daemon=True)
    preparing.start()
    if not await until(lambda: bool(made), timeout_s):
        with lock:
            gone.set()
        if not made:
            raise StorageError(f"{directory} did not answer within {timeout_s} s", left="nothing is recorded to it")
    await until(lambda: not preparing.is_alive(), timeout_s)
    if isinstance(made[0], StorageError):
        raise made[0]
    return made[0]


async def discarded(journal: Journal) -> None:
    """Have a journal that nobody will write removed, in a thread of its own; it is not waited for for long."""

    def discard() -> None:
        with contextlib.suppress(OSError):
            journal.discard()

    discarding = threading.Thread(target=discard, name="recorder-discard", daemon=True)
    discarding.start()
    await until(lambda: not discarding.is_alive(), _DISCARD_S)


def storage_error(error: Exception, what: str, left: str) -> StorageError:
    """The disk's complaint as ours."""
    full = isinstance(error, OSError) and error.errno in _FULL
    return (StorageFullError if full else StorageError)(f"{what}: {error}", left=left)


async def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition; whether it came true."""
    deadline = clock.Deadline(timeout_s)
    while not condition():
        if deadline.passed:
            return False
        await clock.pause(0.002)
    return True
