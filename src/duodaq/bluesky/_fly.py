from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

from duodaq.bluesky._promise import Flown, Instrument
from duodaq.bluesky._status import FutureStatus
from duodaq.errors import LifecycleError

_END_S = 10.0


class StreamFlyer:
    """A stream of an instrument in a fly scan: it is acquired between kickoff and complete, and collected at the end.

    Flyable, EventCollectable, Stoppable and Stageable of `bluesky.protocols`. Each row becomes an event: its sequence
    number, and its value where it is a number. Frames stay in the recording, under that number.

    Args:
        instrument: Whose.
        channel: Which of its channels.
        count: How many rows `complete` waits for; without it, it ends the stream at once.
        options: Of the acquisition: ROI, exposure …
        acquire: Whether the acquisition is started, and stopped unless it ran before; otherwise it is left as it is.
    """

    parent = None

    def __init__(
        self,
        instrument: Instrument,
        channel: str,
        *,
        count: int | None = None,
        options: dict[str, Any] | None = None,
        acquire: bool = True,
    ) -> None:
        self.instrument = instrument
        self.channel = channel
        self.count = count
        self._options = dict(options or {}) if acquire else None
        self.name = f"{instrument.id}_{channel}".replace(".", "_")
        self._flight: Flown | None = None
        self._rows: dict[str, Any] = {}

    def kickoff(self) -> FutureStatus:
        """Begin to collect; done when the acquisition runs.

        Raises:
            LifecycleError: It is flying.
        """
        if self._flight is not None:
            raise LifecycleError("this stream is being collected already", instrument=self.name)
        self._rows = {}
        self._flight = self.instrument.fly(self.channel, self._options)
        return FutureStatus([_begun(self._flight)])

    def complete(self) -> FutureStatus:
        """End it, once there are as many rows as were asked for."""
        flight = self._flown()
        flight.land(self.count)
        return FutureStatus([flight.rows])

    def describe_collect(self) -> dict[str, Any]:
        """One stream of events, under the flyer's name."""
        source = f"duodaq:{self.instrument.id}.{self.channel}"
        keys: dict[str, Any] = {
            f"{self.name}_sequence": {"source": source, "dtype": "integer", "shape": [], "units": ""}
        }
        if "value" in self._landed():
            keys[self.name] = {"source": source, "dtype": "number", "shape": [], "units": ""}
        return {self.name: keys}

    def collect(self) -> Iterator[dict[str, Any]]:
        """The events. A flight that was not completed ends here."""
        rows = self._landed()
        self._flight = None
        values = rows.get("value")
        for index, (sequence, t_ns) in enumerate(zip(rows["sequence"], rows["t_ns"], strict=True)):
            data = {f"{self.name}_sequence": sequence}
            if values is not None:
                data[self.name] = values[index]
            yield {"data": data, "timestamps": dict.fromkeys(data, t_ns / 1e9), "time": t_ns / 1e9}

    def stop(self, *, success: bool = True) -> None:
        """End it now, with what it has."""
        if self._flight is not None and not self._flight.rows.done():
            self._flight.land()

    def stage(self) -> list[Any]:
        """Nothing has to be prepared."""
        return [self]

    def unstage(self) -> list[Any]:
        """End it, if a plan left it flying."""
        self.stop()
        return [self]

    def _flown(self) -> Flown:
        if self._flight is None:
            raise LifecycleError("this stream is not being collected", instrument=self.name)
        return self._flight

    def _landed(self) -> dict[str, Any]:
        if not self._rows:
            flight = self._flown()
            if not flight.rows.done():
                flight.land()
            self._rows = flight.rows.result(_END_S)
        return self._rows

    def __repr__(self) -> str:
        return f"<flyer {self.name}>"


def _begun(flight: Flown) -> concurrent.futures.Future[Any]:
    """Ends when the flight has begun, or as it failed to."""
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def started(future: concurrent.futures.Future[bool]) -> None:
        error = concurrent.futures.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            result.set_exception(error)
        elif future.result():
            result.set_result(None)
        else:
            flight.rows.add_done_callback(failed)

    def failed(rows: concurrent.futures.Future[Any]) -> None:
        error = concurrent.futures.CancelledError() if rows.cancelled() else rows.exception()
        if error is None:
            result.set_result(None)
        else:
            result.set_exception(error)

    flight.started.add_done_callback(started)
    return result
