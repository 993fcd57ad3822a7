"""The log as a file: JSON, one object a line, put aside when it is full. A thread writes it: no loop waits for a disk.

Every line has `lab`, `run`, `instrument`, `port` and `trace_id`, null where there is none.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import threading
from pathlib import Path
from typing import Any

from duodaq.telemetry._logs import ROOT, json_formatter

_WAITING = 10_000
_IDS = ("lab", "run", "instrument", "port", "trace_id")


class LogFile(logging.Handler):
    """Writes everything that duodaq logs from INFO on into `path`, and says in `facts` what each line belongs to.

    Args:
        path: The file; its folder is made.
        max_bytes: How long it may become.
        keep: How many of its kind are kept, as ``path.1``, ``path.2`` …
        facts: What stands in each line that does not say otherwise: the lab, the run.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int, facts: dict[str, Any]) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self.facts = facts
        self.lost = 0
        self._max_bytes, self._keep = max_bytes, keep
        self._waiting: queue.Queue[tuple[logging.LogRecord, dict[str, Any]] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="log file", daemon=True)
        self._ending = threading.Event()
        self._level_before: int | None = None

    def open(self) -> None:
        """Begin.

        Raises:
            OSError: The folder cannot be made, or the file not be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()
        root = logging.getLogger(ROOT)
        if root.getEffectiveLevel() > logging.INFO:
            self._level_before = root.level
            root.setLevel(logging.INFO)
        root.addHandler(self)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a line written; when 10,000 wait for the disk, it is lost, and counted."""
        try:
            self._waiting.put_nowait((record, dict(self.facts)))
        except queue.Full:
            self.lost += 1

    def end(self) -> None:
        """Take nothing more, write what waits, and end; `ended` says when. Idempotent; never waits."""
        root = logging.getLogger(ROOT)
        root.removeHandler(self)
        if self._level_before is not None:
            root.setLevel(self._level_before)
            self._level_before = None
        self._ending.set()
        with contextlib.suppress(queue.Full):  # it looks whether it shall end behind each line, too
            self._waiting.put_nowait(None)

    @property
    def ended(self) -> bool:
        """Whether all is written."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        lines = _Lines()
        file = _RotatingFile(self.path, maxBytes=self._max_bytes, backupCount=self._keep, encoding="utf-8")
        file.setFormatter(json_formatter(lines.add))
        try:
            while (next_one := self._waiting.get()) is not None:
                record, lines.facts = next_one
                file.handle(record)
                if self._ending.is_set() and self._waiting.empty():
                    return
        finally:
            file.close()


class _Lines:
    """Fills in what each line belongs to."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}

    def add(self, _logger: Any, _method: str, event: Any) -> Any:
        """A processor of structlog's."""
        ids = {**dict.fromkeys(_IDS), **self.facts}
        if event.get("instrument") is None and event.get("actor"):
            ids["instrument"] = event["actor"]
        return {**ids, **event}


class _RotatingFile(logging.handlers.RotatingFileHandler):
    """Says once, on stderr as `logging` does, that the disk refuses."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging calls it so
        if not self._said:
            self._said = True
            super().handleError(record)


def is_read_by_a_person() -> bool:
    """Whether anything but log files takes what duodaq logs."""
    logger: logging.Logger | None = logging.getLogger(ROOT)
    while logger is not None:
        if any(not isinstance(handler, LogFile) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
