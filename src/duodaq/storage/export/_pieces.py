"""A run as NeXus and Zarr take it: for each stream, and each kind of frames in it, arrays that belong together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.reading import FrameStack, Named, Run, Stream
from duodaq.storage.reading._columns import Extremes, named, names_of, pixels_unit

_NO_NAME = re.compile(r"[^A-Za-z0-9_.]")
PORTION_BYTES = 64 * 2**20
"""How much of a stream's rows is in memory at once."""


class Portions:
    """The rows of a stream as arrays: a portion at a time, each with the number of its first row.

    They are the same at each turn: of a run that grows, those that there were when this was made. At least one portion
    comes, if an empty one.

    Args:
        stream: The stream, which is read once more at each turn unless all of it is one portion; or arrays that there
            are already.
        rename: What columns and dimensions are called there.
    """

    def __init__(self, stream: Stream | Named, rename: Callable[[str], str] = str) -> None:
        self._stream = stream
        self._rename = rename
        self._all = Extremes()
        self._kept: pa.Table | None = None
        if isinstance(stream, Named):
            self.rows = stream.rows
            return
        for number, table in enumerate(_grouped(stream)):
            self._all.look(table)
            self._kept = table if number == 0 else None
        self.rows = self._all.rows
        if not self.rows:
            self._kept = stream.to_arrow()

    def renamed(self, rename: Callable[[str], str]) -> Portions:
        """The same, with other names."""
        other = Portions.__new__(Portions)
        other.__dict__.update(self.__dict__, _rename=rename)
        return other

    def __iter__(self) -> Iterator[tuple[int, Named]]:
        first = 0
        for rows in self._named():
            yield first, _renamed(rows, self._rename)
            first += rows.rows

    def text_bytes(self) -> dict[str, int]:
        """How long the longest text in each column of texts is, in UTF-8."""
        longest: dict[str, int] = {}
        for _, rows in self:
            texts = [column for column in rows.columns if column.values.dtype.kind == "U"]
            if not texts:
                break
            for column in texts:
                size = np.char.encode(column.values, "utf-8").dtype.itemsize
                longest[column.name] = max(size, longest.get(column.name, 1))
        return longest

    def _named(self) -> Iterator[Named]:
        if isinstance(self._stream, Named):
            yield self._stream
        elif self._kept is not None:
            yield named(self._stream.name, self._kept, self._all)
        else:
            left = self.rows
            for table in _grouped(self._stream):
                some = table.slice(0, left)
                left -= some.num_rows
                yield named(self._stream.name, some, self._all)
                if not left:
                    return


class Piece(NamedTuple):
    """Rows of a stream, and the frame that belongs to each of them if there are frames.

    Attributes:
        name: A name that NeXus and every file system take.
        stream: The stream.
        rows: Its rows as arrays; those of frames that fail their check are left out.
        frames: What the frames are called.
        stack: The frames, each of which passed its check; None if there are none.
        unit: Of a pixel's value.
        missing: How many rows were left out.
    """

    name: str
    stream: Stream
    rows: Portions
    frames: str = ""
    stack: FrameStack | None = None
    unit: str = ""
    missing: int = 0


def as_integers(moments: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], str]:
    """Moments of numpy as whole numbers since 1970, and their unit: ``ns``, ``us`` …"""
    return moments.astype(np.int64), np.datetime_data(moments.dtype)[0]


def pieces(run: Run) -> Iterator[Piece]:
    """All of a run; of one that is still recorded, what there is of each stream when it is its turn."""
    for stream in run:
        name = _NO_NAME.sub("_", stream.name).strip(".")
        if not stream.has_frames:
            yield Piece(name, stream, Portions(stream))
            continue
        rows = stream.named()
        schema = stream.schema
        frames = names_of(stream.name, schema).get("pixels", "pixels")
        for number, found in enumerate(stream.stacks, 1):
            stack = found.only(np.flatnonzero(found.rows < rows.rows))  # more may have come meanwhile
            sound = stack.sound()
            own = name if number == 1 else f"{name}_{number}"
            missing = len(stack) - len(sound)
            only = Portions(rows.only(sound.rows))
            yield Piece(own, stream, only, frames, sound, pixels_unit(schema), missing)


def _grouped(stream: Stream) -> Iterator[pa.Table]:
    """The rows of a stream in tables of about `PORTION_BYTES`."""
    waiting: list[pa.Table] = []
    size = 0
    for table in stream.tables():
        waiting.append(table)
        size += table.nbytes
        if size >= PORTION_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _renamed(rows: Named, rename: Callable[[str], str]) -> Named:
    columns = [c._replace(name=rename(c.name), dims=tuple(map(rename, c.dims))) for c in rows.columns]
    axes = {rename(dim): axis for dim, axis in rows.axes.items()}
    return rows._replace(columns=columns, axes=axes)
