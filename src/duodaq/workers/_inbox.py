"""From a worker process to the lab's hubs: everything it published, in order, with the books of what was lost with it.

What arrives is published at once; when a lossless subscriber has no room, it waits here, bounded by what the worker may
send unacknowledged, and everything behind it waits too, so that the order stays. When the worker has died, its page
says how much it had produced: what did not arrive is booked as lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from duodaq.dataplane import Books, Hub, Ledger
from duodaq.errors import DataError, MailboxFullError, SchemaMismatchError, StoppedError
from duodaq.link import RingReader
from duodaq.model import Image, Measurement, Scalar, Spectrum, Vector
from duodaq.schema import stream_of
from duodaq.telemetry import get_logger
from duodaq.workers._messages import Batch, Item, Rows, unpack

PATIENCE_S = 5.0
CLOSED = "destination closed"
NO_ROOM = "no room"
WITH_WORKER = "worker died"
_log = get_logger("workers.inbox")


class FeedBooks:
    """What one worker group produced and what became of it, across the deaths of its processes."""

    def __init__(self, name: str, destination: str) -> None:
        self._books = Books(name, destination)
        self._heard: dict[str, int] = {}

    def take(self, stream: str, weight: int) -> None:
        """So much of a stream has arrived."""
        self._books.take(stream, weight)
        self._heard[stream] = self._heard.get(stream, 0) + weight

    def settle(self, stream: str, weight: int, dropped: str | None = None) -> None:
        """It was published, or not, for a reason."""
        self._books.settle(stream, weight, dropped)

    def goes_on_at(self, stream: str, number: int) -> None:
        """The next that it gets of a stream bears that number, unless it was further already: those were another's."""
        self._heard[stream] = max(self._heard.get(stream, 0), number)

    def is_settled(self, stream: str, number: int) -> bool:
        """Whether all of a stream before that number was published, or is entered as lost."""
        return self._heard.get(stream, 0) >= number and not self._books.in_hand(stream)

    def close_accounts(self, produced: dict[str, int]) -> dict[str, int]:
        """The worker is dead, and had produced so much of each channel since the beginning; what was lost with it."""
        lost: dict[str, int] = {}
        for stream, count in produced.items():
            missing = count - self._heard.get(stream, 0)
            if missing > 0:
                lost[stream] = missing
                self.take(stream, missing)
                self._books.settle(stream, missing, WITH_WORKER)
        return lost

    def ledger(self) -> Ledger:
        """The books of this moment."""
        return self._books.ledger()


class Inbox:
    """Publishes what one worker process sends. On the manager's loop.

    Args:
        v2_data: Where measurements go.
        v4_data: Where batches go.
        books: The books of the worker's group.
        acknowledge: Tells the worker that so many items have been published, since the beginning.
    """

    def __init__(
        self,
        v2_data: Hub[Measurement],
        v4_data: Hub[pa.RecordBatch],
        books: FeedBooks,
        acknowledge: Callable[[int], None],
    ) -> None:
        self._v2_data = v2_data
        self._v4_data = v4_data
        self._books = books
        self._acknowledge = acknowledge
        self._ring: RingReader | None = None
        self._waiting: deque[tuple[Hub[Any], Any, str, int]] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._done = 0
        self._telling = False

    def attach(self, ring: RingReader) -> None:
        """Blobs come by this ring from now on."""
        self._ring = ring

    def heard(self, message: Rows | Item | Batch) -> None:
        """Publish what came.

        Raises:
            DataError: It makes no sense, or its blob is none of the ring.
        """
        match message:
            case Rows():
                for row in message.rows:
                    self._take(self._v2_data, row, f"{row.instrument}.{row.channel}", 1)
            case Item():
                one = self._measurement(message)
                self._take(self._v2_data, one, f"{one.instrument}.{one.channel}", 1)
            case Batch():
                batch = self._batch(message)
                self._take(self._v4_data, batch, _stream_of(batch), batch.num_rows)

    async def empty(self, timeout_s: float) -> None:
        """Publish what still waits, for up to `timeout_s`."""
        if self._drain is not None and not self._drain.done():
            await asyncio.wait({self._drain}, timeout=timeout_s)

    async def aclose(self, timeout_s: float) -> None:
        """Publish what still waits, for up to `timeout_s`; drop the rest, in the books."""
        await self.empty(timeout_s)
        if self._drain is not None:
            self._drain.cancel()
            await asyncio.gather(self._drain, return_exceptions=True)
        for _, _, stream, weight in self._waiting:
            self._books.settle(stream, weight, CLOSED)
        self._waiting.clear()
        if self._ring is not None:
            self._ring.close()

    def _take(self, hub: Hub[Any], item: Any, stream: str, weight: int) -> None:
        self._books.take(stream, weight)
        if self._waiting or not self._publish(hub, item, stream, weight):
            self._waiting.append((hub, item, stream, weight))
            if self._drain is None or self._drain.done():
                self._drain = asyncio.create_task(self._publish_waiting(), name="inbox")

    def _publish(self, hub: Hub[Any], item: Any, stream: str, weight: int) -> bool:
        """Publish it if there is room; whether it is settled."""
        try:
            hub.publish(item)
        except MailboxFullError:
            return False
        except StoppedError:
            self._settle(stream, weight, CLOSED)
        else:
            self._settle(stream, weight)
        return True

    async def _publish_waiting(self) -> None:
        while self._waiting:
            hub, item, stream, weight = self._waiting[0]
            reason = None
            try:
                await hub.publish_wait(item, PATIENCE_S)
            except StoppedError:
                reason = CLOSED
            except MailboxFullError as error:
                reason = NO_ROOM
                _log.error("measurement lost", stream=stream, error=str(error))
            self._waiting.popleft()
            self._settle(stream, weight, reason)

    def _settle(self, stream: str, weight: int, dropped: str | None = None) -> None:
        self._books.settle(stream, weight, dropped)
        self._done += 1
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        self._acknowledge(self._done)

    def _measurement(self, message: Item) -> Measurement:
        one = unpack(message.body)
        if not isinstance(one, Scalar | Vector | Spectrum | Image):
            raise DataError(f"{type(one).__name__} is no measurement")
        if message.blob is None:
            return one
        name = "pixels" if isinstance(one, Image) else "values"
        return msgspec.structs.replace(one, **{name: self._view(message)})

    def _view(self, message: Item | Batch) -> np.ndarray[Any, Any]:
        if self._ring is None or message.blob is None:
            raise DataError("a blob without a ring")
        return self._ring.view(message.blob)

    def _batch(self, message: Batch) -> pa.RecordBatch:
        try:
            body: Any = message.body if message.blob is None else self._view(message)
            batch: pa.RecordBatch = pa.ipc.open_stream(pa.py_buffer(body)).read_next_batch()
            batch.validate()
        except (pa.ArrowException, OSError, StopIteration) as error:
            raise DataError(f"a batch that cannot be read: {error}") from error
        return batch


def _stream_of(batch: pa.RecordBatch) -> str:
    try:
        return stream_of(batch)
    except SchemaMismatchError as error:
        raise DataError(str(error)) from error
