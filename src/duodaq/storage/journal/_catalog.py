"""What a run's directory holds, from whichever copy of each fact is whole. Reads only, takes no locks."""

from __future__ import annotations

import base64
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from duodaq.errors import StorageError
from duodaq.storage.journal._events import Event, event_logs, unpack_event
from duodaq.storage.journal._label_file import labels_of
from duodaq.storage.journal._layout import (
    DATA_START,
    ENTRY_BYTES,
    FRAMES,
    HEAD,
    HEADER_BYTES,
    JOURNAL,
    RECORD_BYTES,
    ROWS,
    RUN,
    Header,
    RowsEntry,
    rows_are_sound,
    stream_in,
    unpack_record,
)
from duodaq.storage.journal._run import RunPage

_RUN_INDEX = re.compile(r"journal(?:~(\d+))?\.index")
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..{'descr': '([<>|][a-z]\d+)', 'fortran_order': False, 'shape': \(([\d, ]+)\)", re.S
)


class SegmentFacts(NamedTuple):
    """One segment: what its index and its descriptor say of it. `limit`: how many entries count; None: all."""

    header: Header
    file: str
    stream: str
    head: bytes | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""
    limit: int | None = None

    @property
    def id(self) -> int:
        """Its number in the run."""
        return self.header.segment

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last segment, as they were recorded, that it is or stands for."""
        return self.header.replaces or (self.id, self.id)


class Catalog:
    """The files of one run.

    Attributes:
        events: What its event logs say, oldest first.
        event_logs: Their names, oldest first.
        torn_events: How many of their lines are not as they were written; one for a log that cannot be read at all.
        blank: Segments of rows that were begun and hold nothing: no descriptor, no head and no entry. None of them is
            among `segments`.

    Args:
        path: The directory.
        unidentified: Take one in which nothing says which run it is but the headers of its indices.

    Raises:
        StorageError: It holds no journal.
    """

    def __init__(self, path: str | Path, *, unidentified: bool = False) -> None:
        self.path = Path(path)
        self.superseded: list[str] = []
        self.blank: list[SegmentFacts] = []
        gone: set[str] = set()
        while (name := self._read_events(gone)) is not None:
            gone.add(name)  # it was put into another one since its name was read; if its name comes again, it is broken
        self.page = self._read_page()
        if self.page is None and not self.events and not (unidentified and self.headers):
            raise StorageError(f"{self.path} holds no journal of a run")

    def refresh(self) -> bool:
        """Have what grows read again when it is asked for; False if files or events have come or gone since."""
        if not self.is_current:
            return False
        self.__dict__.pop("mirror", None)
        return True

    @property
    def is_current(self) -> bool:
        """Whether no file and no event has come or gone since the directory was looked at."""
        return _stamp(self.path, self.event_logs) == self._stamp

    @property
    def names(self) -> tuple[str, ...]:
        """The files, as they were when the directory was looked at."""
        return tuple(self._names)

    @cached_property
    def headers(self) -> list[Header]:
        """The headers of all indices that are whole, whichever run they are of."""
        found: list[Header] = []
        for name in self._names:
            if name.endswith(".index"):
                try:
                    with open(self.path / name, "rb") as index:
                        header = Header.unpack(index.read(HEADER_BYTES))
                except OSError:
                    continue
                found += [] if header is None else [header]
        return found

    @property
    def finished(self) -> bool:
        """Whether the last thing that happened is the run's stop."""
        return bool(self.events) and self.events[-1].name == "stop"

    @cached_property
    def labels(self) -> dict[str, Any]:
        """Sample, operator, note, tags."""
        return labels_of(self.path)[0]

    @cached_property
    def segments(self) -> tuple[SegmentFacts, ...]:
        """The segments that count, in the order in which they were begun."""
        found: dict[int, SegmentFacts] = {}
        for event in self.events:
            facts = _from_descriptor(event) if event.name == "descriptor" else None
            if facts is not None:
                found[facts.id] = facts
        for name in self._names:
            facts = self._from_index(name)
            if facts is not None:
                told = found.get(facts.id)
                found[facts.id] = facts if told is None else told._replace(header=facts.header)
        standing, replaced = _standing(found.values())
        followers = _followers(found.values())
        self.superseded = replaced + [facts.file for facts in standing if not _counts(facts, followers)]
        limited = _limited(sorted(standing, key=lambda facts: (facts.span[0], facts.id)), followers)
        return tuple(told for facts in limited if (told := self._unless_blank(facts)) is not None)

    @cached_property
    def mirror(self) -> dict[int, dict[int, bytes]]:
        """The entries in the index of the run, by segment and number."""
        entries: dict[int, dict[int, bytes]] = {}
        for _, name in sorted((int(m[1] or 1), m[0]) for m in map(_RUN_INDEX.fullmatch, self._names) if m):
            for segment, entry in _records(self.read(name)):
                entries.setdefault(segment, {})[int.from_bytes(entry[:4], "little")] = entry
        return entries

    def read(self, name: str) -> bytes:
        """A file's bytes; none if it is not there."""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return b""

    def _begin_of(self, name: str, length: int) -> bytes:
        try:
            with open(self.path / name, "rb") as file:
                return file.read(length)
        except OSError:
            return b""

    def entries(self, facts: SegmentFacts) -> tuple[list[bytes], dict[int, bytes]]:
        """Both copies of a segment's entries: those of its own index, by place, and those in the index of the run."""
        packed = self.read(f"{facts.file}.index")[HEADER_BYTES:]
        own = [packed[i : i + ENTRY_BYTES] for i in range(0, len(packed) - ENTRY_BYTES + 1, ENTRY_BYTES)]
        return own[: facts.limit], self.mirror.get(facts.id, {})

    def _unless_blank(self, facts: SegmentFacts) -> SegmentFacts | None:
        """A segment with its head, as far as there is one; None of rows that were begun, and hold nothing.

        Between the making of a segment's index and the writing of its head, and descriptor, a program can end, and a
        reader can look.
        """
        if facts.header.kind != ROWS or facts.head is not None:
            return facts
        own, mirrored = self.entries(facts)
        for packed in (*own[:1], *(mirrored[n] for n in mirrored if n == 0)):
            entry = RowsEntry.unpack(packed)
            head = self._begin_of(facts.file, entry.length) if entry.number == 0 and entry.flags & HEAD else b""
            if head and rows_are_sound(packed, head, facts.header.salt):
                return facts._replace(head=head)
        if mirrored or any(map(any, own)):
            return facts
        if (self.path / facts.file).exists() or self.is_current:
            self.blank.append(facts)
            return None
        return facts  # whoever reads it finds that it was merged since

    def _read_events(self, gone: set[str]) -> str | None:
        """Read the names of all files, and the event logs; the name of one that was not there when it was to be read.

        One whose name is in `gone` already is listed and not there: a broken link, and counted as torn.
        """
        try:
            self._names = sorted(os.listdir(self.path))
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}") from error
        self.event_logs = event_logs(self._names)
        self._stamp = _stamp(self.path, self.event_logs)
        self.torn_events = 0
        events: dict[int, Event] = {}
        for name in self.event_logs:
            try:
                lines = (self.path / name).read_bytes().splitlines(keepends=True)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and name not in gone:
                    return name
                self.torn_events += 1
                continue
            for line in lines:
                event = unpack_event(line)
                if event is not None:
                    events[event.n] = event
                elif line.endswith(b"\n"):
                    self.torn_events += 1
        self.events = [events[n] for n in sorted(events)]
        return None

    def _read_page(self) -> RunPage | None:
        try:
            page = RunPage.from_facts(json.loads(self.read(RUN)))
        except ValueError:
            page = None
        starts = [event.doc for event in self.events if event.name == "start"]
        told = RunPage.from_facts(starts[0]) if starts else None
        return told if told is not None else page  # a line is checked, the page is not

    def _from_index(self, name: str) -> SegmentFacts | None:
        file = name.removesuffix(".index")
        if file == name or _RUN_INDEX.fullmatch(name):
            return None
        try:
            with open(self.path / name, "rb") as index:
                header = Header.unpack(index.read(HEADER_BYTES))
        except FileNotFoundError:  # it was merged since its name was read: its descriptor is still there
            return None
        if header is None or header.kind == JOURNAL or (self.page is not None and header.run != self.page.uid.bytes):
            return None
        shape, dtype = _npy_shape(self.path / file) if header.kind == FRAMES else ((), "")
        return SegmentFacts(header, file, stream_in(file), shape=shape, dtype=dtype)


def _stamp(path: Path, logs: Iterable[str]) -> tuple[int, ...]:
    """Changes when a file of the directory comes or goes, and when an event is written."""
    try:
        return (os.stat(path).st_mtime_ns, *(os.stat(path / name).st_size for name in logs))
    except OSError:
        return ()


def _from_descriptor(event: Event) -> SegmentFacts | None:
    told: dict[str, Any] = event.doc.get("segment", {})
    kind = {"rows": ROWS, "frames": FRAMES}.get(told.get("kind", ""))
    if kind is None:
        return None
    header = Header(
        kind,
        told["id"],
        told["salt"],
        told["follows"],
        told["follows_entries"],
        b"",
        told.get("frame_bytes", 0),
        told.get("data_start", 0),
    )
    if "replaces" in told:
        header = header.replacing(*told["replaces"])
    head = base64.b64decode(told["head"]) if "head" in told else None
    return SegmentFacts(
        header, told["file"], event.doc["name"], head, tuple(told.get("shape", ())), told.get("dtype", "")
    )


def _followers(segments: Iterable[SegmentFacts]) -> dict[int, Header]:
    """Which segment takes over from which: of several that follow the same one, only the last does."""
    followers: dict[int, Header] = {}
    for facts in segments:
        header = facts.header
        if header.follows and header.segment >= followers.get(header.follows, header).segment:
            followers[header.follows] = header
    return followers


def _counts(facts: SegmentFacts, followers: dict[int, Header]) -> bool:
    follows = facts.header.follows
    return not follows or followers[follows].segment == facts.id


def _standing(segments: Iterable[SegmentFacts]) -> tuple[list[SegmentFacts], list[str]]:
    """The segments that no merged one stands for; and the files of the others, which do not count any more."""
    merged: dict[str, list[SegmentFacts]] = {}
    for facts in segments:
        if facts.header.replaces is not None:
            merged.setdefault(facts.stream, []).append(facts)
    widest = {stream: _widest(found) for stream, found in merged.items()}
    standing: list[SegmentFacts] = []
    replaced: list[str] = []
    for facts in segments:
        others = widest.get(facts.stream) if facts.header.kind == ROWS else None
        if others is not None and _is_replaced(facts, *others):
            replaced.append(facts.file)
        else:
            standing.append(facts)
    return standing, replaced


def _widest(merged: list[SegmentFacts]) -> tuple[list[int], list[SegmentFacts]]:
    """Of merged segments, each of which lies within another one or beside it, those that lie within none; in order,
    and with what they begin.
    """
    found: list[SegmentFacts] = []
    for facts in sorted(merged, key=lambda one: (one.span[0], -one.span[1], -one.id)):
        if not found or facts.span[1] > found[-1].span[1]:
            found.append(facts)
    return [facts.span[0] for facts in found], found


def _is_replaced(facts: SegmentFacts, firsts: list[int], merged: list[SegmentFacts]) -> bool:
    first, last = facts.span
    place = bisect_right(firsts, first) - 1
    return place >= 0 and last <= merged[place].span[1] and merged[place].id > facts.id


def _limited(segments: list[SegmentFacts], followers: dict[int, Header]) -> Iterator[SegmentFacts]:
    """Those that count, with what counts of each."""
    for facts in segments:
        if _counts(facts, followers):
            follower = followers.get(facts.id)
            yield facts if follower is None else facts._replace(limit=follower.follows_entries)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    header = Header.unpack(data)
    if header is None:
        return
    for n, start in enumerate(range(HEADER_BYTES, len(data) - RECORD_BYTES + 1, RECORD_BYTES)):
        record = unpack_record(n, data[start : start + RECORD_BYTES], header.salt)
        if record is not None:
            yield record


def _npy_shape(path: Path) -> tuple[tuple[int, ...], str]:
    """The shape of a frame and its dtype, from the header of an .npy file as we write it; nothing if it is damaged."""
    try:
        with open(path, "rb") as file:
            found = _NPY.match(file.read(DATA_START))
    except OSError:
        return (), ""
    if found is None:
        return (), ""
    return tuple(int(n) for n in found[2].split(b",") if n.strip())[1:], found[1].decode()


def frame_type(facts: SegmentFacts) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and dtype of a frame; bytes if neither copy of them is whole."""
    if facts.dtype:
        return facts.shape, np.dtype(facts.dtype)
    return (facts.header.frame_bytes,), np.dtype(np.uint8)
