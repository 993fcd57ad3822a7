"""The points of a scan as tables: the same from the program that scanned and from the run that kept them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    import xarray

ENGINES_OWN = frozenset(
    {
        *("uid", "time", "scan_id", "versions", "hints", "detectors", "motors", "num_points", "num_intervals"),
        *("plan_type", "plan_name", "plan_args", "plan_pattern", "plan_pattern_module", "plan_pattern_args"),
        *("shape", "extents", "snaking", "snake_axes"),
    }
)
"""What Bluesky writes into each start document by itself."""


class Grid(NamedTuple):
    """Where the points of a grid are.

    Attributes:
        positions: Those that each axis was to take, the slowest axis first.
        places: The place of each point among them.
    """

    positions: Mapping[str, Sequence[float]]
    places: Sequence[tuple[int, ...]]

    def cells(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values at the points, over all axes; NaN where no point was taken."""
        shape = tuple(len(positions) for positions in self.positions.values())
        found = np.full((*shape, *values.shape[1:]), np.nan)
        for place, value in zip(self.places, values, strict=False):
            found[place] = value
        return found


class LaidField(NamedTuple):
    """A field over named dimensions, and its unit."""

    dims: tuple[str, ...]
    values: npt.NDArray[Any]
    unit: str


class Laid(NamedTuple):
    """Points as arrays over the dimensions `over`, whose coordinates stand apart from the fields."""

    over: tuple[str, ...]
    coordinates: dict[str, LaidField]
    fields: dict[str, LaidField]


class ScanPoints(NamedTuple):
    """The points of a scan.

    Attributes:
        axes: The fields of the scanned axes; of a grid, the slowest first.
        times_s: When each was taken: UTC seconds.
        values: Each field, at every point.
        units: The unit of each field, "" for none.
        attributes: What goes with them.
        grid: Where they are in a grid, if it is one.
    """

    axes: tuple[str, ...]
    times_s: Sequence[float]
    values: Mapping[str, Sequence[Any]]
    units: Mapping[str, str]
    attributes: Mapping[str, Any]
    grid: Grid | None = None

    def to_arrow(self) -> pa.Table:
        """A row for each; array fields become lists. Units are in the fields' metadata, attributes in the schema's."""
        columns: dict[str, Any] = {"time": pa.array([int(t * 1e9) for t in self.times_s], pa.timestamp("ns"))}
        columns |= {name: [np.asarray(one).tolist() for one in values] for name, values in self.values.items()}
        table = pa.table(columns)
        named = [f.with_metadata({"unit": unit}) if (unit := self.units.get(f.name)) else f for f in table.schema]
        told = {name.encode(): _as_text(value).encode() for name, value in self.attributes.items()}
        return table.cast(pa.schema(named, told))

    def laid(self) -> Laid:
        """Over the first axis, or over time if there is none; of a grid, over all axes at their set positions."""
        if self.grid is not None:
            over = tuple(self.grid.positions)
            places = {n: LaidField((n,), np.asarray(p), self._unit(n)) for n, p in self.grid.positions.items()}
            found: dict[str, LaidField] = {}
            for name, values in self._arrays().items():
                known = f"{name}_readback" if name in self.grid.positions else name
                found[known] = LaidField((*over, *_inner(name, values)), self.grid.cells(values), self._unit(name))
            return Laid(over, places, found)
        axis = self.axes[0] if self.axes else "time"
        found = {n: LaidField((axis, *_inner(n, v)), v, self._unit(n)) for n, v in self._arrays().items()}
        times = np.array([int(t * 1e9) for t in self.times_s], "datetime64[ns]")
        return Laid((axis,), {axis: found.pop(axis, LaidField((axis,), times, ""))}, found)

    def to_xarray(self) -> xarray.Dataset:
        """As it is laid out: over the first axis, over time, or over all axes of a grid."""
        xarray: Any = importlib.import_module("xarray")
        laid = self.laid()
        fields = {name: (one.dims, one.values, {"units": one.unit}) for name, one in laid.fields.items()}
        places = {name: (one.dims, one.values, _about(one)) for name, one in laid.coordinates.items()}
        return xarray.Dataset(fields, places, dict(self.attributes))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: stacked(values) for name, values in self.values.items()}

    def _unit(self, field: str) -> str:
        return self.units.get(field, "")


def stacked(values: Sequence[Any]) -> npt.NDArray[Any]:
    """The values at all points as one array; arrays of different lengths are filled up with NaN behind their own.

    Raises:
        ValueError: They have different numbers of dimensions.
    """
    try:
        return np.asarray(values)
    except ValueError:
        each = [np.asarray(one, np.float64) for one in values]
        if len({one.ndim for one in each}) != 1:
            raise
    shape = tuple(max(lengths) for lengths in zip(*(one.shape for one in each), strict=True))
    found = np.full((len(each), *shape), np.nan)
    for place, one in zip(found, each, strict=True):
        place[tuple(map(slice, one.shape))] = one
    return found


def told_with(start: Mapping[str, Any]) -> dict[str, Any]:
    """What whoever scanned gave with the scan, such as its sample."""
    return {name: value for name, value in start.items() if name not in ENGINES_OWN}


def _about(place: LaidField) -> dict[str, str]:
    return {"long_name": "time in UTC"} if place.values.dtype.kind == "M" else {"units": place.unit}


def _inner(name: str, values: npt.NDArray[Any]) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in range(values.ndim - 1))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
