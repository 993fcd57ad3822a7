"""A log: a recording that goes on for weeks, as a series of runs, the oldest of which are removed in time.

Rules for whoever edits this:

* A rotation is the recorder's own (`Recorder.rotate`): one subscription, another journal. A disk that does not take the
  next run costs nothing but that the present one goes on; it is tried again.
* Nothing is removed but ended runs of this series of this lab whose Parquet files, or journal, were read back and found
  whole, and that nobody has tagged ``keep``: their labels are read again while nobody can change them. Each removal is
  in the event log of the run that goes on.
* Labs that share a folder have series of their own, whatever they call them. A run that does not say whose it is is
  nobody's, and stays.
* The directory to remove gets another name first, so that a run is there or is not, and never half.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from duodaq.alarms import Alarms
from duodaq.app._chores import Chores
from duodaq.app._recording import Recording
from duodaq.app._settings_now import read_settings
from duodaq.clock import pause, utc_ns
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError, LifecycleError, StorageError
from duodaq.model import ComponentReport, LabDefinition
from duodaq.schema import stream_of
from duodaq.storage import RecordingSummary
from duodaq.storage._series import (
    SERIES,
    age_ns,
    budget_bytes,
    fits,
    idle_times,
    next_turn_ns,
    rotation_ns,
    run_name,
    series_name,
    to_remove,
)
from duodaq.storage.export import WANTED, Format
from duodaq.storage.journal._labels import labels_held
from duodaq.telemetry import get_logger

LOOK_EVERY_S = 0.25
TIDY_EVERY_S = 60.0
AGAIN_S = 10.0
_GOING = ".removed"
_log = get_logger("lab")


class LogPlan(msgspec.Struct, frozen=True):
    """What a log records and how much of it is kept.

    Attributes:
        name: Of the series.
        root: Where its runs lie.
        channels: Streams, ``*`` and ``?`` as in file names; all if there is none.
        rotate: ``hourly``, ``daily``, ``weekly`` (whole ones of UTC), a duration, or None.
        keep: For how long an ended run is kept, ``90d``; None: for ever.
        budget: What the series may take on the disk, ``50GB``; None: all there is.
        finalise: What each run is turned into at its end.
        keep_journal: Whether its rows stay in the journal once Parquet holds them.
    """

    name: str
    root: Path
    channels: tuple[str, ...] = ()
    rotate: str | None = "daily"
    keep: str | None = None
    budget: str | int | None = None
    finalise: tuple[Format, ...] = ("parquet",)
    keep_journal: bool = False


class Log:
    """One log under way; a component as the manager closes it.

    Args:
        manager: The lab's.
        definition: The lab's.
        plan: What to do.
        chores: What finalises its runs.
        now_ns: UTC nanoseconds; the lab's clock.
        alarms: See `Recording`.

    Raises:
        ConfigError: A word of the plan means nothing.
    """

    def __init__(
        self,
        manager: DualRuntimeManager,
        definition: LabDefinition,
        plan: LogPlan,
        chores: Chores,
        now_ns: Callable[[], int] | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        series_name(plan.name)
        self.plan = plan
        self.runs: list[RecordingSummary] = []
        self._every_ns = rotation_ns(plan.rotate)
        self._keep_ns = age_ns(plan.keep)
        self._budget = budget_bytes(plan.budget)
        self._chores = chores
        self._lab = definition.name
        self._others = 0
        self._now_ns = now_ns or utc_ns
        self._part = 1
        self._idle_days = 0
        self._previous: str | None = None
        self._wants = _filter(plan.channels)
        began = self._now_ns()
        self._turn_ns = None if self._every_ns is None else next_turn_ns(began, self._every_ns)
        self._begin = partial(Recording, manager, definition, plan.root / run_name(plan.name, began), alarms=alarms)
        self._manager = manager
        self._recording_or_none: Recording | None = None
        self._task: asyncio.Task[None] | None = None
        self._tidier: threading.Thread | None = None

    @property
    def _recording(self) -> Recording:
        if self._recording_or_none is None:
            raise LifecycleError(f"the log {self.plan.name} was never started")
        return self._recording_or_none

    @property
    def directory(self) -> Path:
        """The run that goes on."""
        return self._recording.recorder.directory

    def facts(self) -> dict[str, Any]:
        """How it stands, as plain values."""
        return {
            "name": self.plan.name,
            "directory": str(self.directory),
            "channels": list(self.plan.channels),
            "rotate": self.plan.rotate,
            "keep": self.plan.keep,
            "budget": self.plan.budget,
            "runs": len(self.runs) + 1,
            "lost": _summed(run.lost for run in self.runs),
            "error": None if self._recording.recorder.error is None else str(self._recording.recorder.error),
        }

    async def start(self) -> None:
        """Begin.

        Raises:
            StorageError: The directory cannot be made. Nothing is recorded.
        """
        found: list[tuple[str, int] | None] = []
        await self._aside(lambda: found.append(self._last()))
        if found and found[0] is not None:
            self._previous, self._part = found[0][0], found[0][1] + 1
        unread = await read_settings(self._manager)
        recording = self._begin(more=self._more(), unread=unread, name=f"log {self.plan.name}", accepts=self._wants)
        await recording.start()
        self._recording_or_none = recording
        self._task = asyncio.create_task(self._look_after(), name=f"log {self.plan.name}")

    def note(self, name: str, doc: Mapping[str, Any]) -> None:
        """Put something that happens into the event log of the run that goes on; nothing happens without one."""
        if self._recording_or_none is not None:
            self._recording_or_none.recorder.note(name, dict(doc))

    async def close(self, timeout_s: float) -> ComponentReport:
        """End it. May be called again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        while self._tidier is not None and self._tidier.is_alive():
            await pause(0.005)
        report = await self._recording.close(timeout_s)
        self._note_late()
        if self._recording.summary is not None and self._recording.summary not in self.runs:
            self._ended(self._recording.summary)
        return report

    # --- beside the recording

    async def _look_after(self) -> None:
        tidy_ns = self._now_ns()
        while True:
            now_ns = self._now_ns()
            self._note_late()
            if self._turn_ns is not None and now_ns >= self._turn_ns:
                await self._rotate(now_ns)
            if (self._keep_ns is not None or self._budget is not None) and now_ns >= tidy_ns:
                await self._aside(partial(self._remove_old, now_ns))
                tidy_ns = now_ns + int(TIDY_EVERY_S * 1e9)
            await pause(LOOK_EVERY_S)

    async def _rotate(self, now_ns: int) -> None:
        assert self._every_ns is not None
        previous, part = self._previous, self._part
        self._previous, self._part = self._uid, part + 1
        try:
            summary = await self._recording.rotate(self.plan.root / run_name(self.plan.name, now_ns), self._more())
        except (StorageError, LifecycleError) as error:
            if isinstance(error, StorageError) and self._recording.recorder.turning:
                self._turn_ns = next_turn_ns(now_ns, self._every_ns)
                _log.error(
                    "a log goes on in its next run once this one can be ended", log=self.plan.name, error=str(error)
                )
                return
            self._previous, self._part = previous, part
            self._turn_ns = now_ns + int(AGAIN_S * 1e9)
            _log.error("a log goes on without being rotated", log=self.plan.name, error=str(error))
            return
        self._turn_ns = next_turn_ns(now_ns, self._every_ns)
        _log.info("a log was rotated", log=self.plan.name, ended=summary.directory, run=str(self.directory))
        self._ended(summary)

    def _note_late(self) -> None:
        for summary in self._recording.recorder.take_late():
            _log.info("a log was rotated late", log=self.plan.name, ended=summary.directory, run=str(self.directory))
            self._ended(summary)

    def _ended(self, summary: RecordingSummary) -> None:
        self.runs.append(summary)
        if summary.ended:
            path = Path(summary.directory)
            self._chores.finalise(path, self.plan.finalise, keep_journal=self.plan.keep_journal)

    @property
    def _uid(self) -> str | None:
        page = self._recording.recorder.page
        return None if page is None else str(page.uid)

    def _more(self) -> dict[str, Any]:
        told = {"name": self.plan.name, "lab": self._lab, "part": self._part, "previous": self._previous}
        wanted = {"to": self.plan.finalise, "keep_journal": self.plan.keep_journal}
        return {SERIES: {**told, "channels": self.plan.channels}, WANTED: wanted}

    # --- what goes

    async def _aside(self, work: Callable[[], None]) -> None:
        """Have a thread do it: the disk may take its time."""

        def do() -> None:
            try:
                work()
            except (OSError, DuodaqError) as error:
                _log.error("a log's folder could not be looked after", log=self.plan.name, error=str(error))

        self._tidier = threading.Thread(target=do, name=f"tidy {self.plan.name}", daemon=True)
        self._tidier.start()
        while self._tidier.is_alive():
            await pause(0.005)

    def _last(self) -> tuple[str, int] | None:
        from duodaq.app._log_runs import last_of  # what reads runs is loaded by a log alone, and in its thread

        return last_of(self.plan.root, self.plan.name, self._lab)

    def _remove_old(self, now_ns: int) -> None:
        from duodaq.app._log_runs import ended_runs, is_kept
        from duodaq.storage.reading import Run, folder_bytes

        for left in self.plan.root.glob(f".{self.plan.name}-*{_GOING}"):
            shutil.rmtree(left, ignore_errors=True)  # it was begun by somebody who did not end it
        found, others = ended_runs(self.plan.root, self.plan.name, self._lab, self.directory)
        ended = sorted(found, key=lambda run: run.stop_ns)
        if others != self._others:
            self._others = others
            what = "runs of a log of this name that another lab made, or nobody knows which, are left alone"
            _log.warning(what, log=self.plan.name, folder=str(self.plan.root), runs=others)
        page = self._recording.recorder.page
        since_ns = now_ns if page is None else page.start_ns
        idle_days = sum(idle_times(ended, since_ns)) // (86_400 * 10**9) if self._keep_ns is not None else 0
        if idle_days != self._idle_days:
            self._idle_days = idle_days
            what = "nothing was recorded for so long that it does not count for the age of runs; is the clock right?"
            _log.warning(what, log=self.plan.name, days=idle_days)
        growing = folder_bytes(self.directory)
        for run, reason in to_remove(
            ended, now_ns, keep_ns=self._keep_ns, budget=self._budget, growing=growing, since_ns=since_ns
        ):
            page = Run(run.path)
            told = {"run": str(run.path), "uid": page.uid, "bytes": run.size, "reason": reason}
            with labels_held(run.path):
                if is_kept(run.path, self.plan.name):  # by somebody, since it was looked at
                    continue
                self._recording.recorder.note("removed", told)
                aside = run.path.with_name(f".{run.path.name}{_GOING}")
                run.path.rename(aside)
            shutil.rmtree(aside)
            _log.info("a run of a log was removed", log=self.plan.name, **told)


def _filter(channels: Sequence[str]) -> Callable[[pa.RecordBatch], bool] | None:
    if not channels:
        return None
    patterns = [re.compile(translate(channel)) for channel in channels]
    known: dict[str, bool] = {}

    def wants(batch: pa.RecordBatch) -> bool:
        stream = stream_of(batch)
        if stream not in known:
            known[stream] = fits(stream, patterns)
        return known[stream]

    return wants


def _summed(pages: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for page in pages:
        for reason, rows in page.items():
            total[reason] = total.get(reason, 0) + rows
    return total
