"""The lab's end: each reader has a subscription at the lab's hub, a socket, and a thread that waits for it.

Rules for whoever edits this:

* The lab's loop only accepts. Whatever waits for a reader waits in that reader's thread: for credits, for data, or for
  a socket that is full.
* Nothing is sent that was not asked for. What is published meanwhile waits in the subscription, which is bounded and
  drops the oldest, and is counted there: the lab's ledger has it.
* A reader that gave credits and takes nothing for `SEND_S` is dropped. So is one that dies, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import ipc

from duodaq import clock
from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.errors import LifecycleError, StoppedError
from duodaq.schema import stream_of
from duodaq.tap._words import CREDIT, LONGEST_LINE, TOLD, Opening, Told, own_metadata, same_columns
from duodaq.telemetry import get_logger

SEND_S = 10.0
_OPENING_S = 5.0
_LOOK_S = 0.25
_AT_ONCE = 64
_BUFFER = 256 * 1024
_MOST_READERS = 64
_LONGEST_NAME = 80


class TapServer:
    """Serves the streams of a hub to programs of this user on a UNIX socket.

    Args:
        path: The socket; made readable for this user only, and removed at the end.
        hub: What they may read.
        known: The streams that there are, asked on the loop; None: whatever comes.
    """

    def __init__(self, path: Path, hub: Hub[pa.RecordBatch], known: Callable[[], Iterable[str]] | None = None) -> None:
        self.path = path
        self._hub = hub
        self._known = known
        self._listener: socket.socket | None = None
        self._readers: set[_Reader] = set()
        self._numbers = itertools.count(1)

    @property
    def readers(self) -> int:
        """How many read now."""
        return len([reader for reader in self._readers if reader.thread.is_alive()])

    def start(self) -> None:
        """Begin to serve, on the running loop.

        Raises:
            LifecycleError: There is no socket to be had at the path.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.unlink(missing_ok=True)  # what a lab of this name left, which is dead: its lock is ours
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(16)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise LifecycleError(f"cannot serve on {self.path}: {error.strerror or error}") from error
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            end, _ = listener.accept()
        except OSError:  # whoever knocked is gone, or there are no descriptors left: the lab goes on
            return
        self._readers = {reader for reader in self._readers if reader.thread.is_alive()}
        if len(self._readers) >= _MOST_READERS:
            end.close()
            return
        known = None if self._known is None else sorted({*self._known()})
        reader = _Reader(end, self._hub, next(self._numbers), known)
        self._readers.add(reader)
        reader.thread.start()

    async def aclose(self) -> None:
        """End all readers and serve no more. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        asyncio.get_running_loop().remove_reader(listener.fileno())
        listener.close()
        self.path.unlink(missing_ok=True)
        for reader in self._readers:
            reader.end()
        while self.readers:
            await clock.pause(0.002)
        self._readers.clear()


class _Reader:
    """One reader: its socket, its subscription, and the thread that serves it."""

    def __init__(self, end: socket.socket, hub: Hub[pa.RecordBatch], number: int, known: Sequence[str] | None) -> None:
        self.thread = threading.Thread(target=self._run, name=f"tap-{number}", daemon=True)
        self._end = end
        self._hub = hub
        self._number = number
        self._known = known
        self._ending = False
        self._subscription: Subscription[pa.RecordBatch] | None = None
        self._credits = 0
        self._heard = b""
        self._sent = 0
        self._writer: Any = None
        self._first: pa.Schema | None = None
        self._log = get_logger("tap")

    def end(self) -> None:
        """Make the thread end. From the loop's."""
        self._ending = True
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        if self._subscription is not None:
            self._subscription.close()

    def _run(self) -> None:
        os.set_blocking(self._end.fileno(), True)
        self._end.settimeout(SEND_S)
        try:
            opening = self._opening()
            if self._known is not None and opening.stream not in self._known and not opening.wait:
                self._end.sendall(msgspec.json.encode({"unknown": _unknown(opening.stream, self._known)}) + b"\n")
                return
            self._subscription = self._subscribe(opening)
            self._end.sendall(msgspec.json.encode({"ok": self._subscription.name}) + b"\n")
            with self._end.makefile("wb", _BUFFER) as file:
                self._serve(self._subscription, file)
        except (OSError, StoppedError, msgspec.MsgspecError, ValueError) as error:
            with contextlib.suppress(OSError):
                self._end.sendall(msgspec.json.encode({"error": str(error)}) + b"\n" if self._first is None else b"")
            if not self._ending:
                self._log.info("a reader of live streams left", reader=self._number, why=str(error))
        finally:
            if self._subscription is not None:
                self._subscription.close()
            self._end.close()

    def _opening(self) -> Opening:
        deadline, line = clock.Deadline(_OPENING_S), b""
        while not line.endswith(b"\n"):
            self._end.settimeout(max(0.001, deadline.left_s))
            part = self._end.recv(1)
            if not part or len(line) > LONGEST_LINE:
                raise ValueError("it said nothing that makes sense")
            line += part
        self._end.settimeout(SEND_S)
        return msgspec.json.decode(line, type=Opening)

    def _subscribe(self, opening: Opening) -> Subscription[pa.RecordBatch]:
        wanted = opening.stream
        name = "".join(c if c.isprintable() else "?" for c in opening.name)[:_LONGEST_NAME]
        return self._hub.subscribe(
            f"{name} #{self._number}",
            capacity=opening.capacity,
            max_bytes=opening.max_bytes,
            policy=Policy.DROP_OLDEST,
            accepts=lambda batch: stream_of(batch) == wanted,
        )

    def _serve(self, subscription: Subscription[pa.RecordBatch], file: Any) -> None:
        while not self._ending:
            self._hear(None if self._credits <= 0 else 0)
            batches = subscription.get_many_blocking(min(self._credits, _AT_ONCE), _LOOK_S) if self._credits else []
            if not batches:
                continue
            missed = subscription.take_missed()
            for batch in batches:
                self._write(batch, Told(self._sent, missed, subscription.dropped), file)
                missed = 0
            file.flush()
            self._credits -= len(batches)

    def _write(self, batch: pa.RecordBatch, told: Told, file: Any) -> None:
        if self._first is None or not same_columns(self._first, batch.schema):
            if self._writer is not None:
                self._writer.close()
            self._writer, self._first = ipc.new_stream(file, batch.schema), batch.schema
        own = own_metadata(self._first, batch.schema)
        if own is not None:
            told = msgspec.structs.replace(told, metadata=own)
        self._writer.write_batch(batch, custom_metadata={TOLD: msgspec.json.encode(told)})
        self._sent += 1

    def _hear(self, timeout_s: float | None) -> None:
        """Take the credits that have come; wait for some if `timeout_s` is None.

        Raises:
            OSError: The reader is gone.
        """
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        if not poll.poll(timeout_s):
            return
        data = self._end.recv(4096)
        if not data:
            raise ConnectionResetError("it hung up")
        self._heard += data
        whole = len(self._heard) // CREDIT.size * CREDIT.size
        self._credits += sum(n for (n,) in CREDIT.iter_unpack(self._heard[:whole]))
        self._heard = self._heard[whole:]


def _unknown(stream: str, known: Sequence[str]) -> str:
    there = f"there are {', '.join(known)}" if known else "there are none yet"
    return f"there is no stream {stream!r} in this lab; {there}; with wait, a reader waits for it"
