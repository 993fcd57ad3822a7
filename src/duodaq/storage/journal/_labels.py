"""What a person says of a run, and may say otherwise later: sample, operator, note, tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duodaq import clock
from duodaq.errors import StorageFullError
from duodaq.storage.journal._catalog import Catalog
from duodaq.storage.journal._disk import Disk, write_whole
from duodaq.storage.journal._label_file import labels_of, pack_labels
from duodaq.storage.journal._layout import LABELS
from duodaq.storage.journal._run import iso


def edit_labels(
    directory: str | Path,
    *,
    sample: str | None = None,
    operator: str | None = None,
    note: str | None = None,
    tags: Sequence[str] | None = None,
    disk: Disk | None = None,
) -> dict[str, Any]:
    """Say something of a run, finished or growing; what is not given stays as it is.

    Args:
        directory: The run's.
        sample: What was measured.
        operator: Who measured it.
        note: Anything.
        tags: Words to find it by; they replace those that were there.
        disk: What to write with.

    Returns:
        All labels of the run.

    Raises:
        StorageError: It holds no journal, or the disk refused (StorageFullError). The labels are as they were.
    """
    given = {"sample": sample, "operator": operator, "note": note, "tags": None if tags is None else [*tags]}
    told = {name: value for name, value in given.items() if value is not None}
    present, whole = labels_of(Catalog(directory).path)
    if not whole and tags is None:  # perhaps it was to be kept: that is not forgotten for a note
        present["tags"] = ["keep"]
    labels = {**present, **told, "edited": iso(clock.utc_ns())}
    disk = disk or Disk()
    try:
        place = disk.open_directory(str(directory))
        try:
            write_whole(disk, place, LABELS, pack_labels(labels))
        finally:
            disk.close(place)
    except OSError as error:
        raise StorageFullError(f"cannot label {directory}: {error}", left="its labels are as they were") from error
    return labels
