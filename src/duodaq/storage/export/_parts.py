"""A file for each part of each stream of a run: written aside, compared with the journal, and put in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from duodaq.storage.export._aside import aside
from duodaq.storage.export._earlier import refuse_to_lose
from duodaq.storage.export._progress import Counting, Progress
from duodaq.storage.reading import Run, Stream
from duodaq.storage.reading._rows import FirstRows, Rows, SegmentMovedError


def write_parts(
    run: Run,
    folder: Path,
    ending: str,
    progress: Progress,
    write: Callable[[Rows, Path, Counting], int],
    verify: Callable[[Rows, Path], None],
) -> list[Path]:
    """Write and verify a file for each part; those files.

    Args:
        run: The run.
        folder: Where the files go.
        ending: Of their names.
        progress: Told how far it is.
        write: Writes a part to a place, and returns how many rows it has.
        verify: Raises StorageError if what is at a place is not that part.

    What is merged with others meanwhile is written as it is then.
    """
    with contextlib.ExitStack() as waiting:
        return _write_parts(run, folder, ending, progress, write, verify, waiting)


def _write_parts(
    run: Run,
    folder: Path,
    ending: str,
    progress: Progress,
    write: Callable[[Rows, Path, Counting], int],
    verify: Callable[[Rows, Path], None],
    waiting: contextlib.ExitStack,
) -> list[Path]:
    written: list[Path] = []
    at_home = folder.resolve() == run.path.resolve()

    def place_of(stream: Stream, number: int, part: Rows) -> Path:
        stem = Path(part.file).stem if at_home else file_stem(stream, number)  # readers look for it by that name
        return folder / f"{stem}.{ending}"

    for stream in run:
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
                    rows = write(part, place, counting)
                    verify(FirstRows(part, rows), place)  # there may be more meanwhile
                    refuse_to_lose(path, rows)
                    made.append((part, rows, path, waiting.enter_context(own.pop_all())))
            except SegmentMovedError:
                parts = stream.parts
        written += [path for _, _, path, _ in made]
    return written


def _drop(one: contextlib.ExitStack) -> None:
    """Leave a file out that was written."""
    with contextlib.suppress(SegmentMovedError), one:
        raise SegmentMovedError("it was merged into another one")


def file_stem(stream: Stream, number: int) -> str:
    """What the files of a stream's `number`-th part are called, as in the journal."""
    from duodaq.storage.journal._layout import ROWS, file_name

    return file_name(stream.name, number, ROWS).rpartition(".")[0]
