"""The scans that a run kept: their points, from Bluesky's documents in its event log."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.errors import TornFileError
from duodaq.storage.journal._events import Event
from duodaq.storage.reading._moments import Window
from duodaq.storage.reading._points import Grid, Laid, ScanPoints, stacked, told_with
from duodaq.storage.reading._scan_events import SCAN_CONTINUED, SCAN_DOCUMENT
from duodaq.storage.reading._scan_page import scan_page

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs] - it brings no types
    import xarray

    from duodaq.storage.reading._run import Run

Document = dict[str, Any]

_REFERENCE = re.compile(r"duodaq:(.+)@(\d+)")
_SAME_NS = 1000
"""A document's time is a float of seconds, which is right to a quarter of a microsecond in this century."""


def scans_of(run: Run, events: Iterable[Event]) -> list[RecordedScan]:
    """The scans whose documents are among `events`, in the order in which they began; within the run's window."""
    documents: dict[str, list[tuple[str, Document]]] = {}
    for event in events:
        if event.name == SCAN_CONTINUED:
            documents.setdefault(event.doc["run"], []).extend(_before(run, event.doc))
        elif event.name == SCAN_DOCUMENT:
            documents.setdefault(event.doc["run"], []).append((event.doc["kind"], event.doc["doc"]))
    found = [RecordedScan(run, uid, kept) for uid, kept in documents.items()]
    return found if run.window.is_all else [scan for scan in found if len(scan)]


def _before(run: Run, facts: Document) -> list[tuple[str, Document]]:
    """The documents of a scan in recordings that were ended before it; what is not there any more is left out."""
    found: list[tuple[str, Document]] = []
    for place in map(Path, facts["earlier"]):
        beside = run.path.parent / place.name
        directory = beside if beside.is_dir() else place
        if directory.is_dir():
            events = type(run)(directory).events
            kept = [one.doc for one in events if one.name == SCAN_DOCUMENT and one.doc["run"] == facts["run"]]
            found += [(doc["kind"], doc["doc"]) for doc in kept]
    return found


class RecordedScan:
    """One scan that a run kept: each point has what was read there, whatever the streams have beside it.

    Attributes:
        uid: Bluesky's id of the scan; it is not its recording's.
        start: Bluesky's start document.
        stop: The stop document; empty while it is under way.
    """

    def __init__(self, run: Run, uid: str, documents: list[tuple[str, Document]]) -> None:
        self._run = run
        self._documents = documents
        self.uid = uid
        self.start = self._first("start")
        self.stop = self._first("stop")

    @cached_property
    def descriptors(self) -> dict[str, Document]:
        """Those of its points, by their uids: of the stream ``primary``, or of the first one if none is called so."""
        found = [doc for kind, doc in self._documents if kind == "descriptor"]
        names = [doc.get("name") for doc in found]
        name = "primary" if "primary" in names else next(iter(names), None)
        return {doc["uid"]: doc for doc in found if doc.get("name") == name}

    @cached_property
    def events(self) -> list[Document]:
        """The document of each point. Large arrays are references: ``duodaq:<stream>@<UTC ns>``."""
        found: list[Document] = []
        for kind, doc in self._documents:
            if kind in ("event", "event_page") and doc["descriptor"] in self.descriptors:
                found += [doc] if kind == "event" else _events_in(doc)
        return [doc for doc in found if _is_within(self._run.window, doc["time"])]

    @property
    def directory(self) -> Path:
        """The recording that has it."""
        return self._run.path

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given with the scan, such as its sample."""
        return told_with(self.start)

    @property
    def planned(self) -> int | None:
        """How many points were asked for, if its plan knew."""
        return self.start.get("num_points")

    @property
    def complete(self) -> bool:
        """Whether it ended well, with every planned point."""
        return self.stop.get("exit_status") == "success" and self.planned in (None, len(self))

    @property
    def units(self) -> dict[str, str]:
        """The unit of each field."""
        return {name: key.get("units") or "" for name, key in self._keys.items()}

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields of the scanned axes; of a grid, the slowest first; none if only time went by."""
        return tuple(name for names in self._dimensions for name in names)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many positions each axis of a grid was to take; else how many points there are."""
        positions = self._positions
        return tuple(map(len, positions.values())) if positions else (len(self),)

    def fields(self) -> list[str]:
        """The names of the fields."""
        return list(self._keys)

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, field: str) -> npt.NDArray[Any]:
        """One field at every point: shape (points, …). Large arrays are read from their stream; NaN where it has none.

        Arrays that are longer at some points than at others are filled up with NaN.

        Raises:
            KeyError: There is no such field.
        """
        key = self._keys[field]
        values = [_filled(event["data"].get(field)) for event in self.events]
        if "external" in key:
            values = self._read(field, values)
        found = stacked(values)
        return found.astype(np.float64) if found.dtype == object and key.get("dtype") != "string" else found

    def to_arrow(self) -> pa.Table:
        """All points as a table, its first column `time`, units in the fields' metadata.

        Small arrays become lists; large ones stay references to rows of streams, which `scan[field]` reads.
        """
        written = {n: [_filled(event["data"].get(n)) for event in self.events] for n in self.fields()}
        return self._points(written).to_arrow()

    def to_pandas(self) -> pandas.DataFrame:
        """All points as a DataFrame; see `to_arrow`. Its attrs are those of `to_xarray`, and `units`."""
        frame: Any = self.to_arrow().to_pandas()
        frame.attrs.update({**self._attributes, "units": {n: unit for n, unit in self.units.items() if unit}})
        return frame

    def to_xarray(self) -> xarray.Dataset:
        """All points as a Dataset over the scanned axis, or over time if none was; of a grid, over all of its axes.

        Its attrs are `scan_uid`, `run_uid` and `run_directory`, and what was given with the scan.

        Raises:
            ImportError: xarray is not installed; it comes with duodaq[data].
        """
        return self._points({name: self[name] for name in self.fields()}).to_xarray()

    def laid(self) -> Laid:
        """Its numbers as arrays, as `to_xarray` has them, without what has other dimensions at some points.

        Nor has it what would have to be read from the streams.
        """
        found: dict[str, npt.NDArray[Any]] = {}
        for name in (name for name, key in self._keys.items() if "external" not in key):
            with contextlib.suppress(TypeError, ValueError):
                found[name] = self[name]
        return self._points({name: values for name, values in found.items() if values.dtype.kind in "biuf"}).laid()

    @property
    def grid(self) -> Grid | None:
        """Where its points are, if it is a grid."""
        positions = self._positions
        if not positions:
            return None
        places = [
            tuple(self._place(event["data"], axis, at) for axis, at in positions.items()) for event in self.events
        ]
        return Grid(positions, places)

    def _points(self, values: Mapping[str, Any]) -> ScanPoints:
        times = [event["time"] for event in self.events]
        return ScanPoints(self.axes, times, values, self.units, self._attributes, self.grid)

    @property
    def _attributes(self) -> dict[str, Any]:
        place = {"scan_uid": self.uid, "run_uid": self._run.uid, "run_directory": str(self._run.path.absolute())}
        return {**self.metadata, **place}

    @cached_property
    def _keys(self) -> dict[str, dict[str, Any]]:
        return {name: key for doc in self.descriptors.values() for name, key in doc["data_keys"].items()}

    @property
    def _dimensions(self) -> list[list[str]]:
        """The axes that moved together, for each dimension of the plan."""
        hints: dict[str, Any] = self.start.get("hints") or {}
        told: list[Any] = hints.get("dimensions") or [[[name], "primary"] for name in self.start.get("motors") or ()]
        found = [[name for name in names if name in self._keys] for names, _ in told]
        return [names for names in found if names]

    @cached_property
    def _positions(self) -> dict[str, list[float]]:
        """Of a grid, what each axis was to take; empty if it is none."""
        axes: tuple[str, ...] = self.axes
        shape: list[int] = self.start.get("shape") or []
        if len(self._dimensions) < 2 or not len(axes) == len(self._dimensions) == len(shape):
            return {}
        pattern: dict[str, Any] = self.start.get("plan_pattern_args") or {}
        given: list[Any] = pattern.get("args") or []
        lists: list[list[float]] = [part for part in given if isinstance(part, list)]
        if [len(one) for one in lists] != shape:
            extents: list[Any] = self.start.get("extents") or []
            lists = [_evenly(a, b, n) for (a, b), n in zip(extents, shape, strict=False)]
        return dict(zip(axes, lists, strict=True)) if len(lists) == len(axes) else {}

    @staticmethod
    def _place(data: Mapping[str, Any], axis: str, positions: list[float]) -> int:
        at = data.get(f"{axis}_setpoint", data.get(axis))
        return int(np.argmin(np.abs(np.asarray(positions) - at)))

    def _read(self, field: str, values: list[Any]) -> list[Any]:
        missing = np.full(self._keys[field].get("shape") or (), np.nan)
        found = [self._row(value) if isinstance(value, str) else value for value in values]
        return [missing if one is None else one for one in found]

    def _row(self, reference: str) -> npt.NDArray[Any] | None:
        """The array of the row that a reference means; None if it is not in the run, or damaged."""
        told = _REFERENCE.fullmatch(reference)
        if told is None or told[1] not in self._run:
            return None
        t_ns = int(told[2])
        rows = self._run[told[1]].between(t_ns - _SAME_NS, t_ns + _SAME_NS + 1)
        try:
            for stack in rows.stacks:
                return stack[0]
        except TornFileError:
            return None
        arrays = [column.values for column in rows.named().columns if column.values.ndim > 1]
        return arrays[0][0] if arrays and len(arrays[0]) else None

    def _first(self, wanted: str) -> Document:
        found = [doc for kind, doc in self._documents if kind == wanted]
        return found[0] if found else {}

    def __repr__(self) -> str:
        return f"<{self.in_words()}>"

    def _repr_html_(self) -> str:
        return scan_page(self.in_words(), self.metadata, self._run.path, self.units, self.fields(), self.events)

    def in_words(self) -> str:
        """What was scanned, how many points it has, and whether it is complete."""
        how = "complete" if self.complete else self.stop.get("exit_status", "under way")
        asked = "" if self.planned is None else f" of {self.planned}"
        return f"scan of {' × '.join(self.axes) or 'time'}: {len(self)}{asked} points, {how}"


def _events_in(page: Document) -> list[Document]:
    """The points of a page of events."""
    return [
        {
            **page,
            "time": t_s,
            "data": {name: values[n] for name, values in page["data"].items()},
            "timestamps": {name: values[n] for name, values in page["timestamps"].items()},
        }
        for n, t_s in enumerate(page["time"])
    ]


def _evenly(first: float, last: float, count: int) -> list[float]:
    return np.linspace(first, last, count).tolist()


def _is_within(window: Window, t_s: float) -> bool:
    t_ns = int(t_s * 1e9)
    begun = window.start_ns is None or window.start_ns <= t_ns
    return begun and (window.stop_ns is None or t_ns < window.stop_ns)


def _filled(value: Any) -> Any:
    """JSON knows no NaN: it was written as null."""
    return np.nan if value is None else value
