"""A run in another form: written aside, read back and compared with the journal, and only then put in its place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from duodaq.errors import LifecycleError, StorageError
from duodaq.storage.export._aside import aside, sync_folder
from duodaq.storage.export._csv import write_csv
from duodaq.storage.export._earlier import refuse_to_lose
from duodaq.storage.export._nexus import Frames, write_nexus
from duodaq.storage.export._parquet import write_parquet
from duodaq.storage.export._parts import file_stem
from duodaq.storage.export._progress import Progress, silent
from duodaq.storage.export._zarr import write_zarr
from duodaq.storage.journal._layout import ROWS, index_name
from duodaq.storage.reading import Run
from duodaq.storage.reading._rows import SegmentMovedError

Format = Literal["parquet", "hdf5", "zarr", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)


class Exported(msgspec.Struct, frozen=True):
    """What was written, all of it read back and found equal to the journal.

    Attributes:
        format: In which form.
        files: What was made.
        size: How many bytes that is.
    """

    format: str
    files: list[str]
    size: int


def export(
    run: Run | str | Path,
    to: Format,
    target: str | Path | None = None,
    *,
    frames: Frames | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write a run in another form; one that is still recorded as it is now.

    Args:
        run: The run, or its directory.
        to: ``parquet`` and ``csv``: a file for each stream in a folder, frames as ``.npy``. ``hdf5``: one NeXus file.
            ``zarr``: one store.
        target: The folder, file or store; a folder that is there gets a file or store of the run's name; by default
            the run's own directory.
        frames: Of ``hdf5``: ``inside`` the file, compressed; ``external``, where they are, by absolute paths; or
            ``relative``, where they are, by paths that hold when the run is moved, for readers that are told so. By
            default external in the run's own directory once the run is finished, and else inside.
        progress: Told how far it is.

    Raises:
        StorageError: The disk refused, or what was written is not what the journal holds, or what is there already has
            more rows. Nothing is left half done.
    """
    run = run if isinstance(run, Run) else Run(run)
    while True:
        try:
            return _export(run, to, target, frames, progress)
        except SegmentMovedError:  # it is still recorded, and was just merged: there are fewer segments now
            continue


def _export(run: Run, to: Format, target: str | Path | None, frames: Frames | None, progress: Progress) -> Exported:
    at_home = target is None
    match to:
        case "parquet" | "csv":
            folder = run.path if target is None else Path(target)
            files = (write_parquet if to == "parquet" else write_csv)(run, folder, progress)
            files += [] if folder.resolve() == run.path.resolve() else _copy_frames(run, folder, progress)
        case "hdf5":
            kind: Frames = frames or ("external" if at_home and run.state == "finished" else "inside")
            files = write_nexus(run, _in_run(run, target, ".nxs"), progress, frames=kind)
        case "zarr":
            files = write_zarr(run, _in_run(run, target, ".zarr"), progress)
        case _:
            raise StorageError(f"{to!r} is no form of a run", left=f"known are {', '.join(FORMATS)}")
    return Exported(to, [str(file) for file in files], sum(map(_size, files)))


def finalise(
    run: str | Path,
    to: Sequence[Format] = ("parquet",),
    *,
    remove_journal: bool = False,
    progress: Progress = silent,
) -> list[Exported]:
    """Turn a finished run into what it is kept as, in its own directory.

    Args:
        run: Its directory.
        to: In which forms.
        remove_journal: Remove the journal's rows once Parquet, read back, has been found equal to them. Frames stay as
            they are, which is what every other form of them refers to; so do the event log and the indices of frames.
        progress: Told how far it is.

    Raises:
        LifecycleError: The run is not finished: it grows, or `recover` must end it first. It is untouched.
        StorageError: See `export`. The journal is untouched.
    """
    found = Run(run)
    if found.state != "finished":
        left = "wait for its end" if found.state == "recording" else "`duodaq recover` ends it"
        raise LifecycleError(f"{found.path} is not finished", left=left)
    if remove_journal and "parquet" not in to:
        raise LifecycleError("rows are removed only where Parquet holds them", left="the run is untouched")
    done = [export(found, form, progress=progress) for form in to]
    if remove_journal:
        _remove_rows(found)
    return done


def _in_run(run: Run, target: str | Path | None, suffix: str) -> Path:
    """One file or store: in the run's own directory, in a folder that is there, or just `target`."""
    place = run.path if target is None else Path(target)
    is_store = suffix == ".zarr" and (place / "zarr.json").exists()
    return place / f"{run.path.resolve().name}{suffix}" if place.is_dir() and not is_store else place


def _copy_frames(run: Run, folder: Path, progress: Progress) -> list[Path]:
    """The frames that pass their check, as .npy files beside the rows."""
    written: list[Path] = []
    for stream in run:
        for number, stack in enumerate(stream.stacks, 1):
            path = folder / f"{file_stem(stream, number)}.npy"
            refuse_to_lose(path, len(stack))
            with aside(path) as place:
                whole = np.lib.format.open_memmap(place, "w+", stack.dtype, stack.shape)
                for i in range(len(stack)):
                    whole[i] = stack[i]
                    progress(stream.name, i + 1, len(stack))
                whole.flush()
            written.append(path)
    return written


def _remove_rows(run: Run) -> None:
    catalog = run.look()
    for facts in catalog.segments:
        path = catalog.path / facts.file
        if facts.header.kind == ROWS and path.with_suffix(".parquet").exists():
            for one in (path, path.with_name(index_name(path.name))):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(one)
    sync_folder(run.path)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
