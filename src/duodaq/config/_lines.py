from __future__ import annotations

from pathlib import Path

from duodaq.config._positions import KeyPath, Positions
from duodaq.errors import ConfigError


def line_of(file: str | Path, *key: str | int) -> int | None:
    """The line of a key of a lab file, as ``line_of(file, "ports", "stage")``; None if it is not there any more."""
    path: KeyPath = key
    try:
        return Positions(Path(file).read_text(encoding="utf-8")).line(path)
    except (OSError, UnicodeDecodeError):
        return None


def in_file(error: ConfigError, file: str | Path | None) -> ConfigError:
    """`error` about a stanza, with its place in the lab file filled in: the line of its key, else of the stanza."""
    if file is None or error.file is not None or not error.key:
        return error
    error.file = str(file)
    error.line = line_of(file, *error.key.split("."))
    error.instrument = error.command = None  # the key says it
    return error
