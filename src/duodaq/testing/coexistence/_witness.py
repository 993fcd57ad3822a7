"""What the lifecycle tests look at from outside the runtimes: tasks, threads, descriptors, lines, who closed when."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import threading
from typing import Any

from duodaq import sim
from duodaq.testing._leaks import LeakWatch, open_files


class Lives:
    """What instruments of the test's own noted: the thread and the task they live in, and how each was closed."""

    def __init__(self) -> None:
        self.threads: dict[str, threading.Thread] = {}
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.closed: list[tuple[str, bool]] = []

    def note_closed(self, who: str, line_answers: bool) -> None:
        """`who` closes now; does its line still answer?"""
        self.closed.append((who, line_answers))

    @property
    def alive(self) -> list[str]:
        """Every thread and task noted that has not ended."""
        threads = [f"thread of {who}" for who, thread in self.threads.items() if thread.is_alive()]
        return threads + [f"task of {who}" for who, task in self.tasks.items() if not task.done()]


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
