"""From a worker's runtime to the manager: everything it publishes, in order, none of it lost while both live.

The runtime publishes to a hub of its own in this process, whose one reader, which may lose nothing, is the link. What
the manager has not yet published on its side is bounded; when that bound is reached the reader stands still, its queue
fills, and the producers wait as they would for any lossless reader. Large arrays go by a ring in shared memory, which
is made when the first one comes; without room there they go by value.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from duodaq.clock import Deadline
from duodaq.dataplane import Hub, Policy
from duodaq.errors import DataError, StoppedError
from duodaq.link import BlobRef, RingWriter, send_descriptors
from duodaq.model import Measurement, RuntimeName, Scalar
from duodaq.telemetry import get_logger
from duodaq.v2 import DataDistributor
from duodaq.v4 import DataPublisher
from duodaq.workers._messages import Batch, Item, Message, Ring, Rows, result_parcel

CAPACITY = 64
WINDOW = 64
"""So many items wait here, and so many at the manager, before producers feel that a lossless reader is slow."""
WINDOW_BYTES = 16 * 2**20
"""Likewise in bytes, those in the ring included: who ran ahead until that is full would go on by value, ten times as
slow, and never catch up."""
BLOB_BYTES = 64 * 1024
_RING_LEAST, _RING_MOST, _RING_BLOBS = 16 * 2**20, 256 * 2**20, 6
_AS_IT_IS = pa.ipc.IpcWriteOptions()  # given, because pyarrow else looks for each stream into the environment
_log = get_logger("workers.outbox")


class Outbox:
    """What a worker's runtime publishes, on its way to the manager. On the worker's loop; the hubs from any thread."""

    def __init__(self, runtime: RuntimeName, send: Callable[[Message], None], descriptors: socket.socket) -> None:
        self.v2_data: Hub[Measurement] = DataDistributor()
        self.v4_data = DataPublisher()
        self.undeliverable = 0
        self._send = send
        self._descriptors = descriptors
        self._ring: RingWriter | None = None
        self._sent = self._taken = 0
        self._bytes: list[tuple[int, int]] = []
        self._unacknowledged_bytes = self._unsaid = 0
        self._measured = (0, 0)
        self._room = asyncio.Event()
        hub: Hub[Any] = self.v2_data if runtime == "v2" else self.v4_data
        self._reader = hub.subscribe("link", capacity=CAPACITY, policy=Policy.BLOCK, max_bytes=WINDOW_BYTES)
        say = self._say_measurements if runtime == "v2" else self._say_batches
        self._task = asyncio.create_task(self._run(say), name="outbox")

    def taken(self, count: int) -> None:
        """The manager has published so many items since the beginning."""
        self._taken = count
        while self._bytes and self._bytes[0][0] <= count:
            self._unacknowledged_bytes -= self._bytes.pop(0)[1]
        self._room.set()

    def credited(self, numbers: Sequence[int]) -> None:
        """The manager's readers do not look at these blobs any more."""
        for number in numbers:
            if self._ring is not None:
                self._ring.release(number)

    async def flushed(self, timeout_s: float) -> bool:
        """Wait until the manager has published what was published here until now; whether it had in time."""
        wanted = self._sent + self.undeliverable + self._unsaid + self._reader.occupancy
        deadline = Deadline(timeout_s)
        while self._taken + self.undeliverable < wanted:
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), deadline.left_s)
            except TimeoutError:
                return False
        return True

    async def aclose(self, timeout_s: float) -> bool:
        """Send all that waits and have it published, within `timeout_s`; whether it all was."""
        deadline = Deadline(timeout_s)
        self._reader.finish()
        await asyncio.wait({self._task}, timeout=timeout_s)
        while self._taken < self._sent and not deadline.passed:
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), deadline.left_s)
            except TimeoutError:
                break
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()
        return self._taken >= self._sent and not self._unsaid and not self._reader.occupancy

    async def _run(self, say: Callable[[list[Any]], None]) -> None:
        while True:
            room = await self._has_room()
            try:
                items = await self._reader.get_many(room)
            except StoppedError:
                return
            while items:
                self._unsaid = len(items)
                await self._has_room()
                count = _to_say(items)
                say(items[:count])
                del items[:count]
            self._unsaid = 0

    async def _has_room(self) -> int:
        """Wait until something may be sent; how many items."""
        while (room := WINDOW - self._sent + self._taken) <= 0 or self._unacknowledged_bytes > WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        return room

    def _count(self, items: int, size: int = 0) -> None:
        self._sent += items
        if size:
            self._bytes.append((self._sent, size))
            self._unacknowledged_bytes += size

    def _say_measurements(self, measurements: list[Measurement]) -> None:
        rows: list[Scalar] = []
        for one in measurements:
            if isinstance(one, Scalar) and (one.metadata is None or _is_plain(one.metadata)):
                rows.append(one if type(one.value) is float else msgspec.structs.replace(one, value=float(one.value)))
            else:
                self._say_rows(rows)
                rows = []
                self._say_one(lambda one=one: self._item(one), f"{one.instrument}.{one.channel}")
        self._say_rows(rows)

    def _say_rows(self, rows: list[Scalar]) -> None:
        if not rows:
            return
        try:
            self._send(Rows(rows))
        except (DataError, TypeError, OverflowError):
            for row in rows:
                self._say_one(lambda row=row: self._item(row), f"{row.instrument}.{row.channel}")
        else:
            self._count(len(rows))

    def _say_one(self, make: Callable[[], tuple[Message, int]], stream: str) -> None:
        """One item, or, if it cannot travel, a complaint: the numbers then show it as lost."""
        try:
            message, size = make()
            self._send(message)
        except (DataError, TypeError, OverflowError) as error:
            self.undeliverable += 1
            _log.error("measurement lost: it does not travel", stream=stream, error=str(error))
        else:
            self._count(1, size)

    def _item(self, one: Measurement) -> tuple[Message, int]:
        name = "pixels" if hasattr(one, "pixels") else "values"
        array: Any = getattr(one, name, None)
        size = _size_of(one)
        if size < BLOB_BYTES:
            return Item(result_parcel(one)), size
        blob = self._blob(array)
        if blob is None:
            return Item(result_parcel(one)), size
        return Item(result_parcel(msgspec.structs.replace(one, **{name: np.empty(0, array.dtype)})), blob), size

    def _say_batches(self, batches: list[pa.RecordBatch]) -> None:
        for batch in batches:
            self._say_one(lambda batch=batch: self._batch(batch), "batch")

    def _batch(self, batch: pa.RecordBatch) -> tuple[Message, int]:
        size = _size_of(batch)
        if size >= BLOB_BYTES and (blob := self._batch_blob(batch, size)) is not None:
            return Batch(blob=blob), blob.length
        sink = pa.BufferOutputStream()
        _write_stream(batch, sink)
        body = sink.getvalue().to_pybytes()
        return Batch(body), len(body)

    def _batch_blob(self, batch: pa.RecordBatch, size: int) -> BlobRef | None:
        """The batch as an Arrow stream in the ring, written there with one copy.

        How long the stream will be is measured, which takes as long as writing all but the pixels, or taken to be as
        for the batch before, if that kept as much memory: it may be shorter, and is measured when it proves longer.
        """
        like, needed = self._measured
        if like == size and (ring := self._ring_for(needed)) is not None:
            with contextlib.suppress(pa.ArrowException, OSError):
                return ring.fill(needed, lambda room: _fill(batch, room))
        needed = _stream_size(batch)
        self._measured = size, needed
        ring = self._ring_for(needed)
        return None if ring is None else ring.fill(needed, lambda room: _fill(batch, room))

    def _blob(self, array: np.ndarray[Any, Any]) -> BlobRef | None:
        ring = self._ring_for(array.nbytes)
        return None if ring is None else ring.write(array)

    def _ring_for(self, size: int) -> RingWriter | None:
        if self._ring is None:
            ring = RingWriter(min(max(_RING_LEAST, _RING_BLOBS * size), _RING_MOST))
            if not send_descriptors(self._descriptors, [ring.fd]):
                ring.close()
                return None
            self._ring = ring
            self._send(Ring(ring.size))
        return self._ring if size <= self._ring.size else None


def _to_say(items: Sequence[Any]) -> int:
    """How many of `items` are said at once: those up to a large one, after which the room is looked at again."""
    if len(items) == 1:
        return 1
    for count, one in enumerate(items, 1):
        if _size_of(one) >= BLOB_BYTES:
            return count
    return len(items)


def _size_of(one: Any) -> int:
    """The bytes of what makes an item large: its array, or the buffers of the batch that it is."""
    if isinstance(one, pa.RecordBatch):
        return one.get_total_buffer_size()
    array = getattr(one, "pixels", getattr(one, "values", one))
    return int(getattr(array, "nbytes", 0))


def _is_plain(value: Any) -> bool:
    """Whether it comes out of a row as it went in: a tuple, say, would be a list."""
    if type(value) is dict:
        facts = cast("dict[Any, Any]", value)
        return all(type(key) is str and _is_plain(one) for key, one in facts.items())
    if type(value) is list:
        return all(map(_is_plain, cast("list[Any]", value)))
    return type(value) in (str, float, bool, type(None)) or (type(value) is int and abs(value) < 2**63)


def _write_stream(batch: pa.RecordBatch, sink: Any) -> None:
    """All of a batch: its schema, its dictionaries and its rows."""
    with pa.ipc.new_stream(sink, batch.schema, options=_AS_IT_IS) as writer:
        writer.write_batch(batch)


def _stream_size(batch: pa.RecordBatch) -> int:
    measure = pa.MockOutputStream()
    _write_stream(batch, measure)
    return int(measure.size())


def _fill(batch: pa.RecordBatch, room: memoryview) -> None:
    with pa.FixedSizeBufferWriter(pa.py_buffer(room)) as sink:
        _write_stream(batch, sink)
