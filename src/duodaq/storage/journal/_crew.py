"""A few threads that wait for the disk side by side: it makes one commit of what many files ask of it at once.

They are daemons, so that a disk that hangs does not keep the program from ending.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

Job = Callable[[], None]
_Done = queue.SimpleQueue[Exception | None]


class Crew:
    """Up to `size` threads beside the caller's; none before there is work for them."""

    def __init__(self, size: int = 3) -> None:
        self._size = size
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[tuple[Job, _Done] | None] = queue.SimpleQueue()

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all of `jobs`, and return when the last has ended.

        Raises:
            OSError: One of them did, or whatever else it was; all have ended.
        """
        done: _Done = queue.SimpleQueue()
        others = jobs[1:]
        while len(self._threads) < min(self._size, len(others)):
            thread = threading.Thread(target=self._work, name=f"disk-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        for job in others:
            self._jobs.put((job, done))
        ends = [_end_of(job) for job in jobs[:1]]
        ends += [done.get() for _ in others]
        for error in ends:
            if error is not None:
                raise error

    def close(self) -> None:
        """End the threads; they have nothing to do any more. Idempotent."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, done = task
            done.put(_end_of(job))


def _end_of(job: Job) -> Exception | None:
    try:
        job()
    except Exception as error:  # noqa: BLE001 - it is raised by whoever waits for the job
        return error
    return None
