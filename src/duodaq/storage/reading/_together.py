"""Several streams together: as one long table, or each row of one stream with what the others said at that time."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duodaq.storage.reading._arrow import compute as pc
from duodaq.storage.reading._columns import UNIT_KEY, Column, Named

if TYPE_CHECKING:
    from duodaq.storage.reading._stream import Stream

Take = Literal["last", "next", "nearest"]
SCALAR, STAGE = "scalar/1", "stage/1"
_OF_A_STAGE = (("position", "", ""), ("velocity", "_velocity", "/s"))
_WORDS = ("instrument", "channel", "unit")
LONG = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("ns"), nullable=False),
        pa.field("sequence", pa.uint64(), nullable=False),
        *(pa.field(name, pa.dictionary(pa.int32(), pa.string()), nullable=False) for name in ("instrument", "channel")),
        pa.field("value", pa.float64()),
        pa.field("unit", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)


def check_take(take: str) -> None:
    """Return if there is such a way to take the others' rows.

    Raises:
        ValueError: There is not.
    """
    if take not in get_args(Take):
        raise ValueError(f"take={take!r}: it is one of {', '.join(get_args(Take))}")


def long_table(streams: Iterable[Stream]) -> pa.Table:
    """The rows of streams of numbers behind one another, each saying its instrument, channel and unit.

    An axis gives its positions, and behind them, as a channel of their own, its velocities as far as it told any.
    """
    tables = [table for stream in streams for table in _numbers(stream)]
    return pa.concat_tables(tables) if tables else LONG.empty_table()


def _numbers(stream: Stream) -> Iterator[pa.Table]:
    kind = stream.kind
    if kind == SCALAR:
        yield from (table.cast(LONG) for table in stream.tables(LONG.names))
    elif kind == STAGE:
        instrument, channel = _stage_names(stream)
        for column, name, per in _OF_A_STAGE:
            for table in stream.tables(["timestamp", "sequence", column, "unit"]):
                known = table.filter(pc.is_valid(table.column(column)))
                if not known.num_rows:
                    continue
                unit = pc.binary_join_element_wise(known.column("unit").cast(pa.string()), per, "")
                words = [pa.repeat(word, known.num_rows) for word in (instrument, f"{channel}{name}")]
                columns = [known.column("timestamp"), known.column("sequence"), *words, known.column(column), unit]
                coded = [c.dictionary_encode() if f.name in _WORDS else c for c, f in zip(columns, LONG, strict=True)]
                yield pa.table(coded, names=LONG.names).cast(LONG)


def lazy_numbers(stream: Stream) -> Iterator[Any]:
    """The same for Polars, read when it is collected."""
    kind = stream.kind
    if kind == SCALAR:
        yield stream.to_polars().select(LONG.names)
    elif kind == STAGE:
        pl: Any = importlib.import_module("polars")
        instrument, channel = _stage_names(stream)
        for column, name, per in _OF_A_STAGE:
            words = {"instrument": instrument, "channel": f"{channel}{name}"}
            told = [pl.lit(word, dtype=pl.Categorical).alias(key) for key, word in words.items()]
            unit = (pl.col("unit").cast(pl.String) + per).cast(pl.Categorical)
            rows = stream.to_polars().filter(pl.col(column).is_not_null())
            yield rows.select("timestamp", "sequence", *told, pl.col(column).alias("value"), unit)


def _stage_names(stream: Stream) -> tuple[str, str]:
    instrument = (stream.schema.metadata or {}).get(b"duodaq.instrument", b"").decode() or stream.name.partition(".")[0]
    return instrument, stream.name.removeprefix(f"{instrument}.")


def aligned(over: Stream, others: Sequence[Stream], take: Take) -> tuple[Named, list[Column]]:
    """The rows of `over`, and for each of them what the numbers of `others` were then.

    Names that several instruments use get their instrument's in front, as in a scan.
    """
    check_take(take)
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
