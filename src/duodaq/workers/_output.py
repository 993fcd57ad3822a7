from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque

from duodaq.telemetry import get_logger

if sys.platform == "linux":
    import fcntl

PIPE = 512 * 1024
"""How much a driver can print before it waits for the reader; the system's own 64 kB where there is no asking."""
CHUNK = 96 * 1024
"""So much is read in one go, then others have their turn: 96 MB/s. At five times that, whoever prints without end and
this loop together took 1.2 processors of others.
"""
EVERY_S = 0.001
MOST_LINES_PER_S = 100
LINES_AT_ONCE = 4
"""So many are logged in one go; each takes the loop 0.06 ms, and a hundred of them would keep others waiting."""
LONGEST_LINE = 2000
_log = get_logger("workers.output")


class OutputReader:
    """Logs what a worker's drivers print, line by line.

    All of it is read as it comes, up to 96 kB each millisecond: only who prints more than that waits. The first 100
    lines a second are logged, 4 each millisecond, and the others are only counted; how many were left out is said at
    the end of each second. So neither the log nor the memory grows with what is printed.

    Args:
        fd: The reading end of the pipe, which this owns from now on.
        worker: Whose output it is.

    Attributes:
        left_out: How many lines were left out so far.
    """

    def __init__(self, fd: int, worker: str) -> None:
        self.left_out = 0
        self._fd = fd
        self._worker = worker
        self._rest = b""
        self._second = 0.0
        self._lines = 0
        self._heard: deque[bytes] = deque()
        self._unsaid = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._saying: asyncio.TimerHandle | None = None
        self._account: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # its user has many pipes already
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE)
        self._loop.add_reader(fd, self._readable)

    def close(self) -> None:
        """Log what is there, and end. Idempotent."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        self._drain(2 * PIPE // CHUNK)
        if self._rest:
            self._hear(self._rest)
        while self._heard:
            self._say(self._heard.popleft())
        for timer in (self._timer, self._saying, self._account):
            if timer is not None:
                timer.cancel()
        self._say_left_out()
        os.close(self._fd)
        self._fd = -1

    def _readable(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._drain():
            self._timer = self._loop.call_later(EVERY_S, self._again)

    def _again(self) -> None:
        self._timer = None
        self._loop.add_reader(self._fd, self._readable)

    def _drain(self, most: int = 1) -> bool:
        """Read what is there, so many times; whether there may be more, now or later."""
        for _ in range(most):
            try:
                data = os.read(self._fd, CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self._begin_second()
        room = max(0, MOST_LINES_PER_S - self._lines)
        *lines, rest = (self._rest + data).split(b"\n", room)
        for line in lines:
            self._hear(line)
        if self._heard and self._saying is None:
            self._say_some()
        skipped = rest.count(b"\n")
        if skipped:
            self._leave_out(skipped)
            rest = rest[rest.rfind(b"\n") + 1 :]
        self._rest = rest[-LONGEST_LINE:]

    def _hear(self, line: bytes) -> None:
        self._lines += 1
        if self._lines > MOST_LINES_PER_S:
            self._leave_out(1)
        elif line.strip():
            self._heard.append(line[:LONGEST_LINE])

    def _say_some(self) -> None:
        self._saying = None
        for _ in range(min(LINES_AT_ONCE, len(self._heard))):
            self._say(self._heard.popleft())
        if self._heard:
            self._saying = self._loop.call_later(EVERY_S, self._say_some)

    def _say(self, line: bytes) -> None:
        _log.info("output", worker=self._worker, line=line.decode(errors="replace"))

    def _begin_second(self) -> None:
        now_s = self._loop.time()
        if now_s - self._second >= 1.0:
            self._second, self._lines = now_s, 0

    def _leave_out(self, lines: int) -> None:
        self.left_out += lines
        self._unsaid += lines
        if self._account is None:
            self._account = self._loop.call_later(1.0, self._say_left_out)

    def _say_left_out(self) -> None:
        self._account = None
        if self._unsaid:
            _log.warning("output left out", worker=self._worker, lines=self._unsaid)
        self._unsaid = 0
