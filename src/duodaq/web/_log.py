"""The last lines of the lab's log, kept for the page: bounded, numbered, and what it forgot is known by the numbers."""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime
from typing import Any, cast

_HIDDEN = frozenset({"event", "level", "logger", "timestamp", "_record", "_from_structlog", "exc_info"})


class LogTail(logging.Handler):
    """Keeps the newest `most` lines of the logger ``duodaq``. Records come from any thread."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[dict[str, Any]] = deque(maxlen=most)
        self._count = 0

    def __enter__(self) -> LogTail:
        logging.getLogger("duodaq").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("duodaq").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        said: Any = record.msg
        known = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
        facts = {key: str(value)[:500] for key, value in known.items() if key not in _HIDDEN}
        self._count += 1
        self._lines.append(
            {
                "number": self._count,
                "t_ms": _ms_of(known.get("timestamp"), record.created),
                "level": record.levelname.lower(),
                "logger": record.name.removeprefix("duodaq."),
                "event": str(known.get("event", ""))[:2000] if known else record.getMessage()[:2000],
                "facts": facts,
            }
        )

    def after(self, number: int, limit: int = 200, level: str | None = None, text: str = "") -> list[dict[str, Any]]:
        """The newest lines behind that number, oldest first; those of `level` or worse in which `text` occurs."""
        least = logging.getLevelNamesMapping().get((level or "info").upper(), logging.INFO)
        names = logging.getLevelNamesMapping()
        found: list[dict[str, Any]] = []
        for line in reversed(self._lines.copy()):
            if line["number"] <= number or len(found) == limit:
                break
            if names.get(line["level"].upper(), 0) >= least and text.lower() in _said(line):
                found.append(line)
        return found[::-1]


def _ms_of(timestamp: Any, created_s: float) -> float:
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp() * 1000
    except ValueError:
        return created_s * 1000


def _said(line: dict[str, Any]) -> str:
    return f"{line['event']} {line['logger']} {' '.join(line['facts'].values())}".lower()
