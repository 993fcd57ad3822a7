"""Vectors and spectra as a browser draws them: the newest of each stream, thinned, over its own axis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.schema import schema_name, stream_of
from duodaq.web._form import Form
from duodaq.web._history import extremes

MOST_POINTS = 2048
MOST_STREAMS = 64
_KINDS = frozenset({"vector/1", "spectrum/1"})


class Trace(NamedTuple):
    """One vector or spectrum: `values` in `unit` over `axis` in `axis_unit`, which is "" for the place in a vector."""

    stream: str
    t_ns: int
    sequence: int
    points: int
    unit: str
    axis_unit: str
    axis: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


def trace_of(batch: pa.RecordBatch) -> Trace | None:
    """The last vector or spectrum of a batch, thinned; None if it holds something else.

    A spectrum whose axis has another length than its values is drawn over their places, as a vector is.
    """
    name = schema_name(batch.schema)
    if name not in _KINDS or not batch.num_rows:
        return None
    last = batch.num_rows - 1
    values = _floats(batch.column("values")[last].values)
    axis, axis_unit = np.arange(len(values), dtype=np.float64), ""
    if name == "spectrum/1":
        own = _floats(batch.column("axis")[last].values)
        if len(own) == len(values):
            axis, axis_unit = own, str(batch.column("axis_unit")[last].as_py())
    points = len(values)
    if points > MOST_POINTS:
        places = extremes(values, MOST_POINTS)
        axis, values = axis[places], values[places]
    t_ns = int(batch.column("timestamp").view(pa.int64())[last].as_py())
    sequence = int(batch.column("sequence")[last].as_py())
    unit = str(batch.column("unit")[last].as_py())
    return Trace(stream_of(batch), t_ns, sequence, points, unit, axis_unit, axis, values)


def trace_bytes(trace: Trace) -> bytes:
    """It as one Arrow IPC stream: a row for each point."""
    facts = {
        "kind": "trace",
        "stream": trace.stream,
        "unit": trace.unit,
        "axis_unit": trace.axis_unit,
        "t_ms": repr(trace.t_ns / 1e6),
        "sequence": str(trace.sequence),
        "points": str(trace.points),
    }
    form = Form.of([pa.field("axis", pa.float64()), pa.field("value", pa.float64())], **facts)
    return form.filled([pa.array(trace.axis), pa.array(trace.values)])


def _floats(values: pa.Array) -> npt.NDArray[np.float64]:
    return np.array(values.to_numpy(zero_copy_only=False), dtype=np.float64)
