"""One segment of frames: an .npy file that passes by the page cache where it can, and its index.

Rules for whoever edits this:

* O_DIRECT takes whole blocks from aligned memory at aligned offsets. Frames that are so already go to the disk from
  where they are. Others are packed through the staging buffer, whose beginning always holds the bytes of the file's
  last, partial block: that block is written again, the same and more, when the next frame comes.
* Checksums of what is large are made by another thread while this one writes: neither needs the interpreter.
* The file is made longer ahead (fallocate), so that a sync need not change its length each time; what is behind the
  last entry is nothing. `end` cuts it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from duodaq.storage.journal._crew import Crew
from duodaq.storage.journal._disk import Disk
from duodaq.storage.journal._file import new_index
from duodaq.storage.journal._layout import (
    BLOCK,
    DATA_START,
    END,
    ENTRY_BYTES,
    HEADER_BYTES,
    Header,
    index_name,
    pack_frame,
)

CALL_BYTES = 4 * 2**20  # in longer writes by O_DIRECT each byte took longer (docs/decisions/storage-figures.md)
_AHEAD_BYTES = 64 * 2**20
_LARGE_BYTES = 2**20
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


class FramesSegment:
    """Writes frames of one shape and dtype. `entries` counts what the kernel has, `safe` what counts."""

    def __init__(
        self,
        disk: Disk,
        crew: Crew,
        directory: int,
        name: str,
        header: Header,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self.name = name
        self.header = header
        self.shape = shape
        self.dtype = dtype
        self.entries = self.safe = 0
        self.unsynced = False
        self._disk = disk
        self._crew = crew
        self._staging: npt.NDArray[np.uint8] | None = None
        self._tail = 0
        self._allocated = 0
        self._file, self.direct = self._create(directory)
        try:
            self._index = new_index(disk, directory, index_name(name), header)
        except OSError:
            self._disk.close(self._file)
            raise

    @property
    def size(self) -> int:
        """Where the next frame goes."""
        return DATA_START + self.entries * self.header.frame_bytes

    def write(
        self,
        pixels: Sequence[npt.NDArray[Any]],
        sequence: Sequence[int],
        t_ns: Sequence[int],
        beside: Callable[[], None] | None = None,
    ) -> list[bytes]:
        """Write frames, each array of shape (n, *shape); their entries. The kernel has them when this returns.

        Args:
            pixels: The frames of one batch after the other.
            sequence: The number of each frame.
            t_ns: The time of each.
            beside: What else is to be done while the disk is busy; it has been, too, when this returns.

        Raises:
            OSError: The disk refused. Nothing of this call counts, and the segment must be given up.
        """
        flats = [np.ascontiguousarray(one).reshape(-1).view(np.uint8) for one in pixels]
        length = sum(flat.size for flat in flats)
        size, salt = self.header.frame_bytes, self.header.salt
        entries: list[bytes] = []

        def check() -> None:
            for flat in flats:
                for begin in range(0, flat.size, size):
                    place, frame = len(entries), flat[begin : begin + size]
                    entries.append(pack_frame(self.entries + place, 0, sequence[place], t_ns[place], frame, salt))
            if beside is not None:
                beside()

        self.unsynced = True
        self._allocate(self.size + length)
        if self.direct and length >= _LARGE_BYTES:
            self._crew.run([lambda: self._write(flats), check])
        else:
            self._write(flats)
            check()
        self._index.append([b"".join(entries)], len(entries) * len(entries[0]))
        self.entries += len(entries)
        return entries

    def sync(self) -> None:
        """Return when the disk has it all.

        Raises:
            OSError: Nobody knows what it has. The segment must be given up.
        """
        if self.unsynced:
            self._disk.sync(self._file)
            self.unsynced = False

    def settle(self) -> None:
        """All that was written so far counts."""
        self.safe = self.entries

    def end(self) -> bytes:
        """Cut the file, write its final header and sync; the entry of the end. All before must count already.

        Raises:
            OSError: The disk refused. All frames are there.
        """
        self._disk.truncate(self._file, self.size)
        self._write_header(self._file, self.entries)
        self._disk.sync(self._file)
        entry = pack_frame(self.entries, END, 0, 0, b"", self.header.salt)
        self._index.append([entry], len(entry))
        self._index.sync()
        return entry

    def is_there(self) -> bool:
        """Whether its files still have names; of one that has ended nobody asks any more."""
        return self._file < 0 or (self._disk.is_there(self._file) and self._index.is_there())

    def give_up(self) -> None:
        """Cut what does not count, if the disk lets us, and close; one that has ended stays as it is."""
        if self._file < 0:
            return
        try:
            self._index.truncate(HEADER_BYTES + self.safe * ENTRY_BYTES)
            self._disk.truncate(self._file, DATA_START + self.safe * self.header.frame_bytes)
        except OSError:
            return  # the header of the segment that follows says what counts
        finally:
            self.close()

    def close(self) -> None:
        """Close the files as they are. Idempotent."""
        if self._file >= 0:
            file, self._file = self._file, -1
            self._disk.close(file)
        self._index.close()

    def _create(self, directory: int) -> tuple[int, bool]:
        """The new file with its header, and whether it passes by the page cache."""
        for direct in (True, False):
            file = -1
            try:
                file = self._disk.create(directory, self.name, direct=direct)
                self._write_header(file, 0)
            except OSError as error:
                if file >= 0:
                    self._disk.close(file)
                if not direct or error.errno not in _REFUSALS:
                    raise
                with contextlib.suppress(FileNotFoundError):  # some systems make the file and then refuse to open it
                    self._disk.remove(directory, self.name)
            else:
                return file, direct
        raise AssertionError

    def _write_header(self, file: int, frames: int) -> None:
        block = _aligned(DATA_START)
        block[:] = np.frombuffer(npy_header((frames, *self.shape), self.dtype), np.uint8)
        self._disk.write(file, [block.data], 0)

    def _write(self, flats: Sequence[npt.NDArray[np.uint8]]) -> None:
        if not self.direct or (not self._tail and all(_is_aligned(flat) for flat in flats)):
            place = self.size
            for parts in _calls(flats):
                self._disk.write(self._file, parts, place)
                place += sum(len(part) for part in parts)
        else:
            self._write_packed(flats)

    def _write_packed(self, flats: Sequence[npt.NDArray[np.uint8]]) -> None:
        if self._staging is None:
            self._staging = _aligned(CALL_BYTES)
        staging, filled, place = self._staging, self._tail, self.size - self._tail
        for flat in flats:
            taken = 0
            while taken < flat.size:
                some = min(flat.size - taken, staging.size - filled)
                staging[filled : filled + some] = flat[taken : taken + some]
                filled += some
                taken += some
                if filled == staging.size:
                    self._disk.write(self._file, [staging.data], place)
                    place, filled = place + filled, 0
        if filled:
            whole = -(-filled // BLOCK) * BLOCK
            staging[filled:whole] = 0
            self._disk.write(self._file, [staging[:whole].data], place)
        self._tail = filled % BLOCK
        staging[: self._tail] = staging[filled - self._tail : filled].copy()

    def _allocate(self, end: int) -> None:
        if not self.direct or end <= self._allocated:
            return
        start = max(self._allocated, DATA_START)
        length = max(end - start, min(_AHEAD_BYTES, 64 * self.header.frame_bytes))
        length = -(-length // BLOCK) * BLOCK
        try:
            self._disk.allocate(self._file, start, length)
        except OSError:
            return  # no room for so much, or not on this file system: the frame itself may still find its place
        self._allocated = start + length


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The first 4096 bytes of an .npy file of that shape."""
    told = io.BytesIO()
    np.lib.format.write_array_header_1_0(told, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    text = told.getvalue()
    padded = text[10:].rstrip() + b" " * (DATA_START - 11 - len(text[10:].rstrip())) + b"\n"
    return text[:8] + len(padded).to_bytes(2, "little") + padded


def _calls(flats: Sequence[npt.NDArray[np.uint8]]) -> Iterator[list[memoryview]]:
    """Bytes of all of `flats`, in portions of one call of the kernel each."""
    parts: list[memoryview] = []
    length = 0
    for flat in flats:
        for begin in range(0, flat.size, CALL_BYTES):
            part = flat[begin : begin + CALL_BYTES].data
            if length + len(part) > CALL_BYTES:
                yield parts
                parts, length = [], 0
            parts.append(part)
            length += len(part)
    if parts:
        yield parts


def _is_aligned(flat: npt.NDArray[np.uint8]) -> bool:
    return flat.size % BLOCK == 0 and flat.ctypes.data % BLOCK == 0


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)
