"""What a person says of a run, and may say otherwise later: sample, operator, note, tags.

Changes of one run's labels exclude each other, in all threads and processes of the machine: whoever reads them to write
them has the run's directory locked meanwhile. So does whoever removes a run for what its labels say.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from duodaq import clock
from duodaq.clock import Deadline
from duodaq.errors import StorageError, StorageFullError
from duodaq.storage.journal._catalog import Catalog
from duodaq.storage.journal._disk import Disk, write_whole
from duodaq.storage.journal._label_file import labels_of, pack_labels
from duodaq.storage.journal._layout import LABELS
from duodaq.storage.journal._run import iso

HELD_S = 5.0
"""How long somebody else may hold the labels of a run; a change takes milliseconds."""
_AGAIN_S = 0.001
_LEFT = "its labels are as they were"
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP)  # of directories: NFS has them of files only
_LOCK = "labels.lock"


def edit_labels(
    directory: str | Path,
    *,
    sample: str | None = None,
    operator: str | None = None,
    note: str | None = None,
    tags: Sequence[str] | None = None,
    disk: Disk | None = None,
) -> dict[str, Any]:
    """Say something of a run, finished or growing; what is not given stays as it is.

    Args:
        directory: The run's.
        sample: What was measured.
        operator: Who measured it.
        note: Anything.
        tags: Words to find it by; they replace those that were there.
        disk: What to write with.

    Returns:
        All labels of the run.

    Raises:
        StorageError: It holds no journal, or is being removed; somebody else holds its labels for longer than
            `HELD_S`; or the disk refused (StorageFullError). The labels are as they were.
    """
    given = {"sample": sample, "operator": operator, "note": note, "tags": None if tags is None else [*tags]}
    told = {name: value for name, value in given.items() if value is not None}
    path, disk = Catalog(directory).path, disk or Disk()
    with labels_held(path):
        present, whole = labels_of(path)
        if not whole and tags is None:  # perhaps it was to be kept: that is not forgotten for a note
            present["tags"] = ["keep"]
        labels = {**present, **told, "edited": iso(clock.utc_ns())}
        try:
            place = disk.open_directory(str(directory))
            try:
                write_whole(disk, place, LABELS, pack_labels(labels))
            finally:
                disk.close(place)
        except OSError as error:
            raise StorageFullError(f"cannot label {directory}: {error}", left=_LEFT) from error
    return labels


@contextlib.contextmanager
def labels_held(directory: Path) -> Generator[None]:
    """Nobody else changes the labels of the run meanwhile. Blocks until that is so, `HELD_S` at most.

    Raises:
        StorageError: Somebody else holds them, the directory is not there, or it cannot be locked.
    """
    try:
        place = _locked(directory)
    except TimeoutError:
        what = f"cannot label {directory}: somebody else has held its labels for {HELD_S:g} s"
        raise StorageError(what, left=_LEFT) from None
    except OSError as error:
        raise StorageFullError(f"cannot label {directory}: {error}", left=_LEFT) from error
    try:
        yield
    finally:
        fcntl.flock(place, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
        os.close(place)


def _locked(directory: Path) -> int:
    """A descriptor of the directory that has this name now, or of a file in it, locked."""
    deadline = Deadline(HELD_S)
    try:
        name, place = directory, _lock(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), deadline)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        name = directory / _LOCK
        place = _lock(os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), deadline)
    try:
        if not os.path.samestat(os.fstat(place), os.stat(name)):
            raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile")
    except OSError:
        os.close(place)
        raise
    return place


def _lock(file: int, deadline: Deadline) -> int:
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if deadline.passed:
                    raise TimeoutError from None
                clock.block(_AGAIN_S)
            else:
                return file
    except BaseException:
        os.close(file)
        raise
