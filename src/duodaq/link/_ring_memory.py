"""The memory under a blob ring: a sealed memfd on Linux, of pages of 2 MB where large blobs lie.

The mapping is never closed here, only let go: each array made on it keeps it, and the last one that goes unmaps it.

With pages of 4 kB, a copy of 8.4 MB between two places spends a quarter of its time on finding them. Linux has no huge
pages for a memfd unless an administrator says so; but MADV_COLLAPSE (6.1) makes them of any part of a mapping when it
is asked, if the mapping's address allows, and in less time than it takes to touch the small ones for the first time.
Where it cannot be had, all goes on with small pages.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
from typing import Any, Protocol

import numpy as np

from duodaq.errors import DataError, LifecycleError

if sys.platform == "linux":
    import fcntl

_SEAL, _SHRINK, _GROW = 0x1, 0x2, 0x4  # fcntl.F_SEAL_*, which only Linux has
_FUTURE_WRITE = 0x10  # fcntl.F_SEAL_FUTURE_WRITE, Linux 5.1; Python names it from 3.13 on
_COLLAPSE = 25  # madvise's MADV_COLLAPSE, which Python does not name
HUGE = 2 * 2**20
"""Bytes of a huge page."""
_TRIES = 8
_UNUSED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class RingMemory(Protocol):
    """What a ring stands on: `handle` is what a reader needs to map it, too (a descriptor, or a name)."""

    size: int

    @property
    def handle(self) -> int | str: ...

    @property
    def buffer(self) -> Any: ...

    def prepare(self, offset: int, length: int) -> None:
        """So many bytes are going to be written there."""
        ...

    def close(self) -> None: ...


class SealedMemory:
    """A memfd that nobody can resize, mapped once; `fd` is read-only, and this object's own."""

    def __init__(self, fd: int, mapping: mmap.mmap) -> None:
        self.fd = fd
        self.size = len(mapping)
        self._mapping: mmap.mmap | None = mapping
        self._small_from = 0  # below that, all has been made of huge pages that can be
        self._collapses = True

    @classmethod
    def make(cls, size: int) -> SealedMemory:
        """New zeroed memory of `size` bytes, rounded up to pages, mapped writable here and, from now on, only here."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("duodaq-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            mapping = _map(fd, size)
            _seal(fd)
            return cls(_read_only(fd), mapping)
        finally:
            os.close(fd)

    @classmethod
    def attach(cls, fd: int) -> SealedMemory:
        """The memory behind `fd`, mapped read-only; `fd` stays the caller's, and may be closed.

        Raises:
            DataError: It is no memory whose size is sealed: reading it could end in SIGBUS. Nothing is mapped.
        """
        try:
            sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SHRINK
            size = os.fstat(fd).st_size
        except OSError as error:
            raise DataError(f"descriptor {fd} is no ring: {error.strerror}") from error
        if not sealed or size < mmap.PAGESIZE:
            raise DataError(f"descriptor {fd} is no ring: its size of {size} bytes is not sealed, or too small")
        own = _read_only(fd)
        try:
            return cls(own, _map(own, size, prot=mmap.PROT_READ))
        except BaseException:
            os.close(own)
            raise

    @property
    def handle(self) -> int:
        return self.fd

    @property
    def buffer(self) -> mmap.mmap:
        if self._mapping is None:
            raise LifecycleError("the ring is closed")
        return self._mapping

    def prepare(self, offset: int, length: int) -> None:
        """Make huge pages of all up to there, before a large blob is written; what lies there stays."""
        end = min(-(-(offset + length) // HUGE), self.size // HUGE) * HUGE
        mapping, begin = self._mapping, self._small_from
        if length < HUGE or end <= begin or mapping is None or not self._collapses:
            return
        self._small_from = end
        for first in range(begin, end, HUGE):
            mapping[first]  # one page there must exist; reading makes it
        try:
            mapping.madvise(_COLLAPSE, begin, end - begin)
        except OSError as error:
            self._collapses = error.errno != errno.EINVAL  # else there was no huge page to be had just now

    def close(self) -> None:
        self._mapping = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _map(fd: int, size: int, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> mmap.mmap:
    """Map `fd` at an address where huge pages of it can be mapped as such, a multiple of their size.

    The system gives out what lies below what it gave out before, but for holes that are large enough. So a filler of
    the right length in between makes the next try fit, or fills a hole. If none does, pages stay small.
    """
    mapping = mmap.mmap(fd, size, prot=prot)
    with contextlib.ExitStack() as tried:
        for _ in range(_TRIES if size >= HUGE else 0):
            address = np.frombuffer(mapping, np.uint8, 1).__array_interface__["data"][0]
            if not address % HUGE:
                break
            filler = -(-size // HUGE) * HUGE + (address - size) % HUGE
            tried.enter_context(mapping)
            tried.enter_context(mmap.mmap(-1, filler, flags=_UNUSED, prot=mmap.PROT_READ))
            mapping = mmap.mmap(fd, size, prot=prot)
    return mapping


def _seal(fd: int) -> None:
    """No resizing, and no writable mapping beside those that exist (where the kernel knows that)."""
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL | _SHRINK | _GROW | _FUTURE_WRITE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL | _SHRINK | _GROW)


def _read_only(fd: int) -> int:
    """Another descriptor of the same memory, read-only where /proc is mounted (the seal holds in any case)."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(fd)


def make_memory(size: int) -> RingMemory:
    """New memory for a ring of at least `size` bytes, of the kind that this system has."""
    if sys.platform == "linux":
        return SealedMemory.make(size)
    from duodaq.link._ring_named import NamedMemory  # loads multiprocessing, which Linux does without

    return NamedMemory.make(size)


def attach_memory(handle: int | str) -> RingMemory:
    """The memory that `handle` stands for."""
    if isinstance(handle, int):
        return SealedMemory.attach(handle)
    from duodaq.link._ring_named import NamedMemory  # as above

    return NamedMemory.attach(handle)
