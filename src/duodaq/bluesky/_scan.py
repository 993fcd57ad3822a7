from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans
from bluesky import RunEngine
from bluesky.utils import DuringTask, Msg, RunEngineInterrupted
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from duodaq.bluesky._devices import FutureStatus, ScanAxis, ScanReader
from duodaq.bluesky._promise import Axis, Reader
from duodaq.bluesky._repeat import OnRepeat
from duodaq.bluesky._run import ScanInterruptedError, ScanRun
from duodaq.errors import OutOfRangeError

Listener = Callable[[str, dict[str, Any]], None]
"""Takes Bluesky's documents: ("start" | "descriptor" | "event" | "stop", document)."""

# Bluesky's own annotations are generic beyond what strict checking can follow: its plans are untyped here, by choice.
_plans: Any = bluesky.plans
_steps: Any = bps


def run_scan(
    axis: Axis,
    positions: Sequence[float],
    readers: Sequence[Reader],
    *,
    settle_s: float = 0.0,
    progress: bool = True,
    metadata: dict[str, Any] | None = None,
    on_document: Listener | None = None,
) -> ScanRun:
    """Move `axis` through `positions` and measure with every reader at each, on Bluesky's run engine.

    Works in a script and in a notebook. Ctrl-C stops the axis and ends the scan with the points it has.

    Raises:
        OutOfRangeError: A position is beyond the limits. Nothing moved.
        ScanInterruptedError: Something failed at a point, or Ctrl-C. The axis is stopped; the points are in its `run`.
    """
    _expect_within(axis, positions)
    run = ScanRun(axis.name, len(positions))
    mover = ScanAxis(axis, run.note_repeat)
    devices = _name_fields(readers, run.note_repeat)
    with _engine() as engine, _bar(len(positions), progress) as count:
        listeners = [run.document, count, *([on_document] if on_document else [])]
        try:
            engine(_plan(mover, devices, positions, settle_s), _all(listeners), **(metadata or {}))
        except RunEngineInterrupted:
            mover.stop()
            engine.abort("interrupted by hand")
            raise ScanInterruptedError(f"interrupted after {len(run)} of {len(positions)} points", run=run) from None
        except Exception as error:  # noqa: BLE001 - whatever a driver raises ends the scan, and is chained
            mover.stop()
            cause = _root_of(error)
            raise ScanInterruptedError(
                f"failed after {len(run)} of {len(positions)} points: {cause}", run=run
            ) from cause
    return run


def _all(listeners: list[Listener]) -> Any:
    return {"all": listeners}


def _plan(mover: ScanAxis, devices: list[ScanReader], positions: Sequence[float], settle_s: float) -> Any:
    def at_each_point(detectors: Any, step: Any, pos_cache: Any) -> Generator[Any, Any, Any]:
        yield from _steps.move_per_step(step, pos_cache)
        if settle_s > 0:
            yield Msg("sleep", None, settle_s)
        yield from _steps.trigger_and_read([*detectors, *step])

    return _plans.list_scan(devices, mover, list(positions), per_step=at_each_point)


def _name_fields(readers: Sequence[Reader], on_repeat: OnRepeat) -> list[ScanReader]:
    channels = {reader.id: reader.channels() for reader in readers}
    uses = Counter(channel for names in channels.values() for channel in names)
    return [
        ScanReader(r, {c: (c if uses[c] == 1 else f"{r.id}_{c}").replace(".", "_") for c in channels[r.id]}, on_repeat)
        for r in readers
    ]


def _expect_within(axis: Axis, positions: Sequence[float]) -> None:
    if not positions:
        raise OutOfRangeError("a scan needs at least one position", instrument=axis.name)
    if axis.limits is None:
        return
    low, high = axis.limits
    for position in positions:
        if not low <= position <= high:
            raise OutOfRangeError(
                f"{position:g} {axis.unit} is outside the limits {low:g} … {high:g} {axis.unit}",
                instrument=axis.name,
                left="nothing moved",
            )


def _root_of(error: BaseException) -> BaseException:
    seen: BaseException = error
    for argument in error.args:
        if isinstance(argument, FutureStatus) and (failure := argument.exception()) is not None:
            return failure
    while seen.__cause__ is not None:
        seen = seen.__cause__
    return seen


class _StopOnCtrlC(DuringTask):
    """Waits for the plan in the calling thread; Ctrl-C stops what moves at once and ends the plan."""

    def __init__(self) -> None:
        self.engine: RunEngine | None = None

    def block(self, blocking_event: threading.Event) -> None:
        while True:
            try:
                blocking_event.wait()
            except KeyboardInterrupt:
                if self.engine is not None:
                    self.engine.request_pause(defer=False)
            else:
                return


@contextlib.contextmanager
def _engine() -> Generator[RunEngine]:
    loop, during = asyncio.new_event_loop(), _StopOnCtrlC()
    log = logging.getLogger("bluesky")
    level = log.level
    log.setLevel(logging.CRITICAL)  # a failed point is raised with its cause; the engine's own traceback adds none
    engine = RunEngine({}, loop=loop, context_managers=[], during_task=during)
    during.engine = engine
    try:
        yield engine
    finally:
        loop.call_soon_threadsafe(loop.stop)
        engine._th.join(5.0)  # pyright: ignore[reportPrivateUsage] - the engine has no public way to end its thread
        loop.close()
        log.setLevel(level)


@contextlib.contextmanager
def _bar(points: int, shown: bool) -> Generator[Callable[[str, dict[str, Any]], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("scan", total=points)

        def count(name: str, _: dict[str, Any]) -> None:
            if name == "event":
                bar.advance(task)

        yield count
