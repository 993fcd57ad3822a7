"""What is kept of the moves of a lab's instruments, in a file beside the lab file."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from duodaq.errors import StorageError
from duodaq.storage.export import aside
from duodaq.telemetry import get_logger

_log = get_logger("migration")
STATE_FILE = "migration.json"


class MigrationNotes:
    """Keeps what was done with each instrument, and by whom. On the lab's loop, and written beside it.

    Args:
        file: Where they are kept; None: nowhere.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._notes: dict[str, dict[str, Any]] | None = None
        self._changed = False
        self._writing: asyncio.Task[None] | None = None

    def of(self, instrument: str) -> dict[str, Any]:
        """What is kept of one instrument: ``log``, ``ticks``, ``shadow``."""
        if self._notes is None:
            self._notes = self._read()
        return self._notes.setdefault(instrument, {})

    def add(self, instrument: str, what: str, **facts: Any) -> None:
        """Keep what was done; it is on the disk after the next `flush`, and soon without one."""
        entry = {"at": now(), "what": what, **{k: v for k, v in facts.items() if v not in ("", None)}}
        self.of(instrument).setdefault("log", []).append(entry)
        _log.warning(f"migration: {what}", instrument=instrument, **facts)
        self._changed = True
        if self._file is not None and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write(self._file), name="migration notes")

    async def flush(self) -> None:
        """Return when all that was noted is on the disk, or was refused by it."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def _read(self) -> dict[str, dict[str, Any]]:
        if self._file is None:
            return {}
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, dict[str, Any]])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            self._set_aside(self._file, error)
            return {}

    def _set_aside(self, file: Path, error: Exception) -> None:
        """Have what cannot be read lie where nothing is written over it."""
        aside_at, count = file.with_name(f"{file.name}.damaged"), 1
        while aside_at.exists():
            count += 1
            aside_at = file.with_name(f"{file.name}.damaged-{count}")
        try:
            file.rename(aside_at)
        except OSError as refused:
            self._file = None
            _log.error(
                "notes of moves cannot be read; none are written", file=str(file), error=str(error), why=str(refused)
            )
        else:
            _log.error("notes of moves cannot be read", file=str(file), error=str(error), now_at=str(aside_at))

    async def _write(self, file: Path) -> None:
        while self._changed:
            self._changed = False
            data = msgspec.json.format(msgspec.json.encode(self._notes), indent=2)
            try:
                with ThreadPoolExecutor(1, "migration notes") as pool:  # the disk may take longer than a loop may stand
                    await asyncio.get_running_loop().run_in_executor(pool, _put, file, data)
            except StorageError as error:
                _log.error("what was done could not be written down", file=str(file), error=str(error))


def _put(file: Path, data: bytes) -> None:
    with aside(file) as place:
        place.write_bytes(data)


def now() -> str:
    """The time of day, as notes have it."""
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")
