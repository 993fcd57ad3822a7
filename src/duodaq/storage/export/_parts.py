"""A file for each part of each stream of a run: written aside, compared with the journal, and put in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from duodaq.storage.export._aside import aside
from duodaq.storage.export._earlier import refuse_to_lose
from duodaq.storage.export._progress import Counting, Progress
from duodaq.storage.reading import Run, Stream
from duodaq.storage.reading._rows import Rows


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
    """
    written: list[Path] = []
    at_home = folder.resolve() == run.path.resolve()

    def place_of(stream: Stream, number: int, part: Rows) -> Path:
        stem = Path(part.file).stem if at_home else file_stem(stream, number)  # readers look for it by that name
        return folder / f"{stem}.{ending}"

    for stream in run:
        for number, part in enumerate(stream.parts, 1):
            refuse_to_lose(place_of(stream, number, part), part.extent.rows)
    with contextlib.ExitStack() as all_of_them:  # they get their names when each of them is whole
        for stream in run:
            counting, done = Counting(progress, stream.name, len(stream)), 0
            for number, part in enumerate(stream.parts, 1):
                path = place_of(stream, number, part)
                counting.part_begins_at(done)
                place = all_of_them.enter_context(aside(path))
                rows = write(part, place, counting)
                verify(part, place)
                refuse_to_lose(path, rows)  # fewer than the index says, where something is damaged
                done += rows
                written.append(path)
    return written


def file_stem(stream: Stream, number: int) -> str:
    """What the files of a stream's `number`-th part are called, as in the journal."""
    from duodaq.storage.journal._layout import ROWS, file_name

    return file_name(stream.name, number, ROWS).rpartition(".")[0]
