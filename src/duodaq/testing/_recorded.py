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

_STEP_NS = 100_000_000
_RADIUS_MM, _CENTRE_MM, _POWER_W = 0.6, 2.0, 1e-3


def record_run(
    path: str | Path, batches: Iterable[pa.RecordBatch], *, provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write a finished run to the directory `path`.

    Raises:
        StorageError: There is one already.
    """
    with growing_run(path, provenance=provenance) as journal:
        journal.write([*batches])
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

    The beam's radius is 0.6 mm around 2 mm; every 100 ms the blade takes a step, the meter is read, a frame is taken.
    """
    batches: list[pa.RecordBatch] = []
    for n, x in enumerate(np.linspace(0.5, 3.5, points)):
        t_ns = start_ns + n * _STEP_NS
        covered = math.erf(math.sqrt(2) * (float(x) - _CENTRE_MM) / _RADIUS_MM)
        power = _POWER_W / 2 * (1 - covered)
        batches.append(_stage(n, t_ns, float(x)))
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
