"""The programs that carry out a lab's own scans: clients like others, at a socket that is theirs alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from duodaq.app._control import Client
from duodaq.clock import Deadline, pause
from duodaq.errors import LifecycleError
from duodaq.link import LAB_PROTOCOL, LinkServer, Session

COMMAND = ("-P", "-m", "duodaq.app")


class ScanPrograms:
    """Starts them, waits for each in a thread of its own, and ends them with the lab.

    Args:
        lab: Its name.
        serve: Makes what answers one of them.
    """

    def __init__(self, lab: str, serve: Callable[[Client], Session]) -> None:
        self._lab = lab
        self._serve = serve
        self._server: LinkServer | None = None
        self._folder: Path | None = None
        self._waiting: dict[threading.Thread, subprocess.Popen[bytes]] = {}

    async def launch(self, name: str, told: dict[str, Any], gone: Callable[[bytes], None]) -> subprocess.Popen[bytes]:
        """Start one, and tell it what to do; `gone` is called on the loop at its end, with what it complained of."""
        words = msgspec.json.encode({"socket": str(await self._listening()), **told})
        program = _started()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            _, said = program.communicate(words)
            with contextlib.suppress(RuntimeError):  # the lab's loop has ended
                loop.call_soon_threadsafe(gone, said)

        thread = threading.Thread(target=wait, name=f"duodaq {name}", daemon=True)
        thread.start()
        self._waiting = {one: its for one, its in self._waiting.items() if one.is_alive()} | {thread: program}
        return program

    async def close(self, timeout_s: float) -> None:
        """Wait for them, and kill those that do not end. May be called again."""
        await self._until_they_ended(timeout_s * 0.6)
        late = [program for program in self._waiting.values() if program.poll() is None]
        for program in late:
            program.kill()
        await self._until_they_ended(timeout_s * 0.3)
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _until_they_ended(self, timeout_s: float) -> None:
        deadline = Deadline(timeout_s)
        while any(thread.is_alive() for thread in self._waiting) and not deadline.passed:
            await pause(0.01)

    async def _listening(self) -> Path:
        """The socket at which they attach; a lab that nobody else attaches to has it, too."""
        if self._server is None:
            self._folder = Path(tempfile.mkdtemp(prefix="duodaq-scans-"))
            path = self._folder / f"{quote(self._lab, safe='')[:40]}.sock"
            self._server = LinkServer(path, _nobody, version=LAB_PROTOCOL, sessions=self._session)
            await self._server.start()
        return self._server.path

    def _session(self) -> Session:
        return self._serve(Client("scan", "scan"))


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        start_new_session=True,  # Ctrl-C is for the lab, which tells it
    )


async def _nobody(op: str, params: dict[str, Any]) -> Any:
    raise LifecycleError("only scans of the lab's own attach here")
