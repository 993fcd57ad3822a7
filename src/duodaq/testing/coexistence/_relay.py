"""How what a hub of the manager distributes comes to an instrument that lives elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Any

import pyarrow as pa

from duodaq.dataplane import Policy, Subscription
from duodaq.dual import DualRuntimeManager
from duodaq.errors import StoppedError
from duodaq.model import Execute, InstrumentDefinition, Measurement
from duodaq.schema import scalars_of
from duodaq.testing.coexistence._bench import Bench, outcome
from duodaq.testing.coexistence._endpoints import Heard, ListeningActor, row_of

AT_ONCE = 64
_PATIENCE_S = 30.0


class Relay:
    """Hands what `subscription` gets to an instrument's operation `take` while it is entered.

    It waits for what waited to be taken before it takes more, so a slow instrument is felt at the hub when twice the
    subscription's capacity is full. `items` keeps the very objects that the hub gave.
    """

    def __init__(
        self,
        manager: DualRuntimeManager,
        instrument: str,
        subscription: Subscription[Any],
        heard: Heard,
        *,
        by_value: bool,
    ) -> None:
        self.items: list[Any] = []
        self._heard = heard
        self._manager = manager
        self._instrument = instrument
        self._subscription = subscription
        self._by_value = by_value
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Relay:
        self._task = asyncio.create_task(self._carry(), name=f"relay to {self._instrument}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscription.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _carry(self) -> None:
        while True:
            try:
                taken = await self._subscription.get_many(AT_ONCE)
            except StoppedError:
                return
            self._heard.note_missed(self._subscription.take_missed())
            measurements = [one for item in taken for one in _measurements_in(item)]
            self.items += measurements
            rows = [row_of(one, by_value=self._by_value) for one in measurements]
            await outcome(self._manager.command(self._instrument, Execute("take", (rows,)), _PATIENCE_S))


def listener(bench: Bench, heard: Heard, *streams: str, **queue: Any) -> InstrumentDefinition:
    """V4's end point for scalar streams; `queue` is its subscription's capacity and policy.

    Where V4 lives in the manager's process it subscribes at its own publisher; elsewhere see `carried_to_v4`.
    """
    own = {"streams": list(streams), **queue} if bench.mode.v4 != "process" else {}
    return bench.own_actor("listener", ListeningActor, args={**heard.args, **own})


def carried_to_v4(
    bench: Bench, manager: DualRuntimeManager, heard: Heard, *streams: str, **queue: Any
) -> AbstractAsyncContextManager[Any]:
    """While entered, what V4's publisher has of `streams` comes to the `listener`, which in a process of its own
    cannot reach it.
    """
    if bench.mode.v4 != "process":
        return nullcontext()
    subscription = manager.v4_data.subscribe("listener listens", streams=streams, **queue)
    return Relay(manager, "listener", subscription, heard, by_value=True)


def carried_to_v2(
    bench: Bench,
    manager: DualRuntimeManager,
    heard: Heard,
    *,
    capacity: int = 65536,
    policy: Policy = Policy.DROP_OLDEST,
) -> Relay:
    """While entered, what came to V2's distributor from V4 comes to the driver called "chart"."""
    subscription = manager.v2_data.subscribe("chart", capacity=capacity, policy=policy, accepts=_of_v4)
    return Relay(manager, "chart", subscription, heard, by_value=bench.mode.v2 == "process")


def _measurements_in(item: Any) -> Sequence[Measurement]:
    return scalars_of(item) if isinstance(item, pa.RecordBatch) else (item,)


def _of_v4(measurement: Measurement) -> bool:
    return measurement.origin == "v4"
