"""Recordings made in a moment, without a lab: to try what reads them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from duodaq.model import Scalar
from duodaq.schema import frame_batch, scalar_batch, stage_batch
from duodaq.storage.journal import Journal, RunPage
from duodaq.storage.reading import SCAN_DOCUMENT

_STEP_NS = 100_000_000
_RADIUS_MM, _CENTRE_MM, _POWER_W = 0.6, 2.0, 1e-3


def record_run(
    path: str | Path,
    batches: Iterable[pa.RecordBatch],
    *,
    documents: Iterable[tuple[str, Mapping[str, Any]]] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a finished run to the directory `path`.

    Args:
        path: Where.
        batches: Its rows, and its frames.
        documents: Bluesky's, of one scan that it kept: each with its kind.
        provenance: Where it comes from.

    Raises:
        StorageError: There is one already.
    """
    with growing_run(path, provenance=provenance) as journal:
        journal.write([*batches])
        scan = ""
        for kind, document in documents:
            scan = document["uid"] if kind == "start" else scan
            journal.note(SCAN_DOCUMENT, {"kind": kind, "run": scan, "doc": dict(document)})
        journal.close({"exit_status": "success"})
    return Path(path)


@contextlib.contextmanager
def growing_run(path: str | Path, *, provenance: Mapping[str, Any] | None = None) -> Generator[Journal]:
    """A run that is being written, and is left as it is then: unfinished, unless it was closed.

    Raises:
        StorageError: There is one already.
    """
    page = RunPage.of_now(path, level="kernel", provenance=dict(provenance or {}))
    journal = Journal(str(path), page)
    try:
        yield journal
    finally:
        journal.abandon()


def knife_edge(points: int = 21, start_ns: int = 1_780_000_000_000_000_000) -> list[pa.RecordBatch]:
    """What a knife-edge scan publishes: the axis ``stage.x`` in mm, ``meter.power`` in W, ``camera.frames``.

    The beam's radius is 0.6 mm around 2 mm; every 100 ms the blade takes a step, the meter is read, then the axis, as
    scans do it, and a frame is taken.
    """
    batches: list[pa.RecordBatch] = []
    for n, x in enumerate(np.linspace(0.5, 3.5, points)):
        t_ns = start_ns + n * _STEP_NS
        power = _behind(float(x))
        batches.append(_stage(n, t_ns + _STEP_NS * 3 // 8, float(x)))
        batches.append(scalar_batch([Scalar("meter", "power", "W", t_ns + _STEP_NS // 4, n, power, "v2")]))
        batches.append(
            frame_batch(
                _beam(float(x)),
                instrument="camera",
                channel="frames",
                t_ns=t_ns + _STEP_NS // 2,
                sequence=n,
                frame_number=n + 1,
                exposure_s=0.02,
            )
        )
    return batches


def knife_edge_scan(points: int = 21, start_ns: int = 1_780_000_000_000_000_000) -> list[tuple[str, dict[str, Any]]]:
    """The documents of the scan that published `knife_edge`, each with its kind."""
    scan, descriptor = (f"5ca1ab1e-0000-4000-8000-{n:012}" for n in (1, 2))
    start_s = start_ns / 1e9
    keys: dict[str, Any] = {
        name: {"source": f"duodaq:{source}", "dtype": "number", "shape": [], "units": unit}
        for name, source, unit in (
            ("power", "meter.power", "W"),
            ("stage_x", "stage_x", "mm"),
            ("stage_x_setpoint", "stage_x", "mm"),
        )
    }
    hints = {"dimensions": [[["stage_x"], "primary"]]}
    about = {"plan_name": "list_scan", "motors": ["stage_x"], "num_points": points, "hints": hints}
    found: list[tuple[str, dict[str, Any]]] = [
        ("start", {"uid": scan, "time": start_s, **about, "sample": "knife 3"}),
        ("descriptor", {"uid": descriptor, "run_start": scan, "time": start_s, "name": "primary", "data_keys": keys}),
    ]
    for n, x in enumerate(np.linspace(0.5, 3.5, points).tolist()):
        t_s = (start_ns + n * _STEP_NS + _STEP_NS * 3 // 8) / 1e9
        data = {"power": _behind(x), "stage_x": x, "stage_x_setpoint": x}
        told: dict[str, Any] = {"descriptor": descriptor, "seq_num": n + 1, "time": t_s, "filled": {}}
        found.append(("event", {**told, "data": data, "timestamps": dict.fromkeys(data, t_s)}))
    ended_s = (start_ns + points * _STEP_NS) / 1e9
    stop = {"run_start": scan, "time": ended_s, "exit_status": "success", "num_events": {"primary": points}}
    return [*found, ("stop", stop)]


def _behind(blade_mm: float) -> float:
    """The power behind the blade."""
    return _POWER_W / 2 * (1 - math.erf(math.sqrt(2) * (blade_mm - _CENTRE_MM) / _RADIUS_MM))


def _stage(number: int, t_ns: int, position_mm: float) -> pa.RecordBatch:
    return stage_batch(
        instrument="stage",
        channel="x",
        t_ns=[t_ns],
        sequence=[number],
        axis=["x"],
        position=[position_mm],
        velocity=[0.0],
        state=["idle"],
        unit=["mm"],
    )


def _beam(blade_mm: float) -> np.ndarray[Any, np.dtype[np.uint16]]:
    y, x = np.mgrid[0:24, 0:32]
    light = 4000 * np.exp(-(((x - 16) / 6) ** 2 + ((y - 12) / 6) ** 2))
    light[:, : int((blade_mm - _CENTRE_MM) * 10 + 16)] = 0
    return (light + 100).astype(np.uint16)
