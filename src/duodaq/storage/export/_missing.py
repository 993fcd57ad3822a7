"""What an export cannot hold, since the journal is damaged: how many rows, and whether its event log says so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duodaq.errors import TornFileError
from duodaq.storage.journal import Gap, JournalReader
from duodaq.storage.journal._layout import ROWS
from duodaq.storage.reading import Run, Stream
from duodaq.storage.reading._index import RowsIndex
from duodaq.storage.reading._sources import ParquetRows

if TYPE_CHECKING:
    from duodaq.storage.export._export import Exported

_DAMAGE = "damage"


class JournalDamagedError(TornFileError):
    """Rows of a run could not be read when it was turned into something else: its journal was kept.

    Attributes:
        done: What was made of the rows that are sound.
    """

    def __init__(self, what: str, done: list[Exported]) -> None:
        super().__init__(what, left="the journal is kept; what is sound was written")
        self.done = done


def missing_rows(run: Run, *, frames: bool) -> dict[str, int | None]:
    """How many rows of each stream are damaged; None of one where nobody can say. Reads all of the journal.

    Args:
        run: The run.
        frames: Whether rows whose frame is damaged count, too.
    """
    reader = JournalReader(run.path)
    found = [
        gap
        for stream in _in_journal(run)
        if (frames and stream.has_frames) or not _is_sound(run, stream)
        for gap in reader.items(stream.name, frames=frames)
    ]
    gone = {stream.name for stream in run} - {stream.name for stream in _in_journal(run)}
    told = [Gap(d["stream"], d["reason"], d["rows"]) for d in _told(reader) if d["stream"] in gone]
    missing: dict[str, int | None] = {}
    for gap in [*(one for one in found if isinstance(one, Gap)), *told]:
        before = missing.get(gap.stream, 0)
        missing[gap.stream] = None if before is None or gap.rows is None else before + gap.rows
    return missing


def _is_sound(run: Run, stream: Stream) -> bool:
    """Whether all rows of a stream are there: each is read and checked, none decoded; False: it must be looked at."""
    catalog = run.look()
    mine = [facts for facts in catalog.segments if facts.stream == stream.name and facts.header.kind == ROWS]
    return all(
        RowsIndex(catalog.path, facts).is_sound(growing=facts is mine[-1] and run.state == "recording")
        for facts in mine
    )


def check_journal(path: Path, done: list[Exported]) -> None:
    """Read all of a run, frames included.

    Raises:
        JournalDamagedError: Something in it is damaged, and its event log does not say so.
    """
    reader = JournalReader(path)
    told = [(d.get("file"), [*(d.get("entries") or ())], d.get("after"), d["rows"]) for d in _told(reader)]
    found = [gap for stream in _in_journal(Run(path)) for gap in reader.items(stream.name)]
    damaged = [
        gap
        for gap in found
        if isinstance(gap, Gap) and (gap.file, [*(gap.entries or ())], gap.after, gap.rows) not in told
    ]
    if damaged:
        rows: dict[str, int | None] = {}
        for gap in damaged:
            before = rows.get(gap.stream, 0)
            rows[gap.stream] = None if before is None or gap.rows is None else before + gap.rows
        raise JournalDamagedError(f"{path} is damaged: {in_words(rows)}", done)


def in_words(missing: dict[str, int | None]) -> str:
    """For a person: ``dmm.v lacks 3 rows``."""
    return "; ".join(
        f"{stream} lacks {'an unknown number of rows' if rows is None else '1 row' if rows == 1 else f'{rows:,} rows'}"
        for stream, rows in missing.items()
    )


def all_missing(done: Iterable[Exported]) -> dict[str, int | None]:
    """What any of several forms lacks: the most that one of them does."""
    found: dict[str, int | None] = {}
    for one in done:
        for stream, rows in one.missing.items():
            before = found.get(stream, 0)
            found[stream] = None if before is None or rows is None else max(before, rows)
    return found


def _in_journal(run: Run) -> list[Stream]:
    """The streams whose rows have not left the journal for Parquet, which is checked by itself."""
    return [stream for stream in run if not any(isinstance(part, ParquetRows) for part in stream.parts)]


def _told(reader: JournalReader) -> list[dict[str, Any]]:
    return [event.doc for event in reader.events if event.name == "gap" and event.doc.get("reason") == _DAMAGE]
