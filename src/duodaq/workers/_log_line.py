from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from duodaq.errors import DataError, DuodaqError
from duodaq.telemetry import note_event, unharmed
from duodaq.workers._messages import Log, Message, parcel, unpack

ROOT = "duodaq"
MOST_PER_S = 200
"""So many lines a second of one worker are carried; what comes on top is counted and said."""


class LogLine(logging.Handler):
    """Carries what is logged in a worker to the manager, where it is logged as if it had happened there."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send
        self._second = 0
        self._carried = 0
        self._left_out = 0

    @classmethod
    def install(cls, send: Callable[[Message], None], level: int) -> None:
        """Carry what duodaq logs in this process from `level` on, and nothing else anywhere."""
        root = logging.getLogger(ROOT)
        root.handlers[:] = [cls(send)]
        root.setLevel(level)
        root.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, unless too many came in this second."""
        second = int(record.created)
        if second != self._second:
            self._second, self._carried = second, 0
        self._carried += 1
        if self._carried > MOST_PER_S:
            self._left_out += 1
            return
        said: Any = record.msg
        event: dict[str, Any] = _plain(said) if isinstance(said, dict) else {"event": _cut(record.getMessage())}
        if self._left_out:
            event["lines_left_out"], self._left_out = self._left_out, 0
        try:
            self._send(Log(record.name, record.levelno, parcel(event)))
        except DuodaqError:
            self._left_out += 1  # the link has ended, or the line does not travel


def log_here(line: Log, worker: str) -> None:
    """Log in this process what was logged in `worker`.

    Raises:
        DataError: The line makes no sense.
    """
    event: Any = unpack(line.event)
    logger = logging.getLogger(line.logger if line.logger.startswith(ROOT) else f"{ROOT}.{line.logger}")
    if not logger.isEnabledFor(line.level):
        return
    if not isinstance(event, dict):
        raise DataError("a line of the log that is none")
    event = {"worker": worker, **cast("dict[str, Any]", event)}
    note_event(_METHODS.get(line.level, "info"), event)
    record = logger.makeRecord(logger.name, line.level, "", 0, event, (), None)
    record.__dict__.update(_logger=logger, _name=_METHODS.get(line.level, "info"))  # as structlog's formatter wants it
    unharmed(logger.handle, record)


_METHODS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
LONGEST_TEXT = 10_000
"""So many characters of one text of a line are carried; a longer one ends with how many were cut."""
_KEPT = (bool, int, float, str, type(None))


def _plain(event: Any) -> dict[str, Any]:
    facts = cast("dict[Any, Any]", event)
    return {_cut(str(k)): _cut(v if isinstance(v, _KEPT) else str(v)) for k, v in facts.items()}


def _cut(value: Any) -> Any:
    if not isinstance(value, str) or len(value) <= LONGEST_TEXT:
        return value
    return f"{value[:LONGEST_TEXT]} … ({len(value) - LONGEST_TEXT} characters cut)"
