"""Several streams together: as one long table, or each row of one stream with what the others said at that time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.reading._columns import UNIT_KEY, Column, Named

if TYPE_CHECKING:
    from duodaq.storage.reading._stream import Stream

Take = Literal["last", "next", "nearest"]
SCALAR = "scalar/1"
LONG = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("ns"), nullable=False),
        pa.field("sequence", pa.uint64(), nullable=False),
        *(pa.field(name, pa.dictionary(pa.int32(), pa.string()), nullable=False) for name in ("instrument", "channel")),
        pa.field("value", pa.float64()),
        pa.field("unit", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)


def long_table(streams: Iterable[Stream]) -> pa.Table:
    """The rows of streams of numbers behind one another, each saying its instrument, channel and unit."""
    tables = [table for stream in streams if stream.kind == SCALAR for table in stream.tables(LONG.names)]
    return pa.concat_tables([table.cast(LONG) for table in tables]) if tables else LONG.empty_table()


def aligned(over: Stream, others: Sequence[Stream], take: Take) -> tuple[Named, list[Column]]:
    """The rows of `over`, and for each of them what the numbers of `others` were then.

    Names that several instruments use get their instrument's in front, as in a scan.
    """
    base = over.named()
    found: list[tuple[str, Column]] = [(over.name, column) for column in base.columns]
    for other in others:
        if other.name == over.name:
            continue
        theirs = other.named()
        if base.times_ns is None or theirs.times_ns is None:
            continue
        places, known = _places(base.times_ns, theirs.times_ns, take)
        found += [
            (other.name, column._replace(values=_picked(column.values, places, known)))
            for column in theirs.columns
            if _is_number(column)
        ]
    uses = Counter(column.name for _, column in found)
    return base, [
        column
        if uses[column.name] == 1 or stream == over.name
        else column._replace(name=_own_name(stream, column.name))
        for stream, column in found
    ]


def wide_table(over: Stream, others: Sequence[Stream], take: Take) -> pa.Table:
    """`aligned` as a table, its first column `timestamp`."""
    base, columns = aligned(over, others, take)
    arrays: dict[str, Any] = {}
    if base.times_ns is not None:
        arrays["timestamp"] = pa.array(base.times_ns).cast(pa.timestamp("ns"))
    fields = [pa.field("timestamp", pa.timestamp("ns"), nullable=False)] if arrays else []
    for column in columns:
        array = pa.array(list(column.values) if column.values.ndim > 1 else column.values)
        arrays[column.name] = array
        metadata = {UNIT_KEY: column.unit.encode()} if column.unit else None
        fields.append(pa.field(column.name, array.type, metadata=metadata))
    return pa.table(list(arrays.values()), schema=pa.schema(fields))


def _own_name(stream: str, name: str) -> str:
    instrument = stream.partition(".")[0]
    return f"{instrument}_{name}"


def _is_number(column: Column) -> bool:
    return bool(np.issubdtype(column.values.dtype, np.floating)) and column.values.ndim == 1


def _places(
    base: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64], take: Take
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each time of `base` the place of the row to take, and whether there is one."""
    behind = np.searchsorted(theirs, base, side="right")
    last, following = behind - 1, np.searchsorted(theirs, base, side="left")
    count = len(theirs)
    if take == "last" or not count:
        return np.maximum(last, 0), last >= 0
    if take == "next":
        return np.minimum(following, count - 1), following < count
    before, after = np.clip(last, 0, count - 1), np.clip(following, 0, count - 1)
    nearer_before = np.abs(theirs[before] - base) <= np.abs(theirs[after] - base)
    return np.where(nearer_before, before, after), np.ones(len(base), bool)


def _picked(values: npt.NDArray[Any], places: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    if not len(values):
        return np.full(len(places), np.nan)
    return np.where(known, values[places], np.nan)
