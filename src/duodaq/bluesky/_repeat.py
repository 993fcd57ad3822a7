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
_log = get_logger("bluesky")


def nobody(field: str) -> None:
    """Nobody is told of repeats but the log."""


def is_lost_read(error: BaseException | None) -> bool:
    """Whether a read ended so because its worker died under it, and not because of a stop or a deadline."""
    return type(error) in (DeliveryError, RestartingError)


def read_patiently(
    read_soon: Callable[[], concurrent.futures.Future[Any]], name: str, on_repeat: OnRepeat
) -> concurrent.futures.Future[Any]:
    """The result of a read, which is repeated up to three times; cancelling it cancels the read that is under way."""
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()
    under_way: list[concurrent.futures.Future[Any]] = []

    def begin() -> None:
        try:
            reading = read_soon()
        except Exception as error:  # noqa: BLE001 - whoever waits for the result is told
            result.set_exception(error)
            return
        under_way.append(reading)
        reading.add_done_callback(ended)

    def ended(reading: concurrent.futures.Future[Any]) -> None:
        if result.done():
            return
        error = concurrent.futures.CancelledError() if reading.cancelled() else reading.exception()
        if error is None:
            result.set_result(reading.result())
        elif is_lost_read(error) and len(under_way) <= REPEATS:
            _log.warning("a read is repeated", channel=name, why=str(error))
            on_repeat(name)
            begin()
        else:
            result.set_exception(error)

    def give_up(ended_result: concurrent.futures.Future[Any]) -> None:
        if ended_result.cancelled() and under_way:
            under_way[-1].cancel()

    result.add_done_callback(give_up)
    begin()
    return result
