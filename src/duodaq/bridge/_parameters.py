from __future__ import annotations

import threading
from typing import Any

import msgspec
import numpy as np

from duodaq import clock
from duodaq.dataplane import Hub, Ledger, Policy, Subscription
from duodaq.errors import LifecycleError
from duodaq.model import ParameterEntry, RuntimeName

_WATCHED = 4096


class ParameterTable:
    """The settings, positions and states that both runtimes know of one another.

    Every entry is written by one runtime, its owner: the one that wrote it first. It is versioned, read from any thread
    without waiting, and says so when its owner is gone (`stale`). A change is visible when `put` returns.
    """

    def __init__(self, name: str = "parameters") -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], ParameterEntry] = {}
        self._released: set[tuple[str, str]] = set()
        self._hub: Hub[ParameterEntry] = Hub(name, key=_stream)

    def put(self, owner: RuntimeName, instrument: str, name: str, value: Any, unit: str = "") -> ParameterEntry:
        """Write an entry; the first to write it owns it.

        The version rises if the value, the unit, the owner or the staleness changes; the time is that of this call.

        Raises:
            LifecycleError: The other runtime owns the entry, and is named. The entry is unchanged.
        """
        key = (instrument, name)
        with self._lock:
            old = self._entries.get(key)
            if old is not None and old.owner != owner and key not in self._released:
                raise LifecycleError(
                    f"{instrument}.{name} belongs to {old.owner}; {owner} may read it but not write it",
                    instrument=instrument,
                    command=name,
                    left=f"it is unchanged at version {old.version}",
                )
            self._released.discard(key)
            entry = ParameterEntry(instrument, name, value, unit, clock.utc_ns(), _next_version(old), owner)
            if old is not None and _says_the_same(old, entry):
                entry = msgspec.structs.replace(entry, version=old.version)
                self._entries[key] = entry
            else:
                self._enter(entry)
            return entry

    def get(self, instrument: str, name: str) -> ParameterEntry | None:
        """The present entry, or None."""
        return self._entries.get((instrument, name))

    def snapshot(self) -> tuple[ParameterEntry, ...]:
        """All entries of one moment, by instrument and name."""
        with self._lock:
            return tuple(self._entries[key] for key in sorted(self._entries))

    def watch(self, name: str, *, capacity: int = _WATCHED) -> Subscription[ParameterEntry]:
        """Every change from now on, after the present state of each entry.

        A slow watcher skips to the newest state of an entry, but never misses the last. Close it when done.

        Raises:
            ValueError: Another watcher has this name.
        """
        with self._lock:
            present = tuple(self._entries.values())
            capacity = max(capacity, 2 * len(present))
            return self._hub.subscribe(name, capacity=capacity, policy=Policy.LATEST, initial=present)

    def mark_stale(self, owner: RuntimeName, instrument: str) -> None:
        """Say that what `owner` wrote of an instrument is no longer kept up to date; the next `put` mends it."""
        with self._lock:
            for entry in self._of(owner, instrument):
                if not entry.stale:
                    self._enter(msgspec.structs.replace(entry, stale=True, version=entry.version + 1))

    def release(self, owner: RuntimeName, instrument: str) -> int:
        """Give up what `owner` wrote of an instrument, for the other runtime to take: the next to write owns it.

        Returns:
            How many entries were released. Their values stand until somebody writes them.
        """
        with self._lock:
            entries = self._of(owner, instrument)
            self._released.update((entry.instrument, entry.name) for entry in entries)
            return len(entries)

    def ledger(self) -> Ledger:
        """The books of the watchers."""
        return self._hub.ledger()

    def close(self) -> None:
        """End all watchers after what waits for them. The table can still be read."""
        self._hub.close()

    def _of(self, owner: RuntimeName, instrument: str) -> list[ParameterEntry]:
        return [entry for entry in self._entries.values() if entry.owner == owner and entry.instrument == instrument]

    def _enter(self, entry: ParameterEntry) -> None:
        self._entries[entry.instrument, entry.name] = entry
        if not self._hub.closed:
            self._hub.publish(entry)


def _stream(entry: ParameterEntry) -> str:
    return f"{entry.instrument}.{entry.name}"


def _next_version(old: ParameterEntry | None) -> int:
    return 1 if old is None else old.version + 1


def _says_the_same(old: ParameterEntry, new: ParameterEntry) -> bool:
    if old.stale or (old.owner, old.unit) != (new.owner, new.unit) or type(old.value) is not type(new.value):
        return False
    try:
        return bool(np.array_equal(old.value, new.value) if hasattr(old.value, "__array__") else old.value == new.value)
    except (TypeError, ValueError):  # values that cannot be compared count as changed
        return False
