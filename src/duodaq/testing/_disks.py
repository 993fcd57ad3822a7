"""Disks that a journal can be written to in a test: one that does not wait, and one that refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

from duodaq.storage.journal import Disk

Refuses = Callable[[str, str], int | None]


class QuickDisk(Disk):
    """One whose syncs return at once, for tests that nobody cuts the power of.

    Args:
        direct: Whether it takes O_DIRECT.
    """

    def __init__(self, *, direct: bool = True) -> None:
        self.direct = direct

    def create(self, directory: int, name: str, *, direct: bool = False) -> int:
        """As any other; without O_DIRECT it leaves an empty file behind, as some do."""
        if direct and not self.direct:
            os.close(super().create(directory, name))
            raise OSError(errno.EINVAL, "no O_DIRECT here", name)
        return super().create(directory, name, direct=direct)

    def sync(self, file: int) -> None:
        """Nothing."""

    def sync_directory(self, directory: int) -> None:
        """Nothing."""


class RefusingDisk(QuickDisk):
    """One that refuses as `refuses` says: it is asked with the operation (``create``, ``write``, ``sync``) and the
    file's name, and gives an error number, or None. Of a write that is refused, half arrives where that can be.
    """

    def __init__(self, refuses: Refuses) -> None:
        super().__init__()
        self.refuses = refuses
        self._names: dict[int, str] = {}

    def name_of(self, file: int) -> str:
        """The name that a file had when it was made."""
        return self._names.get(file, "")

    def create(self, directory: int, name: str, *, direct: bool = False) -> int:
        """Unless it is refused."""
        self._ask("create", name)
        file = super().create(directory, name, direct=direct)
        self._names[file] = name
        return file

    def rename(self, directory: int, name: str, to: str) -> None:
        """As any other."""
        super().rename(directory, name, to)
        self._names |= {file: to for file, called in self._names.items() if called == name}

    def write(self, file: int, parts: Sequence[Any], offset: int) -> None:
        """Unless it is refused; then half."""
        try:
            self._ask("write", self.name_of(file))
        except OSError:
            data = b"".join(memoryview(part).cast("B") for part in parts)
            if not self.name_of(file).endswith(".npy"):  # O_DIRECT takes no halves
                os.pwrite(file, data[: len(data) // 2], offset)
            raise
        super().write(file, parts, offset)

    def sync(self, file: int) -> None:
        """Unless it is refused."""
        self._ask("sync", self.name_of(file))

    def _ask(self, operation: str, name: str) -> None:
        code = self.refuses(operation, name)
        if code:
            raise OSError(code, os.strerror(code), name)
