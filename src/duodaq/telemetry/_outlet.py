"""Text for a terminal or a pipe, written by a thread: nobody who says something waits for whoever should read it.

A terminal that was stopped by Ctrl-S, a connection that hangs, a pager that waits: each takes nothing any more, and a
lab whose loop waits for one of them stands still. The thread lives as long as there is something to write. It writes to
a descriptor of its own, past the stream's buffer, whose lock must be free when the program ends.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections import deque
from typing import TextIO

from duodaq.clock import Deadline, block

WAITING = 2000
DRAIN_S = 1.0


class Outlet:
    """Writes to `stream`; what is no descriptor, or a file, which keeps nobody waiting, at once.

    At most 2,000 texts wait; further ones are lost, which is said in their place.

    Attributes:
        lost: How many were.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost = 0
        self._unsaid = 0
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._writing = False

    def write(self, text: str) -> None:
        """Have `text` written. Never waits for a reader.

        Raises:
            OSError, ValueError: The stream is closed, or refuses.
        """
        if not self._may_block():
            self.stream.write(text)
            self.stream.flush()
            return
        with self._lock:
            if len(self._waiting) >= WAITING:
                self.lost += 1
                self._unsaid += 1
                return
            self._waiting.extend((*self._note(), text))
            if self._writing:
                return
            fd = os.dup(self.stream.fileno())
            try:
                threading.Thread(target=self._run, args=(fd,), name="console", daemon=True).start()
            except RuntimeError:  # the program ends
                os.close(fd)
                self._waiting.clear()
                return
            self._writing = True

    def _note(self) -> tuple[str, ...]:
        unsaid, self._unsaid = self._unsaid, 0
        return (f"({unsaid} lines were lost here)\n",) if unsaid else ()

    def flush(self) -> None:
        """There is nothing that is held back: `drain` waits."""

    def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Wait until all is written, but no longer than this."""
        limit = Deadline(timeout_s)
        while self._writing and not limit.passed:
            block(0.001)

    def isatty(self) -> bool:
        """Whether a terminal is at its end."""
        return self.stream.isatty()

    def _may_block(self) -> bool:
        try:
            return not stat.S_ISREG(os.fstat(self.stream.fileno()).st_mode)
        except (OSError, ValueError, AttributeError):
            return False

    def _run(self, fd: int) -> None:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, fd)
            while True:
                with self._lock:
                    self._waiting.extend(() if self._waiting else self._note())
                    if not self._waiting:
                        self._writing = False
                        return
                    text = self._waiting.popleft()
                data = text.encode(encoding, "backslashreplace")
                with contextlib.suppress(OSError):  # its reader has gone
                    while data:
                        data = data[os.write(fd, data) :]
