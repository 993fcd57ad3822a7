"""What an instrument gives away: rows collected into batches, and sequence numbers without a gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa

from duodaq.clock import utc_ns
from duodaq.errors import MailboxFullError, StoppedError
from duodaq.model import Scalar
from duodaq.schema import scalar_batch
from duodaq.telemetry import get_logger
from duodaq.v4._publisher import DataPublisher

_ROWS = 256
_AGE_S = 0.01
_ROOM_S = 2.0


class Streams:
    """The streams of one instrument.

    Scalars of a channel are published together, as soon as there are 256 or the oldest is 10 ms old; batches at once.
    """

    def __init__(self, publisher: DataPublisher, instrument: str, memory: dict[str, Any]) -> None:
        self._publisher = publisher
        self._instrument = instrument
        self._next: dict[str, int] = memory.setdefault("sequences", {})
        self._waiting: dict[str, list[Scalar]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._log = get_logger("v4.streams")
        self._memory = memory

    def sequence(self, channel: str) -> int:
        """The next sequence number of a channel; from 0, across restarts of the actor."""
        number = self._next.get(channel, 0)
        self._next[channel] = number + 1
        return number

    def scalar(self, channel: str, value: float, unit: str, t_ns: int | None = None) -> Scalar:
        """Take one number, and return it as a measurement; call it on the actor's loop."""
        row = Scalar(
            self._instrument, channel, unit, t_ns or utc_ns(), self.sequence(channel), float(value), origin="v4"
        )
        rows = self._waiting.setdefault(channel, [])
        rows.append(row)
        if len(rows) >= _ROWS:
            self._flush(channel)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AGE_S, self.flush)
        return row

    def batch(self, channel: str, batch: pa.RecordBatch) -> None:
        """Publish a batch at once; from any thread.

        Raises:
            MailboxFullError: A reader that may lose nothing has no room. Nobody got it.
        """
        self._publisher.publish(f"{self._instrument}.{channel}", batch)

    async def deliver(self, channel: str, batch: pa.RecordBatch) -> None:
        """Publish a batch, waiting up to 2 s for readers that may lose nothing; what they then lose is counted."""
        try:
            await self._publisher.publish_wait(batch, _ROOM_S)
        except (MailboxFullError, StoppedError) as error:
            self._lose(channel, batch.num_rows, error)

    def flush(self) -> None:
        """Publish all that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for channel in list(self._waiting):
            self._flush(channel)

    def _flush(self, channel: str) -> None:
        rows = self._waiting.pop(channel, [])
        if not rows:
            return
        try:
            self.batch(channel, scalar_batch(rows))
        except (MailboxFullError, StoppedError) as error:  # a timer cannot wait for room
            self._lose(channel, len(rows), error)

    def _lose(self, channel: str, rows: int, error: Exception) -> None:
        self._memory["rows_lost"] = self._memory.get("rows_lost", 0) + rows
        self._log.error("rows lost", instrument=self._instrument, channel=channel, rows=rows, why=str(error))
