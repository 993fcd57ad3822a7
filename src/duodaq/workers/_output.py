from __future__ import annotations

import asyncio
import os

from duodaq.telemetry import get_logger

EVERY_S = 0.01
CHUNK = 64 * 1024
MOST_LINES_PER_S = 100
LONGEST_LINE = 2000
_log = get_logger("workers.output")


class OutputReader:
    """Logs what a worker's drivers print, line by line.

    Whoever prints without end slows only himself down: at most 64 kB are read every 10 ms, and 100 lines a second are
    logged; how many were left out is said.

    Args:
        fd: The reading end of the pipe, which this owns from now on.
        worker: Whose output it is.
    """

    def __init__(self, fd: int, worker: str) -> None:
        self.left_out = 0
        self._fd = fd
        self._worker = worker
        self._rest = b""
        self._second = 0.0
        self._lines = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._readable)

    def close(self) -> None:
        """Log what is there, and end. Idempotent."""
        if self._fd < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._take(self._read())
        if self._rest:
            self._say(self._rest)
        self._say_left_out()
        os.close(self._fd)
        self._fd = -1

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""

    def _readable(self) -> None:
        self._loop.remove_reader(self._fd)
        data = self._read()
        if data:
            self._take(data)
            self._timer = self._loop.call_later(EVERY_S, self._again)

    def _again(self) -> None:
        self._timer = None
        self._loop.add_reader(self._fd, self._readable)

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LONGEST_LINE:]
        for line in lines:
            self._say(line)

    def _say(self, line: bytes) -> None:
        now_s = self._loop.time()
        if now_s - self._second >= 1.0:
            self._say_left_out()
            self._second, self._lines = now_s, 0
        self._lines += 1
        if self._lines > MOST_LINES_PER_S:
            self.left_out += 1
        elif line.strip():
            _log.info("output", worker=self._worker, line=line[:LONGEST_LINE].decode(errors="replace"))

    def _say_left_out(self) -> None:
        if self.left_out:
            _log.warning("output left out", worker=self._worker, lines=self.left_out)
        self.left_out = 0
