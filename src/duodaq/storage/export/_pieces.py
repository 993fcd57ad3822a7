"""A run as NeXus and Zarr take it: for each stream, and each kind of frames in it, arrays that belong together."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.export._saying import refuse_doubled_names
from duodaq.storage.reading import Column, FrameStack, Named, Run, Stream
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

    Attributes:
        true_names: What columns are called in the journal, by what they are called here, where that is otherwise.
    """

    def __init__(self, stream: Stream | Named, rename: Callable[[str], str] = str) -> None:
        self.true_names: dict[str, str] = {}
        self._stream = stream
        self._rename = rename
        self._taken: frozenset[str] = frozenset()
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

    def renamed(self, rename: Callable[[str], str], *taken: str) -> Portions:
        """The same, with other names: each column another one, and none of those that are taken."""
        other = Portions.__new__(Portions)
        other.__dict__.update(self.__dict__, _rename=rename, _taken=frozenset(taken), true_names={})
        return other

    def __iter__(self) -> Iterator[tuple[int, Named]]:
        first = 0
        for rows in self._named():
            yield first, self._renamed(rows)
            first += rows.rows

    def _renamed(self, rows: Named) -> Named:
        axes = {self._rename(dim): axis for dim, axis in rows.axes.items()}
        taken = {*self._taken, *axes, *(("time", "timestamp") if rows.times_ns is not None else ())}
        columns: list[Column] = []
        for column in rows.columns:
            name = another_than(taken, self._rename(column.name))
            taken.add(name)
            if name != column.name:
                self.true_names[name] = column.name
            columns.append(column._replace(name=name, dims=tuple(map(self._rename, column.dims))))
        return rows._replace(columns=columns, axes=axes)

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
    taken: set[str] = set()
    for stream in run:
        refuse_doubled_names(stream)
        name = another_than(taken, _NO_NAME.sub("_", stream.name).strip(".") or "_")
        taken.add(name)
        if not stream.has_frames:
            yield Piece(name, stream, Portions(stream))
            continue
        rows = stream.named()
        schema = stream.schema
        frames = names_of(stream.name, schema).get("pixels", "pixels")
        for number, found in enumerate(stream.stacks, 1):
            stack = found.only(np.flatnonzero(found.rows < rows.rows))  # more may have come meanwhile
            sound = stack.sound()
            own = name if number == 1 else another_than(taken, f"{name}_{number}")
            taken.add(own)
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


def another_than(taken: Container[str], name: str) -> str:
    """That name, or one like it that is not taken."""
    while name in taken:
        name += "_"
    return name
