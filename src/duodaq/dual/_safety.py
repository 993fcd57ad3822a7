"""Stop, stop-all and the safe state: what goes to the wire, and in which order.

1. Bytes first: the broker writes the stop beside whatever is in hand; the latch closes with the first byte.
2. Then what waits: every queued command that moves or emits ends as not done, on both sides.
3. Then calls: instruments without a wire path are told through their driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from duodaq.dual._side import Side
from duodaq.errors import DuodaqError
from duodaq.model import Cause, Execute, InstrumentDefinition, SafeAction, Stop
from duodaq.ports import Broker


class StopReport(msgspec.Struct, frozen=True):
    """What a stop-all did: when each port's stop was on the wire (UTC ns), what failed, what was ended."""

    on_wire_ns: dict[str, int]
    failures: dict[str, str]
    no_fail_safe: tuple[str, ...]
    ended: int
    t_ns: int


def stop_bytes(instrument: InstrumentDefinition, broker: Broker, axis: str | None = None) -> bytes | None:
    """The bytes that stop `instrument`, or one axis of it: its own, else its codec's; None if there are none."""
    if instrument.port is None:
        return None
    if instrument.stop is not None:
        return instrument.stop
    codec = broker.port(instrument.port).codec
    numbers = {a.name: str(a.number) for a in instrument.axes}
    return None if codec is None else codec.stop_bytes(None if axis is None else numbers.get(axis, axis))


def has_fail_safe(instrument: InstrumentDefinition, broker: Broker) -> bool:
    """Whether something can make `instrument` safe without its driver."""
    action = instrument.safe.get(Cause.STOP_ALL) or instrument.safe.get(Cause.SHUTDOWN)
    return stop_bytes(instrument, broker) is not None or (action is not None and action.kind != "stop")


async def make_safe(side: Side, instrument: InstrumentDefinition, broker: Broker, cause: Cause, limit_s: float) -> str:
    """Carry out the safe action of `instrument` for `cause`; what was done, in a word. Raises what went wrong."""
    action = instrument.safe.get(cause)
    if action is None or action.kind == "hold":
        return "hold"
    if action.kind == "call":
        await side.command(instrument.id, Execute(action.call or "", action.args), limit_s)
        return f"called {action.call}"
    return await _write(side, instrument, broker, action, limit_s)


async def _write(
    side: Side, instrument: InstrumentDefinition, broker: Broker, action: SafeAction, limit_s: float
) -> str:
    data = action.data if action.kind == "bytes" else stop_bytes(instrument, broker)
    if data is None or instrument.port is None:
        await side.command(instrument.id, Stop(), limit_s)
        return "told its driver to stop"
    async with asyncio.timeout(limit_s):
        await broker.stop(instrument.port, data, holder=f"safe state of {instrument.id}")
    return f"wrote {data!r}"


def stops_by_port(instruments: Iterable[InstrumentDefinition], broker: Broker) -> dict[str, bytes | None]:
    """For a stop-all: the stop bytes of every port that has some, each only once."""
    found: dict[str, list[bytes]] = {}
    for instrument in instruments:
        action = instrument.safe.get(Cause.STOP_ALL)
        data = action.data if action is not None and action.kind == "bytes" else stop_bytes(instrument, broker)
        if data is not None and instrument.port is not None and data not in found.setdefault(instrument.port, []):
            found[instrument.port].append(data)
    return {port: b"".join(parts) for port, parts in found.items()}


async def gather_failures(work: dict[str, Any]) -> dict[str, str]:
    """Await every awaitable; the sentence of each that failed, by its name."""
    results = await asyncio.gather(*work.values(), return_exceptions=True)
    failures: dict[str, str] = {}
    for name, result in zip(work, results, strict=True):
        if isinstance(result, DuodaqError | OSError | TimeoutError):
            failures[name] = str(result) or type(result).__name__
        elif isinstance(result, BaseException):
            raise result
    return failures
