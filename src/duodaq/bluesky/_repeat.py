"""Reads that are done once more when the worker that had them died: reading twice is as good as once."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

from duodaq.errors import DeliveryError, RestartingError
from duodaq.telemetry import get_logger

REPEATS = 3
"""So often one read is repeated. What moves never is: its fate is unknown, and a person has to look."""

OnRepeat = Callable[[str], None]
ReadSoon = Callable[[], "concurrent.futures.Future[Any]"]
_log = get_logger("bluesky")


def nobody(field: str) -> None:
    """Nobody is told of repeats but the log."""


def is_lost_read(error: BaseException | None) -> bool:
    """Whether a read ended so because its worker died under it, and not because of a stop or a deadline."""
    return type(error) in (DeliveryError, RestartingError)


class _PatientRead(concurrent.futures.Future[Any]):
    """A read and its repetitions as one future. A read that has ended is let go of: nothing here is kept by a cycle."""

    def __init__(self, read_soon: ReadSoon, name: str, on_repeat: OnRepeat) -> None:
        super().__init__()
        self._read_soon, self._name, self._on_repeat = read_soon, name, on_repeat
        self._under_way: concurrent.futures.Future[Any] | None = None
        self._begun = 0

    def begin(self) -> None:
        """Read, or read once more."""
        self._begun += 1
        try:
            self._under_way = reading = self._read_soon()
        except Exception as error:  # noqa: BLE001 - whoever waits for the result is told
            self.set_exception(error)
            return
        reading.add_done_callback(self._ended)
        if self.cancelled():  # meanwhile, by another thread
            reading.cancel()

    def cancel(self) -> bool:
        """See concurrent.futures.Future; the read that is under way is cancelled with it."""
        cancelled, reading = super().cancel(), self._under_way
        if cancelled and reading is not None:
            reading.cancel()
        return cancelled

    def _ended(self, reading: concurrent.futures.Future[Any]) -> None:
        self._under_way = None
        if self.done():
            return
        error = concurrent.futures.CancelledError() if reading.cancelled() else reading.exception()
        if error is None:
            self.set_result(reading.result())
        elif is_lost_read(error) and self._begun <= REPEATS:
            _log.warning("a read is repeated", channel=self._name, why=str(error))
            self._on_repeat(self._name)
            self.begin()
        else:
            self.set_exception(error)


def read_patiently(read_soon: ReadSoon, name: str, on_repeat: OnRepeat) -> concurrent.futures.Future[Any]:
    """The result of a read, which is repeated up to three times; cancelling it cancels the read that is under way."""
    read = _PatientRead(read_soon, name, on_repeat)
    read.begin()
    return read
