from __future__ import annotations

from enum import StrEnum


class Fate(StrEnum):
    """What became of a command. The first verdict stands; a later outcome is logged as late."""

    DONE = "done"
    FAILED = "failed"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"
