"""What the lifecycle tests look at from outside the runtimes: tasks, threads, processes, descriptors, lines."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from duodaq import sim
from duodaq.clock import pause
from duodaq.testing._leaks import LeakWatch, open_files
from duodaq.testing.coexistence._evidence import Evidence, Note


class Lives:
    """What instruments of the test's own note: where each lives, when that life has ended, and how it was closed."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def note_thread(self, who: str) -> None:
        """`who` lives in the thread that calls this."""
        self.evidence.note("lives", who=who, what="thread")

    @contextmanager
    def noting_task(self, who: str) -> Generator[None]:
        """`who` lives in a task, as long as this is entered."""
        self.evidence.note("lives", who=who, what="task")
        try:
            yield
        finally:
            self.evidence.note("ended", who=who)

    def note_closed(self, who: str, line_answers: bool) -> None:
        """`who` closes now; does its line still answer?"""
        self.evidence.note("closed", who=who, answers=line_answers)

    @property
    def closed(self) -> list[tuple[str, bool]]:
        """Who closed, in that order, and whether its line still answered."""
        return [(note["who"], note["answers"]) for note in self.evidence.read("closed")]

    @property
    def alive(self) -> list[str]:
        """Every thread and task noted that has not ended."""
        ended = [note["who"] for note in self.evidence.read("ended")]
        found: list[str] = []
        for note in self.evidence.read("lives"):
            if note["what"] == "task" and note["who"] in ended:
                ended.remove(note["who"])
            elif thread_lives(note.pid, note.thread):
                found.append(f"{note['what']} of {note['who']}")
        return sorted(found)

    @property
    def processes(self) -> list[int]:
        """Every other process in which one of them has lived and which is still there."""
        return sorted(pid for pid in self.evidence.pids() - {os.getpid()} if process_lives(pid))

    def places(self) -> dict[str, str]:
        """Where each lives: "inline" (on the thread of the test), in a "thread" of this process, or in a "process"."""
        return {note["who"]: _place(note) for note in self.evidence.read("lives")}


class Census:
    """The tasks, threads, descriptors and children of this process at one moment."""

    def __init__(self) -> None:
        self._watch = LeakWatch()
        self._tasks = set(asyncio.all_tasks())
        self._lines = terminals()

    def new_lines(self) -> list[str]:
        """The serial lines opened since."""
        return sorted(set(terminals()) - set(self._lines))

    def left(self) -> list[str]:
        """A sentence for each thing that came since and is still there. A thread of the loop's executor is none."""
        tasks = [f"task {task.get_name()!r}" for task in asyncio.all_tasks() - self._tasks]
        return tasks + [leak for leak in self._watch.leaks(0.0) if "thread 'asyncio_" not in leak]


def thread_lives(pid: int, thread: int) -> bool:
    """Whether this native thread of that process is there."""
    return process_lives(pid) and os.path.exists(f"/proc/{pid}/task/{thread}")


def process_lives(pid: int) -> bool:
    """Whether that process is there; one that has ended and that nobody has awaited is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


async def rests(pid: int, for_s: float = 0.12) -> bool:
    """Whether that process neither runs nor waits for a processor, for a while."""
    before = _scheduled(pid)
    await pause(for_s)
    return before != b"" and _scheduled(pid) == before


def _scheduled(pid: int) -> bytes:
    """How long it has run and waited for a processor, and how often; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/schedstat").read_bytes()
    except OSError:
        return b""


def terminals() -> list[str]:
    """Every pseudo-terminal that this process has open."""
    return [path for path in open_files() if path.startswith("/dev/pts/")]


def answers_anybody(simulator: sim.SimProcess, question: bytes, timeout_s: float = 1.0) -> bool:
    """Whether a stranger may lock the line of `simulator`, ask, and be answered."""
    try:
        line = os.open(simulator.address, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(line, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(line, question)
        return bool(select.select([line], [], [], timeout_s)[0]) and bool(os.read(line, 4096))
    except OSError:
        return False
    finally:
        os.close(line)


def _place(note: Note) -> str:
    if note.pid != os.getpid():
        return "process"
    return "inline" if note.thread == threading.get_native_id() else "thread"
