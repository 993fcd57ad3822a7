"""Live streams to readers: one exchange each, and as many batches as the reader gave credits for."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from duodaq.clock import monotonic_s
from duodaq.errors import DataError, DeliveryError, StoppedError
from duodaq.flight._words import Begun, Credits, End, Wish, encode
from duodaq.tap import Tap, Told

PARKED_S = 10.0
_MOST_CREDITS = 65536


class Live:
    """One reader's stream, through all exchanges that it takes: each has one schema."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self._next: tuple[pa.RecordBatch, Told] | None = None
        self._schema: pa.Schema | None = None

    def serve(self, reader: Any, writer: Any, given_up: Callable[[], bool]) -> End | None:
        """Send what the reader asks for; why it ends, or None if the reader has left.

        Raises:
            DataError: What the reader says makes no sense.
        """
        self._schema = None
        while (credits := _credits(reader)) is not None:
            try:
                left = self._send(credits, writer, given_up)
            except StoppedError as error:
                return End(str(error))
            except DeliveryError:
                return None
            if left:
                return End("the columns changed", uuid.uuid4().hex)
        return None

    def _send(self, credits: int, writer: Any, given_up: Callable[[], bool]) -> bool:
        """Send so many batches; whether the next one has other columns, and waits for another exchange."""
        self.tap.grant(credits - (self._next is not None))
        for _ in range(credits):
            batch, told = self._next or self.tap.take(given_up)
            self._next = None
            if self._schema is None:
                self._schema = batch.schema
                writer.begin(batch.schema)
            elif not self._schema.equals(batch.schema):
                self._next = (batch, told)
                return True
            writer.write_with_metadata(batch, encode(told))
        return False


def _credits(reader: Any) -> int | None:
    """How many batches the reader takes, as it says next; None: it says no more."""
    try:
        said = reader.read_chunk().app_metadata
    except StopIteration:
        return None
    except pa.ArrowException:  # it is gone
        return None
    try:
        credits = msgspec.json.decode(b"" if said is None else said.to_pybytes(), type=Credits).credits
    except msgspec.MsgspecError as error:
        raise DataError(f'a reader says {{"credits": 16}}, for instance: {error}') from error
    if not 0 < credits <= _MOST_CREDITS:
        raise DataError(f"{credits} credits were given; 1 to {_MOST_CREDITS} can be")
    return credits


def _hear_out(reader: Any) -> None:
    """Wait until the reader has closed its end: gRPC would fail credits that are under way to an exchange that is over,
    and its client would then throw away all that it had not read yet, the reason why it ended included.
    """
    try:
        while True:
            reader.read_chunk()
    except (StopIteration, pa.ArrowException):
        return


class LiveStreams:
    """The live streams that are read now, and those that wait for their reader's next exchange."""

    def __init__(self, socket: Callable[[], Path], most: int) -> None:
        self._socket = socket
        self._most = most
        self._lock = threading.Lock()
        self._parked: dict[str, tuple[float, Live]] = {}
        self._count = 0

    @property
    def count(self) -> int:
        """How many are read now."""
        return self._count

    def serve(self, wish: Wish, reader: Any, writer: Any, given_up: Callable[[], bool]) -> None:
        """Serve one exchange to its end.

        Raises:
            LifecycleError: No lab runs.
            DataError: There are too many readers, this one makes no sense, or what it goes on with was given up.
        """
        with self._lock:
            if self._count >= self._most:
                raise DataError(f"{self._most} readers are served already")
            self._count += 1
        try:
            live = self._resumed(wish.resume) if wish.resume is not None else Live(Tap(self._socket(), wish.opening))
            end: End | None = None
            try:
                writer.write_metadata(encode(Begun(live.tap.subscriber)))
                end = live.serve(reader, writer, given_up)
                if end is not None and end.resume is not None:
                    self._park(end.resume, live)
            finally:
                if end is None or end.resume is None:
                    live.tap.close()
            if end is not None:
                writer.write_metadata(encode(end))
                _hear_out(reader)
        finally:
            with self._lock:
                self._count -= 1

    def sweep(self) -> None:
        """Give up those whose reader has not come back."""
        self._drop(monotonic_s() - PARKED_S)

    def close(self) -> None:
        """Give up all that wait."""
        self._drop(float("inf"))

    def _drop(self, before_s: float) -> None:
        with self._lock:
            late = [key for key, (since_s, _) in self._parked.items() if since_s < before_s]
            dropped = [self._parked.pop(key)[1] for key in late]
        for live in dropped:
            live.tap.close()

    def _park(self, key: str, live: Live) -> None:
        with self._lock:
            self._parked[key] = (monotonic_s(), live)

    def _resumed(self, key: str) -> Live:
        with self._lock:
            found = self._parked.pop(key, None)
        if found is None:  # another stream in its place would hide what was missed between them
            what = "what this stream goes on with was given up: rows that came since its columns changed are lost to it"
            left = f"a reader has {PARKED_S:g} s to come back; open the stream anew to read what comes from now on"
            raise DataError(what, left=left)
        return found[1]
