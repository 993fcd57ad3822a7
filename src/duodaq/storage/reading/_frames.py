"""Frames as a lazy array: each is read when it is asked for, and checked."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from duodaq.errors import StorageError, TornFileError
from duodaq.storage.journal._catalog import Catalog, SegmentFacts, frame_type
from duodaq.storage.journal._check import FramesCheck

if TYPE_CHECKING:
    import dask.array

Pixels = npt.NDArray[Any]
_CHUNK_BYTES = 32 * 2**20


class FrameStack:
    """Frames of one shape and dtype, as an array of shape (n, height, width) that reads what is asked for.

    ``stack[7]`` is one frame, ``stack[10:20]`` several, ``numpy.asarray(stack)`` all; each is checked when it is read.
    One that fails raises TornFileError: wrong pixels are never returned.

    Attributes:
        shape: (n, height, width).
        dtype: Of the pixels.
        rows: For each frame, the number of its row in the stream.
    """

    ndim = 3

    def __init__(
        self, look: Callable[[], Catalog], stream: str, facts: dict[int, SegmentFacts], places: Pixels, rows: Pixels
    ) -> None:
        self._look = look
        self._stream = stream
        self._facts = facts
        self._places = places
        self._checks: dict[int, FramesCheck] = {}
        self.rows = rows
        size, self.dtype = frame_type(next(iter(facts.values())))
        self.shape: tuple[int, ...] = (len(rows), *size)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """How many pixels in all."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """How much memory all of them would take."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Pixels:
        whole: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)  # pyright: ignore[reportUnknownVariableType] - xarray's key
        first, rest = whole[0], whole[1:]
        if first is Ellipsis:
            first, rest = slice(None), whole
        numbers = np.arange(len(self))[first]
        if np.ndim(numbers) == 0:
            frame = self._read(int(numbers))
            return frame[rest] if rest else frame
        frames = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for i, number in enumerate(numbers):
            frames[i] = self._read(int(number))
        return frames[(slice(None), *rest)] if rest else frames

    def __iter__(self) -> Iterator[Pixels]:
        return (self._read(number) for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:
        if copy is False:
            raise ValueError("frames are read from the disk, which is a copy")
        return self[:] if dtype is None else self[:].astype(dtype)

    def is_sound(self, number: int) -> bool:
        """Whether a frame is as it was written."""
        segment, frame = self._places[number]
        return self._check(int(segment)).read(int(frame)) is not None

    def only(self, numbers: Pixels) -> FrameStack:
        """Some of its frames, as a stack of their own."""
        return FrameStack(self._look, self._stream, self._facts, self._places[numbers], self.rows[numbers])

    def sound(self) -> FrameStack:
        """Those of its frames that are as they were written; reads all of them."""
        return self.only(np.array([n for n in range(len(self)) if self.is_sound(n)], dtype=np.int64))

    def memmap(self) -> Pixels:
        """All frames as numpy's memory map, without a check and without a copy.

        Raises:
            StorageError: They are in several files, or not all of them are wanted.
        """
        segments = set(self._places[:, 0].tolist())
        first = int(self._places[0, 1]) if len(self) else 0
        if len(segments) != 1 or not np.array_equal(self._places[:, 1], np.arange(first, first + len(self))):
            raise StorageError(f"the frames of {self._stream} do not lie behind one another in one file; index them")
        facts = self._facts[segments.pop()]
        start = facts.header.data_start + first * facts.header.frame_bytes
        return np.memmap(self._look().path / facts.file, self.dtype, "r", start, self.shape)

    def to_dask(self) -> dask.array.Array:
        """The frames as a dask array, in portions of some 32 MB, each frame checked when it is computed.

        Raises:
            ImportError: dask is not installed.
        """
        from_array: Any = importlib.import_module("dask.array").from_array
        frame = max(1, self.nbytes // max(1, len(self)))
        return from_array(self, chunks=(max(1, _CHUNK_BYTES // frame), *self.shape[1:]), asarray=False, name=False)

    def files(self) -> list[tuple[Path, int, int, int]]:
        """Where they lie, for programs that read raw files: path, offset in bytes, first frame, how many; in order."""
        found: list[tuple[Path, int, int, int]] = []
        folder = self._look().path
        for i, (segment, frame) in enumerate(self._places.tolist()):
            facts = self._facts[segment]
            offset = facts.header.data_start + frame * facts.header.frame_bytes
            if found:
                path, start, first, count = found[-1]
                if path == folder / facts.file and start + count * facts.header.frame_bytes == offset:
                    found[-1] = (path, start, first, count + 1)
                    continue
            found.append((folder / facts.file, offset, i, 1))
        return found

    def _read(self, number: int) -> Pixels:
        segment, frame = self._places[number].tolist()
        data = self._check(segment).read(frame)
        if data is None:
            file = self._facts[segment].file
            raise TornFileError(
                f"frame {frame} in {file} is damaged", left="the others can be read: `sound()` has only those"
            )
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def _check(self, segment: int) -> FramesCheck:
        if segment not in self._checks:
            self._checks[segment] = FramesCheck(self._look(), self._facts[segment])
        return self._checks[segment]

    def __repr__(self) -> str:
        return f"<{self.shape[0]} frames of {self._stream}, {self.shape[1:]} {self.dtype}, {self.nbytes / 1e6:.1f} MB>"


def stacks(
    look: Callable[[], Catalog], stream: str, segments: tuple[SegmentFacts, ...], places: Pixels
) -> list[FrameStack]:
    """The frames at `places` (segment, number), in order: a stack for each shape and dtype, in order of appearance."""
    kinds: dict[tuple[Any, ...], dict[int, SegmentFacts]] = {}
    for facts in segments:
        size, dtype = frame_type(facts)
        kinds.setdefault((*size, dtype.str), {})[facts.id] = facts
    found: list[FrameStack] = []
    for ours in kinds.values():
        rows = np.flatnonzero(np.isin(places[:, 0], list(ours)))
        if len(rows):
            found.append(FrameStack(look, stream, ours, places[rows], rows))
    return sorted(found, key=lambda stack: int(stack.rows[0]))
