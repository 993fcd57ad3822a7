"""What a result that is there already holds: one with fewer rows never takes its place."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from duodaq.errors import StorageError
from duodaq.storage.journal._parquet import open_parquet
from duodaq.storage.reading._arrow import csv as arrow_csv


def refuse_to_lose(path: Path, rows: int) -> None:
    """Return if `path` holds no more than `rows` rows, or nothing that can be read.

    Raises:
        StorageError: It holds more. Nothing was touched.
    """
    count = _COUNTS.get(path.suffix)
    if count is None or not path.exists():
        return
    try:
        there = count(path)
    except (OSError, ValueError, KeyError):  # what cannot be read is nobody's result; Arrow's errors are of these
        return
    _compare(str(path), there, rows)


def refuse_to_lose_groups(path: Path, place: Path, rows_in: Callable[[Path], dict[str, int]]) -> None:
    """Return if no group of the file or store at `path` has more rows than its like at `place`.

    Raises:
        StorageError: One has. Nothing was touched.
    """
    if not path.exists():
        return
    try:
        there = rows_in(path)
    except (OSError, ValueError, KeyError):
        return
    now = rows_in(place)
    for name, rows in there.items():
        _compare(f"{name} in {path}", rows, now.get(name, 0))


def nexus_rows(path: Path) -> dict[str, int]:
    """The rows of each NXdata in a NeXus file."""
    h5py: Any = importlib.import_module("h5py")
    with h5py.File(path, "r") as file:
        groups = {name: g for name, g in file["entry"].items() if g.attrs.get("NX_class") == "NXdata"}
        return {name: _rows(group) for name, group in groups.items()}


def zarr_rows(path: Path) -> dict[str, int]:
    """The rows of each group of a Zarr store."""
    zarr: Any = importlib.import_module("zarr")
    return {name: _rows(dict(group.arrays())) for name, group in zarr.open_group(path, mode="r").groups()}


def _rows(group: Any) -> int:
    """By its times, if it has any."""
    names = ["time"] if "time" in group else list(group)
    return max((group[name].shape[0] for name in names if getattr(group[name], "shape", ())), default=0)


def _compare(what: str, there: int, rows: int) -> None:
    if there > rows:
        raise StorageError(
            f"{what} has {there:,} rows, and would have {rows:,} then", left="nothing was touched; remove it first"
        )


def _parquet_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return file.metadata.num_rows


def _csv_rows(path: Path) -> int:
    csv = arrow_csv()
    with csv.open_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True)) as reader:
        return sum(batch.num_rows for batch in cast("Iterator[pa.RecordBatch]", reader))


def _frames_in(path: Path) -> int:
    return np.load(path, mmap_mode="r", allow_pickle=False).shape[0]


_COUNTS: dict[str, Callable[[Path], int]] = {".parquet": _parquet_rows, ".csv": _csv_rows, ".npy": _frames_in}
