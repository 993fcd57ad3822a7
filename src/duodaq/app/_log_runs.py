"""The runs that a log has made so far: read where they lie, in the log's own thread."""

from __future__ import annotations

from pathlib import Path

from duodaq.errors import StorageError
from duodaq.storage._series import KEPT, SERIES, KeptRun
from duodaq.storage.reading import Run, folder_bytes, is_run, of_series
from duodaq.storage.reading._labels import labels_are_whole
from duodaq.telemetry import get_logger

_log = get_logger("lab")


def _is_of(run: Run, name: str, lab: str) -> bool:
    """Whether it is of this series, of this lab; runs of before the series said whose they are say it beside it."""
    return of_series(run, name) and run.provenance[SERIES].get("lab", run.provenance.get("lab")) == lab


def last_of(root: Path, name: str, lab: str) -> tuple[str, int] | None:
    """The uid and the number in the series of its last run; None if there is none."""
    places = sorted(root.glob(f"{name}-*"), reverse=True) if root.is_dir() else []
    for path in places:
        if is_run(path) and _is_of(run := Run(path), name, lab):
            return run.uid, int(run.provenance[SERIES].get("part", 0))
    return None


def ended_runs(root: Path, name: str, lab: str, growing: Path) -> tuple[list[KeptRun], int]:
    """The ended runs of a lab's series, and how many there are of this name that are not this lab's."""
    found: list[KeptRun] = []
    others = 0
    for path in sorted(root.iterdir()):
        if path == growing or path.name.startswith(".") or not is_run(path):
            continue
        try:
            run = Run(path)
        except StorageError:
            continue
        stop = run.stop
        if stop is None or not of_series(run, name):
            continue
        if not _is_of(run, name, lab):
            others += 1
            continue
        noted = run.finalised
        verified = noted is not None and noted["error"] is None
        tags = (*run.labels.tags, KEPT) if is_kept(path, name) else run.labels.tags
        start_ns = None if run.start is None else run.page.start_ns
        found.append(KeptRun(path, int(stop.timestamp() * 1e9), folder_bytes(path), verified, tags, start_ns))
    return found, others


def is_kept(path: Path, name: str) -> bool:
    """Whether somebody wants it kept, or may have wanted it."""
    if not labels_are_whole(path):
        _log.warning("a run is kept since its labels cannot be read", log=name, run=str(path))
        return True
    return KEPT in Run(path).labels.tags
