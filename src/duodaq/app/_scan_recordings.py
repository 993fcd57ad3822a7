"""Which recording a scan goes into: the one under way, or one begun for it, which lasts as long as a scan is in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from duodaq.errors import LifecycleError


class RecordingLab(Protocol):
    """What this needs of a lab."""

    @property
    def recording_directory(self) -> Path | None: ...
    @property
    def recording_open(self) -> Path | None: ...
    async def start_recording(self, *, labels: Mapping[str, Any] | None = None) -> Path: ...
    async def stop_recording(self) -> Any: ...


class ScanRecordings:
    """Who uses which recording of a lab; one for all of its clients."""

    def __init__(self, lab: RecordingLab) -> None:
        self._lab = lab
        self._lock = asyncio.Lock()
        self._users: dict[Path, set[str]] = {}
        self._begun: set[Path] = set()

    async def join(self, run: str, labels: Mapping[str, Any]) -> Path:
        """Have `run` go into the recording under way, or into a new one; `leave` ends that.

        Raises:
            StorageError: No recording can be begun.
        """
        async with self._lock:
            directory = self._lab.recording_open
            if directory is None:
                try:
                    directory = await self._lab.start_recording(labels=labels)
                    self._begun.add(directory)
                except LifecycleError:
                    directory = self._lab.recording_open
                    if directory is None:
                        raise
            self._users.setdefault(directory, set()).add(run)
            return directory

    async def leave(self, run: str) -> None:
        """`run` has ended: a recording that was begun for scans ends with the last of them."""
        async with self._lock:
            for directory, users in list(self._users.items()):
                users.discard(run)
                if users:
                    continue
                del self._users[directory]
                if directory in self._begun:
                    self._begun.discard(directory)
                    if self._lab.recording_directory == directory:
                        with contextlib.suppress(LifecycleError):  # the lab itself is ending, and ends the recording
                            await self._lab.stop_recording()
