from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import types
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

import bluesky.plan_patterns
import bluesky.plan_stubs as bps
import bluesky.plans
from bluesky import RunEngine
from bluesky.utils import DuringTask, RunEngineInterrupted
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from duodaq.bluesky._axis import AxisDevice
from duodaq.bluesky._hold import Holds, ScanAbortedError, settled, while_held, why_ended
from duodaq.bluesky._instrument import ReaderDevice
from duodaq.bluesky._promise import Axis, Reader
from duodaq.bluesky._repeat import OnRepeat
from duodaq.bluesky._run import ScanRun
from duodaq.bluesky._status import FutureStatus
from duodaq.clock import Deadline, block, one_interrupt
from duodaq.errors import OutOfRangeError, ScanInterruptedError

Listener = Callable[[str, dict[str, Any]], None]
"""Takes Bluesky's documents: ("start" | "descriptor" | "event" | "stop", document)."""

# Bluesky's own annotations are generic beyond what strict checking can follow: its plans are untyped here, by choice.
BY_CTRL_C = "interrupted by Ctrl-C"
_plans: Any = bluesky.plans
_patterns: Any = bluesky.plan_patterns
_steps: Any = bps
_Engine: Any = RunEngine
_END_S, _LOOK_S = 5.0, 0.01
"""For how long a plan may go on behind a Ctrl-C, and how often it is looked at."""


def run_scan(
    axis: Axis,
    positions: Sequence[float],
    readers: Sequence[Reader],
    *,
    settle_s: float = 0.0,
    progress: bool = True,
    metadata: dict[str, Any] | None = None,
    on_document: Listener | None = None,
    holds: Holds | None = None,
) -> ScanRun:
    """Move `axis` through `positions` and measure with every reader at each, on Bluesky's run engine.

    Works in a script and in a notebook. Ctrl-C stops the axis and ends the scan with the points it has. Before each
    point it waits while `holds` names alarms.

    Raises:
        OutOfRangeError: A position is beyond the limits. Nothing moved.
        ScanInterruptedError: Something failed at a point, or Ctrl-C. The axis is stopped; the points are in its `run`.
    """
    _expect_within(axis, positions)
    run = ScanRun({axis.name: positions}, [(n,) for n in range(len(positions))])
    mover = AxisDevice(axis, run.note_repeat)
    devices = _name_fields(readers, run.note_repeat)
    plan = _plans.list_scan(devices, mover, list(positions), per_step=_step(settle_s, holds, run))
    return _carry_out(plan, run, [mover], progress=progress, metadata=metadata, on_document=on_document, holds=holds)


def run_grid(
    axes: Sequence[tuple[Axis, Sequence[float]]],
    readers: Sequence[Reader],
    *,
    snake: bool = True,
    settle_s: float = 0.0,
    progress: bool = True,
    metadata: dict[str, Any] | None = None,
    on_document: Listener | None = None,
    holds: Holds | None = None,
) -> ScanRun:
    """Move several axes over the grid of their positions, the last one fastest, and measure at each point.

    Args:
        axes: Each with its positions, the slowest first.
        snake: Whether every other line is gone through backwards.

    Raises:
        OutOfRangeError: A position is beyond the limits. Nothing moved.
        ScanInterruptedError: Something failed at a point, or Ctrl-C. The axes are stopped; the points are in its `run`.
    """
    for axis, positions in axes:
        _expect_within(axis, positions)
    run = ScanRun({axis.name: positions for axis, positions in axes}, _places(axes, snake=snake))
    movers = [AxisDevice(axis, run.note_repeat) for axis, _ in axes]
    devices = _name_fields(readers, run.note_repeat)
    steps = [part for mover, (_, positions) in zip(movers, axes, strict=True) for part in (mover, list(positions))]
    plan = _plans.list_grid_scan(devices, *steps, snake_axes=snake, per_step=_step(settle_s, holds, run))
    return _carry_out(plan, run, movers, progress=progress, metadata=metadata, on_document=on_document, holds=holds)


def _places(axes: Sequence[tuple[Axis, Sequence[float]]], *, snake: bool) -> list[tuple[int, ...]]:
    """Which place in the grid each point of the plan has, by Bluesky's own order."""
    names = [f"axis {number}" for number in range(len(axes))]
    parts = [part for name, (_, positions) in zip(names, axes, strict=True) for part in (name, range(len(positions)))]
    if len(axes) == 1:
        return [(index,) for index in range(len(axes[0][1]))]
    return [tuple(step[name] for name in names) for step in _patterns.outer_list_product(parts, snake)]


def _carry_out(
    plan: Any,
    run: ScanRun,
    movers: Sequence[AxisDevice],
    *,
    progress: bool,
    metadata: dict[str, Any] | None,
    on_document: Listener | None,
    holds: Holds | None,
) -> ScanRun:
    with one_interrupt(), _engine() as engine, progress_bar(run.planned, progress) as show:

        def count(name: str, _: dict[str, Any]) -> None:
            if name == "event":
                show(len(run))

        listeners = [run.document, count, *([on_document] if on_document else [])]
        try:
            engine(plan, _all(listeners), **(metadata or {}))
        except (RunEngineInterrupted, KeyboardInterrupt):
            _stop(movers)
            run.aborted = run.aborted or BY_CTRL_C
            _abort(engine, run.aborted)
            raise ScanInterruptedError(f"{run.aborted} after {len(run)} of {run.planned} points", run=run) from None
        except Exception as error:  # noqa: BLE001 - whatever a driver raises ends the scan, and is chained
            _stop(movers)
            cause = _root_of(error)
            if holds is not None and (why := why_ended(holds)):
                run.aborted = why  # it was ended while this program stood still, and nothing of it is taken any more
                raise ScanInterruptedError(f"{why} after {len(run)} of {run.planned} points", run=run) from cause
            raise ScanInterruptedError(f"failed after {len(run)} of {run.planned} points: {cause}", run=run) from cause
        if run.aborted:
            _stop(movers)
            raise ScanInterruptedError(f"{run.aborted} after {len(run)} of {run.planned} points", run=run)
    return run


def _abort(engine: RunEngine, why: str) -> None:
    """End the plan, wherever Ctrl-C found it: paused by it, still on its way, or just at its end."""
    limit = Deadline(_END_S)
    while engine.state not in ("paused", "idle") and not limit.passed:
        with contextlib.suppress(RuntimeError):  # it has just come to its end, or is being paused
            engine.request_pause(defer=False)
        block(_LOOK_S)
    if engine.state == "paused":
        engine.abort(why)


def _stop(movers: Sequence[AxisDevice]) -> None:
    for mover in movers:
        mover.stop()


def _all(listeners: list[Listener]) -> Any:
    return {"all": listeners}


def _step(settle_s: float, holds: Holds | None, run: ScanRun) -> Any:
    def at_each_point(detectors: Any, step: Any, pos_cache: Any) -> Generator[Any, Any, Any]:
        try:
            if holds is not None:
                yield from while_held(holds)
            yield from _steps.move_per_step(step, pos_cache)
            if settle_s > 0:
                yield from settled(settle_s, holds)
            yield from _steps.trigger_and_read([*detectors, *step])
        except ScanAbortedError as error:
            run.aborted = str(error)
            raise
        except Exception as error:
            if holds is None or not (why := why_ended(holds)):
                raise
            run.aborted = why  # what failed was stopped on purpose
            raise ScanAbortedError(why) from error

    return at_each_point


def _name_fields(readers: Sequence[Reader], on_repeat: OnRepeat) -> list[ReaderDevice]:
    channels = {reader.id: reader.channels() for reader in readers}
    uses = Counter(channel for names in channels.values() for channel in names)
    return [
        ReaderDevice(
            r, {c: (c if uses[c] == 1 else f"{r.id}_{c}").replace(".", "_") for c in channels[r.id]}, on_repeat
        )
        for r in readers
    ]


def _expect_within(axis: Axis, positions: Sequence[float]) -> None:
    if not positions:
        raise OutOfRangeError("a scan needs at least one position", instrument=axis.name)
    device = AxisDevice(axis)
    for position in positions:
        device.check_value(position)


def _root_of(error: BaseException) -> BaseException:
    seen: BaseException = error
    for argument in error.args:
        if isinstance(argument, FutureStatus) and (failure := argument.exception()) is not None:
            return failure
    while seen.__cause__ is not None:
        seen = seen.__cause__
    return seen


def _silent(*_: object) -> None:
    """In place of `print`."""


def _unsaid(method: Any) -> Any:
    """A method of Bluesky's engine without what it prints: who pressed Ctrl-C is told by an error, in its words."""
    said = {**method.__globals__, "print": _silent}
    return types.FunctionType(method.__code__, said, method.__name__, method.__defaults__, method.__closure__)


class _QuietEngine(RunEngine):
    """Bluesky's run engine, which writes nothing into somebody's terminal when it is interrupted."""

    _request_pause_coro = _unsaid(_Engine._request_pause_coro)
    _abort_coro = _unsaid(_Engine._abort_coro)


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
                    try:
                        self.engine.request_pause(defer=False)
                    except RuntimeError:  # the plan has just ended; what the program does behind it must not begin
                        raise KeyboardInterrupt from None
            else:
                return


@contextlib.contextmanager
def _engine() -> Generator[RunEngine]:
    loop, during = asyncio.new_event_loop(), _StopOnCtrlC()
    log = logging.getLogger("bluesky")
    level = log.level
    log.setLevel(logging.CRITICAL)  # a failed point is raised with its cause; the engine's own traceback adds none
    engine = _QuietEngine({}, loop=loop, context_managers=[], during_task=during)
    during.engine = engine
    try:
        yield engine
    finally:
        loop.call_soon_threadsafe(loop.stop)
        engine._th.join(5.0)  # pyright: ignore[reportPrivateUsage] - the engine has no public way to end its thread
        loop.close()
        log.setLevel(level)


@contextlib.contextmanager
def progress_bar(points: int, shown: bool) -> Generator[Callable[[int], None]]:
    """A bar of so many points; call what it gives with how many are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("scan", total=points)

        def show(done: int) -> None:
            bar.update(task, completed=done)

        yield show
