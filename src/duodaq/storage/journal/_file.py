"""A file that grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duodaq.storage.journal._disk import Disk
from duodaq.storage.journal._layout import Header


class GrowingFile:
    """A file that is written at its end. What a refused write left behind there is written over by the next one.

    `spoiled`: a sync failed, so nobody knows what the disk has, and no later sync can say.
    """

    def __init__(self, disk: Disk, directory: int, name: str) -> None:
        self.name = name
        self.size = 0
        self.spoiled = False
        self._unsynced = False
        self._disk = disk
        self._file = disk.create(directory, name)

    def append(self, parts: Sequence[Any], length: int) -> int:
        """Write `parts`, `length` bytes together; where they begin. The kernel has them when this returns.

        Raises:
            OSError: The disk refused. The file counts as being as long as before.
        """
        start = self.size
        self._unsynced = True
        self._disk.write(self._file, parts, start)
        self.size = start + length
        return start

    def sync(self) -> None:
        """Return when the disk has it all.

        Raises:
            OSError: It refused; the file is spoiled.
        """
        if not self._unsynced:
            return
        try:
            self._disk.sync(self._file)
        except OSError:
            self.spoiled = True
            raise
        self._unsynced = False

    def truncate(self, length: int) -> None:
        """Cut it."""
        self._disk.truncate(self._file, length)
        self.size = length

    def is_there(self) -> bool:
        """Whether it still has a name."""
        return self._disk.is_there(self._file)

    def close(self) -> None:
        """Close it as it is. Idempotent."""
        if self._file >= 0:
            file, self._file = self._file, -1
            self._disk.close(file)


def new_index(disk: Disk, directory: int, name: str, header: Header) -> GrowingFile:
    """An index with its header."""
    index = GrowingFile(disk, directory, name)
    packed = header.pack()
    try:
        index.append([packed], len(packed))
    except OSError:
        index.close()
        raise
    return index
