from __future__ import annotations

import json
import os
import select
import time
from typing import Any

_ATOMIC = 4096


class Record:
    """What the watchdog did, one line of JSON each, on stderr and, if there is a path, at the end of that file.

    Nothing is written before `flush`: neither a full pipe nor a disk that hangs may hold up the last actions.

    Args:
        anchor_ns: UTC at CLOCK_MONOTONIC zero, as the manager took it, so that times are those of the lab.
        path: The file.
    """

    def __init__(self, anchor_ns: int, path: str | None = None) -> None:
        self._anchor_ns = anchor_ns
        self._waiting: list[str] = []
        self._places = [2]
        if path is not None:
            try:
                self._places.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError as error:
                self.add("no log file", path=path, error=str(error))

    def now_ns(self) -> int:
        """UTC nanoseconds on the lab's clock."""
        return self._anchor_ns + time.monotonic_ns()

    def add(self, event: str, **facts: Any) -> None:
        """Remember that `event` happened now."""
        line = {"t_ns": self.now_ns(), "logger": "duodaq.watchdog", "event": event, **facts}
        self._waiting.append(json.dumps(line, default=str)[: _ATOMIC - 1] + "\n")

    def flush(self) -> None:
        """Write what was remembered. A place that does not take a line now does not get it."""
        lines, self._waiting = self._waiting, []
        for place in self._places:
            for line in lines:
                _write(place, line.encode())


def _write(place: int, line: bytes) -> None:
    ready = select.poll()
    ready.register(place, select.POLLOUT)
    try:
        if ready.poll(0):
            os.write(place, line)
    except OSError:
        return  # whoever read it is gone
