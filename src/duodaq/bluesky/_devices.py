from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from duodaq.bluesky._promise import Axis, Measured, Reader
from duodaq.bluesky._repeat import REPEATS, OnRepeat, is_lost_read, read_patiently
from duodaq.errors import DeliveryError


class FutureStatus:
    """A Bluesky Status over one or several futures: done when all are, a success if none failed."""

    def __init__(self, futures: list[concurrent.futures.Future[Any]]) -> None:
        self.futures = futures
        self._left = len(futures)
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[FutureStatus], None]] = []
        for future in futures:
            future.add_done_callback(self._one_done)

    @property
    def done(self) -> bool:
        """Whether all futures have ended."""
        return self._left == 0

    @property
    def success(self) -> bool:
        """Whether all have ended, and none failed."""
        return self.done and self.exception() is None

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        """The first failure, if there is one yet."""
        for future in self.futures:
            if future.cancelled():
                return concurrent.futures.CancelledError()
            if future.done() and (error := future.exception()) is not None:
                return error
        return None

    def add_callback(self, callback: Callable[[FutureStatus], None]) -> None:
        """Call `callback` when done; at once if it is."""
        with self._lock:
            if self._left:
                self._callbacks.append(callback)
                return
        callback(self)

    def _one_done(self, _: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            with contextlib.suppress(RuntimeError):  # an engine whose scan is over has closed its loop
                callback(self)


class ScanAxis:
    """An axis as Bluesky moves it; the field `name` is where it really is, `name_setpoint` where it was sent."""

    parent = None

    def __init__(self, axis: Axis, on_repeat: OnRepeat) -> None:
        self.axis = axis
        self._on_repeat = on_repeat
        self.name = axis.name
        self._setpoint = float("nan")
        self._moving: concurrent.futures.Future[Any] | None = None
        self.hints = {"fields": [self.name]}

    def set(self, value: float) -> FutureStatus:
        """Begin to move there."""
        self._setpoint = float(value)
        self._moving = self.axis.move_soon(float(value))
        return FutureStatus([self._moving])

    def stop(self, *, success: bool = True) -> None:
        """Stop, if it is on its way."""
        moving, self._moving = self._moving, None
        if moving is not None and not moving.done():
            self.axis.stop()
            moving.cancel()

    def read(self) -> dict[str, dict[str, Any]]:
        """Where it is, read from the device, and where it was sent."""
        here = self._read_position()
        return {
            self.name: {"value": float(here.value), "timestamp": here.t_ns / 1e9},
            f"{self.name}_setpoint": {"value": self._setpoint, "timestamp": here.t_ns / 1e9},
        }

    def _read_position(self) -> Measured:
        for _ in range(REPEATS):
            try:
                return self.axis.read_position()
            except DeliveryError as error:
                if not is_lost_read(error):
                    raise
                self._on_repeat(self.name)
        return self.axis.read_position()

    def describe(self) -> dict[str, dict[str, Any]]:
        """Both fields: numbers in the axis's unit."""
        key: dict[str, Any] = {"source": f"duodaq:{self.name}", "dtype": "number", "shape": [], "units": self.axis.unit}
        return {self.name: key, f"{self.name}_setpoint": dict(key)}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


class ScanReader:
    """An instrument as Bluesky reads it: `trigger` takes one measurement of each of its channels."""

    parent = None

    def __init__(self, reader: Reader, names: dict[str, str], on_repeat: OnRepeat) -> None:
        self.reader = reader
        self._on_repeat = on_repeat
        self.name = reader.id
        self._names = names
        self._latest: dict[str, Measured] = {}
        self.hints = {"fields": list(names.values())}

    def trigger(self) -> FutureStatus:
        """Begin one measurement of every channel."""
        futures = {channel: self._read_soon(channel) for channel in self._names}
        for channel, future in futures.items():
            future.add_done_callback(lambda f, c=channel: self._take(c, f))
        return FutureStatus(list(futures.values()))

    def read(self) -> dict[str, dict[str, Any]]:
        """What the last trigger measured."""
        return {
            self._names[channel]: {"value": reading.value, "timestamp": reading.t_ns / 1e9}
            for channel, reading in self._latest.items()
        }

    def describe(self) -> dict[str, dict[str, Any]]:
        """Every field, with the unit and shape of the last measurement; taken once if there is none yet."""
        for channel in self._names.keys() - self._latest.keys():
            self._latest[channel] = self._read_soon(channel).result(60.0)
        return {self._names[channel]: self._field(reading) for channel, reading in self._latest.items()}

    def _read_soon(self, channel: str) -> concurrent.futures.Future[Any]:
        return read_patiently(lambda: self.reader.read_soon(channel), self._names[channel], self._on_repeat)

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}

    def _field(self, reading: Measured) -> dict[str, Any]:
        shape = list(np.shape(reading.value))
        kind = "array" if shape else "number"
        return {"source": f"duodaq:{self.name}", "dtype": kind, "shape": shape, "units": reading.unit}

    def _take(self, channel: str, future: concurrent.futures.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._latest[channel] = future.result()
