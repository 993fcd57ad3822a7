"""What a run's directory is known by."""

from __future__ import annotations

from pathlib import Path

from duodaq.storage.journal._layout import EVENTS, RUN


def is_run(path: Path) -> bool:
    """Whether a directory is that of a run."""
    return (path / EVENTS).is_file() or (path / RUN).is_file()
