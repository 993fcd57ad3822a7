"""The event log of a run: JSON lines, each with its checksum."""

from __future__ import annotations

import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from duodaq import clock
from duodaq.storage.journal._disk import Disk
from duodaq.storage.journal._file import GrowingFile
from duodaq.storage.journal._layout import EVENTS, LOG_SUFFIX, SEED, crc32c, numbered
from duodaq.storage.journal._shelf import NO_SEGMENT

_TAIL_BYTES = 64 * 2**10
_EVENT_LOG = re.compile(r"events(?:~(\d+))?\.jsonl")


class Event(NamedTuple):
    """One line: its number, its time (UTC ns), what it is, and what it says."""

    n: int
    t_ns: int
    name: str
    doc: dict[str, Any]


def pack_event(n: int, t_ns: int, name: str, doc: dict[str, Any]) -> bytes:
    """The line of an event."""
    told = msgspec.json.encode(doc, enc_hook=str)
    body = b'{"n":%d,"t_ns":%d,"name":"%s","doc":%s' % (n, t_ns, name.encode(), told)
    return body + b',"crc":"%08x"}\n' % crc32c(SEED, body)


def unpack_event(line: bytes) -> Event | None:
    """The event in a line; None if the line is not as it was written."""
    body, mark, told = line.rpartition(b',"crc":"')
    if not mark or told.rstrip(b"\n") != b'%08x"}' % crc32c(SEED, body):
        return None
    found: dict[str, Any] = msgspec.json.decode(body + b"}")
    return Event(found["n"], found["t_ns"], found["name"], found["doc"])


def segment_of(name: str, doc: dict[str, Any]) -> int:
    """The segment that an event announces; NO_SEGMENT for any other event."""
    return doc["segment"]["id"] if name == "descriptor" and "segment" in doc else NO_SEGMENT


def last_event(path: Path) -> Event | None:
    """The last line of a run's event log, without reading the others; None if that cannot be said so quickly."""
    try:
        for name in reversed(event_logs(os.listdir(path))):
            with open(path / name, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                tail = file.read()
            if tail:  # one that was just begun has nothing in it yet
                return unpack_event(tail.rpartition(b"\n")[0].rpartition(b"\n")[2] + b"\n")
    except OSError:
        pass
    return None


def event_log_name(part: int) -> str:
    """The `part`-th event log of a run, from 1."""
    return f"{numbered(EVENTS.removesuffix(LOG_SUFFIX), part)}{LOG_SUFFIX}"


def event_logs(names: Iterable[str]) -> tuple[str, ...]:
    """Which of the files of a run are its event logs, oldest first."""
    found = [match for match in map(_EVENT_LOG.fullmatch, names) if match]
    return tuple(match[0] for match in sorted(found, key=lambda match: int(match[1] or 1)))


class EventLog:
    """Writes events. Lines that no sync has confirmed are kept: `lines` has what a new log must begin with if this one
    is spoiled.

    Attributes:
        n: The number of the next event.
        part: The number of the file.
        counts: How many of its lines are about each segment, and how many about none.

    Args:
        n: The number of the first event.
        part: The number of the file.
        lines: What it begins with.
        name: What the file is called as long as it is not known by its own name.

    Raises:
        OSError: The disk refused.
    """

    def __init__(
        self, disk: Disk, directory: int, *, n: int = 0, part: int = 1, lines: Sequence[bytes] = (), name: str = ""
    ) -> None:
        self.n = n
        self.part = part
        self.counts: Counter[int] = Counter({NO_SEGMENT: len(lines)})
        self._unwritten = [*lines]
        self._unconfirmed: list[bytes] = []
        self._file = GrowingFile(disk, directory, name or event_log_name(part))

    @property
    def lines(self) -> list[bytes]:
        """What no sync has confirmed."""
        return self._unconfirmed + self._unwritten

    @property
    def name(self) -> str:
        """What the file is called."""
        return event_log_name(self.part)

    @property
    def descriptors(self) -> int:
        """How many of its lines announce a segment."""
        return self.counts.total() - self.counts[NO_SEGMENT]

    @property
    def spoiled(self) -> bool:
        """Whether a sync failed: a new file must be made."""
        return self._file.spoiled

    def note(self, name: str, doc: dict[str, Any]) -> None:
        """Have an event of now written with the next `flush`."""
        self._unwritten.append(pack_event(self.n, clock.utc_ns(), name, doc))
        self.n += 1
        self.counts[segment_of(name, doc)] += 1

    def flush(self) -> None:
        """Write the events that were noted.

        Raises:
            OSError: The disk refuses.
        """
        if self._unwritten:
            self._file.append(self._unwritten, sum(map(len, self._unwritten)))
            self._unconfirmed += self._unwritten
            self._unwritten.clear()

    def sync(self) -> None:
        """Return when the disk has all lines.

        Raises:
            OSError: It refused; the log is spoiled.
        """
        self._file.sync()

    def settle(self) -> None:
        """All lines so far count."""
        self._unconfirmed.clear()

    def is_there(self) -> bool:
        """Whether the file still has a name."""
        return self._file.is_there()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def lock_run(directory: int, name: str = EVENTS) -> int | None:
    """A descriptor that marks the run as being written, until it is closed or its process ends; None: another has it.

    Raises:
        OSError: There is no event log.
    """
    file = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return file
