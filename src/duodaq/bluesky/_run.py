from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.reading import Grid, ScanPoints, scan_page, stacked, told_with

if TYPE_CHECKING:
    import xarray

Document = dict[str, Any]


class ScanRun:
    """One scan: its points, with units, and Bluesky's own documents. Points are kept however the scan ended.

    Attributes:
        axes: The names of the scanned axes; of a grid, the slowest first.
        planned: How many points were asked for.
        directory: The recording that has it, if the lab recorded it; `duodaq.open_run` opens it.
    """

    def __init__(self, axes: Mapping[str, Sequence[float]], places: Sequence[tuple[int, ...]]) -> None:
        self._positions = {name: [float(one) for one in positions] for name, positions in axes.items()}
        self._places = places
        self.axes = tuple(self._positions)
        self.planned = len(places)
        self.directory: Path | None = None
        self.start: Document = {}
        self.stop: Document = {}
        self.descriptor: Document = {}
        self.events: list[Document] = []
        self.aborted = ""
        """Who aborted it, in words."""
        self.repeated: dict[str, int] = {}
        """How many reads of each field were done once more, because the worker that had them died."""
        self._repeats = threading.Lock()

    def note_repeat(self, field: str) -> None:
        """A read of `field` is done once more. From any thread."""
        with self._repeats:
            self.repeated[field] = self.repeated.get(field, 0) + 1

    def document(self, name: str, document: Document) -> None:
        """Take one of Bluesky's documents as it is emitted."""
        match name:
            case "start":
                self.start = document
            case "stop":
                if self.aborted:
                    document["reason"] = self.aborted
                self.stop = document
            case "descriptor":
                self.descriptor = document
            case "event":
                self.events.append(document)
            case _:
                pass

    @property
    def axis(self) -> str:
        """The scanned axis; of a grid, the slowest one."""
        return self.axes[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many positions each axis was to take."""
        return tuple(len(positions) for positions in self._positions.values())

    @property
    def uid(self) -> str:
        """Bluesky's id of the run."""
        return self.start.get("uid", "")

    @property
    def metadata(self) -> dict[str, Any]:
        """What the caller gave with the scan, such as its sample."""
        return told_with(self.start)

    @property
    def complete(self) -> bool:
        """Whether every planned point was taken."""
        return len(self.events) == self.planned and self.stop.get("exit_status") == "success"

    @property
    def units(self) -> dict[str, str]:
        """The unit of each field."""
        return {name: key.get("units") or "" for name, key in self.descriptor.get("data_keys", {}).items()}

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, field: str) -> npt.NDArray[Any]:
        """One field at every point: shape (points, …). Arrays that are longer at some are filled up with NaN."""
        return stacked([event["data"][field] for event in self.events])

    def fields(self) -> list[str]:
        """The names of the fields."""
        return list(self.descriptor.get("data_keys", {}))

    def to_arrow(self) -> pa.Table:
        """All points as a table; array fields become lists. Units are in the fields' metadata.

        The schema's metadata has the attrs of `to_xarray`: text as it is, all else as JSON.
        """
        return self._points().to_arrow()

    def to_xarray(self) -> xarray.Dataset:
        """All points as a Dataset over the scanned axis.

        Its attrs are `scan_uid` (Bluesky's; a recording has a uid of its own), `run_directory` if the lab recorded it,
        and what was given with the scan. A grid comes over all of its axes at their set positions, with NaN at the
        points that were not taken.

        Raises:
            ImportError: xarray is not installed; it comes with duodaq[scan].
        """
        return self._points().to_xarray()

    def _points(self) -> ScanPoints:
        values = {name: [event["data"][name] for event in self.events] for name in self.fields()}
        times = [event["time"] for event in self.events]
        grid = Grid(self._positions, self._places) if len(self.axes) > 1 else None
        return ScanPoints(self.axes, times, values, self.units, self._attributes(), grid)

    def _attributes(self) -> dict[str, Any]:
        place = {} if self.directory is None else {"run_directory": str(self.directory.absolute())}
        return {**self.metadata, "scan_uid": self.uid, **place}

    def _repr_html_(self) -> str:
        return scan_page(repr(self)[1:-1], self.metadata, self.directory, self.units, self.fields(), tuple(self.events))

    def __repr__(self) -> str:
        how = "complete" if self.complete else self.stop.get("exit_status", "aborted" if self.aborted else "under way")
        return f"<scan of {' × '.join(self.axes)}: {len(self)} of {self.planned} points, {how}>"
