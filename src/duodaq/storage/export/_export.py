"""A run in another form: written aside, read back and compared with the journal, and only then put in its place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from duodaq.errors import LifecycleError, StorageError
from duodaq.storage.export._aside import aside, sync_folder
from duodaq.storage.export._csv import write_csv
from duodaq.storage.export._earlier import refuse_to_lose
from duodaq.storage.export._missing import all_missing, check_journal, missing_rows
from duodaq.storage.export._nexus import Frames, write_nexus
from duodaq.storage.export._parquet import write_parquet
from duodaq.storage.export._parts import file_stem
from duodaq.storage.export._progress import Progress, silent
from duodaq.storage.export._scans import write_scan_tables
from duodaq.storage.export._wanted import FORMATS, Format
from duodaq.storage.export._zarr import write_zarr
from duodaq.storage.journal._layout import ROWS, index_name
from duodaq.storage.reading import Run
from duodaq.storage.reading._rows import SegmentMovedError

_HDF5_PLUGIN = "hdf5plugin"  # frames inside a file are compressed by bitshuffle and LZ4, which HDF5 does not bring


class Exported(msgspec.Struct, frozen=True):
    """What was written, all of it read back and found equal to what is sound in the journal.

    Attributes:
        format: In which form.
        files: What was made.
        size: How many bytes that is.
        plugin: What a program has to import to read all of it, such as ``hdf5plugin``; "" if its own library will do.
        missing: How many rows of each stream are not in it, since the journal, or the frame of a row, is damaged; None
            where nobody knows. Streams of which nothing is damaged are not named.
    """

    format: str
    files: list[str]
    size: int
    plugin: str = ""
    missing: dict[str, int | None] = {}


def export(
    run: Run | str | Path,
    to: Format,
    target: str | Path | None = None,
    *,
    frames: Frames | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write a run in another form; one that is still recorded as it is now, and of one that is damaged what is sound.

    Args:
        run: The run, or its directory.
        to: ``parquet`` and ``csv``: a file for each stream in a folder, frames as ``.npy``, and one for the points of
            each scan. ``hdf5``: one NeXus file. ``zarr``: one store.
        target: The folder, file or store; a folder that is there gets a file or store of the run's name, and a name
            without a suffix gets ``.nxs`` or ``.zarr``; by default the run's own directory.
        frames: Of ``hdf5``: ``inside`` the file, compressed, for readers that have hdf5plugin; ``external``, where they
            are, by absolute paths; or ``relative``, where they are, by paths that hold when the run is moved, for
            readers that are told so. By default external in the run's own directory once the run is finished, and else
            inside.
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
    at_home, plugin = target is None, ""
    match to:
        case "parquet" | "csv":
            folder = run.path if target is None else Path(target)
            files = (write_parquet if to == "parquet" else write_csv)(run, folder, progress)
            files += write_scan_tables(run, folder, to)
            files += [] if folder.resolve() == run.path.resolve() else _copy_frames(run, folder, progress)
        case "hdf5":
            kind: Frames = frames or ("external" if at_home and run.state == "finished" else "inside")
            files = write_nexus(run, _in_run(run, target, ".nxs"), progress, frames=kind)
            plugin = _HDF5_PLUGIN if kind == "inside" and any(stream.stacks for stream in run) else ""
        case "zarr":
            files = write_zarr(run, _in_run(run, target, ".zarr"), progress)
        case _:
            raise StorageError(f"{to!r} is no form of a run", left=f"known are {', '.join(FORMATS)}")
    with_frames = to in ("hdf5", "zarr") or not at_home
    missing = missing_rows(run, frames=with_frames and run.state == "finished")
    return Exported(to, [str(file) for file in files], sum(map(_size, files)), plugin, missing)


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
        remove_journal: Remove the journal's rows once Parquet, read back, has been found equal to them, and all of the
            journal has been read and nothing in it is damaged but what its event log says. Frames stay as
            they are, which is what every other form of them refers to; so do the event log and the indices of frames.
        progress: Told how far it is.

    Raises:
        LifecycleError: The run is not finished: it grows, or `recover` must end it first. It is untouched.
        StorageError: See `export`. The journal is untouched.
        TornFileError: Something is damaged of which the event log says nothing. What is sound was written; the journal
            is untouched.
    """
    found = Run(run)
    if found.state != "finished":
        left = "wait for its end" if found.state == "recording" else "`duodaq recover` ends it"
        raise LifecycleError(f"{found.path} is not finished", left=left)
    if remove_journal and "parquet" not in to:
        raise LifecycleError("rows are removed only where Parquet holds them", left="the run is untouched")
    done = [export(found, form, progress=progress) for form in to]
    if remove_journal or all_missing(done):
        check_journal(found.path, done)
    if remove_journal:
        _remove_rows(found)
    return done


def _in_run(run: Run, target: str | Path | None, suffix: str) -> Path:
    """One file or store: in the run's own directory, in a folder that is there, or just `target`, with a suffix."""
    place = run.path if target is None else Path(target)
    is_store = suffix == ".zarr" and (place / "zarr.json").exists()
    if place.is_dir() and not is_store:
        return place / f"{run.path.resolve().name}{suffix}"
    return place if place.suffix or is_store else place.with_name(f"{place.name}{suffix}")


def _copy_frames(run: Run, folder: Path, progress: Progress) -> list[Path]:
    """The frames that pass their check, as .npy files beside the rows; where some do not, of which rows they are."""
    written: list[Path] = []
    for stream in run:
        for number, found in enumerate(stream.stacks, 1):
            stack = found.sound()
            path = folder / f"{file_stem(stream, number)}.npy"
            refuse_to_lose(path, len(stack))
            with aside(path) as place:
                whole = np.lib.format.open_memmap(place, "w+", stack.dtype, stack.shape)
                for i in range(len(stack)):
                    whole[i] = stack[i]
                    progress(stream.name, i + 1, len(stack))
                whole.flush()
            written.append(path)
            if len(stack) < len(found):  # they do not lie row by row any more
                written.append(path.with_suffix(".rows.npy"))
                with aside(written[-1]) as place, open(place, "xb") as file:
                    np.save(file, stack.rows)
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
