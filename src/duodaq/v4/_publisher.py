"""Where V4 puts its data: Arrow batches to subscribers, each with its own bound, policy and exact counters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import pyarrow as pa

from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.dataplane._hub import SyncOverflow
from duodaq.errors import SchemaMismatchError
from duodaq.schema import bytes_of, stream_of

Accepts = Callable[[pa.RecordBatch], bool]


class DataPublisher(Hub[pa.RecordBatch]):
    """A hub of Arrow batches, counted in rows; the stream of a batch is named in its schema's metadata."""

    def __init__(self, name: str = "v4") -> None:
        super().__init__(name, stream_of, lambda batch: batch.num_rows, size_of=bytes_of)

    def publish(self, item: pa.RecordBatch | str, batch: pa.RecordBatch | None = None) -> None:
        """Publish a batch, or ``(stream, batch)`` to have its stream checked. Never waits; safe from any thread.

        Raises:
            SchemaMismatchError: The batch belongs to another stream than was said. Nobody got it.
            MailboxFullError: A subscription that blocks is full. Nobody got it.
        """
        if isinstance(item, str):
            if batch is None:
                raise TypeError("publish takes a batch, or a stream and a batch")
            if stream_of(batch) != item:
                raise SchemaMismatchError(f"a batch of {stream_of(batch)} was published as {item}")
            item = batch
        super().publish(item)

    def subscribe(
        self,
        name: str,
        *,
        capacity: int = 1024,
        policy: Policy = Policy.DROP_OLDEST,
        accepts: Accepts | None = None,
        max_bytes: int | None = None,
        sync_overflow: SyncOverflow = "refuse",
        initial: Iterable[pa.RecordBatch] = (),
        alarm_at: float = 0.9,
        streams: Collection[str] | None = None,
    ) -> Subscription[pa.RecordBatch]:
        """As `Hub.subscribe`; `streams` limits it to these stream ids."""
        if streams is not None:
            accepts = _only(frozenset(streams), accepts)
        return super().subscribe(
            name,
            capacity=capacity,
            policy=policy,
            accepts=accepts,
            max_bytes=max_bytes,
            sync_overflow=sync_overflow,
            initial=initial,
            alarm_at=alarm_at,
        )


def _only(streams: frozenset[str], accepts: Accepts | None) -> Accepts:
    return lambda batch: stream_of(batch) in streams and (accepts is None or accepts(batch))
