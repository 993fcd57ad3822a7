"""A run as NeXus and Zarr take it: for each stream, and each kind of frames in it, arrays that belong together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from duodaq.storage.reading import FrameStack, Named, Run, Stream
from duodaq.storage.reading._columns import names_of, pixels_unit

_NO_NAME = re.compile(r"[^A-Za-z0-9_.]")


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
    rows: Named
    frames: str = ""
    stack: FrameStack | None = None
    unit: str = ""
    missing: int = 0


def as_integers(moments: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], str]:
    """Moments of numpy as whole numbers since 1970, and their unit: ``ns``, ``us`` …"""
    return moments.astype(np.int64), np.datetime_data(moments.dtype)[0]


def pieces(run: Run) -> Iterator[Piece]:
    """All of a run."""
    for stream in run:
        name = _NO_NAME.sub("_", stream.name).strip(".")
        rows = stream.named()
        if not stream.has_frames:
            yield Piece(name, stream, rows)
            continue
        schema = stream.schema
        frames = names_of(stream.name, schema).get("pixels", "pixels")
        for number, stack in enumerate(stream.stacks, 1):
            sound = stack.sound()
            own = name if number == 1 else f"{name}_{number}"
            missing = len(stack) - len(sound)
            yield Piece(own, stream, rows.only(sound.rows), frames, sound, pixels_unit(schema), missing)
