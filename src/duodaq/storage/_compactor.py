"""Has a journal's closed stretches merged beside the thread that writes it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from duodaq.errors import DataError
from duodaq.storage.journal import Disk, Journal
from duodaq.storage.journal._compact import Merge, Merged, NotWorthItError, Stretch, merge, remove
from duodaq.storage.journal._prune import prune
from duodaq.telemetry import get_logger

_log = get_logger("storage")
_FINISH_S = 5.0


class _Removal(NamedTuple):
    gone: list[Stretch]
    parts: list[str]
    dead: frozenset[int]


class _Removed(NamedTuple):
    parts: Sequence[str]
    left: Sequence[str]


class _Spared(NamedTuple):
    merge: Merge
    why: str


class Compactor:
    """One thing at a time: a merge, or the removal of what was merged. Used by the journal's thread alone.

    Args:
        journal: Whose.
        disk: What to write with.
    """

    def __init__(self, journal: Journal, disk: Disk | None = None) -> None:
        self._journal = journal
        self._disk = disk or Disk()
        self._orders: queue.SimpleQueue[Merge | _Removal | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Merged | _Removed | _Spared] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    @property
    def has_result(self) -> bool:
        """Whether `settle` has anything to do."""
        return not self._results.empty()

    def settle(self) -> None:
        """Let the journal know what was done, before its next commit.

        Raises:
            OSError: The disk refused.
        """
        while self.has_result:
            result = self._results.get()
            self._busy = False
            match result:
                case Merged():
                    self._journal.adopt(result)
                case _Spared():
                    _log.info("left as it is", file=result.merge.sources[0].name, why=result.why)
                    self._journal.spare(result.merge)
                case _Removed():
                    self._journal.pruned(result.parts, result.left)

    def order(self) -> None:
        """Begin the next thing, if there is one and nothing is under way."""
        if self._busy:
            return
        gone, parts, dead = self._journal.take_replaced()
        order = _Removal(gone, parts, dead) if gone else self._journal.next_merge()
        if order is None:
            return
        self._busy = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="recorder-merge", daemon=True)
            self._thread.start()
        self._orders.put(order)

    def finish(self) -> None:
        """Wait for what is under way, not for long: the journal is about to be closed. Then `settle`."""
        if self._busy and self._results.empty():
            try:
                self._results.put(self._results.get(timeout=_FINISH_S))
            except queue.Empty:
                return

    def close(self) -> None:
        """The journal is closed: remove what it does not need any more, and end."""
        if self._thread is None:
            return
        gone, parts, dead = self._journal.take_replaced()
        if gone:
            self._orders.put(_Removal(gone, parts, dead))
        self._orders.put(None)
        self._thread.join(_FINISH_S)
        self._thread = None

    # --- in the thread

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            self._results.put(self._do(order))

    def _do(self, order: Merge | _Removal) -> Merged | _Removed | _Spared:
        path = self._journal.path
        if isinstance(order, Merge):
            try:
                return merge(self._disk, path, order)
            except (OSError, DataError, NotWorthItError, pa.ArrowException) as error:
                return _Spared(order, f"{type(error).__name__}: {error}")
        left: Sequence[str] = ()
        try:
            remove(self._disk, path, [stretch.name for stretch in order.gone])
            left = prune(self._disk, path, order.parts, order.dead)
        except (OSError, DataError) as error:
            _log.warning("could not remove what was merged", directory=path, error=str(error))
        return _Removed(order.parts, left)
