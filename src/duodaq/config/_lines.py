from __future__ import annotations

from pathlib import Path

from duodaq.config._positions import KeyPath, Positions


def line_of(file: str | Path, *key: str | int) -> int | None:
    """The line of a key of a lab file, as ``line_of(file, "ports", "stage")``; None if it is not there any more."""
    path: KeyPath = key
    try:
        return Positions(Path(file).read_text(encoding="utf-8")).line(path)
    except (OSError, UnicodeDecodeError):
        return None
