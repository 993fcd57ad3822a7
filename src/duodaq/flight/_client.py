from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import pyarrow as pa
from pyarrow import flight

from duodaq.errors import TornFileError
from duodaq.flight._words import Begun, Credits, End, Gaps, Lost, Replay, Wish, checked_token, encode
from duodaq.tap import Told
from duodaq.tap._words import with_metadata


class LiveBatch(NamedTuple):
    """What came of a live stream.

    Attributes:
        batch: The rows, with the metadata that they were published with.
        number: Counts the batches that this reader was sent, from 0.
        missed: Rows that were dropped between the batch before and this one, since the reader was too slow.
        dropped: Rows that were dropped in all.
    """

    batch: pa.RecordBatch
    number: int
    missed: int
    dropped: int


class FlightLab:
    """A lab's streams and recorded runs, from any machine.

    Args:
        location: What ``duodaq serve --flight`` says: ``grpc://127.0.0.1:8815``, or ``grpc+tls://…``.
        token: What it asks for.
        certificate: PEM of whoever signed the service's certificate, if the system does not know him.

    Raises:
        ConfigError: No header can carry the token.
    """

    def __init__(self, location: str, token: str | None = None, certificate: bytes | None = None) -> None:
        self._client: Any = flight.FlightClient(location, tls_root_certs=certificate)
        headers = [] if token is None else [(b"authorization", f"Bearer {checked_token(token)}".encode())]
        self._options: Any = flight.FlightCallOptions(headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def channels(self) -> list[dict[str, Any]]:
        """The channels of the lab that runs now; a stream is called ``<instrument>.<channel>``."""
        return self._asked("channels")

    def runs(self) -> list[dict[str, Any]]:
        """The recorded runs: UUID, number, directory."""
        return self._asked("runs")

    def live(
        self,
        stream: str,
        *,
        name: str = "python",
        credits: int = 32,
        capacity: int = 1024,
        max_bytes: int = 64 * 2**20,
        wait: bool = False,
    ) -> LiveStream:
        """What is published of a stream from now on.

        Args:
            stream: Its id.
            name: Who reads: it stands in the lab's ledger.
            credits: How many batches may be under way; at least 2.
            capacity: How many may wait at the lab, beyond which it drops the oldest.
            max_bytes: How much memory these may keep.
            wait: Whether to wait for a stream that the lab does not know yet.

        Raises:
            pyarrow.flight.FlightUnavailableError: No lab runs, or it refuses.
            pyarrow.flight.FlightServerError: The lab knows no such stream; the sentence names those that it knows.
        """
        wish = Wish(stream, name, capacity, max_bytes, wait=wait)
        return LiveStream(self._client, self._options, wish, max(2, credits))

    def replay(
        self, run: str | int, stream: str, *, damaged: Callable[[Lost], Any] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The batches of a recorded stream, frames with their pixels.

        Args:
            run: Its UUID, its number, the name of its directory, or ``last``, which is the run that is the last now.
            stream: Its id.
            damaged: Told of rows that are damaged and left out, where they are; without it they are an error there.

        Raises:
            TornFileError: Rows are damaged. All before them came; with `damaged`, so does what is behind.
        """
        wanted = flight.FlightDescriptor.for_command(encode(Replay(str(run), stream)))
        info = self._client.get_flight_info(wanted, self._options)
        missing = _missing(info.app_metadata)
        for end in info.endpoints:
            for _ in _missing(end.app_metadata):
                _tell(stream, missing.pop(0), damaged)
            for chunk in self._client.do_get(end.ticket, self._options):
                yield chunk.data
        for lost in missing:
            _tell(stream, lost, damaged)

    def close(self) -> None:
        """Leave. Idempotent."""
        self._client.close()

    def _asked(self, what: str) -> Any:
        (answer,) = self._client.do_action(flight.Action(what, b""), self._options)
        return msgspec.json.decode(answer.body.to_pybytes())


def _missing(said: bytes) -> list[Lost]:
    """What the service says of rows that are not there."""
    return msgspec.json.decode(said, type=Gaps).gaps if said else []


def _tell(stream: str, lost: Lost, damaged: Callable[[Lost], Any] | None) -> None:
    if damaged is None:
        raise TornFileError(f"{stream} lacks {lost}", left="with `damaged=`, what is behind it comes, too")
    damaged(lost)


class LiveStream:
    """Iterates over a live stream until it is closed, or the lab ends; to be used as a context manager.

    A reader that is late by more than ten seconds when the columns change gets a FlightServerError, once: what came
    meanwhile is lost to it. It opens the stream anew to read on.

    Attributes:
        subscriber: How the lab's ledger calls this reader.
        dropped: Rows that were dropped for this reader so far.
        ended: Why it has ended; "" as long as it goes on.
    """

    def __init__(self, client: Any, options: Any, wish: Wish, credits: int) -> None:
        self.subscriber = ""
        self.dropped = 0
        self.ended = ""
        self._client = client
        self._options = options
        self._wish = wish
        self._half = credits // 2
        self._taken = 0
        self._writer: Any = None
        self._reader: Any = None
        self._open()

    def _open(self) -> None:
        asked = flight.FlightDescriptor.for_command(encode(self._wish))
        self._writer, self._reader = self._client.do_exchange(asked, self._options)
        self._taken = 0
        try:
            begun = self._reader.read_chunk().app_metadata.to_pybytes()
        except pa.ArrowException:
            self._leave()
            raise
        self.subscriber = msgspec.json.decode(begun, type=Begun).begun
        for _ in range(2):
            self._writer.write_metadata(encode(Credits(self._half)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LiveBatch:
        while not self.ended:
            chunk = self._reader.read_chunk()
            if chunk.data is None:
                self._turn(msgspec.json.decode(chunk.app_metadata.to_pybytes(), type=End))
                continue
            self._taken += 1
            if self._taken % self._half == 0:
                self._writer.write_metadata(encode(Credits(self._half)))
            told = msgspec.json.decode(chunk.app_metadata.to_pybytes(), type=Told)
            self.dropped = told.dropped
            return LiveBatch(with_metadata(chunk.data, told), told.number, told.missed, told.dropped)
        raise StopIteration

    def _turn(self, end: End) -> None:
        """An exchange has ended: another goes on where it ended, or that was all."""
        self._leave()
        if end.resume is None:
            self.ended = end.end
            return
        self._wish = msgspec.structs.replace(self._wish, resume=end.resume)
        try:
            self._open()
        except pa.ArrowException as error:
            self.ended = str(error)
            raise

    def _leave(self) -> None:
        with contextlib.suppress(pa.ArrowException, OSError):
            self._reader.cancel()
        with contextlib.suppress(pa.ArrowException, OSError):
            self._writer.close()

    def close(self) -> None:
        """Leave. What waits for it at the lab is dropped there. Idempotent."""
        if not self.ended:
            self.ended = "closed"
            self._leave()


def connect(location: str, token: str | None = None, certificate: bytes | None = None) -> FlightLab:
    """A lab's streams and recorded runs at `location`; see `FlightLab`."""
    return FlightLab(location, token, certificate)
