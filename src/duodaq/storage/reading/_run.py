"""One run: what it is, what people say of it, and its streams."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from duodaq.errors import StorageError
from duodaq.storage.journal._catalog import Catalog
from duodaq.storage.journal._events import Event, last_event
from duodaq.storage.journal._labels import edit_labels
from duodaq.storage.journal._layout import EVENTS, FINALISED, ROWS, RUN
from duodaq.storage.journal._run import RunPage
from duodaq.storage.reading._card import counted
from duodaq.storage.reading._labels import Labels, read_labels
from duodaq.storage.reading._moments import ALL, Moment, Window, moment_ns, utc
from duodaq.storage.reading._outages import Outage, outages
from duodaq.storage.reading._scan import RecordedScan, scans_of
from duodaq.storage.reading._stream import Stream
from duodaq.storage.reading._together import Take, aligned, check_take, lazy_numbers, long_table, wide_table

if TYPE_CHECKING:
    import duckdb
    import matplotlib.figure
    import pandas  # pyright: ignore[reportMissingTypeStubs] - it brings no types
    import polars
    import xarray
    from rich.console import RenderableType

State = Literal["finished", "recording", "unfinished"]


class Run:
    """One run. Of one that is still recorded, each call sees what is there at that moment.

    ``run["meter.power"]`` is a stream, ``for stream in run`` goes through all of them.

    Attributes:
        path: Its directory.
        window: The times within which rows are taken.
    """

    def __init__(self, path: str | Path, window: Window = ALL) -> None:
        self.path = Path(path)
        self.window = window
        self._catalog: Catalog | None = None
        self._page = self._read_page() or self.look().page

    # --- what it is

    @property
    def page(self) -> RunPage:
        """What `run.json` says.

        Raises:
            StorageError: Neither copy of it is whole; the streams can be read.
        """
        if self._page is None:
            raise StorageError(f"nothing is left that says what {self.path} is", left="its streams can be read")
        return self._page

    @property
    def uid(self) -> str:
        """Its UUID, as text."""
        return "" if self._page is None else str(self._page.uid)

    @property
    def number(self) -> int:
        """Its number among the runs of its directory; 0 if it has none."""
        return 0 if self._page is None else self._page.number

    @property
    def start(self) -> datetime | None:
        """When it began, in UTC."""
        return None if self._page is None else utc(self._page.start_ns)

    @property
    def stop(self) -> datetime | None:
        """When it was stopped, in UTC; None while it is not. One that a repair ended: the last that is known of it."""
        last = self._last_event()
        if last is None or last.name != "stop":
            return None
        return utc(last.doc.get("last_ns", last.t_ns))

    @property
    def duration(self) -> timedelta | None:
        """How long it took; None while it is not known."""
        start, stop = self.start, self.stop
        return None if start is None or stop is None else stop - start

    @property
    def state(self) -> State:
        """``finished``; ``recording``: somebody writes it now; ``unfinished``: a crash left it, for `recover`."""
        last = self._last_event()
        if last is not None and last.name == "stop":
            return "finished"
        return "recording" if _is_locked(self.path / EVENTS) else "unfinished"

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it comes from, as it was at the start: the lab's definition, identities and settings of instruments."""
        return {} if self._page is None else self._page.provenance

    @property
    def versions(self) -> dict[str, str]:
        """Of Python and of packages, at the start."""
        return {} if self._page is None else self._page.versions

    @property
    def finalised(self) -> dict[str, Any] | None:
        """What it was turned into at its end, and what came of that: `finalised.json`; None if nothing was noted."""
        try:
            return json.loads((self.path / FINALISED).read_bytes())
        except (OSError, ValueError):
            return None

    @property
    def events(self) -> list[Event]:
        """What happened: start, descriptors, gaps, steps of the clock, changes, stop; oldest first."""
        return self.look().events

    @property
    def outages(self) -> list[Outage]:
        """When an instrument was lost, in error or hung while it was recorded, as that began; of any instrument."""
        return outages(self.provenance.get("instruments", {}), self.events)

    @property
    def scans(self) -> list[RecordedScan]:
        """The scans that were kept in it, in the order in which they began: each with its own points."""
        return scans_of(self, self.events)

    # --- what people say of it

    @property
    def labels(self) -> Labels:
        """Sample, operator, note, tags, as they are now."""
        return read_labels(self.path)

    def label(
        self,
        *,
        sample: str | None = None,
        operator: str | None = None,
        note: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> Labels:
        """Change what is said of it: what is not given stays, and `tags` replaces all of them.

        Raises:
            StorageFullError: The disk refused. The labels are as they were.
        """
        words = None if tags is None else [*dict.fromkeys(tags)]
        edit_labels(self.path, sample=sample, operator=operator, note=note, tags=words)
        return self.labels

    # --- streams

    @property
    def streams(self) -> dict[str, Stream]:
        """Its streams by name, in the order in which they began."""
        return {name: self._stream(name) for name in self._names()}

    def __getitem__(self, name: str) -> Stream:
        known = self._names()
        if name not in known:
            raise KeyError(f"{name!r}; this run has {', '.join(known) or 'no streams'}")
        return self._stream(name)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self.streams.values())

    def __len__(self) -> int:
        return len(self.streams)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def _names(self) -> dict[str, None]:
        """Of its streams; frames that no rows tell of yet are none: they were begun when the run ended, or just now."""
        return dict.fromkeys(facts.stream for facts in self.look().segments if facts.header.kind == ROWS)

    def between(self, start: Moment | None = None, stop: Moment | None = None) -> Run:
        """The same run from `start` on and before `stop`; see `Stream.between`."""
        wanted = Window(*(None if moment is None else moment_ns(moment) for moment in (start, stop)))
        return Run(self.path, self.window.within(wanted))

    def look(self) -> Catalog:
        """What is in its directory now."""
        if self._catalog is None or not (self._catalog.finished or self._catalog.refresh()):
            self._catalog = Catalog(self.path)
        return self._catalog

    # --- all streams of numbers together

    def to_arrow(self, *streams: str, align: str | None = None, take: Take = "last") -> pa.Table:
        """Its numbers as one table.

        Args:
            streams: Which ones; all streams of numbers if none is named.
            align: Instead of all rows behind one another (each saying its instrument, channel and unit), the rows of
                this stream, with a column for each other channel.
            take: Of the others, with `align`: the ``last`` row until then, the ``next``, or the ``nearest``. A scan
                reads its instruments and then its axis, so ``last`` is what belongs to a position.

        Raises:
            ValueError: `take` is none of these.
        """
        check_take(take)
        chosen = self._chosen(streams)
        return long_table(chosen) if align is None else wide_table(self[align], chosen, take)

    def to_pandas(self, *streams: str, align: str | None = None, take: Take = "last") -> pandas.DataFrame:
        """Its numbers as a DataFrame; see `to_arrow`. With `align` over `timestamp`, and ``attrs["units"]``."""
        table = self.to_arrow(*streams, align=align, take=take)
        frame: Any = table.to_pandas()
        if align is None:
            return frame
        frame = frame.set_index("timestamp")
        frame.attrs["units"] = {f.name: f.metadata[b"unit"].decode() for f in table.schema if f.metadata}
        return frame

    def to_polars(self, *streams: str, align: str | None = None, take: Take = "last") -> polars.LazyFrame:
        """Its numbers as a LazyFrame; see `to_arrow`."""
        polars: Any = importlib.import_module("polars")
        if align is not None:
            return polars.from_arrow(self.to_arrow(*streams, align=align, take=take)).lazy()
        check_take(take)
        lazy = [part for stream in self._chosen(streams) for part in lazy_numbers(stream)]
        return polars.concat(lazy) if lazy else polars.from_arrow(long_table([])).lazy()

    def to_xarray(self, *, align: str | None = None, take: Take = "last") -> xarray.Dataset | xarray.DataTree:
        """All streams as a DataTree, each over its own `time`; with `align`, one Dataset over that stream's.

        Raises:
            ValueError: `take` is none of ``last``, ``next``, ``nearest``.
        """
        check_take(take)
        xarray: Any = importlib.import_module("xarray")
        if align is None:
            return xarray.DataTree.from_dict({name: stream.to_xarray() for name, stream in self.streams.items()})
        base, columns = aligned(self[align], self._chosen(()), take)
        over = "time" if base.times_ns is not None else "row"
        found: dict[str, Any] = {
            c.name: ((over, *c.dims), c.values, {"units": c.unit} if c.unit else {}) for c in columns
        }
        places: dict[str, Any] = {} if base.signal is None else {base.signal.name: found.pop(base.signal.name)}
        if base.times_ns is not None:
            places[over] = (over, base.times_ns.view("datetime64[ns]"), {"long_name": "time in UTC"})
        return xarray.Dataset(found, places, self.facts)

    def duckdb(self) -> duckdb.DuckDBPyConnection:
        """A connection of DuckDB in which every stream is a table: ``run.duckdb().sql('FROM "meter.power"')``."""
        duckdb: Any = importlib.import_module("duckdb")
        connection = duckdb.connect()
        for stream in self:
            stream.duckdb(connection)
        return connection

    def plot(
        self, x: str | None = None, y: Sequence[str] | None = None, *, show: bool = False
    ) -> matplotlib.figure.Figure:
        """A picture of it: the points of its last scan, or its numbers over time, and its brightest frame.

        Without a scan, and where `x` or `y` is given, streams are drawn: over an axis, the last value until then. Over
        time a curve is broken where nothing came for much longer than usual, or its instrument was lost. A notebook
        shows it; it needs no screen to be saved: ``run.plot().savefig("run.png")``.

        Args:
            x: The stream to plot over; the axis with most positions if not given, or else the time.
            y: The streams of numbers to plot; all if not given. An axis, too, which is else drawn only where there is
                nothing else: its position over time, or over `x`.
            show: Whether to show it in a window, from a plain program, and wait until that is closed.

        Raises:
            ImportError: matplotlib is not installed; it comes with duodaq[data].
            ConfigError: It shall be shown, and there is no screen.
        """
        from duodaq.storage.reading._plot import plot

        return plot(self, x, y, show=show)

    @property
    def facts(self) -> dict[str, Any]:
        """What goes with data that leaves the run: its uid and number, when it began, and its labels."""
        labels = self.labels
        found: dict[str, Any] = {"uid": self.uid, "run": self.number}
        if self.start is not None:
            found["start"] = self.start.isoformat()
        found |= {name: value for name in ("sample", "operator", "note") if (value := getattr(labels, name))}
        return found | ({"tags": ",".join(labels.tags)} if labels.tags else {})

    def _chosen(self, names: Sequence[str]) -> list[Stream]:
        return [self[name] for name in names] if names else list(self)

    def _stream(self, name: str) -> Stream:
        return Stream(self.look, name, self.facts, self.window)

    def _read_page(self) -> RunPage | None:
        try:
            return RunPage.from_facts(json.loads((self.path / RUN).read_bytes()))
        except (OSError, ValueError, AttributeError):
            return None

    def _last_event(self) -> Event | None:
        """The last line of the event log, without reading the others if that can be helped."""
        if self._catalog is not None and self._catalog.finished:
            return self._catalog.events[-1]
        last = last_event(self.path)
        if last is not None:
            return last
        events = self.look().events
        return events[-1] if events else None

    @cached_property
    def title(self) -> str:
        """How a person calls it: its number, or the name of its directory."""
        return f"run {self.number}" if self.number else f"run {self.path.name}"

    def __repr__(self) -> str:
        began = "" if self.start is None else f" of {self.start.astimezone():%d %b %Y %H:%M:%S}"
        sample = f" ({self.labels.sample})" if self.labels.sample else ""
        return f"<{self.title}{began}{sample}: {counted(len(self), 'stream')}, {self.state}>"

    def __rich__(self) -> RenderableType:
        from duodaq.storage.reading._card import card

        return card(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows."""
        from duodaq.storage.reading._card import page

        return {"text/plain": repr(self), "text/html": page(self)}


def _is_locked(path: Path) -> bool:
    """Whether somebody holds a lock on a file; without taking one, by what the kernel lists."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            return any(
                line.split()[5].endswith(f":{inode}") for line in locks if " FLOCK " in line and "->" not in line
            )
    except (OSError, IndexError):
        return False
