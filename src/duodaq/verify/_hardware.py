"""The same spirit on real instruments: each is read, all are read at once for a while, axes are moved and put back.

Without leave to move, nothing is written that moves, emits or sets anything, and the line itself is asked whether that
was so. Nothing is ever made to emit: there is no leave for it. What does not apply is labelled not run, with the
reason.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from duodaq.app import Lab
from duodaq.clock import Deadline, monotonic_s, one_interrupt, pause
from duodaq.config import load_lab
from duodaq.errors import ConfigError, DuodaqError, PortError
from duodaq.model import AxisDefinition, Execute, InstrumentDefinition, InstrumentState, LabDefinition, Outcome
from duodaq.units import parse_duration_s
from duodaq.verify._read_only import Writes, harmless, may_emit
from duodaq.verify._results import FAILED, HARDWARE, NOT_RUN, PASSED, Entry, Figure, Results, Verdict, now, versions
from duodaq.verify._run import Step, Tell

ANSWERS_S = 15.0
"""How long an instrument may take until it is ready."""
READ_S = 30.0
MOVE_S = 60.0
_SHARE, _MOST = 0.01, 0.1
"""A move is this share of the way between the limits, and no more than this many units."""

Check: TypeAlias = "Callable[[InstrumentDefinition], Awaitable[list[Figure] | None]]"

SHOWS = {
    "answers": ("reading", "It is connected and ready, by its own driver in its own runtime."),
    "reads_every_channel": ("reading", "Each of its channels gives a finite number, in the unit that was promised."),
    "holds_under_load": ("load", "It is read as fast as it answers while all others are, too: every reading arrives."),
    "keeps_its_line_in_order": ("load", "No late, stray or lost byte on its port, whoever else uses it."),
    "moves_and_returns": ("motion", "Each axis goes a small way within its limits, is seen there, and comes back."),
    "lets_nothing_out": ("safety", "A beam that was shut is shut; nothing here ever opens, arms or switches one on."),
    "is_only_read": ("safety", "Nothing was written to its port that moves or emits, as the port's codec reads it."),
    "lets_go": ("safety", "At the end it is closed in order, and its port is free."),
}


@dataclass(frozen=True)
class HardwarePlan:
    """What is asked for: which lab, whether its axes may be moved a little, and how long the load test takes."""

    file: Path
    allow_motion: bool = False
    load: str = "5 s"

    @property
    def load_s(self) -> float:
        """Its duration in seconds.

        Raises:
            ConfigError: It is none.
        """
        try:
            seconds = parse_duration_s(self.load)
        except ValueError as error:
            raise ConfigError(str(error), key="--load") from error
        if seconds is None or not 0 < seconds <= 3600:
            raise ConfigError(f"{self.load!r} is no time for a load test", key="--load", remedy="Say 5 s, up to 1 h")
        return seconds


def verify_hardware(plan: HardwarePlan, tell: Tell = lambda _: None) -> Results:
    """Verify the instruments of a lab, which must not be running.

    Raises:
        ConfigError: The lab file or the plan is wrong. Nothing was opened.
        DuodaqError: The lab does not start. Nothing was left open.
        KeyboardInterrupt: It was interrupted: what moved was stopped, and the lab was shut down.
    """
    lab, load_s = harmless(load_lab(plan.file), moving=plan.allow_motion), plan.load_s
    ids = [one.id for one in lab.instruments]
    index = [Entry(name, category, shows) for name, (category, shows) in SHOWS.items()]
    results = Results(HARDWARE, ids, [], index, began=now(), versions=versions())
    began_s = monotonic_s()
    asyncio.run(_run(_Hardware(lab, plan.allow_motion, load_s, results, tell)))
    order = {name: number for number, name in enumerate(SHOWS)}
    results.tests.sort(key=lambda test: (order[test.test], ids.index(test.mode)))
    results.took_s = monotonic_s() - began_s
    return results


async def _run(hardware: _Hardware) -> None:
    with one_interrupt():  # the first Ctrl-C stops what moves; a second one would keep that from its end
        await hardware.run()


class _Hardware:
    """One run over one lab."""

    def __init__(self, definition: LabDefinition, moving: bool, load_s: float, results: Results, tell: Tell) -> None:
        self._definition = definition
        self._lab = Lab(definition)
        self._moving = moving
        self._load_s = load_s
        self._results = results
        self._tell = tell
        self._total = len(SHOWS) * len(definition.instruments)
        self._silent: set[str] = set()
        self._shut_out: dict[str, PortError] = {}  # instruments whose port could not be opened
        self._shut_before: dict[str, Any] = {}

    async def run(self) -> None:
        await self._start()
        try:
            writes = Writes(self._lab.manager.broker, self._lab.definition.ports)
            for one in self._there():
                await self._test("answers", one, self._answers)
            for one in self._there():
                await self._note_shutter(one)
                await self._test("reads_every_channel", one, self._reads)
            await self._load(self._there())
            for one in self._there():
                await self._test("moves_and_returns", one, self._moves)
            for one in self._there():
                await self._test("lets_nothing_out", one, self._lets_nothing_out)
        finally:
            report = await self._lab.shutdown()
        ended = {component.component: component for component in report.components}
        for one in self._there():
            await self._test("lets_go", one, lambda i: _let_go(i, ended))
            await self._test("is_only_read", one, lambda i: self._only_read(i, writes))
        self._results.written = writes.listed()

    async def _start(self) -> None:
        """Start the lab; without the ports that cannot be opened, whose instruments have failed."""
        while True:
            try:
                return await self._lab.start()
            except PortError as error:
                cause = error.__cause__ if isinstance(error.__cause__, PortError) else error  # that names the port
                known = self._lab.manager.broker.status()
                port = next((one.name for one in known if cause.port in (one.name, one.address)), "")
                out = [one for one in self._there() if one.port == port]
                if not out:
                    raise
                for one in out:
                    self._shut_out[one.id] = error
                    for name in SHOWS:
                        await self._test(name, one, self._fails_to_open if name == "answers" else self._is_shut_out)
                there = tuple(self._there())
                ports = tuple(one for one in self._lab.definition.ports if one.name != port)
                self._lab = Lab(replace(self._definition, instruments=there, ports=ports))

    def _there(self) -> tuple[InstrumentDefinition, ...]:
        return tuple(one for one in self._definition.instruments if one.id not in self._shut_out)

    async def _fails_to_open(self, one: InstrumentDefinition) -> None:
        raise _FailedError(str(self._shut_out[one.id]))

    async def _is_shut_out(self, _: InstrumentDefinition) -> None:
        raise _NotRunError("its port could not be opened")

    async def _test(self, name: str, one: InstrumentDefinition, check: Check) -> None:
        began_s = monotonic_s()
        test = Verdict(name, one.id, PASSED)
        self._tell(Step("instruments", len(self._results.tests), self._total, name, one.id))
        try:
            test.figures = await check(one) or []
        except _NotRunError as why:
            test.state, test.error = NOT_RUN, str(why)
        except _FailedError as why:
            test.state, test.error = FAILED, str(why)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is this instrument's failure, and is told
            test.state, test.error = FAILED, f"{type(error).__name__}: {error}"
        if test.state != NOT_RUN:
            test.duration_s = monotonic_s() - began_s
        self._results.tests.append(test)
        self._tell(Step("instruments", len(self._results.tests), self._total, name, one.id, test))

    # ---- reading -------------------------------------------------------------------------------------------------

    async def _answers(self, one: InstrumentDefinition) -> None:
        limit = Deadline(ANSWERS_S)
        while (status := self._status(one.id)).state not in (InstrumentState.READY, InstrumentState.ACQUIRING):
            if limit.passed:
                self._silent.add(one.id)
                raise _FailedError(f"it is {status.state} after {ANSWERS_S:g} s: {status.message}")
            await pause(0.02)

    def _status(self, instrument: str) -> Any:
        return next(status for status in self._lab.manager.instruments() if status.id == instrument)

    def _channels(self, one: InstrumentDefinition) -> list[tuple[str, str]]:
        """Its channels of single numbers, with their units: of a camera a frame is no number."""
        infos = self._lab.manager.channels()
        return [(c.channel, c.unit) for c in infos if c.instrument == one.id and c.kind == "scalar"]

    def _readable(self, one: InstrumentDefinition) -> list[tuple[str, str]]:
        channels = self._channels(one)
        if one.id in self._silent:
            raise _NotRunError("it does not answer")
        if not channels:
            raise _NotRunError("it has no channel of numbers")
        return channels

    async def _reads(self, one: InstrumentDefinition) -> list[Figure]:
        channels = self._readable(one)
        return [await self._read(one.id, channel, unit) for channel, unit in channels]

    async def _read(self, instrument: str, channel: str, unit: str) -> Figure:
        began_s = monotonic_s()
        reading = await self._lab.read(instrument, channel, READ_S)
        took_ms = 1e3 * (monotonic_s() - began_s)
        if not np.all(np.isfinite(np.asarray(reading.value, float))):
            raise _FailedError(f"{channel} is {reading.value}")
        if reading.unit != unit:
            raise _FailedError(f"{channel} is in {reading.unit!r}; {unit!r} was promised")
        return Figure(f"{channel}: one reading", took_ms, "ms")

    # ---- load ----------------------------------------------------------------------------------------------------

    async def _load(self, instruments: tuple[InstrumentDefinition, ...]) -> None:
        """All at the same time, and each as fast as it answers."""
        ports = {status.name: status for status in self._lab.manager.broker.status()}
        limit = Deadline(self._load_s)
        await asyncio.gather(
            *(self._test("holds_under_load", one, lambda i: self._hammered(i, limit)) for one in instruments)
        )
        after = {status.name: status for status in self._lab.manager.broker.status()}
        for one in instruments:
            await self._test("keeps_its_line_in_order", one, lambda i: _in_order(i, ports, after))

    async def _hammered(self, one: InstrumentDefinition, limit: Deadline) -> list[Figure]:
        channels = self._readable(one)
        began_s, times_ms = monotonic_s(), list[float]()
        while not limit.passed:
            times_ms += [(await self._read(one.id, *channel)).value for channel in channels]
            await pause(0)
        return list(_load_figures(times_ms, monotonic_s() - began_s))

    # ---- motion --------------------------------------------------------------------------------------------------

    async def _moves(self, one: InstrumentDefinition) -> list[Figure]:
        if not one.axes:
            raise _NotRunError("it has no axis")
        if not self._moving:
            raise _NotRunError("nothing was allowed to move: --allow-motion")
        self._readable(one)
        able = [(axis, axis.limits) for axis in one.axes if axis.limits is not None]
        free = [axis for axis in one.axes if axis.limits is None]
        if not able:
            raise _NotRunError(f"no limits in the lab file: axis {', '.join(axis.name for axis in free)}")
        moved = [await self._there_and_back(one.id, axis, limits) for axis, limits in able]
        return moved + [
            Figure(f"{axis.name}: not moved, without limits in the lab file", 0.0, axis.unit) for axis in free
        ]

    async def _there_and_back(self, instrument: str, axis: AxisDefinition, limits: tuple[float, float]) -> Figure:
        start = await self._position(instrument, axis)
        target = small_move(start, limits)
        if target is None:
            raise _FailedError(
                f"axis {axis.name} stands at {start:g} {axis.unit}, outside its limits; nothing was moved"
            )
        near = abs(target - start) / 5
        try:
            await self._move(instrument, axis, target, near)
            await self._move(instrument, axis, start, near)
        except BaseException:
            await asyncio.shield(self._lab.stop(instrument, axis.name))
            raise
        return Figure(f"{axis.name}: moved there and back by", abs(target - start), axis.unit)

    async def _move(self, instrument: str, axis: AxisDefinition, target: float, near: float) -> None:
        await self._lab.command(instrument, Execute("move", (axis.name, target)), MOVE_S)
        there = await self._position(instrument, axis)
        if abs(there - target) > near:
            raise _FailedError(f"axis {axis.name} was sent to {target:g} {axis.unit} and stands at {there:g}")

    async def _position(self, instrument: str, axis: AxisDefinition) -> float:
        return float((await self._lab.read(instrument, f"{axis.name}.position", READ_S)).value)

    # ---- safety --------------------------------------------------------------------------------------------------

    async def _note_shutter(self, one: InstrumentDefinition) -> None:
        if may_emit(one) and one.id not in self._silent:
            try:
                self._shut_before[one.id] = (await self._lab.read(one.id, "shutter", READ_S)).value
            except DuodaqError:
                return  # it does not answer, and that is told where it is tested

    async def _lets_nothing_out(self, one: InstrumentDefinition) -> None:
        if not may_emit(one):
            raise _NotRunError("it lets out no beam, as far as duodaq knows it")
        self._readable(one)
        if one.id not in self._shut_before:
            raise _FailedError("its shutter could not be read")
        shutter = (await self._lab.read(one.id, "shutter", READ_S)).value
        if shutter != self._shut_before[one.id]:
            raise _FailedError(f"its shutter was {self._shut_before[one.id]:g} before, and now is {shutter:g}")

    async def _only_read(self, one: InstrumentDefinition, writes: Writes) -> None:
        if one.port is None:
            raise _NotRunError("its driver opens its device itself: nobody sees what it writes")
        moving = writes.moving(one.port)
        if moving is None:
            raise _NotRunError("its port has no codec: nobody can say what its bytes mean")
        if self._moving and not may_emit(one):
            raise _NotRunError("it was allowed to move")
        if moving:
            raise _FailedError(f"this was written: {', '.join(moving[:5])}")


class _NotRunError(Exception):
    """It does not apply."""


class _FailedError(Exception):
    """It was not so."""


def small_move(start: float, limits: tuple[float, float]) -> float | None:
    """Where to go for a small move within the limits; None from outside them."""
    low, high = limits
    if not low <= start <= high:
        return None
    step = min(_SHARE * (high - low), _MOST)
    return start + step if start + step <= high else start - step


def _load_figures(times_ms: list[float], took_s: float) -> Iterator[Figure]:
    ordered = sorted(times_ms)
    yield Figure("readings", len(ordered), "")
    yield Figure("readings a second", len(ordered) / took_s, "1/s")
    yield Figure("one reading, median", statistics.median(ordered), "ms")
    yield Figure("one reading, 99th percentile", ordered[math.ceil(0.99 * len(ordered)) - 1], "ms")
    yield Figure("one reading, longest", ordered[-1], "ms")


async def _in_order(one: InstrumentDefinition, before: dict[str, Any], after: dict[str, Any]) -> None:
    if one.port is None:
        raise _NotRunError("its driver opens its device itself: nobody sees its line")
    counts = ("errors", "reconnects", "resyncs", "late", "stray_bytes")
    grown = {name: getattr(after[one.port], name) - getattr(before[one.port], name) for name in counts}
    wrong = [f"{count} {name.replace('_', ' ')}" for name, count in grown.items() if count]
    if wrong:
        raise _FailedError(f"on port {one.port}: {', '.join(wrong)}; last: {after[one.port].last_error or 'none'}")


async def _let_go(one: InstrumentDefinition, ended: dict[str, Any]) -> None:
    names = [f"{one.runtime}.{one.id}", *([f"port.{one.port}"] if one.port else [])]
    wrong = [c for name in names if (c := ended.get(name)) is not None and c.outcome is not Outcome.CLEAN]
    if wrong:
        raise _FailedError("; ".join(f"{c.component} ended {c.outcome}: {c.why}" for c in wrong))
