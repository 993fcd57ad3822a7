from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from enum import StrEnum


class Fate(StrEnum):
    """What became of a command. The first verdict stands; a later outcome is logged as late."""

    DONE = "done"
    FAILED = "failed"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"


IN_HAND: ContextVar[Callable[[], None] | None] = ContextVar("duodaq.in_hand", default=None)
"""Called, if set where a command is sent, when it is taken in hand: from that moment on its fate may be unknown."""
