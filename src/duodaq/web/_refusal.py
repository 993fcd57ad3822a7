"""Why something was not done, as HTTP says it: one body for all refusals, and which status goes with which error."""

from __future__ import annotations

from typing import Any

from duodaq.errors import (
    ConfigError,
    DuodaqError,
    LifecycleError,
    MailboxFullError,
    NotInControlError,
    OutOfRangeError,
    PartlySetError,
    RefusedError,
    SchemaMismatchError,
    UnsafeStateError,
)
from duodaq.telemetry import named


class Refusal(Exception):  # noqa: N818 - it is an answer, raised to come from anywhere to whoever writes it
    """An answer that says no: its HTTP status, in one word who refused, and in a sentence why."""

    def __init__(self, status: int, error: str, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        self.facts = facts

    def body(self) -> dict[str, Any]:
        """What goes out: ``error``, ``detail``, ``fate`` where it is known, and further facts."""
        return {"error": self.error, "detail": self.detail, **self.facts}


_STATUS: tuple[tuple[type[DuodaqError], int], ...] = (
    (UnsafeStateError, 409),
    (LifecycleError, 409),
    (MailboxFullError, 409),
    (OutOfRangeError, 422),
    (RefusedError, 422),
    (SchemaMismatchError, 422),
    (ConfigError, 422),
)
NOT_DONE_BY_OTHERS = 424
"""The request was right, and the instrument, its line, its worker or the disk did not do it."""


def refusal_of(error: Exception) -> Refusal:
    """What a lab's error says to whoever asked."""
    if not isinstance(error, DuodaqError):
        return Refusal(NOT_DONE_BY_OTHERS, type(error).__name__, named(error))
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), NOT_DONE_BY_OTHERS)
    fate = getattr(error, "fate", None)
    facts: dict[str, Any] = {"fate": str(fate)} if fate is not None else {}
    if isinstance(error, NotInControlError):
        facts["holder"] = str(error.holder)
    if isinstance(error, PartlySetError):
        facts |= {"done": error.done, "failed": error.failed, "not_done": error.not_done}
    return Refusal(status, type(error).__name__, str(error), **facts)
