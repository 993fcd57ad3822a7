"""The points of a run's scans, each in a table or group of its own: what was read there over where that was."""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from duodaq.errors import StorageError
from duodaq.storage.export._aside import aside
from duodaq.storage.export._compare import same_array, same_table
from duodaq.storage.export._csv import readable
from duodaq.storage.export._earlier import refuse_to_lose
from duodaq.storage.reading import Laid, RecordedScan, Run
from duodaq.storage.reading._arrow import csv as arrow_csv
from duodaq.storage.reading._arrow import parquet

_LEFT = "the journal is untouched"


class ScanPiece(NamedTuple):
    """The points of a scan as arrays.

    Attributes:
        name: What they are called in the file.
        scan: The scan.
        points: Its fields over its axes, of a grid over all of them; large arrays stay where they are, in the streams.
    """

    name: str
    scan: RecordedScan
    points: Laid

    @property
    def signals(self) -> list[str]:
        """The fields with a number for each point, but those that say where it is; the first is to be looked at."""
        places = {f"{axis}{end}" for axis in self.scan.axes for end in ("", "_setpoint", "_readback")}
        fields = self.points.fields.items()
        return [name for name, one in fields if one.dims == self.points.over and name not in places]


def scan_pieces(run: Run, taken: Container[str] = ()) -> list[ScanPiece]:
    """The scans that have points: ``scan``, ``scan_2`` and so on, by names that are not taken."""
    names = (name for n in range(1, 10**6) if (name := "scan" if n == 1 else f"scan_{n}") not in taken)
    return [ScanPiece(next(names), scan, scan.laid()) for scan in run.scans if len(scan)]


def write_scan_tables(run: Run, folder: Path, ending: str) -> list[Path]:
    """Write and verify a CSV or Parquet file for each scan, such as ``scan.csv``: a row for each point.

    Raises:
        StorageError: The disk refused, or what it holds is not what the journal does. No file is left half done.
    """
    written: list[Path] = []
    for piece in scan_pieces(run, list(run.streams)):
        path, table = folder / f"{piece.name}.{ending}", piece.scan.to_arrow()
        with aside(path) as place:
            same = _as_csv(table, place) if ending == "csv" else _as_parquet(table, place)
            if not same:
                raise StorageError(f"{path.name} does not hold what the journal does", left=_LEFT)
            refuse_to_lose(path, len(piece.scan))
        written.append(path)
    return written


def _as_csv(table: pa.Table, place: Path) -> bool:
    units = [(field.metadata or {}).get(b"unit", b"").decode() for field in table.schema]
    heads = [f"{field.name} ({unit})" if unit else field.name for field, unit in zip(table.schema, units, strict=True)]
    texts = readable(table).rename_columns(heads)
    csv = arrow_csv()
    csv.write_csv(texts, place)
    options = csv.ConvertOptions(
        column_types=texts.schema, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
    )
    parsing = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(place, parse_options=parsing, convert_options=options) as reader:
        return same_table(texts, reader.read_all())


def _as_parquet(table: pa.Table, place: Path) -> bool:
    parquet().write_table(table, place, compression="zstd", write_page_checksum=True)
    with parquet().ParquetFile(place, page_checksum_verification=True) as file:
        return same_table(table, file.read())


def write_scan_group(data: Any, piece: ScanPiece) -> None:
    """Fill an NXdata with the points, and say what is to be plotted over what.

    Raises:
        StorageError: It has no number to plot.
    """
    laid, names = piece.points, _nexus_names(piece.points)
    data["title"] = " × ".join(piece.scan.axes) or "time"
    data.attrs["duodaq_scan_uid"] = piece.scan.uid
    for name, one in {**laid.coordinates, **laid.fields}.items():
        values, unit = one.values, one.unit
        if values.dtype.kind == "M":
            start = datetime.fromtimestamp(float(values[0].astype(np.int64)) / 1e9, UTC).isoformat()
            values, unit = (values - values[0]).astype(np.int64) / 1e9, "s"
            data.attrs["duodaq_start"] = start
        data[names[name]] = values
        data[names[name]].attrs["long_name"] = f"{name} ({unit})" if unit else name
        if unit or values.dtype.kind == "f":
            data[names[name]].attrs["units"] = unit
        if not same_array(data[names[name]][()], values):
            raise StorageError(f"{data.name}/{names[name]} is not what the journal holds", left=_LEFT)
    for place, axis in enumerate(laid.over):
        data.attrs[f"{names[axis]}_indices"] = [place]
    if piece.signals:
        data.attrs["axes"] = [names[axis] for axis in laid.over]
        data.attrs["signal"], *others = [names[name] for name in piece.signals]
        if others:
            data.attrs["auxiliary_signals"] = others


def _nexus_names(laid: Laid) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (*laid.coordinates, *laid.fields):
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = f"_{plain}" if plain[:1].isdigit() or plain == "title" else plain
        while plain in found.values():
            plain += "_"
        found[name] = plain
    return found


def write_scan_arrays(root: Any, piece: ScanPiece) -> None:
    """Make a group of a Zarr store with the points, whose arrays name their dimensions.

    Raises:
        StorageError: It holds something else then.
    """
    group = root.create_group(piece.name, attributes={"scan_uid": piece.scan.uid, "axes": list(piece.points.over)})
    for name, one in {**piece.points.coordinates, **piece.points.fields}.items():
        values, told = one.values, {"units": one.unit} if one.unit else {}
        if values.dtype.kind == "M":
            told = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
            values = values.astype(np.int64)
        plain = re.sub(r"[/\\\0]", "_", name)
        array = group.create_array(
            plain, shape=values.shape, dtype=values.dtype, dimension_names=one.dims, attributes=told
        )
        array[...] = values
        if not same_array(np.asarray(array[...]), values):
            raise StorageError(f"{piece.name}/{plain} is not what the journal holds", left=_LEFT)
