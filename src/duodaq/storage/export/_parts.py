"""A file for each part of each stream of a run: written aside, compared with the journal, and put in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from duodaq.storage.export._aside import aside
from duodaq.storage.export._earlier import refuse_to_lose
from duodaq.storage.export._progress import Counting, Progress
from duodaq.storage.export._saying import refuse_doubled_names, refused_column, saying
from duodaq.storage.reading import Run, Stream
from duodaq.storage.reading._rows import FirstRows, Rows, SegmentMovedError


def write_parts(
    run: Run,
    folder: Path,
    ending: str,
    progress: Progress,
    write: Callable[[Rows, Path, Counting], int],
    verify: Callable[[Rows, Path], None],
    try_out: Callable[[pa.Table, Any], Any],
) -> list[Path]:
    """Write and verify a file for each part; those files.

    Args:
        run: The run.
        folder: Where the files go.
        ending: Of their names.
        progress: Told how far it is.
        write: Writes a part to a place, and returns how many rows it has.
        verify: Raises StorageError if what is at a place is not that part.
        try_out: Writes a table of one column to a file in memory, to find the one that cannot be written.

    What is merged with others meanwhile is written as it is then.
    """
    with contextlib.ExitStack() as waiting:
        return _write_parts(run, folder, ending, progress, write, verify, try_out, waiting)


def _write_parts(
    run: Run,
    folder: Path,
    ending: str,
    progress: Progress,
    write: Callable[[Rows, Path, Counting], int],
    verify: Callable[[Rows, Path], None],
    try_out: Callable[[pa.Table, Any], Any],
    waiting: contextlib.ExitStack,
) -> list[Path]:
    written: list[Path] = []
    at_home = folder.resolve() == run.path.resolve()

    def place_of(stream: Stream, number: int, part: Rows) -> Path:
        stem = Path(part.file).stem if at_home else file_stem(stream, number)  # readers look for it by that name
        return folder / f"{stem}.{ending}"

    for stream in run:
        refuse_doubled_names(stream)
        counting = Counting(progress, stream.name, len(stream))
        made: list[tuple[Rows, int, Path, contextlib.ExitStack]] = []  # parts, their rows, files, what puts them there
        parts = stream.parts
        until = parts[-1].span[1] if parts else 0
        while (behind := made[-1][0].span[1] if made else 0) < until:
            part = next(part for part in parts if part.span[1] > behind)
            while made and made[-1][0].span[1] >= part.span[0]:  # they were merged into this one
                _drop(made.pop()[3])
            path = place_of(stream, len(made) + 1, part)
            done = sum(rows for _, rows, _, _ in made)
            counting.part_begins_at(done)
            try:
                with contextlib.ExitStack() as own:
                    place = own.enter_context(aside(path))
                    with saying(ending, stream.name, partial(_refused, part, try_out)):
                        rows = write(part, place, counting)
                        verify(FirstRows(part, rows), place)  # there may be more meanwhile
                    refuse_to_lose(path, rows)
                    made.append((part, rows, path, waiting.enter_context(own.pop_all())))
            except SegmentMovedError:
                parts = stream.parts
        written += [path for _, _, path, _ in made]
    return written


def _refused(part: Rows, try_out: Callable[[pa.Table, Any], Any]) -> str | None:
    return next((name for table in part.tables() if (name := refused_column(table, try_out)) is not None), None)


def _drop(one: contextlib.ExitStack) -> None:
    """Leave a file out that was written."""
    with contextlib.suppress(SegmentMovedError), one:
        raise SegmentMovedError("it was merged into another one")


def file_stem(stream: Stream, number: int) -> str:
    """What the files of a stream's `number`-th part are called, as in the journal."""
    from duodaq.storage.journal._layout import ROWS, file_name

    return file_name(stream.name, number, ROWS).rpartition(".")[0]
