"""A recording that was rotated, read as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from duodaq.storage.journal._reader import Gap
from duodaq.storage.reading._card import counted
from duodaq.storage.reading._frames import FrameStack
from duodaq.storage.reading._moments import ALL, Moment, Window, moment_ns, utc
from duodaq.storage.reading._rows import Rows
from duodaq.storage.reading._run import Run
from duodaq.storage.reading._stream import Stream

_LOG = "log"


def of_series(run: Run, name: str) -> bool:
    """Whether a run is one of the log `name`."""
    return _told(run).get("name") == name


def folder_bytes(path: Path) -> int:
    """What a run takes on the disk."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # it was just put in its place, or removed
    return total


class SeriesStream(Stream):
    """One stream of several runs, one behind the other: what a stream of one run can do, but for frames."""

    def __init__(self, streams: Iterable[Stream], window: Window = ALL) -> None:
        self._streams = [*streams]
        super().__init__(*self._streams[0].origin, window)

    @property
    def parts(self) -> list[Rows]:
        return [part for stream in self._streams for part in stream.parts]

    def whole_tables(self, window: Window) -> Iterator[pa.Table]:
        for stream in self._streams:
            yield from stream.whole_tables(window)

    def gaps(self) -> list[Gap]:
        return [gap for stream in self._streams for gap in stream.gaps()]

    def between(self, start: Moment | None = None, stop: Moment | None = None) -> SeriesStream:
        wanted = Window(*(None if moment is None else moment_ns(moment) for moment in (start, stop)))
        return SeriesStream(self._streams, self.window.within(wanted))

    @property
    def has_frames(self) -> bool:
        return any(stream.has_frames for stream in self._streams)

    @property
    def stacks(self) -> list[FrameStack]:
        return [stack for stream in self._streams for stack in stream.stacks]


class Series:
    """Runs read as one: ``series["dmm.voltage"]`` is a stream through all of them, ``for stream in series`` each.

    Attributes:
        runs: They, the oldest first.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = [*runs]

    @property
    def start(self) -> datetime | None:
        """When the first began, in UTC."""
        return self.runs[0].start if self.runs else None

    @property
    def streams(self) -> dict[str, SeriesStream]:
        """The streams by name, in the order in which they began."""
        names = dict.fromkeys(name for run in self.runs for name in run.streams)
        return {name: self[name] for name in names}

    def __getitem__(self, name: str) -> SeriesStream:
        having = [run[name] for run in self.runs if name in run]
        if not having:
            raise KeyError(f"{name!r}; these runs have {', '.join(self.streams) or 'no streams'}")
        return SeriesStream(having)

    def __iter__(self) -> Iterator[SeriesStream]:
        return iter(self.streams.values())

    def __len__(self) -> int:
        return len(self.streams)

    def __contains__(self, name: object) -> bool:
        return any(name in run for run in self.runs)

    def between(self, start: Moment | None = None, stop: Moment | None = None) -> Series:
        """The same from `start` on and before `stop`; runs that lie outside are not even opened."""
        wanted = Window(*(None if moment is None else moment_ns(moment) for moment in (start, stop)))
        return Series(run.between(start, stop) for run in self.runs if _touches(run, wanted))

    def missing(self) -> list[tuple[Run, str]]:
        """The runs that name another one before them which is not here any more: each with that one's uid."""
        uids = {run.uid for run in self.runs}
        told = [(run, _told(run).get("previous")) for run in self.runs]
        return [(run, previous) for run, previous in told if previous and previous not in uids]

    def __repr__(self) -> str:
        since = "" if self.start is None else f" since {self.start.astimezone():%d %b %Y %H:%M}"
        return f"<series of {counted(len(self.runs), 'run')}{since}: {counted(len(self), 'stream')}>"


def _told(run: Run) -> dict[str, Any]:
    told: Any = run.provenance.get(_LOG)
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def _touches(run: Run, wanted: Window) -> bool:
    start, stop = run.start, run.stop
    if start is None:
        return True
    if wanted.stop_ns is not None and start >= utc(wanted.stop_ns):
        return False
    return wanted.start_ns is None or stop is None or stop >= utc(wanted.start_ns)
