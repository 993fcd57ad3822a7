"""Stop, stop-all and the safe state: what goes to the wire, and in which order.

0. A stop-all latches before it looks at anything: whatever fails afterwards, nothing new moves.
1. Bytes first: the broker writes the stop beside whatever is in hand.
2. At the same time what waits: every queued command that moves or emits ends as not done, on both sides; a line that
   does not take its bytes keeps nothing else waiting.
3. Then calls: instruments without a wire path are told through their driver.

What is wrong with one instrument (its port is not there, its driver raises anything at all) is written down in the
report, and never keeps the others from being stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from duodaq.clock import utc_ns
from duodaq.dual._side import Side
from duodaq.errors import ConfigError, DuodaqError
from duodaq.model import Cause, Execute, InstrumentDefinition, InstrumentStatus, SafeAction, Stop
from duodaq.ports import Broker
from duodaq.telemetry import get_logger

_log = get_logger("duodaq.dual")


class StopReport(msgspec.Struct, frozen=True):
    """What a stop-all did: when each port's stop was on the wire (UTC ns), what failed, what was ended, and in words
    what was done about each instrument.
    """

    on_wire_ns: dict[str, int]
    failures: dict[str, str]
    no_fail_safe: tuple[str, ...]
    ended: int
    t_ns: int
    did: dict[str, str]


def stop_bytes(instrument: InstrumentDefinition, broker: Broker, axis: str | None = None) -> bytes | None:
    """The bytes that stop `instrument`, or one axis of it: its own, else its codec's; None if there are none.

    On a line with several devices (a codec that is `addressed`) they stop those that the instrument's axes name.
    """
    if instrument.port is None:
        return None
    if instrument.stop is not None:
        return instrument.stop
    codec = broker.port(instrument.port).codec
    if codec is None:
        return None
    numbers = {a.name: str(a.number) for a in instrument.axes}
    if axis is None and numbers and getattr(codec, "addressed", False):
        return b"".join(codec.stop_bytes(number) or b"" for number in numbers.values())
    return codec.stop_bytes(None if axis is None else numbers.get(axis, axis))


def needs_telling(instrument: InstrumentDefinition, broker: Broker) -> bool:
    """Whether a stop-all goes to `instrument` through its driver: what it calls, and what no bytes can stop.

    An actor stops by itself what it has begun, a camera its stream. A V2 driver without bytes has no stop to be told.
    """
    action = instrument.safe.get(Cause.STOP_ALL)
    if action is not None and action.kind == "call":
        return True
    return stop_bytes(instrument, broker) is None and (action is not None or instrument.runtime == "v4")


def has_fail_safe(instrument: InstrumentDefinition, broker: Broker) -> bool:
    """Whether something can make `instrument` safe without its driver, or it never needs it: a passive one."""
    if instrument.passive is True:
        return True
    action = instrument.safe.get(Cause.STOP_ALL) or instrument.safe.get(Cause.SHUTDOWN)
    return stop_bytes(instrument, broker) is not None or (action is not None and action.kind != "stop")


async def make_safe(side: Side, instrument: InstrumentDefinition, broker: Broker, cause: Cause, limit_s: float) -> str:
    """Carry out the safe action of `instrument` for `cause`; what was done, in a word. Raises what went wrong."""
    action = instrument.safe.get(cause)
    if action is None and cause is Cause.STOP_ALL:
        action = SafeAction("stop")
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


def crash_bytes(instrument: InstrumentDefinition, broker: Broker) -> bytes | None:
    """The bytes that make `instrument` safe after a crash, if bytes do; None if it holds, or only its driver can."""
    action = instrument.safe.get(Cause.CRASH)
    if action is None or action.kind in ("hold", "call") or instrument.port is None:
        return None
    return action.data if action.kind == "bytes" else stop_bytes(instrument, broker)


def stops_by_port(
    instruments: Iterable[InstrumentDefinition], broker: Broker
) -> tuple[dict[str, bytes | None], dict[str, str]]:
    """For a stop-all: the stop bytes of every port that has some, each only once; and whose port is not there."""
    found: dict[str, list[bytes]] = {}
    lost: dict[str, str] = {}
    for instrument in instruments:
        try:
            data = _bytes_for_all(instrument, broker)
        except ConfigError as error:
            lost[instrument.id] = str(error)
            continue
        if data is not None and instrument.port is not None and data not in found.setdefault(instrument.port, []):
            found[instrument.port].append(data)
    return {port: b"".join(parts) for port, parts in found.items()}, lost


def _bytes_for_all(instrument: InstrumentDefinition, broker: Broker) -> bytes | None:
    action = instrument.safe.get(Cause.STOP_ALL)
    return action.data if action is not None and action.kind == "bytes" else stop_bytes(instrument, broker)


async def gather_failures(work: dict[str, Any]) -> dict[str, str]:
    """Await every awaitable; the sentence of each that failed, however it failed, by its name."""
    results = await asyncio.gather(*work.values(), return_exceptions=True)
    return {
        name: in_words(result) for name, result in zip(work, results, strict=True) if isinstance(result, BaseException)
    }


def in_words(error: BaseException) -> str:
    """The sentence of an error; of one that is not ours its kind too."""
    return str(error) if isinstance(error, DuodaqError) else f"{type(error).__name__}: {error}"


async def stop_everything(
    definitions: Sequence[InstrumentDefinition],
    side_of: Callable[[str], Side],
    broker: Broker,
    end_moving: Callable[[], Awaitable[int]],
    limit_s: float,
) -> StopReport:
    """What a stop-all does once it is latched; see DualRuntimeManager.stop_all.

    Args:
        definitions: Every instrument there is.
        side_of: Where each lives.
        broker: Whose ports take the bytes.
        end_moving: Ends what waits and moves or emits; how many.
        limit_s: How long a driver may take that is told.
    """
    stops, failures = stops_by_port(definitions, broker)
    reachable = [d for d in definitions if d.id not in failures]
    written, ended = await asyncio.gather(broker.stop_all(stops), end_moving())
    heard: dict[str, str] = {}

    async def tell(one: InstrumentDefinition) -> None:
        heard[one.id] = await make_safe(side_of(one.id), one, broker, Cause.STOP_ALL, limit_s)

    told = {d.id: tell(d) for d in reachable if side_of(d.id).has_home(d.id) and needs_telling(d, broker)}
    failures |= await gather_failures(told)
    failures |= {port: in_words(result) for port, result in written.items() if isinstance(result, BaseException)}
    report = StopReport(
        on_wire_ns={port: t for port, t in written.items() if isinstance(t, int)},
        failures=failures,
        no_fail_safe=tuple(d.id for d in definitions if d not in reachable or not has_fail_safe(d, broker)),
        ended=ended,
        t_ns=utc_ns(),
        did={d.id: _done_about(d, broker, failures, heard) for d in definitions},
    )
    _log.warning("stop-all", ended=ended, ports=sorted(report.on_wire_ns), failures=failures)
    return report


def _done_about(
    instrument: InstrumentDefinition, broker: Broker, failures: dict[str, str], heard: dict[str, str]
) -> str:
    if instrument.id in failures:
        return f"NOT stopped: {failures[instrument.id]}"
    if _bytes_for_all(instrument, broker) is not None and instrument.port is not None:
        failed = failures.get(instrument.port)
        wire = f"stop is on the wire of {instrument.port}" if failed is None else f"NOT stopped: {failed}"
        return f"{wire}; {heard[instrument.id]}" if instrument.id in heard else wire
    done = heard.get(instrument.id, "")
    if done and done != "hold":
        return done
    if done or instrument.safe.get(Cause.STOP_ALL) is not None:
        return "nothing was sent: it is to hold"
    if instrument.passive is True:
        return "nothing was sent: it neither moves nor emits"
    return "nothing was sent: it has no stop"


async def after_crash(broker: Broker, side: Side, status: InstrumentStatus) -> None:
    """Make an instrument safe that has crashed, unless it was removed meanwhile, or its whole worker is ended."""
    if status.id not in side or side.mends_itself(status.id):
        return
    try:
        done = await make_safe(side, side[status.id], broker, Cause.CRASH, 2.0)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises, the watch over the others goes on
        _log.error("safe state failed", instrument=status.id, cause=status.message, error=in_words(error))
    else:
        _log.warning("safe state after a crash", instrument=status.id, cause=status.message, done=done)
