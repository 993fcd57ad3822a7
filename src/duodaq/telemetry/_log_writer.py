"""Lines at the end of a file that is put aside when it is full.

Rules for whoever edits this:

* A line is in the file whole or not at all: what the disk took half is taken back, and behind what somebody else left
  half a new line begins.
* A file that was moved or removed by somebody else is made again, and its folder too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class LogWriter:
    """Writes to `path`; not safe for threads.

    Args:
        path: The file; its folder is made.
        max_bytes: How long it may become; a longer line has a file of its own.
        keep: How many full ones are kept, as ``path.1`` …; with 0 a full one is begun again.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path, self._max, self._keep = path, max_bytes, keep
        self._fd = -1
        self._size = 0

    def write(self, line: bytes) -> None:
        """Write a line, which has its end.

        Raises:
            OSError: The disk refuses. The line is not in the file.
        """
        self._look()
        if self._size and self._size + len(line) > self._max:
            self._put_aside()
        try:
            left = line
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self.close()  # what became of it is looked at with the next line
            raise
        self._size += len(line)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        if self._fd >= 0:
            try:
                there, ours = os.stat(self._path), os.fstat(self._fd)
                if (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev):
                    return
            except FileNotFoundError:
                pass
            self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._size += os.write(self._fd, b"\n")

    def _put_aside(self) -> None:
        if not self._keep:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        for number in range(self._keep, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._aside(number - 1), self._aside(number))
        os.replace(self._path, self._aside(1))
        self.close()
        self._look()

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
