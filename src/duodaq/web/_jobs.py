"""What takes long and is done beside the lab for the page and the API: exports and repairs of runs, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections import deque
from typing import Any

import msgspec

from duodaq.clock import Deadline, pause, utc_ns
from duodaq.web._refusal import Refusal

COMMAND = ("-P", "-m", "duodaq.storage")
MOST_AT_ONCE = 2
MOST_WAITING = 16
_REMEMBERED = 50
_END_S = 5.0


class Job(msgspec.Struct):
    """An export or a repair: `state` is ``waiting``, ``in hand``, ``done``, ``failed`` or ``cancelled``.

    `result` is a line for each form, or each run: what was made, what is missing, or why it could not be. UTC ns.
    """

    number: int
    what: str
    target: str
    who: str
    since_ns: int
    state: str = "waiting"
    detail: str = ""
    result: list[dict[str, Any]] = []
    ended_ns: int | None = None


class Jobs:
    """Carries jobs out, a few at once, each as a process at low priority that is cut off with the server."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._jobs: deque[Job] = deque(maxlen=_REMEMBERED)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    def all(self) -> list[Job]:
        """Those in hand, and the last that ended; the oldest first."""
        return [*self._jobs]

    def of(self, number: int) -> Job:
        """One of them.

        Raises:
            Refusal: 404.
        """
        found = next((job for job in self._jobs if job.number == number), None)
        if found is None:
            raise Refusal(404, "NoSuchJob", f"no job {number}")
        return found

    def begin(self, what: str, target: str, who: str, *arguments: str) -> Job:
        """Begin one as soon as there is room for it.

        Raises:
            Refusal: 429, so many wait already.
        """
        if len(self._tasks) >= MOST_WAITING:
            raise Refusal(429, "TooMany", f"{MOST_WAITING} jobs are in hand; wait for one of them to end")
        job = Job(next(self._numbers), what, target, who, utc_ns())
        self._jobs.append(job)
        task = asyncio.create_task(self._carry_out(job, arguments), name=f"job-{job.number}")
        self._tasks[job.number] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.number, None))
        return job

    async def cancel(self, number: int) -> Job:
        """Cut it off; what it had finished stays."""
        job = self.of(number)
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return job

    async def aclose(self) -> None:
        """Cut off what is in hand. Idempotent."""
        for number in [*self._tasks]:
            await self.cancel(number)

    async def _carry_out(self, job: Job, arguments: tuple[str, ...]) -> None:
        try:
            async with self._places:
                job.state = "in hand"
                said, complaint, code = await self._run(job, arguments)
                job.result = [_told(line) for line in said.splitlines()]
                job.state = "done" if code == 0 else "failed"
                wrong = [str(line["error"]) for line in job.result if line.get("error")]
                job.detail = "; ".join(wrong) or (complaint.strip().splitlines() or [""])[-1] if code else ""
        except asyncio.CancelledError:
            job.state, job.detail = "cancelled", "it was cut off"
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, no job stands for ever as if it were in hand
            job.state, job.detail = "failed", str(error) or type(error).__name__
        finally:
            job.ended_ns = utc_ns()

    async def _run(self, job: Job, arguments: tuple[str, ...]) -> tuple[str, str, int]:
        program = _started(arguments)
        told: list[tuple[str, str]] = []
        thread = threading.Thread(target=lambda: told.append(program.communicate()), name=f"duodaq job {job.number}")
        thread.daemon = True
        thread.start()
        try:
            while thread.is_alive():
                await pause(0.02)
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
            limit = Deadline(_END_S)
            while thread.is_alive() and not limit.passed:
                await pause(0.005)
            raise
        said, complaint = told[0] if told else ("", "")
        return said, complaint, program.returncode


def _told(line: str) -> dict[str, Any]:
    """What the program has said of one form or run; ValueError if it is none of that."""
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"its program said {line[:200]!r}, which is no result") from error


def _started(arguments: tuple[str, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        start_new_session=True,
    )
