"""Streams that a client collects while something else goes on: the frames of a camera during a fly scan."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa

from duodaq.app._lab import Lab
from duodaq.dataplane import Policy, Subscription
from duodaq.errors import LifecycleError, StoppedError
from duodaq.model import InstrumentState, StartAcquisition, StopAcquisition
from duodaq.telemetry import get_logger

MOST_ROWS = 1_000_000
"""Of one flight. What comes later is counted as lost to it; recordings have it."""

_WAITING = 4096
_AT_ONCE = 256
_TICK_S = 0.02
"""How soon a flight that is to land does."""

_log = get_logger("app.flights")


class Flights:
    """The flights of a lab, by the ids that their clients gave them."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._flying: dict[str, _Flight] = {}
        self._need: Counter[str] = Counter()
        self._begun: set[str] = set()

    async def fly(self, flight: str, instrument: str, channel: str, options: dict[str, Any] | None) -> dict[str, Any]:
        """Collect a stream until `land`, or until the client has gone: this request is as long as the flight.

        Args:
            flight: An id that nobody else uses.
            instrument, channel: The stream.
            options: Start the acquisition with these, and stop it behind the last flight, unless it ran before the
                first: others read it. None: it is left as it is.

        Returns:
            ``sequence`` and ``t_ns`` (UTC) of each row, its ``value`` where it is a number, and ``lost``, the number of
            rows that came and could not be kept.

        Raises:
            LifecycleError: That id is in the air already, or the lab has no such channel. Nothing was started.
            DuodaqError: The acquisition does not start.
        """
        known = {(c.instrument, c.channel) for c in self._lab.manager.channels()}
        if (instrument, channel) not in known:
            names = ", ".join(sorted(name for owner, name in known if owner == instrument)) or "none"
            raise LifecycleError(f"no channel {channel!r}; there are: {names}", instrument=instrument)
        if flight in self._flying:
            raise LifecycleError(f"flight {flight} is in the air already", instrument=instrument)
        stream = f"{instrument}.{channel}"
        rows = self._lab.manager.v4_data.subscribe(
            f"flight {flight}", capacity=_WAITING, policy=Policy.DROP_NEWEST, streams=[stream]
        )
        self._flying[flight] = flying = _Flight(rows)
        try:
            async with self._acquiring(instrument, options):
                flying.started.set()
                await flying.collect()
            return flying.result()
        finally:
            flying.started.set()
            rows.close()
            self._flying.pop(flight, None)

    @asynccontextmanager
    async def _acquiring(self, instrument: str, options: dict[str, Any] | None) -> AsyncGenerator[None]:
        if options is None:
            yield
            return
        state = next((one.state for one in self._lab.health().instruments if one.id == instrument), None)
        runs = state is InstrumentState.ACQUIRING
        self._need[instrument] += 1
        try:
            if options or not runs:  # a stream that runs is not begun again; with other options it says so itself
                await self._lab.command(instrument, StartAcquisition(options))
            if not runs:
                self._begun.add(instrument)
            yield
        finally:
            self._need[instrument] -= 1
            if not self._need[instrument] and instrument in self._begun:
                self._begun.discard(instrument)
                await self._lab.manager.command(instrument, StopAcquisition())  # whoever has control by now

    async def started(self, flight: str) -> bool:
        """Wait until the acquisition runs; False if the flight has ended, or is none."""
        flying = self._flying.get(flight)
        if flying is None:
            return False
        await flying.started.wait()
        return flight in self._flying

    def land(self, flight: str, enough: int | None) -> bool:
        """End a flight now, or once it has `enough` rows; False if there is none of that id."""
        flying = self._flying.get(flight)
        if flying is not None:
            flying.land(enough or 0)
        return flying is not None


class _Flight:
    def __init__(self, rows: Subscription[pa.RecordBatch]) -> None:
        self.started = asyncio.Event()
        self._rows = rows
        self._enough: int | None = None
        self._columns: dict[str, list[Any]] = {"sequence": [], "t_ns": []}
        self._lost = 0

    @property
    def _count(self) -> int:
        return len(self._columns["sequence"])

    def land(self, enough: int) -> None:
        self._enough = enough

    async def collect(self) -> None:
        while self._enough is None or self._count < self._enough:
            try:
                batches = await self._rows.get_many(_AT_ONCE, _TICK_S)
            except StoppedError:
                return
            for batch in batches:
                self._take(batch)

    def _take(self, batch: pa.RecordBatch) -> None:
        if self._count + batch.num_rows > MOST_ROWS:
            self._lost += batch.num_rows
            return
        self._columns["sequence"] += batch.column("sequence").to_pylist()
        self._columns["t_ns"] += batch.column("timestamp").cast(pa.int64()).to_pylist()
        if "value" in batch.schema.names:
            self._columns.setdefault("value", []).extend(batch.column("value").to_pylist())

    def result(self) -> dict[str, Any]:
        lost = self._lost + self._rows.dropped
        if lost:
            _log.warning("a flight did not keep all rows", subscription=self._rows.name, rows=lost)
        return {**self._columns, "lost": lost}
