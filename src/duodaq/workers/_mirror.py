from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from duodaq import clock
from duodaq.errors import LifecycleError
from duodaq.model import ParameterEntry, RuntimeName
from duodaq.workers._messages import Message, Put, Stale, parcel, unpack_trusted


class ParameterMirror:
    """The parameter table in a worker process: what the manager knows, and the way to it. Safe from any thread.

    The manager's table has the last word: what is put here is sent there, and comes back with its version. Who owns
    an entry is known here from the manager's last word on it; those of an instrument that lives here this runtime may
    write, whoever had it before.
    """

    def __init__(self, send: Callable[[Message], None], entries: Iterable[ParameterEntry]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._entries = {(entry.instrument, entry.name): entry for entry in entries}
        self._here: set[str] = set()

    def moved_in(self, instrument: str) -> None:
        """An instrument lives here from now on: what the other runtime wrote of it may be written."""
        self._here.add(instrument)

    def moved_out(self, instrument: str) -> None:
        """It lives here no more."""
        self._here.discard(instrument)

    def put(self, owner: RuntimeName, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        """Write an entry; visible here at once, at the manager when the message has come there.

        Raises:
            LifecycleError: The other runtime owns it. It is unchanged.
            DataError: The value does not travel. It is unchanged.
        """
        with self._lock:
            old = self._entries.get((instrument, name))
            if old is not None and old.owner != owner and instrument not in self._here:
                raise LifecycleError(
                    f"{instrument}.{name} belongs to {old.owner}; {owner} may read it but not write it",
                    instrument=instrument,
                    command=name,
                    left=f"it is unchanged at version {old.version}",
                )
            version = 1 if old is None else old.version
            entry = ParameterEntry(instrument, name, value, unit, clock.utc_ns(), version, owner)
            self._send(Put(instrument, name, parcel(value), unit))
            self._entries[instrument, name] = entry
            return entry

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        """The present entry, or None."""
        return self._entries.get((instrument, name))

    def mark_stale(self, owner: RuntimeName, instrument: str) -> None:
        """Say that what this runtime wrote of an instrument is no longer kept up to date."""
        self._send(Stale(instrument))

    def heard(self, entry: ParameterEntry) -> None:
        """What the manager says an entry is now."""
        entry = msgspec.structs.replace(entry, value=unpack_trusted(entry.value))
        with self._lock:
            self._entries[entry.instrument, entry.name] = entry
