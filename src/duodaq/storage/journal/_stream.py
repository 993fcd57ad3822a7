"""One stream in a journal: its open segments, and what waits to be written to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.journal._compact import Stretch
from duodaq.storage.journal._encode import BatchEncoder
from duodaq.storage.journal._frames import FramesSegment
from duodaq.storage.journal._layout import FRAMES, MOST_ROWS, ROWS
from duodaq.storage.journal._rows import RowsSegment

PIXELS = "pixels"
REFERENCES = (
    pa.field("pixels_segment", pa.uint32(), nullable=False),
    pa.field("pixels_frame", pa.uint32(), nullable=False),
)

Segment = RowsSegment | FramesSegment


class StreamState:
    """What a journal knows of one stream.

    `parts` counts the files of each kind; `follows` is the segment of each kind, and how many of its entries count,
    that the next one takes over from after a failure. `touched`: something was begun since the last commit. `closed`:
    the segments of rows that were ended, in order. `takes_all`: the schema alone says that each batch of it has a form.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.parts = {ROWS: 0, FRAMES: 0}
        self.follows = {ROWS: (0, 0), FRAMES: (0, 0)}
        self.rows: RowsSegment | None = None
        self.frames: FramesSegment | None = None
        self.waiting: list[pa.RecordBatch] = []
        self._places: list[int] = []
        self.waiting_rows = 0
        self.touched = False
        self.closed: list[Stretch] = []
        self.encoder: BatchEncoder | None = None
        self.takes_all = False
        self._schema: pa.Schema | None = None
        self._facts: pa.Schema | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The open segments."""
        return tuple(segment for segment in (self.frames, self.rows) if segment is not None)

    @property
    def has_frames(self) -> bool:
        """Whether the present schema has frames."""
        return self._facts is not None

    def fits(self, batch: pa.RecordBatch) -> bool:
        """Whether a batch can go where those before it went."""
        if self._schema is None:
            return not self.segments
        if (0 if self.rows is None else self.rows.rows) + self.waiting_rows + batch.num_rows > MOST_ROWS:
            return False
        schema = batch.schema
        return self._schema.equals(schema, check_metadata=True) or (
            self._schema.equals(schema)
            and [f.metadata for f in self._schema] == [f.metadata for f in schema]
            and _can_be_told_apart(self._schema.metadata or {}, schema.metadata or {})
        )

    def takes_too(self, batch: pa.RecordBatch) -> bool:
        """Whether a batch says of itself what the first one did, name of the stream included, needs no look at its
        values, and has rows, and a place.
        """
        if not self.takes_all or self._schema is None or not batch.num_rows:
            return False
        rows = (0 if self.rows is None else self.rows.rows) + self.waiting_rows + batch.num_rows
        return rows <= MOST_ROWS and self._schema.equals(batch.schema, check_metadata=True)

    def begins_with(self, batch: pa.RecordBatch) -> bool:
        """Whether a batch is the first of its segments: there are none yet, or it does not fit those."""
        return self._schema is None or not self.fits(batch)

    def as_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch as it begins a segment of rows: one of frames with numbers in place of these."""
        facts = _without_pixels(batch.schema)
        return batch if facts is None else _with_references(batch, facts, 0, 0)

    def add(self, batch: pa.RecordBatch, place: int, encoder: BatchEncoder | None) -> None:
        """Let a batch that fits wait to be written; `place` is whatever the caller knows it by, and `encoder` comes
        with the first one of new segments.
        """
        if self._schema is None:
            self._schema = batch.schema
            self._facts = _without_pixels(batch.schema)
            self.encoder = encoder
            column = batch.schema.get_field_index("timestamp")
            time = None if column < 0 else batch.schema.field(column).type
            odd = time is not None and pa.types.is_timestamp(time) and time.unit != "ns"
            self.takes_all = self._facts is None and not odd
        self.waiting.append(batch)
        self._places.append(place)
        self.waiting_rows += batch.num_rows

    def take(self) -> tuple[list[pa.RecordBatch], list[int]]:
        """What waits, and the place of each; it does not wait any more."""
        taken = self.waiting, self._places
        self.waiting, self._places, self.waiting_rows = [], [], 0
        return taken

    def settle(self) -> None:
        """All that was written so far counts."""
        for segment in self.segments:
            segment.settle()
        self.touched = False

    def end(self) -> None:
        """The segments have ended; the next batch begins new ones, whatever its schema."""
        self.touched = False
        self.follows = {ROWS: (0, 0), FRAMES: (0, 0)}
        self.forget()

    def forget(self) -> None:
        """The segments are closed."""
        self.rows = self.frames = self._schema = self._facts = self.encoder = None
        self.takes_all = False

    def give_up(self) -> list[int]:
        """Close the segments, of which only what counts already does; their numbers."""
        given_up: list[int] = []
        for kind, segment in ((FRAMES, self.frames), (ROWS, self.rows)):
            if segment is None:
                continue
            segment.give_up()
            header = segment.header
            given_up.append(header.segment)
            if segment.safe or not header.follows:
                self.follows[kind] = (header.segment, segment.safe)
            else:
                self.follows[kind] = (header.follows, header.follows_entries)
        self.forget()
        self.take()
        self.touched = False
        return given_up

    def with_references(self, batch: pa.RecordBatch, segment: int, first: int) -> pa.RecordBatch:
        """A batch of frames as the rows that say where its frames lie: from number `first` on in `segment`."""
        return _with_references(batch, self._facts_of(batch.schema), segment, first)

    def _facts_of(self, schema: pa.Schema) -> pa.Schema:
        facts = self._facts
        assert facts is not None
        return facts if facts.metadata == schema.metadata else facts.with_metadata(schema.metadata)


def _with_references(batch: pa.RecordBatch, schema: pa.Schema, segment: int, first: int) -> pa.RecordBatch:
    columns: list[Any] = [batch.column(i) for i, f in enumerate(batch.schema) if f.name != PIXELS]
    count = batch.num_rows
    numbers = np.arange(first, first + count, dtype=np.uint32)
    columns += [_numbers(np.full(count, segment, np.uint32)), _numbers(numbers)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _can_be_told_apart(head: dict[bytes, bytes], own: dict[bytes, bytes]) -> bool:
    """Whether a batch has no key whose value is empty where its segment has another: that says a key is not there."""
    return all(value or head.get(key) == b"" for key, value in own.items())


def is_of_frames(schema: pa.Schema) -> bool:
    """Whether batches of a schema go into a segment of frames: pictures of numbers, or of booleans."""
    place = schema.get_field_index(PIXELS)
    if place < 0:
        return False
    kind = schema.field(place).type
    if not isinstance(kind, pa.FixedShapeTensorType) or 0 in kind.shape:
        return False
    of = kind.value_type
    if not (pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_boolean(of)):
        return False
    return kind.permutation in (None, [*range(len(kind.shape))])


def tensors(frames: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Frames, one behind the other, as a column of tensors that shares their memory."""
    number = pa.from_numpy_dtype(dtype)
    if pa.types.is_boolean(number):
        flat: Any = pa.array(np.frombuffer(frames, np.bool_))
    else:
        flat = pa.Array.from_buffers(number, len(frames) // dtype.itemsize, [None, pa.py_buffer(frames)])
    storage = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(number, shape), storage)


def _without_pixels(schema: pa.Schema) -> pa.Schema | None:
    if not is_of_frames(schema):
        return None
    fields = [field for field in schema if field.name != PIXELS]
    return pa.schema([*fields, *REFERENCES], metadata=schema.metadata)


def _numbers(values: npt.NDArray[Any]) -> Any:
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])
