from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.errors import DuodaqError

if TYPE_CHECKING:
    import xarray

Document = dict[str, Any]

_ENGINES_OWN = frozenset(
    {
        *("uid", "time", "scan_id", "versions", "hints", "detectors", "motors", "num_points", "num_intervals"),
        *("plan_type", "plan_name", "plan_args", "plan_pattern", "plan_pattern_module", "plan_pattern_args"),
        *("shape", "extents", "snaking"),
    }
)
"""What Bluesky writes into each start document by itself."""


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
        return {name: value for name, value in self.start.items() if name not in _ENGINES_OWN}

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
        """One field at every point: shape (points, …)."""
        return np.asarray([event["data"][field] for event in self.events])

    def fields(self) -> list[str]:
        """The names of the fields."""
        return list(self.descriptor.get("data_keys", {}))

    def to_arrow(self) -> pa.Table:
        """All points as a table; array fields become lists. Units are in the fields' metadata.

        The schema's metadata has the run's uid and what was given with the scan: text as it is, all else as JSON.
        """
        columns: dict[str, Any] = {"time": pa.array([int(e["time"] * 1e9) for e in self.events], pa.timestamp("ns"))}
        columns |= {name: [np.asarray(e["data"][name]).tolist() for e in self.events] for name in self.fields()}
        table = pa.table(columns)
        units = self.units
        named = [f.with_metadata({"unit": units[f.name]}) if units.get(f.name) else f for f in table.schema]
        return table.cast(pa.schema(named, self._written_attributes()))

    def to_xarray(self) -> xarray.Dataset:
        """All points as a Dataset over the scanned axis; its attrs are the uid and what was given with the scan.

        A grid comes over all of its axes at their set positions, with NaN at the points that were not taken.

        Raises:
            ImportError: xarray is not installed; it comes with duodaq[scan].
        """
        import xarray

        if len(self.axes) > 1:
            return self._grid()
        units = self.units
        variables = {n: (self._dims(n), self[n], {"units": units[n]}) for n in self.fields() if n != self.axis}
        coordinate = (self.axis, self[self.axis], {"units": units[self.axis]})
        return xarray.Dataset(variables, coords={self.axis: coordinate}, attrs=self._attributes())

    def _grid(self) -> xarray.Dataset:
        import xarray

        units = self.units
        coordinates = {n: ((n,), p, {"units": units.get(n, "")}) for n, p in self._positions.items()}
        variables: dict[str, Any] = {}
        for name in self.fields():
            values = self[name]
            cells = np.full((*self.shape, *values.shape[1:]), np.nan)
            for place, value in zip(self._places, values, strict=False):
                cells[place] = value
            inner = tuple(f"{name}_{i}" for i in range(values.ndim - 1))
            known = f"{name}_readback" if name in self.axes else name
            variables[known] = ((*self.axes, *inner), cells, {"units": units[name]})
        return xarray.Dataset(variables, coords=coordinates, attrs=self._attributes())

    def _attributes(self) -> dict[str, Any]:
        return {**self.metadata, "uid": self.uid}

    def _written_attributes(self) -> dict[bytes, bytes]:
        return {name.encode(): _as_text(value).encode() for name, value in self._attributes().items()}

    def _dims(self, field: str) -> tuple[str, ...]:
        return (self.axis, *(f"{field}_{i}" for i in range(self[field].ndim - 1)))

    def __repr__(self) -> str:
        how = "complete" if self.complete else self.stop.get("exit_status", "under way")
        return f"<scan of {' × '.join(self.axes)}: {len(self)} of {self.planned} points, {how}>"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


class ScanInterruptedError(DuodaqError):
    """A scan that ended before its last point. The axis is stopped; the points taken are in `run`."""

    def __init__(self, what: str, *, run: ScanRun, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.run = run
