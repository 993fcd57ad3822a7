"""The directory of a run, and the two files in it that all streams share: the event log and the index of the run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Sequence, Set

from duodaq.errors import StorageError
from duodaq.storage.journal._disk import Disk, write_whole
from duodaq.storage.journal._events import EventLog, lock_run
from duodaq.storage.journal._file import GrowingFile, new_index
from duodaq.storage.journal._layout import (
    EVENTS,
    HEADER_BYTES,
    JOURNAL,
    JOURNAL_INDEX,
    RECORD_BYTES,
    RUN,
    Header,
    numbered,
    pack_record,
)
from duodaq.storage.journal._run import RunPage
from duodaq.storage.journal._shelf import Shelf

PART_RECORDS = 2**16
"""An index of the run that has so many records is closed, and another one begun."""
PART_DESCRIPTORS = 128
"""So is an event log that announces so many segments."""
_MOST_LINES = 4096


class RunFolder:
    """Makes the directory of a run with its page, and locks it.

    Raises:
        StorageError: There is a run already. It is untouched.
        OSError: The disk refused. Nothing is held, and nothing is left.
    """

    def __init__(self, path: str, page: RunPage, disk: Disk) -> None:
        self.path = path
        self.page = page
        self.disk = disk
        self.descriptor = -1
        self._lock: int | None = None
        self._events: EventLog | None = None
        self._index: GrowingFile | None = None
        self._new_names = False
        self._indices, self._logs = Shelf(PART_RECORDS), Shelf(_MOST_LINES)
        self._part = 1
        self._loose: list[tuple[int, bytes]] = []  # what was written to the index of the run and does not count yet
        self._owed: list[tuple[int, bytes]] = []  # what must be written to it again
        self._made: list[str] = []
        self._made_directory = False
        try:
            self._begin(0)
        except BaseException:
            self.close()
            self.remove_made()
            raise

    @property
    def events(self) -> EventLog:
        """The event log."""
        assert self._events is not None
        return self._events

    def put(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Write entries, each with the number of its segment, to the index of the run.

        Raises:
            OSError: The disk refused. None of them counts.
        """
        records = [*self._owed, *records]
        if not records or self._index is None:
            return
        self._owed = []
        self._loose += records
        first, salt = self._records, self._salt
        packed = b"".join([pack_record(first + i, *record, salt) for i, record in enumerate(records)])
        self._index.append([packed], len(packed))
        self._records += len(records)
        self._counts.update([segment for segment, _ in records])

    def settle(self) -> None:
        """All that was written so far counts."""
        self.events.settle()
        self._loose.clear()
        self._safe = self._records

    def give_up(self, segments: Set[int]) -> None:
        """Take back the entries of `segments` that do not count, if the disk lets us."""
        if not self._loose:
            return
        self._owed += [record for record in self._loose if record[0] not in segments]
        self._loose = []
        if self._index is None:
            return
        try:
            self._index.truncate(HEADER_BYTES + self._safe * RECORD_BYTES)
        except OSError:
            return  # the header of the segment that follows says what counts
        self._records = self._safe

    def turn_index(self, most: int = PART_RECORDS) -> None:
        """Begin a new index of the run if this one is long; all of it counts already.

        Raises:
            OSError: The disk refused: this one is gone on with.
        """
        if self._index is None or self._records < most:
            return
        old, records, salt_, counts = self._index, self._records, self._salt, self._counts
        self._index = None
        try:
            self._next_index()
        except OSError:
            self._index, self._records, self._salt, self._counts = old, records, salt_, counts
            self._safe = records
            raise
        old.close()
        self._indices.add(old.name, counts)

    def turn_log(self, most: int = PART_DESCRIPTORS) -> None:
        """Begin a new event log if this one announces many segments; all of it counts already.

        Raises:
            OSError: The disk refused: this one is gone on with.
        """
        old = self.events
        if old.descriptors < most or old.lines:
            return
        self._events = self._next_log(old)
        old.close()
        if old.part > 1:  # the first one is the lock, and stays as it is
            self._logs.add(old.name, old.counts)

    def worth_pruning(self, gone: Set[int]) -> list[str]:
        """Closed indices and event logs that say much of segments that are gone."""
        return [name for shelf in (self._indices, self._logs) for name in shelf.worth_pruning(gone)]

    def pruned(self, parts: Sequence[str], left: Sequence[str], gone: Set[int]) -> None:
        """What is left of `parts` is in those of `left`."""
        for shelf in (self._indices, self._logs):
            shelf.pruned(parts, left, gone)

    def made(self) -> None:
        """A file was made here: its name is synced with the next `sync`."""
        self._new_names = True

    def check(self) -> None:
        """Nothing, if the files still have names.

        Raises:
            FileNotFoundError: Somebody has removed them.
        """
        if not self.events.is_there():
            raise FileNotFoundError(errno.ENOENT, "the directory of the run is gone", self.path)

    def syncs(self) -> list[Callable[[], None]]:
        """What must be done for the disk to have the event log, the index and all names; each may raise OSError."""
        jobs: list[Callable[[], None]] = [self._sync_names] if self._new_names else []
        if self._index is not None:
            jobs.append(self._index.sync)
        if self.events.lines:
            jobs.append(self.events.sync)
        return jobs

    def _sync_names(self) -> None:
        self.disk.sync_directory(self.descriptor)
        self._new_names = False

    def reopen(self) -> bool:
        """Put right what a failure has spoiled; whether the directory is another one, without anything in it.

        Raises:
            OSError: The disk still refuses.
            StorageError: There is another run now.
        """
        if self._is_elsewhere():
            events = self.events
            self.close()
            if self._holds_this_run():
                self._enter()
                self._events = self._next_log(events)
                self._next_index()
                return False
            self._indices.clear()
            self._logs.clear()
            self._part = 1
            self._begin(events.n, events.lines)
            return True
        if self.events.spoiled:
            old, self._events = self.events, self._next_log(self.events)
            old.close()
        self.events.flush()
        if self._index is None or self._index.spoiled:
            self._next_index()
        return False

    def close(self) -> None:
        """Close everything as it is, and let go of the lock. Idempotent."""
        if self._events is not None:
            self._events.close()
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self.descriptor >= 0:
            directory, self.descriptor = self.descriptor, -1
            self.disk.close(directory)

    def remove_made(self) -> None:
        """Remove what was made at the beginning, as far as the disk allows: nobody shall find half of a run."""
        made, self._made = self._made, []
        with contextlib.suppress(OSError):
            place = self.disk.open_directory(self.path)
            try:
                for name in made:
                    with contextlib.suppress(OSError):
                        self.disk.remove(place, name)
                if made:
                    self.disk.sync_directory(place)
            finally:
                self.disk.close(place)
            if self._made_directory:
                self.disk.remove_directory(self.path)

    def _begin(self, n: int, lines: Sequence[bytes] = ()) -> None:
        self._made_directory = not os.path.isdir(self.path)
        self.disk.make_directory(self.path)
        self.descriptor = self.disk.open_directory(self.path)
        if {RUN, EVENTS} & {*os.listdir(self.descriptor)}:
            raise StorageError(f"{self.path} already holds a recording", left="it is untouched")
        self._made = [EVENTS, f"{EVENTS}.part", RUN, f"{RUN}.part", JOURNAL_INDEX]
        self._lock_before_it_is_seen(n, lines)
        write_whole(self.disk, self.descriptor, RUN, self.page.encode())
        self._next_index()
        self._new_names = True

    def _lock_before_it_is_seen(self, n: int, lines: Sequence[bytes]) -> None:
        """Make the event log; a repair that looks for what nobody writes must never find it unlocked, or empty."""
        aside = f"{EVENTS}.part"
        with contextlib.suppress(FileNotFoundError):
            self.disk.remove(self.descriptor, aside)
        events = self._events = EventLog(self.disk, self.descriptor, n=n, lines=lines, name=aside)
        self._lock = lock_run(self.descriptor, aside)
        events.note("start", self.page.start_doc())
        events.flush()
        events.sync()
        self.disk.rename(self.descriptor, aside, EVENTS)

    def _enter(self) -> None:
        self.descriptor = self.disk.open_directory(self.path)
        self._lock = lock_run(self.descriptor)

    def _next_log(self, old: EventLog) -> EventLog:
        part = old.part
        while True:
            part += 1
            try:
                log = EventLog(self.disk, self.descriptor, n=old.n, part=part, lines=old.lines)
            except FileExistsError:
                continue
            self._new_names = True
            return log

    def _next_index(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
        stem, _, suffix = JOURNAL_INDEX.rpartition(".")
        part, self._salt, self._records, self._counts = self._part, salt(), 0, Counter[int]()
        self._loose, self._safe = [], 0
        while True:
            header = Header(JOURNAL, part, self._salt, 0, 0, self.page.uid.bytes)
            try:
                self._index = new_index(self.disk, self.descriptor, f"{numbered(stem, part)}.{suffix}", header)
            except FileExistsError:
                part += 1
                continue
            self._new_names = True
            self._part = part + 1
            return

    def _is_elsewhere(self) -> bool:
        if self.descriptor < 0 or not self.events.is_there():
            return True
        try:
            at_path = os.stat(self.path)
        except OSError:
            return False  # it was given another name, perhaps, and is still here
        return not os.path.samestat(at_path, os.fstat(self.descriptor))

    def _holds_this_run(self) -> bool:
        try:
            with open(os.path.join(self.path, RUN), "rb") as file:
                return bool(json.load(file).get("uid") == str(self.page.uid))
        except (OSError, ValueError):
            return False


def salt() -> int:
    """A seed for checksums: by chance, not 0."""
    return secrets.randbelow(2**32 - 1) + 1
