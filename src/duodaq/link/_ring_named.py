"""The memory under a blob ring where there is no memfd: Python's shared memory, found by its name."""

from __future__ import annotations

import contextlib
import sys
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from duodaq.errors import DataError, LifecycleError


class NamedMemory:
    """`multiprocessing.shared_memory`, for systems without memfd: found by name, read-only by courtesy.

    Before Python 3.13 the process that attaches must share its creator's resource tracker, as the children that
    `multiprocessing` starts do; another's tracker would remove the memory when that process ends.
    """

    def __init__(self, shared: SharedMemory, *, ours: bool) -> None:
        self.name = shared.name
        self.size = shared.size
        self._shared: SharedMemory | None = shared
        self._ours = ours

    @classmethod
    def make(cls, size: int) -> NamedMemory:
        """New zeroed memory of at least `size` bytes."""
        return cls(_Shared(create=True, size=size), ours=True)

    @classmethod
    def attach(cls, name: str) -> NamedMemory:
        """The memory called `name`.

        Raises:
            DataError: There is none. Nothing is mapped.
        """
        untracked: dict[str, Any] = {"track": False} if sys.version_info >= (3, 13) else {}
        try:
            return cls(_Shared(name=name, **untracked), ours=False)
        except OSError as error:
            raise DataError(f"{name!r} is no ring: {error.strerror}") from error

    @property
    def handle(self) -> str:
        return self.name

    @property
    def buffer(self) -> memoryview:
        memory = None if self._shared is None else self._shared.buf
        if memory is None:
            raise LifecycleError("the ring is closed")
        return memory if self._ours else memory.toreadonly()

    def prepare(self, offset: int, length: int) -> None:
        """Nothing: the system decides what pages there are."""

    def close(self) -> None:
        shared, self._shared = self._shared, None
        if shared is None:
            return
        if self._ours:
            shared.unlink()
        _lasting.append(shared)
        _lasting[:] = [memory for memory in _lasting if not _closed(memory)]


_lasting: list[SharedMemory] = []  # closed rings with views left: tried again whenever another ring is closed


class _Shared(SharedMemory):
    """Its views may outlive it: then the end of the process takes it away, without a complaint."""

    def __del__(self) -> None:
        with contextlib.suppress(BufferError, OSError):
            self.close()


def _closed(memory: SharedMemory) -> bool:
    try:
        memory.close()
    except BufferError:
        return False
    return True
