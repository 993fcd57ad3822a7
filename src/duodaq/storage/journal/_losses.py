"""What is not in a run although it ought to be, as far as its files and its event log still tell."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from duodaq.errors import StorageError
from duodaq.schema import WIRE_FILE
from duodaq.storage.journal._catalog import Catalog
from duodaq.storage.journal._compact import ASIDE
from duodaq.storage.journal._events import Event
from duodaq.storage.journal._layout import EVENTS, FRAMES, ROWS, RUN, SUFFIX, index_name, stream_in
from duodaq.storage.journal._mend import Mended, holds_rows
from duodaq.storage.journal._reader import Gap
from duodaq.storage.journal._run import RunPage

UNCONFIRMED = "unconfirmed"
_FOUND = ("damage", UNCONFIRMED)
_NEVER_CAME = "missing"


def told_gaps(events: Iterable[Event]) -> list[Gap]:
    """What whoever recorded said is missing."""
    docs = [event.doc for event in events if event.name == "gap" and event.doc.get("reason") not in _FOUND]
    return [Gap(d["stream"], d["reason"], d["rows"], d.get("after"), d.get("before")) for d in docs]


def told_losses(gaps: Iterable[Gap]) -> dict[str, int]:
    """How many rows were lost on the way to the disk, by reason."""
    lost: Counter[str] = Counter()
    for gap in gaps:
        if gap.rows and gap.reason not in (*_FOUND, _NEVER_CAME):
            lost[gap.reason] += gap.rows
    return dict(lost)


def unconfirmed(catalog: Catalog, mended: Iterable[Mended]) -> list[Gap]:
    """Rows that stand where no entry says what they are: how many is not known, for nothing checks them."""
    of = {facts.file: facts.stream for facts in catalog.segments}
    found = [Gap(of[one.file], UNCONFIRMED, None, file=one.file) for one in mended if one.unconfirmed]
    known = {*of, *catalog.superseded, WIRE_FILE}
    return found + [Gap(stream_in(name), UNCONFIRMED, None, file=name) for name in _segments(catalog, known)]


def is_new(gap: Gap, events: Iterable[Event]) -> bool:
    """Whether the event log does not say so yet."""
    return not any(
        event.name == "gap" and event.doc.get("reason") == gap.reason and event.doc.get("file") == gap.file
        for event in events
    )


def is_unidentified(path: Path) -> bool:
    """Whether a directory holds a journal of which neither `run.json` nor the event log can be read any more."""
    try:
        Catalog(path)
    except StorageError:
        try:
            names = os.listdir(path)
        except OSError:
            return False
        had_one = RUN in names or EVENTS in names
        segments = any(name.endswith((SUFFIX[ROWS], SUFFIX[FRAMES])) for name in names)
        return (had_one and segments) or _has_headers(path)
    return False


def page_from_headers(catalog: Catalog) -> RunPage | None:
    """The little that the indices say of which run they are of; None if they are of none, or of several."""
    runs = {header.run for header in catalog.headers}
    if len(runs) != 1:
        return None
    uid = uuid.UUID(bytes=runs.pop())
    ms = uid.int >> 80 if uid.version == 7 else 0
    note: dict[str, Any] = {"identity": "lost: run.json and the event log could not be read when the run was repaired"}
    return RunPage(uid=uid, number=0, start_ns=ms * 1_000_000, provenance=note)


def _has_headers(path: Path) -> bool:
    try:
        Catalog(path, unidentified=True)
    except StorageError:
        return False
    return True


def _segments(catalog: Catalog, known: set[str]) -> list[str]:
    return [
        name
        for name in catalog.names
        if name.endswith((SUFFIX[ROWS], SUFFIX[FRAMES]))
        and name not in known
        and f"{index_name(name)}{ASIDE}" not in catalog.names  # a merge that was not ended: all of it is elsewhere
        and holds_rows(catalog.path / name)
    ]
