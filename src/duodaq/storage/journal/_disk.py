"""What the journal asks of the operating system, in one place: a test puts another disk here."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import Any

_MOST_PARTS = 512  # of one call; the kernel takes 1024
_NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC


class Disk:
    """The real one. Every method raises OSError if the system refuses."""

    def make_directory(self, path: str) -> None:
        """Make `path` and what it lies in; each is on the disk with its name when this returns."""
        missing: list[str] = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path) or "."
        for one in reversed(missing):
            try:
                os.mkdir(one)
            except FileExistsError:
                if not os.path.isdir(one):
                    raise
            parent = self.open_directory(os.path.dirname(one) or ".")
            try:
                self.sync_directory(parent)
            finally:
                self.close(parent)

    def open_directory(self, path: str) -> int:
        """A descriptor of a directory, for the methods below."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def create(self, directory: int, name: str, *, direct: bool = False) -> int:
        """A descriptor of a new, empty file; with `direct`, one that passes by the page cache."""
        return os.open(name, _NEW | (os.O_DIRECT if direct else 0), 0o644, dir_fd=directory)

    def open(self, directory: int, name: str) -> int:
        """A descriptor of a file that is there, for reading and writing."""
        return os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)

    def write(self, file: int, parts: Sequence[Any], offset: int) -> None:
        """Write all of `parts`, one behind the other, from `offset` on."""
        views = [view for part in parts if (view := memoryview(part).cast("B"))]
        while views:
            written = os.pwritev(file, views[:_MOST_PARTS], offset)
            if not written:
                raise OSError(errno.EIO, "nothing was written")
            offset += written
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]

    def allocate(self, file: int, offset: int, length: int) -> None:
        """Have space for `length` bytes from `offset` on; the file is as long as that afterwards."""
        os.posix_fallocate(file, offset, length)

    def truncate(self, file: int, length: int) -> None:
        """Cut a file, or make it longer by zeros."""
        os.ftruncate(file, length)

    def sync(self, file: int) -> None:
        """Return when the disk has all that was written to a file, and its length."""
        os.fdatasync(file)

    def sync_directory(self, directory: int) -> None:
        """Return when the disk has the names in a directory."""
        os.fsync(directory)

    def rename(self, directory: int, name: str, to: str) -> None:
        """Give a file another name, in place of the one that had it."""
        os.replace(name, to, src_dir_fd=directory, dst_dir_fd=directory)

    def remove(self, directory: int, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=directory)

    def remove_directory(self, path: str) -> None:
        """Remove a directory in which there is nothing."""
        os.rmdir(path)

    def close(self, file: int) -> None:
        """Close a file or a directory."""
        os.close(file)

    def is_there(self, file: int) -> bool:
        """Whether an open file still has a name."""
        return os.fstat(file).st_nlink > 0


def write_whole(disk: Disk, directory: int, name: str, data: bytes) -> None:
    """Put `data` in place of what the file `name` holds, if there is one: whole or not at all, and on the disk.

    Raises:
        OSError: The disk refused. The file is as it was.
    """
    part = f"{name}.part"
    with contextlib.suppress(FileNotFoundError):
        disk.remove(directory, part)
    file = disk.create(directory, part)
    try:
        try:
            disk.write(file, [data], 0)
            disk.sync(file)
        finally:
            disk.close(file)
        disk.rename(directory, part, name)
    except OSError:
        with contextlib.suppress(OSError):
            disk.remove(directory, part)
        raise
    disk.sync_directory(directory)
