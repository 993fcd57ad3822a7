"""What is done beside a lab: runs that a crash left behind are repaired, and ended runs are turned into other forms.

Rules for whoever edits this:

* Nothing here is waited for by the lab. The work is done in a process of its own, at low priority: HDF5 holds the
  interpreter's lock while it compresses, and a repair is thousands of small steps.
* A chore can be cut off at any moment: a repair begins anew, another form is put in its place only when it is whole.
  What was not done is found again at the next start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duodaq.clock import Deadline, pause
from duodaq.errors import StorageError
from duodaq.model import ComponentReport, Outcome
from duodaq.storage import unfinished_runs
from duodaq.storage.export import Format, left_to_finalise
from duodaq.telemetry import get_logger

COMMAND = ("-P", "-m", "duodaq.storage")
MOST_WAITING = 256
_log = get_logger("lab")
_Chore = tuple[str, ...]


class Chores:
    """The chores of one lab, one after the other; a component as the manager closes it.

    Args:
        root: Where the lab's runs lie.

    Attributes:
        repaired: How many recordings were repaired that had been left unfinished.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repaired = 0
        self._lock = threading.Lock()
        self._waiting: deque[_Chore] = deque()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._ending = False

    def recover(self, root: Path | None = None) -> None:
        """Repair the runs that were left unfinished and that nobody writes; then finalise what was left to be."""
        self._order(("recover", str(root or self.root)))

    def finalise(self, run: Path, to: Sequence[Format], *, keep_journal: bool = True) -> None:
        """Turn an ended run into what it is kept as; `finalised.json` in it says what came of that."""
        remove = () if keep_journal or "parquet" not in to else ("--remove-journal",)
        self._order(("finalise", str(run), *to, *remove))

    @property
    def idle(self) -> bool:
        """Whether nothing is being done, and nothing waits."""
        return self._thread is None

    @property
    def pid(self) -> int | None:
        """The process in which it is being done."""
        process = self._process
        return None if process is None else process.pid

    async def done(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do; whether that was so in time."""
        deadline = Deadline(timeout_s)
        while not self.idle and not deadline.passed:
            await pause(0.01)
        return self.idle

    async def close(self, timeout_s: float) -> ComponentReport:
        """Begin nothing more; what is under way is cut off after `timeout_s`. May be called again."""
        with self._lock:
            self._ending = True
            left = [*self._waiting]
            self._waiting.clear()
        in_time = await self.done(timeout_s * 0.3)
        if not in_time:
            self._signal(signal.SIGINT)
            if not await self.done(timeout_s * 0.4):
                self._signal(signal.SIGKILL)
                await self.done(timeout_s * 0.2)
        if left or not in_time:
            _log.info("recordings are seen to at the next start", left=len(left) + (not in_time))
        return ComponentReport("chores", Outcome.CLEAN)

    def _order(self, chore: _Chore) -> None:
        with self._lock:
            if self._ending or len(self._waiting) >= MOST_WAITING:
                _log.info("left to the next start", chore=" ".join(chore))
                return
            self._waiting.append(chore)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="duodaq-chores", daemon=True)
                self._thread.start()

    # --- in the thread

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                chore = self._waiting.popleft()
            try:
                self._do(chore)
            except (OSError, StorageError) as error:
                _log.error("a chore could not be done", chore=" ".join(chore), error=str(error))

    def _do(self, chore: _Chore) -> None:
        if chore[0] == "recover":
            root = Path(chore[1])
            if root.is_dir() and unfinished_runs(root):
                self._run(chore)
            for run, to, remove in left_to_finalise(root):
                self.finalise(run, to, keep_journal=not remove)
        else:
            self._run(chore)

    def _run(self, chore: _Chore) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
        command = [sys.executable, *COMMAND, *chore]
        with self._lock:
            if self._ending:
                return
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the lab, which tells it
            )
        said, complaint = process.communicate()
        with self._lock:
            self._process = None
        for line in said.splitlines():
            told = json.loads(line)
            _tell(chore[0], told)
            self.repaired += chore[0] == "recover" and not told.get("error")
        if process.returncode not in (0, 1):
            _log.warning("a chore was cut off", chore=" ".join(chore), code=process.returncode, said=complaint[-500:])

    def _signal(self, number: int) -> None:
        with self._lock:
            if self._process is not None:
                self._process.send_signal(number)


def _tell(chore: str, told: dict[str, Any]) -> None:
    run = told.get("run")
    if told.get("error"):
        _log.error(f"could not {chore} a recording", run=run, error=told["error"])
    elif chore == "recover":
        _log.warning("repaired a recording that was left unfinished", run=run, rows=told["rows"], gaps=told["gaps"])
    else:
        say = _log.warning if told.get("missing") else _log.info
        say(
            "finalised a recording",
            run=run,
            to=told["to"],
            bytes=told["bytes"],
            journal=told["journal"],
            missing=told.get("missing"),
        )
