"""The log as a file: JSON, one object a line, put aside when it is full. A thread writes it: no loop waits for a disk.

Every line has `lab`, `run`, `instrument`, `port` and `trace_id`, null where there is none.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from pathlib import Path
from typing import Any

from duodaq.clock import block
from duodaq.telemetry._log_writer import LogWriter
from duodaq.telemetry._logs import ROOT, get_logger, json_formatter

AGAIN_S = 1.0
"""How soon a disk that refuses is asked again."""
_WAITING = 10_000
_log = get_logger("telemetry")
_IDS = ("lab", "run", "instrument", "port", "trace_id")


class LogFile(logging.Handler):
    """Writes everything that duodaq logs from INFO on into `path`, and says in `facts` what each line belongs to.

    Args:
        path: The file; its folder is made.
        max_bytes: How long it may become.
        keep: How many of its kind are kept, as ``path.1``, ``path.2`` …
        facts: What stands in each line that does not say otherwise: the lab, the run.

    Attributes:
        lost: How many lines were not written. Where the disk refuses, 10,000 wait until it does not.
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
        formatter = json_formatter(lines.add)
        writer = LogWriter(self.path, self._max_bytes, self._keep)
        try:
            while (next_one := self._waiting.get()) is not None:
                record, lines.facts = next_one
                try:
                    line = f"{formatter.format(record)}\n".encode()
                except Exception:  # noqa: BLE001 - of a line that cannot be written down no other is lost
                    self.lost += 1
                else:
                    self._write(writer, line)
                if self._ending.is_set() and self._waiting.empty():
                    return
        finally:
            writer.close()

    def _write(self, writer: LogWriter, line: bytes) -> None:
        refused = False
        while True:
            try:
                writer.write(line)
            except OSError as error:
                if not refused:
                    refused = True
                    _log.error("the log file takes no lines", file=str(self.path), error=str(error))
                if block(AGAIN_S, self._ending):
                    self.lost += 1
                    return
            else:
                if refused:
                    _log.warning("the log file takes lines again", file=str(self.path), lost=self.lost)
                return


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


def is_read_by_a_person() -> bool:
    """Whether anything but log files takes what duodaq logs."""
    logger: logging.Logger | None = logging.getLogger(ROOT)
    while logger is not None:
        if any(not isinstance(handler, LogFile) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
