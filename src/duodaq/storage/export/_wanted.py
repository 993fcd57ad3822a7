"""In which forms there can be a run, and what is wanted of one at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args

from duodaq.storage.journal._layout import FINALISED, RUN
from duodaq.storage.reading import is_run

Format = Literal["parquet", "hdf5", "zarr", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)

WANTED = "finalise"
"""Where a run's provenance says what is to be made of it at its end."""


def left_to_finalise(root: Path) -> Iterator[tuple[Path, list[Format], bool]]:
    """The finished runs in `root` that were to be finalised at their end and were not: in which forms, and whether the
    rows of their journal are to be removed then. Nothing if there is no such directory.
    """
    try:
        places = sorted(path for path in root.iterdir() if is_run(path) and not (path / FINALISED).exists())
    except OSError:
        return
    for place in places:
        wanted = _wanted(place)
        if wanted is not None and _state(place) == "finished":
            yield place, cast("list[Format]", wanted.get("to", [])), not wanted.get("keep_journal", True)


def _wanted(place: Path) -> dict[str, Any] | None:
    try:
        return json.loads((place / RUN).read_bytes())["provenance"][WANTED]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(place: Path) -> str:
    from duodaq.storage.reading import Run  # only where a run was left: who records a first one reads none

    return Run(place).state
