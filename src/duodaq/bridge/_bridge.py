"""Both directions at once: V2 measurements as Arrow batches on V4's publisher, V4 batches as measurements on V2's.

Every item carries the runtime that produced it (`origin`), and a direction takes only what the other runtime did not
produce, so nothing is echoed. The queues between are the two hubs' own subscriptions: bounded, with a stated policy,
and in the hubs' ledgers; what the bridge itself drops is in its own. Pictures, which keep much memory and take long,
cross only while somebody is subscribed on the other side; else they are in the hub's ledger as skipped by the bridge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from duodaq import clock
from duodaq.bridge._lane import Failed, Lane, Translated, attempt
from duodaq.bridge._translate import NO_V2_FORM, groups_of, measurements_of
from duodaq.dataplane import Hub, Ledger, Policy
from duodaq.errors import LifecycleError, SchemaMismatchError
from duodaq.model import ComponentReport, Image, Measurement, Outcome
from duodaq.schema import has_pixels, measurement_batch, origin_of, schema_name, stream_id, stream_of

_MOST_BATCHES = 64
_MOST_GROUPS = 4


class Bridge:
    """Connects a V2 distributor and a V4 publisher, on the loop where it is started; the hubs may be fed from anywhere.

    Args:
        v2_hub: Where V2 publishes measurements.
        v4_hub: Where V4 publishes batches.
        rows: A batch is made when so many measurements wait,
        age_ms: or when the first of them has waited so long.
        capacity: How many items may wait on either side.
        policy: What happens when more come; drops are in the hub's ledger under the name "bridge".
        max_bytes: The most memory that frames waiting on either side may keep.
        patience_s: How long to wait for a blocking subscriber on the other side before a batch is dropped.
        name: The name of its subscriptions at both hubs.
    """

    def __init__(
        self,
        v2_hub: Hub[Measurement],
        v4_hub: Hub[pa.RecordBatch],
        *,
        rows: int = 256,
        age_ms: float = 10.0,
        capacity: int = 65536,
        policy: Policy = Policy.DROP_OLDEST,
        max_bytes: int = 256 * 2**20,
        patience_s: float = 5.0,
        name: str = "bridge",
    ) -> None:
        self.name = name
        self.v2_hub = v2_hub
        self.v4_hub = v4_hub
        self._queue: dict[str, Any] = {"capacity": capacity, "policy": policy, "max_bytes": max_bytes}
        self._pace: dict[str, Any] = {"rows": rows, "age_s": age_ms / 1000, "patience_s": patience_s}
        self._to_v4: Lane[Measurement, pa.RecordBatch] | None = None
        self._to_v2: Lane[pa.RecordBatch, Measurement] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Lock()
        self._report: ComponentReport | None = None

    @property
    def running(self) -> bool:
        """Whether it carries in both directions now."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def start(self) -> None:
        """Join both hubs and carry from now on.

        Raises:
            LifecycleError: It was started before.
            ValueError: One of the hubs has a subscriber of this name. Nothing was joined.
        """
        if self._to_v4 is not None:
            raise LifecycleError("the bridge was started before; make another one")
        of_v2 = self.v2_hub.subscribe(self.name, accepts=self._takes_of_v2, **self._queue)
        try:
            of_v4 = self.v4_hub.subscribe(self.name, accepts=self._takes_of_v4, **self._queue)
        except BaseException:
            of_v2.close()
            raise
        most = _MOST_GROUPS * int(self._pace["rows"])
        pace = {**self._pace, "rows": 1}
        self._to_v4 = Lane("bridge v2→v4", of_v2, self.v4_hub, _to_batches, most=most, **self._pace)
        self._to_v2 = Lane("bridge v4→v2", of_v4, self.v2_hub, _to_measurements, most=_MOST_BATCHES, **pace)
        self._tasks = [self._to_v4.task(), self._to_v2.task()]

    async def stop(self, drain_s: float = 1.0) -> ComponentReport:
        """Take nothing new, carry what waits for up to `drain_s` seconds, and leave both hubs. Idempotent.

        Returns:
            Clean if all that waited was carried; forced, with the numbers, if not (the rest is in the ledgers).
        """
        async with self._stopping:
            if self._report is None:
                self._report = await self._stop(drain_s)
        return self._report

    def ledgers(self) -> dict[str, Ledger]:
        """The bridge's own books by direction, ``"v2→v4"`` in rows and ``"v4→v2"`` in measurements."""
        lanes = {"v2→v4": self._to_v4, "v4→v2": self._to_v2}
        return {direction: lane.books.ledger() for direction, lane in lanes.items() if lane is not None}

    def _takes_of_v2(self, measurement: Measurement) -> bool:
        picture = measurement.__class__ is Image
        return _not_of_v4(measurement) and (not picture or self.v4_hub.attended(without=self.name))

    def _takes_of_v4(self, batch: pa.RecordBatch) -> bool:
        return _for_v2(batch) and (not has_pixels(batch) or self.v2_hub.attended(without=self.name))

    async def _stop(self, drain_s: float) -> ComponentReport:
        began_s = clock.monotonic_s()
        lanes = [lane for lane in (self._to_v4, self._to_v2) if lane is not None]
        for lane in lanes:
            lane.source.finish()
        why: list[str] = []
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=drain_s)
            for task in late:
                task.cancel()
            for lane, ended in zip(lanes, await asyncio.gather(*self._tasks, return_exceptions=True), strict=True):
                if isinstance(ended, asyncio.CancelledError):
                    why.append(f"{lane.name}: {lane.source.occupancy} items still waited after {drain_s:g} s")
                elif ended is not None:
                    why.append(f"{lane.name} failed: {ended!r}")
        for lane in lanes:
            lane.source.close()
        outcome = Outcome.FORCED if why else Outcome.CLEAN
        return ComponentReport(self.name, outcome, "; ".join(why), clock.monotonic_s() - began_s)


def _not_of_v4(measurement: Measurement) -> bool:
    return measurement.origin != "v4"


def _for_v2(batch: pa.RecordBatch) -> bool:
    return origin_of(batch) != "v2" and schema_name(batch.schema) not in NO_V2_FORM


def _to_batches(measurements: Sequence[Measurement]) -> list[Translated[pa.RecordBatch] | Failed]:
    translated: list[Translated[pa.RecordBatch] | Failed] = []
    for group in groups_of(measurements):
        made = _group_to_batch(group)
        if isinstance(made[0], Failed) and len(group) > 1:
            made = [one for row in group for one in _group_to_batch([row])]
        translated += made
    return translated


def _group_to_batch(group: Sequence[Measurement]) -> list[Translated[pa.RecordBatch] | Failed]:
    stream = stream_id(group[0].instrument, group[0].channel)
    count = len(group)
    return attempt(lambda: [Translated(measurement_batch(group, "v2"), stream, count)], stream, count)


def _to_measurements(batches: Sequence[pa.RecordBatch]) -> list[Translated[Measurement] | Failed]:
    return [one for batch in batches if batch.num_rows for one in _batch_to_measurements(batch)]


def _batch_to_measurements(batch: pa.RecordBatch) -> list[Translated[Measurement] | Failed]:
    try:
        stream = stream_of(batch)
    except SchemaMismatchError as error:
        return [Failed("(unnamed)", batch.num_rows, error)]
    return attempt(lambda: [_marked(one) for one in measurements_of(batch)], stream, batch.num_rows)


def _marked(measurement: Any) -> Translated[Measurement]:
    if measurement.origin != "v4":
        facts = {name: getattr(measurement, name) for name in measurement.__struct_fields__}
        measurement = type(measurement)(**{**facts, "origin": "v4"})
    return Translated(measurement, stream_id(measurement.instrument, measurement.channel), 1)
