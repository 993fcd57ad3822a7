from __future__ import annotations

import contextlib
import io
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import ipc

from duodaq.errors import DataError, DeliveryError, LifecycleError, StoppedError
from duodaq.tap._words import CREDIT, LONGEST_LINE, TOLD, Opening, Told, with_metadata

_ANSWER_S = 5.0
_LOOK_MS = 250
_BUFFER = 1024 * 1024


class Tap:
    """One live stream of a lab, as another program reads it: give credits, then take that many batches.

    Belongs to one thread.

    Args:
        path: The socket of the lab's tap.
        opening: Which stream, and what may wait for this reader.

    Raises:
        LifecycleError: No lab serves there, or it refuses.
        DataError: The lab knows no such stream; the sentence names those that it knows.
    """

    def __init__(self, path: Path, opening: Opening) -> None:
        self.stream = opening.stream
        self.unused = 0
        self._given_up: Callable[[], bool] = _never
        self._schema: Any = None
        self._reader: Any = None
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._file = io.BufferedReader(_Patient(self._end, self._is_given_up), _BUFFER)
        try:
            self._end.settimeout(_ANSWER_S)
            self._end.connect(str(path))
            self._end.sendall(msgspec.json.encode(opening) + b"\n")
            answer: dict[str, str] = msgspec.json.decode(self._file.readline(LONGEST_LINE))
            if "unknown" in answer:
                raise DataError(answer["unknown"])
            if "ok" not in answer:
                raise LifecycleError(f"the lab does not serve {opening.stream}: {answer.get('error')}")
            self.subscriber = answer["ok"]
        except (OSError, msgspec.MsgspecError) as error:
            self.close()
            raise LifecycleError(f"no lab serves its streams on {path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def grant(self, batches: int) -> None:
        """Let the lab send so many batches in all that were not taken yet.

        Raises:
            StoppedError: The lab has ended.
        """
        more = batches - self.unused
        if more <= 0:
            return
        try:
            self._end.sendall(CREDIT.pack(more))
        except OSError as error:
            raise StoppedError("the lab has ended") from error
        self.unused += more

    def take(self, given_up: Callable[[], bool]) -> tuple[pa.RecordBatch, Told]:
        """The next batch that credits were given for; waits for it until `given_up` says yes, asked now and then.

        Raises:
            StoppedError: The lab has ended.
            DeliveryError: It was given up. The tap is of no use any more.
        """
        self._given_up = given_up
        try:
            while True:
                if self._reader is None:
                    self._reader = ipc.open_stream(self._file)
                try:
                    batch, said = self._reader.read_next_batch_with_custom_metadata()
                except StopIteration:
                    self._reader = None
                    continue
                told = msgspec.json.decode(said[TOLD], type=Told)
                self.unused -= 1
                return with_metadata(batch, told), told
        except (OSError, pa.ArrowInvalid) as error:
            if given_up():
                raise DeliveryError("nobody waits any more") from error
            raise StoppedError("the lab has ended") from error
        except (msgspec.MsgspecError, KeyError) as error:
            raise DataError(f"what came from the lab makes no sense: {error}") from error

    def close(self) -> None:
        """Leave. What waits at the lab is dropped there. Idempotent."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._end.close()

    def _is_given_up(self) -> bool:
        return self._given_up()


class _Patient(io.RawIOBase):
    """A socket to read from, which looks now and then whether anybody still waits."""

    def __init__(self, end: socket.socket, given_up: Callable[[], bool]) -> None:
        super().__init__()
        self._socket = end
        self._given_up = given_up

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(_LOOK_MS):
            if self._given_up():
                raise TimeoutError("nobody waits any more")
        return self._socket.recv_into(buffer)


def _never() -> bool:
    return False
