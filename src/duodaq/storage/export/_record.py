"""What a run was turned into at its end, kept with it: `finalised.json`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from duodaq import clock
from duodaq.errors import DuodaqError, LifecycleError, TornFileError
from duodaq.storage.export._export import Exported, finalise
from duodaq.storage.export._missing import JournalDamagedError, all_missing
from duodaq.storage.export._wanted import Format
from duodaq.storage.journal import Catalog, Disk, JournalReader
from duodaq.storage.journal._disk import write_whole
from duodaq.storage.journal._events import lock_run
from duodaq.storage.journal._layout import FINALISED
from duodaq.storage.journal._parquet import REMOVED, rows_were_removed
from duodaq.storage.journal._run import iso
from duodaq.storage.reading import Run


def finalise_and_note(run: str | Path, to: Sequence[Format], *, remove_journal: bool = False) -> dict[str, Any]:
    """`finalise` a run, and write into its directory what came of it.

    Returns:
        What `finalised.json` says then: `to`, `files`, `bytes`, `journal` (``kept`` or ``removed``), `rows` (by
        stream), `at`, `took_s`, and `error`, None if all went well; and of what was written `missing`: how many rows
        are not in it by stream, since the journal is damaged.

    Raises:
        LifecycleError: The run is not finished, or somebody else is at it. It is untouched.
        StorageError: The result could not be noted.
    """
    path = Path(run)
    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock = lock_run(place)
        if lock is None:
            raise LifecycleError(f"{path} is in use", left="it is untouched")
        try:
            told = _finalise(path, to, remove_journal)
            write_whole(Disk(), place, FINALISED, msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
        finally:
            os.close(lock)
    finally:
        os.close(place)
    return told


def _finalise(path: Path, to: Sequence[Format], remove_journal: bool) -> dict[str, Any]:
    begun_s = clock.monotonic_s()
    told: dict[str, Any] = {"to": [*to], "files": [], "bytes": 0, "journal": "kept", "error": None, "rows": {}}
    try:
        done = finalise(path, to, remove_journal=remove_journal)
        if not to:
            _check(path)
    except LifecycleError:
        raise
    except (DuodaqError, ImportError) as error:
        told["error"] = str(error)
        if isinstance(error, JournalDamagedError):
            told |= _made(path, error.done)
    except Exception as error:  # noqa: BLE001 - whatever it is: it is kept with the run, whose journal stays
        told["error"] = f"an error of duodaq's own, {type(error).__name__}: {error}"
    else:
        told |= _made(path, done)
        told["rows"] = {stream.name: len(stream) for stream in Run(path)}
    if rows_were_removed(Catalog(path)):  # now, or at an earlier time
        told["journal"] = REMOVED
    return {**told, "at": iso(clock.utc_ns()), "took_s": round(clock.monotonic_s() - begun_s, 3)}


def _made(path: Path, done: Sequence[Exported]) -> dict[str, Any]:
    files = [os.path.relpath(file, path) for one in done for file in one.files]
    return {"files": files, "bytes": sum(one.size for one in done), "missing": all_missing(done)}


def _check(path: Path) -> None:
    """Read all of a run.

    Raises:
        TornFileError: Something in it is damaged.
    """
    damaged = sum(gap.reason == "damage" for gap in JournalReader(path).gaps())
    if damaged:
        raise TornFileError(f"{path} is damaged in {damaged} places", left="all that stands beside them is whole")
