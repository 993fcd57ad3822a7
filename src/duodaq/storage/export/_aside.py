"""Files that are written aside and put in their place at once, when they are whole, checked and on the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Generator
from pathlib import Path

from duodaq.errors import StorageError, StorageFullError


@contextlib.contextmanager
def aside(path: Path) -> Generator[Path]:
    """A place beside `path` to write a file or a folder to; it takes the place of `path` if all went well.

    Raises:
        StorageError: The disk refused. What was at `path` still is; nothing else is left.
    """
    place = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield place
        _sync(place)
        if path.is_dir() and not path.is_symlink():
            if not (place.is_dir() and _is_store(path)):
                raise StorageError(f"{path} is a folder", left="it is untouched")
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            path.rename(old)
            place.rename(path)
            shutil.rmtree(old)
        else:
            os.replace(place, path)
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageFullError(f"cannot write {path}: {error}", left="what was there before still is") from error
    finally:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)


def _is_store(path: Path) -> bool:
    return (path / "zarr.json").is_file() or not any(path.iterdir())


def _sync(place: Path) -> None:
    if place.is_dir():
        for folder, _, names in os.walk(place):
            for name in names:
                _sync_file(Path(folder) / name)
            sync_folder(Path(folder))
    else:
        _sync_file(place)


def _sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Return when the disk knows the names in `folder`.

    Raises:
        OSError: It refused.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(place)
    finally:
        os.close(place)
