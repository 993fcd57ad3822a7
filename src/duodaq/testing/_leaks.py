"""What a test left behind: threads, file descriptors, child processes, asyncio tasks.

Rules for whoever edits this:

* Only what is *new* since the snapshot counts; what a wider fixture opened belongs to that fixture.
* Everything gets a short grace, because an ending thread or a dying child is no leak, and one collection of garbage,
  because a cycle is none either (files and sockets that only the collector closed raise ResourceWarning anyway).
* What the fork server makes is this process's own: its children count as ours, by the descent, not by their name.
* A tolerated thing is named exactly, with the reason why nobody can close it. Threads of C libraries (OpenBLAS,
  jemalloc, pyarrow's pools) need no rule: they are no Python threads, and are not looked at.
"""

from __future__ import annotations

import asyncio
import asyncio.runners
import functools
import gc
import importlib
import importlib.util
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from duodaq import clock
from duodaq.workers._fork_server import shared_fork_server

T = TypeVar("T")

GRACE_S = 2.0

TOLERATED_THREADS: dict[str, str] = {
    "tqdm_monitor": "tqdm starts one daemon for the whole process with its first progress bar, and never ends it",
}
"""Thread names, and why nobody can end them."""

FORK_SERVER = "duodaq.workers._fork_main"

TOLERATED_CHILDREN: dict[str, str] = {
    "multiprocessing.resource_tracker": "the standard library's tracker lives until its parent ends",
    FORK_SERVER: "one for the whole program, because loading what workers need takes 0.5 s; it ends with the program",
}
"""Parts of a command line, and why nobody can end that process."""

TOLERATED_FILES: dict[str, str] = {
    "/dev/urandom": "the standard library and OpenSSL keep it open for the whole process",
    "/dev/null": "subprocess and pytest's capture keep one for the whole process",
}
"""Paths, and why they stay open."""


@dataclass(frozen=True)
class Holdings:
    """What this process holds now."""

    threads: frozenset[threading.Thread]
    files: Counter[str]
    children: frozenset[int]
    workers: frozenset[int]


def holdings() -> Holdings:
    """What this process holds now. Descriptors and children are known on Linux only; elsewhere they are empty."""
    children = child_processes()
    return Holdings(frozenset(threading.enumerate()), open_files(), children, _workers(children))


def open_files() -> Counter[str]:
    """What the open descriptors point to (``socket:[1234]``, ``/dev/pts/3``), with how many point there.

    Without the control socket of the fork server, which stays open as long as that lives (see TOLERATED_CHILDREN).
    """
    targets: Counter[str] = Counter()
    tolerated = {str(fd) for fd in shared_fork_server().descriptors()}
    for fd in _names(Path("/proc/self/fd")):
        if fd in tolerated:
            continue
        try:
            targets[os.readlink(f"/proc/self/fd/{fd}")] += 1
        except OSError:
            continue  # the descriptor of the listing itself, or one closed by another thread since
    return targets


def child_processes() -> frozenset[int]:
    """The ids of this process's children, ended ones that nobody has awaited included."""
    return _children_of("self")


def _children_of(process: int | str) -> frozenset[int]:
    found: set[int] = set()
    for task in _names(Path(f"/proc/{process}/task")):
        found.update(int(pid) for pid in _text(Path(f"/proc/{process}/task/{task}/children")).split())
    return frozenset(found)


def _workers(children: Iterable[int]) -> frozenset[int]:
    """The children of the fork servers among `children`; those that have ended are the fork server's to await.

    One without words has given back its memory: the kernel ends it, which on a busy machine takes a while.
    """
    found = (pid for child in children if FORK_SERVER in _command(child) for pid in _children_of(child))
    return frozenset(pid for pid in found if _state(pid) not in ("Z", "X", "") and _command(pid))


def _state(pid: int) -> str:
    """The letter that the kernel has for what it does; empty if it is gone."""
    return _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].strip()[:1]


def _command(pid: int) -> str:
    return _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


@functools.cache
def open_what_stays_open() -> None:
    """Let libraries open now what they open once for the whole process and never close.

    libuv: one pipe behind its signal lock, with its first loop.
    """
    if importlib.util.find_spec("uvloop") is not None:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        loop.run_until_complete(clock.pause(0))
        loop.close()


class LeakWatch:
    """Remembers what was there when it was made, and tells what has come since and stays.

    Used by the test fixture; also usable by hand around a piece of a test::

        watch = LeakWatch()
        ...
        assert watch.leaks() == []
    """

    def __init__(self) -> None:
        open_what_stays_open()
        self._before = holdings()
        self._tasks: list[str] = []

    @contextmanager
    def over_runners(self) -> Generator[None]:
        """While inside, note each task that is still pending when its `asyncio.Runner` closes (which cancels it)."""
        original: Any = asyncio.runners._cancel_all_tasks  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]  # no public hook sees a runner's leftovers
        guard = threading.Lock()

        def note_then_cancel(loop: asyncio.AbstractEventLoop) -> None:
            pending = _pending_after_a_breath(loop)
            with guard:
                self._tasks.extend(_describe_task(task) for task in pending)
            original(loop)

        asyncio.runners._cancel_all_tasks = note_then_cancel  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]  # as above
        try:
            yield
        finally:
            asyncio.runners._cancel_all_tasks = original  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]  # as above

    def leaks(
        self, grace_s: float = GRACE_S, *, daemons_may_stay: bool = False, files_may_stay: bool = False
    ) -> list[str]:
        """One sentence for each thing that came since and is still there after `grace_s`; empty when there is none."""
        left = clock.Deadline(grace_s)
        found = self._found(daemons_may_stay, files_may_stay)
        if found:
            gc.collect()
        while found and not left.passed:
            clock.block(0.01)
            found = self._found(daemons_may_stay, files_may_stay)
        return [*self._tasks, *found]

    def _found(self, daemons_may_stay: bool, files_may_stay: bool) -> list[str]:
        now = holdings()
        return [
            *_thread_leaks(now.threads - self._before.threads, daemons_may_stay),
            *([] if files_may_stay else _file_leaks(now.files - self._before.files)),
            *_child_leaks(now.children - self._before.children),
            *(
                f"worker process {pid} ({_command(pid)}, state {_state(pid)}) is still there"
                for pid in now.workers - self._before.workers
            ),
        ]


def _thread_leaks(threads: Iterable[threading.Thread], daemons_may_stay: bool) -> list[str]:
    return [
        f"thread {thread.name!r} ({'daemon' if thread.daemon else 'not a daemon'}) is still running"
        for thread in threads
        if thread.is_alive() and thread.name not in TOLERATED_THREADS and not (daemons_may_stay and thread.daemon)
    ]


def _file_leaks(files: Counter[str]) -> list[str]:
    return [
        f"{count} descriptor{'s' if count > 1 else ''} on {target} still open"
        for target, count in files.items()
        if target not in TOLERATED_FILES
    ]


def _child_leaks(children: Iterable[int]) -> list[str]:
    found: list[str] = []
    for pid in children:
        command = _command(pid)
        if not any(part in command for part in TOLERATED_CHILDREN):
            found.append(f"child process {pid} ({command or 'ended, but nobody awaited it'}) is still there")
    return found


def _pending_after_a_breath(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """The loop's pending tasks, once those that were one or two steps from their end have had these steps."""
    for _ in range(3):
        if not asyncio.all_tasks(loop):
            return []
        loop.run_until_complete(clock.pause(0))
    return list(asyncio.all_tasks(loop))


def _describe_task(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    where = getattr(coroutine, "__qualname__", repr(coroutine))
    frames = task.get_stack(limit=1)
    line = f" at {frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else ""
    return f"task {task.get_name()!r} ({where}{line}) was still pending when its loop closed"


def _names(directory: Path) -> list[str]:
    return _quiet(lambda: os.listdir(directory), [])


def _text(path: Path) -> str:
    return _quiet(lambda: path.read_text(errors="replace"), "")


def _quiet(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except OSError:
        return otherwise
