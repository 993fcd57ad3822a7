"""What drivers and actors tell a test, and how a test tells them to go on, from whichever process they live in.

Rules for whoever edits this:

* All of it is made of a path and nothing else, so it can be written into an instrument's `args` and made again there.
* A note is one line of JSON, appended by one write: the order of the file is the order in which things were noted.
* Nothing stays open between two calls; the censuses of the tests count descriptors.
* Nobody waits for a test that is over: a gate whose directory is gone stands open, and a note there has no reader.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duodaq.clock import Deadline, block, pause, utc_ns

GLANCE_S = 0.002
"""How often somebody who waits looks at a gate."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing noted: when (UTC ns), in which process and native thread, and the facts given."""

    kind: str
    t_ns: int
    pid: int
    thread: int
    facts: dict[str, Any]

    def __getitem__(self, fact: str) -> Any:
        return self.facts[fact]


class Evidence:
    """An append-only file of notes, written from any process and thread, read by the test."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._notes: list[Note] = []
        self._read_to = 0

    def __reduce__(self) -> tuple[type[Evidence], tuple[str]]:
        return Evidence, (self.path,)

    def note(self, kind: str, **facts: Any) -> None:
        """Append one note; `facts` are plain values. Nothing happens if the test is over."""
        line = json.dumps([kind, utc_ns(), os.getpid(), threading.get_native_id(), facts]).encode() + b"\n"
        with contextlib.suppress(FileNotFoundError):
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                written = os.write(file, line)
            finally:
                os.close(file)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes of a note were written")

    def read(self, kind: str | None = None) -> list[Note]:
        """Everything noted so far, in order; of one kind, if asked."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            file.seek(self._read_to)
            whole, end, _ = file.read().rpartition(b"\n")
            self._read_to += len(whole) + len(end)
            self._notes += [Note(*json.loads(line)) for line in whole.splitlines()]
        return [note for note in self._notes if kind is None or note.kind == kind]

    def count(self, kind: str) -> int:
        """How many notes of this kind there are."""
        return len(self.read(kind))

    def pids(self) -> set[int]:
        """Every process that has noted something."""
        return {note.pid for note in self.read()}


class Gate:
    """Closed until somebody opens it, in whichever process; it can be waited for by blocking and by awaiting."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def is_open(self) -> bool:
        """Whether it stands open, or is gone with its test."""
        return os.path.exists(self.path) or not os.path.exists(os.path.dirname(self.path))

    def open(self) -> None:
        """Open it for everybody."""
        Path(self.path).touch()

    def close(self) -> bool:
        """Close it again; whether it was this call that did."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        """Block until it is open, for `timeout_s` at most; whether it is."""
        deadline = Deadline(timeout_s)
        while not self.is_open:
            if deadline.passed:
                return False
            block(GLANCE_S)
        return True

    async def reached(self, timeout_s: float | None = None) -> bool:
        """Await that it is open, for `timeout_s` at most; whether it is."""
        deadline = Deadline(timeout_s)
        while not self.is_open:
            if deadline.passed:
                return False
            await pause(GLANCE_S)
        return True
