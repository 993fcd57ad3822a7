"""Finishes what a crash interrupted: one run, or all of a directory."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from duodaq import clock
from duodaq.errors import LifecycleError, StorageError, StorageFullError
from duodaq.storage.journal._catalog import Catalog, SegmentFacts
from duodaq.storage.journal._check import FramesCheck, RowsCheck
from duodaq.storage.journal._compact import ASIDE
from duodaq.storage.journal._disk import Disk, write_whole
from duodaq.storage.journal._events import Event, event_log_name, last_event, lock_run, pack_event, unpack_event
from duodaq.storage.journal._layout import DAMAGE, EVENTS, FRAMES, LOG_SUFFIX, ROWS, RUN, SUFFIX, index_name
from duodaq.storage.journal._losses import (
    UNCONFIRMED,
    is_new,
    is_unidentified,
    page_from_headers,
    told_gaps,
    told_losses,
    unconfirmed,
)
from duodaq.storage.journal._mend import Infirmary, Mended, UnsoundError, holds_rows
from duodaq.storage.journal._parquet import parquet_of, rows_were_removed
from duodaq.storage.journal._reader import Gap, JournalReader
from duodaq.storage.journal._run import RunPage


class Recovery(msgspec.Struct, frozen=True):
    """What a repair found in one run.

    Attributes:
        directory: The run.
        rows: Rows that are there and passed their check, by stream.
        gaps: What is missing.
        cut_bytes: What stood behind the last entry: begun and never acknowledged.
        changed: Whether anything had to be done.
        lost: Rows that its event log says were lost while it was recorded, by reason.
        kept: Files in its `damage/` that hold bytes which were damaged, or covered by no entry.
        unidentified: Neither `run.json` nor the event log could be read: which run it is, its indices alone say.
    """

    directory: str
    rows: dict[str, int]
    gaps: list[Gap]
    cut_bytes: int = 0
    changed: bool = True
    lost: dict[str, int] = {}
    kept: list[str] = []
    unidentified: bool = False


def unfinished_runs(root: str | Path) -> list[Path]:
    """The runs in `root` (or `root` itself) that were not finished and that nobody writes now.

    Raises:
        StorageError: `root` cannot be read.
    """
    root = Path(root)
    try:
        places = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    except OSError as error:
        raise StorageError(f"cannot read {root}: {error.strerror}") from error
    return [place for place in places if _is_unfinished(place)]


def recover(directory: str | Path, *, finished_too: bool = False, disk: Disk | None = None) -> Recovery:
    """Mend one run in place, and end it; see the reference of the journal.

    Args:
        directory: The run's.
        finished_too: Also check a run that was finished, and mend it if something in it is damaged. One that is sound
            is not written to; nor is one whose rows left the journal for Parquet, which is what is checked then.
        disk: What to write with.

    Returns:
        What is there, and what is missing.

    Raises:
        LifecycleError: It is being written now. It is untouched.
        StorageError: It holds no journal, or the disk refused: what was whole still is, and it can be done again.
    """
    path = Path(directory)
    catalog = _catalog(path)
    disk = disk or Disk()
    try:
        if catalog.finished and not (finished_too and _is_damaged(catalog, disk)):
            return _found(path)
        with _locked(path) as place:
            catalog = _catalog(path)  # as it is now that nobody else changes it
            if catalog.finished and not (finished_too and _is_damaged(catalog, disk)):
                return _found(path)
            return _mend(catalog, disk, place)
    except OSError as error:
        kind = StorageFullError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else StorageError
        raise kind(f"cannot mend {path}: {error}", left="what was whole still is; it can be done again") from error


def _is_damaged(catalog: Catalog, disk: Disk) -> bool:
    """Whether a finished run would be changed by a repair; reads only."""
    if rows_were_removed(catalog):
        return False
    if catalog.page is not None and not _says(catalog.read(RUN), catalog.page):
        return True
    place = os.open(catalog.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        infirmary = Infirmary(catalog, disk, place, looking=True)
        for facts in catalog.segments:
            if facts.limit is None:
                _mend_one(infirmary, facts)
            elif not _counts_whole(catalog, facts):
                return True
    except UnsoundError:
        return True
    finally:
        os.close(place)
    return False


def _says(data: bytes, page: RunPage) -> bool:
    try:
        return RunPage.from_facts(json.loads(data)) == page
    except (ValueError, AttributeError):
        return False


def _counts_whole(catalog: Catalog, facts: SegmentFacts) -> bool:
    """Whether all that counts of a segment that was given up, and never ended, is sound."""
    if facts.header.kind == ROWS:
        return all(batch.data is not None for batch in RowsCheck(catalog, facts).batches())
    return all(frame.sound for frame in FramesCheck(catalog, facts).frames())


@contextlib.contextmanager
def _locked(path: Path) -> Generator[int]:
    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(EVENTS, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=place))
        lock = lock_run(place)
        if lock is None:
            raise LifecycleError(f"{path} is being written now", left="it is untouched")
        try:
            yield place
        finally:
            os.close(lock)
    finally:
        os.close(place)


def _catalog(path: Path) -> Catalog:
    if not is_unidentified(path):
        return Catalog(path)
    try:
        catalog = Catalog(path, unidentified=True)
    except StorageError:
        catalog = None
    page = None if catalog is None else page_from_headers(catalog)
    if catalog is None or page is None:
        what = f"{path} holds segments of an unidentified run"
        raise StorageError(what, left="run.json, events.jsonl and the indices do not say of which; it is untouched")
    catalog.page = page
    return catalog


def _mend(catalog: Catalog, disk: Disk, place: int) -> Recovery:
    infirmary = Infirmary(catalog, disk, place)
    standing = [facts for facts in catalog.segments if parquet_of(catalog.path, facts) is None]
    mended = [_mend_one(infirmary, facts) for facts in standing]
    _set_aside(catalog, disk, place)
    disk.sync_directory(place)
    if catalog.page is not None and catalog.read(RUN) != catalog.page.encode():
        write_whole(disk, place, RUN, catalog.page.encode())
    unidentified = not catalog.events and catalog.page is not None and catalog.page.number == 0
    loose = unconfirmed(catalog, mended)
    found = _found(catalog.path, sum(one.cut_bytes for one in mended), changed=True)
    found = msgspec.structs.replace(
        found,
        gaps=found.gaps + [gap for gap in loose if is_new(gap, catalog.events)],
        kept=[f"{DAMAGE}/{name}" for one in mended for name in one.kept],
        unidentified=unidentified,
    )
    told = {_key(**event.doc) for event in catalog.events if event.name == "gap"}
    docs: list[tuple[str, dict[str, Any]]] = [
        ("gap", g._asdict()) for g in found.gaps if g.reason == "damage" and _key(**g._asdict()) not in told
    ]
    docs += [("gap", gap._asdict()) for gap in loose if is_new(gap, catalog.events)]
    if not catalog.events and catalog.page is not None:
        docs.insert(0, ("start", catalog.page.start_doc()))
    docs.append(("recovered", {"rows": found.rows, "mended": [one._asdict() for one in mended if one.changed]}))
    docs.append(("stop", _stop_doc(catalog, found)))
    _append_events(catalog, disk, place, docs)
    return found


def _mend_one(infirmary: Infirmary, facts: SegmentFacts) -> Mended:
    return {ROWS: infirmary.mend_rows, FRAMES: infirmary.mend_frames}[facts.header.kind](facts)


def _set_aside(catalog: Catalog, disk: Disk, place: int) -> None:
    """Remove segments of which nothing counts, since what is in them is in others or they hold nothing; and merges that
    were begun.

    One that takes over from another stays, empty or not: it says what counts of that.
    """
    for name in os.listdir(place):
        if name.endswith(tuple(f"{kind}{ASIDE}" for kind in (SUFFIX[ROWS], index_name(""), LOG_SUFFIX))):
            disk.remove(place, name)
    empty = [facts.file for facts in catalog.blank if not facts.header.follows]
    for name in (*catalog.superseded, *(file for file in empty if not holds_rows(catalog.path / file))):
        for one in (name, index_name(name)):
            with contextlib.suppress(FileNotFoundError):
                disk.remove(place, one)


def _found(path: Path, cut_bytes: int = 0, *, changed: bool = False) -> Recovery:
    reader = JournalReader(path)
    rows: dict[str, int] = {}
    gaps: list[Gap] = []
    for stream in reader.streams:
        rows[stream] = 0
        for item in reader.items(stream):
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                rows[stream] += item.num_rows
    gaps += told_gaps(reader.events)
    gaps += [Gap(**event.doc) for event in reader.events if event.doc.get("reason") == UNCONFIRMED]
    return Recovery(str(path), rows, gaps, cut_bytes, changed, told_losses(gaps))


def _stop_doc(catalog: Catalog, found: Recovery) -> dict[str, Any]:
    page = catalog.page
    stops = [event for event in catalog.events if event.name == "stop"]
    if stops:  # it had ended, as it did; what changed is what is left of it
        return {**stops[-1].doc, "num_events": found.rows, "last_ns": stops[-1].doc.get("last_ns", stops[-1].t_ns)}
    last_ns = _last_known_ns(catalog)
    return {
        "uid": None if page is None else f"{page.uid}/stop",
        "run_start": None if page is None else str(page.uid),
        "time": last_ns / 1e9,
        "last_ns": last_ns,
        "exit_status": "abort",
        "reason": "the program ended before the run did; repaired",
        "num_events": found.rows,
        "lost": found.lost,
    }


def _last_known_ns(catalog: Catalog) -> int:
    """When a run that did not say so ended: the time of the last that is known of it."""
    known = [
        event.t_ns for event in catalog.events if event.name != "recovered" and event.doc.get("reason") != "damage"
    ]
    reader = JournalReader(catalog.path)
    known += [t_ns for stream in reader.streams for batch in reader.batches(stream) if (t_ns := _last_ns(batch))]
    now_ns = clock.utc_ns()
    return max((t_ns for t_ns in known if t_ns <= now_ns), default=now_ns)


def _last_ns(batch: pa.RecordBatch) -> int:
    place = batch.schema.get_field_index("timestamp")
    if place < 0 or not batch.num_rows or not pa.types.is_timestamp(batch.schema.field(place).type):
        return 0
    column: Any = batch.column(place)
    return column[-1:].cast(pa.timestamp("ns")).cast(pa.int64())[0].as_py() or 0


def _key(
    file: str | None = None, entries: Sequence[int] | None = None, after: int | None = None, **_: Any
) -> tuple[Any, ...]:
    """Which place a gap is: that of a frame is told by what was before it, since it has no entries of its own."""
    return (file, *entries) if entries else (file, after)


def _append_events(catalog: Catalog, disk: Disk, place: int, docs: list[tuple[str, dict[str, Any]]]) -> None:
    """Write events behind the last whole line."""
    name = catalog.event_logs[-1] if catalog.event_logs else event_log_name(1)
    present = catalog.read(name)
    whole = present[: present.rfind(b"\n") + 1]
    last: Event | None = catalog.events[-1] if catalog.events else None
    n = 0 if last is None else last.n + 1
    lines = [pack_event(n + i, clock.utc_ns(), *event) for i, event in enumerate(docs)]
    assert all(unpack_event(line) is not None for line in lines)
    file = disk.open(place, name)
    try:
        disk.write(file, [b"".join(lines)], len(whole))
        disk.truncate(file, len(whole) + sum(map(len, lines)))
        disk.sync(file)
    finally:
        disk.close(file)


def _is_unfinished(path: Path) -> bool:
    try:
        if is_unidentified(path):
            return True
        if not (path / RUN).exists() and not (path / EVENTS).exists():
            return False
        if ((last := last_event(path)) is not None and last.name == "stop") or Catalog(path).finished:
            return False
        with _locked(path):
            return True
    except (StorageError, LifecycleError, OSError):
        return False
