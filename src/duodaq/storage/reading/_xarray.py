"""Streams as xarray Datasets, whose frames stay on the disk until somebody looks at them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from duodaq.storage.reading._columns import Named, names_of, pixels_unit
from duodaq.storage.reading._frames import FrameStack

if TYPE_CHECKING:
    import xarray

    from duodaq.storage.reading._stream import Stream

_COORDINATES = ("sequence", "frame_number")


def dataset(stream: Stream, facts: Mapping[str, Any]) -> xarray.Dataset:
    """A stream as a Dataset over `time`, or over `row` if it has no times."""
    import xarray

    found = stream.named()
    over = "row" if found.times_ns is None else "time"
    coordinates: dict[str, Any] = {}
    if found.times_ns is not None:
        coordinates["time"] = (over, found.times_ns.view("datetime64[ns]"), {"long_name": "time in UTC"})
    variables: dict[str, Any] = {}
    for column in found.columns:
        home = coordinates if column.name in _COORDINATES else variables
        home[column.name] = ((over, *column.dims), column.values, _attrs(column.unit))
    for name, axis in found.axes.items():
        coordinates[name] = (name, axis.values, _attrs(axis.unit))
    frames = names_of(stream.name, stream.schema).get("pixels", "pixels")
    for number, stack in enumerate(stream.stacks, 1):
        name = frames if number == 1 else f"{frames}_{number}"
        variables[name] = _pictures(name, stack, found, over, pixels_unit(stream.schema))
        if variables[name][0][0] != over and found.times_ns is not None:
            dim = variables[name][0][0]
            coordinates[dim] = (dim, found.times_ns[stack.rows].view("datetime64[ns]"), {"long_name": "time in UTC"})
    return xarray.Dataset(variables, coordinates, {**facts, **found.facts})


def _attrs(unit: str) -> dict[str, str]:
    return {"units": unit} if unit else {}


def _pictures(name: str, stack: FrameStack, found: Named, over: str, unit: str) -> tuple[Any, ...]:
    whole = len(stack) == found.rows
    dims = (over, "y", "x") if whole else (f"{name}_{over}", f"{name}_y", f"{name}_x")
    return dims, _lazy(stack), _attrs(unit)


def _lazy(stack: FrameStack) -> Any:
    from xarray.backends import BackendArray

    indexing: Any = importlib.import_module("xarray.core.indexing")

    class Frames(BackendArray):
        shape = stack.shape
        dtype: np.dtype[Any] = stack.dtype

        def __getitem__(self, key: Any) -> Any:
            adapt = indexing.explicit_indexing_adapter
            return adapt(key, self.shape, indexing.IndexingSupport.BASIC, stack.__getitem__)

    return indexing.LazilyIndexedArray(Frames())
