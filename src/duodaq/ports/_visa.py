"""A port behind a VISA library, which runs in a port worker and never in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from duodaq.errors import PortBusyError, PortLostError, PortOpenError
from duodaq.model import Outcome, VisaDefinition
from duodaq.ports._bus_codec import SERIAL_POLL
from duodaq.ports._framing import MAX_REPLY
from duodaq.ports._transport import MessageReceiver, Receiver
from duodaq.ports._visa_process import PortWorker
from duodaq.ports._visa_sentences import (
    ClearDevice,
    CloseResource,
    Converse,
    OfManager,
    OpenResource,
    PollDevice,
)
from duodaq.ports._visa_workers import PortWorkers

_CLOSE_S = 1.0
_WRITE_S = 5.0
"""How long a write may take for which nothing is fetched."""


class _Awaited:
    """A call that is made when it is its turn, and whose end is awaited: `over` has the data, or (kind, why)."""

    def __init__(self, worker: PortWorker, make: Callable[[int], OfManager], limit_s: float) -> None:
        self.over: asyncio.Future[bytes | tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._worker = worker
        self._make = make
        self._limit_s = limit_s

    def turn(self) -> None:
        """The worker is free for it, or has ended."""
        if self._worker.over:
            self.failed("lost", "its port worker ended")
        elif not self.over.done():
            self._worker.begin(self._make, self._limit_s, self)

    async def result(self) -> bytes | tuple[str, str]:
        """Wait for the turn, however long the neighbours take, and then within the limit for what comes of it."""
        if self._worker.over:
            return "lost", "its port worker ended"
        self._worker.wait_for_turn(self.turn)
        try:
            return await self.over
        finally:
            self._worker.withdraw(self.turn)

    def piece(self, data: bytes) -> None:
        """Nothing of interest."""

    def done(self, data: bytes, ends: bool) -> None:
        if not self.over.done():
            self.over.set_result(data)

    def failed(self, kind: str, why: str) -> None:
        if not self.over.done():
            self.over.set_result((kind, why))


class _Conversation:
    """A write, a fetch, or both, of one opening of a transport; the message that comes goes to its receiver, whole."""

    def __init__(self, transport: VisaTransport, fetches: bool) -> None:
        self._transport = transport
        self._fetches = fetches
        self._opened = transport.opened
        self._held = bytearray()

    def piece(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_REPLY:  # whoever waits for it says that it is too long
            self._transport.hear(bytes(self._held), False, self._opened)
            self._held.clear()

    def done(self, data: bytes, ends: bool) -> None:
        if self._fetches:
            self._transport.hear(bytes(self._held) + data if self._held else data, ends, self._opened)
        else:
            self._transport.written(self._opened)

    def failed(self, kind: str, why: str) -> None:
        self._transport.miss(kind, why, self._opened, bytes(self._held))


class VisaTransport:
    """A VISA resource: TCPIP (VXI-11, HiSLIP), USB or GPIB INSTR; SOCKET and ASRL if they shall go through the library.

    A Transport and a FetchingTransport: messages in, messages out, one call at a time. Its far end is only noticed to
    be gone when it is used, unless the library is pyvisa-py on a network. It has no descriptor: where the whole program
    dies, nobody can write on it.

    Args:
        visa: Which resource, and by which library.
        workers: Where port workers come from.
    """

    descriptor = None

    def __init__(self, visa: VisaDefinition, workers: PortWorkers) -> None:
        self.visa = visa
        self.opened = 0
        self.unclosed: tuple[Outcome, str] | None = None
        self._workers = workers
        self._worker: PortWorker | None = None
        self._resource = 0
        self._receiver: Receiver | None = None
        self._carried_by = ""
        self._fetch_s: float | None = None
        self._writable: Callable[[], None] | None = None
        self._clearing: _Awaited | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return self.visa.resource

    @property
    def is_open(self) -> bool:
        return self._receiver is not None

    def identity(self) -> str:
        return f"visa:{self.visa.resource}"

    def worker(self) -> str:
        return f"{self._carried_by}, in process {self._worker.pid}" if self._worker is not None else ""

    # --- life

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        self.opened += 1
        self.unclosed = None
        opening = self.opened
        worker, resource = await self._workers.join(self.visa, lambda cause: self._lost(cause, opening), timeout_s)
        try:
            left_s = max(0.1, until_s - loop.time())
            visa = self.visa
            said = await _Awaited(
                worker,
                lambda call: OpenResource(call, resource, visa.resource, visa.library, visa.attributes, left_s),
                left_s,
            ).result()
            if isinstance(said, tuple):
                kind, why = said
                failure = PortBusyError if kind == "busy" else PortOpenError
                raise failure(why, port=self.address)
        except BaseException:
            await self._workers.leave(worker, resource)
            raise
        self._worker, self._resource, self._receiver = worker, resource, receiver
        self._carried_by = said.decode()

    async def aclose(self, timeout_s: float = 1.0) -> None:
        worker, resource = self._worker, self._resource
        if worker is not None:
            self._forget()
            self._leave_soon(worker, resource, timeout_s)
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    def _forget(self) -> None:
        if self._worker is not None:
            self._worker.withdraw(self._take_turn)
        self._worker = self._receiver = self._writable = self._fetch_s = None
        self.opened += 1

    def _lost(self, cause: PortLostError, opening: int) -> None:
        receiver = self._receiver
        if receiver is None or opening != self.opened:
            return
        worker, resource = self._worker, self._resource
        self._forget()
        if worker is not None:
            self._leave_soon(worker, resource, _CLOSE_S)
        receiver.transport_lost(cause)

    def _leave_soon(self, worker: PortWorker, resource: int, timeout_s: float) -> None:
        leaving = asyncio.get_running_loop().create_task(self._leave(worker, resource, timeout_s))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, worker: PortWorker, resource: int, timeout_s: float) -> None:
        """Close a resource as far as that is possible within the time, and its process with the last."""
        closing = _Awaited(worker, lambda call: CloseResource(call, resource), timeout_s)
        asking = asyncio.ensure_future(closing.result())
        try:
            await asyncio.wait({asking}, timeout=timeout_s)
        finally:
            closed = asking.done() or worker.over
            asking.cancel()
            ended = await self._workers.leave(worker, resource)
            if not closed:
                self.unclosed = _unclosed(self.address, worker.pid, timeout_s, ended=ended)

    # --- messages

    def write_nowait(self, data: bytes) -> int:
        return self._write(data, None)

    def ask_nowait(self, data: bytes, limit_s: float) -> int:
        return self._write(data, limit_s)

    def _write(self, data: bytes, fetch_s: float | None) -> int:
        worker = self._worker
        if worker is None:
            raise PortLostError("not open", port=self.address)
        if not data or not worker.free_for(self._take_turn):
            return 0
        self._begin(worker, bytes(data), fetch_s)
        return len(data)

    def _begin(self, worker: PortWorker, data: bytes, fetch_s: float | None) -> None:
        resource, limit_s = self._resource, _WRITE_S if fetch_s is None else fetch_s
        conversation = _Conversation(self, fetch_s is not None)
        if data == SERIAL_POLL:
            worker.begin(lambda call: PollDevice(call, resource, limit_s), limit_s, conversation)
            return
        worker.begin(lambda call: Converse(call, resource, data, fetch_s, limit_s), limit_s, conversation)

    def fetch_nowait(self, limit_s: float) -> None:
        if self._worker is not None:
            self._fetch_s = limit_s
            self._worker.wait_for_turn(self._take_turn)

    async def ask(self, data: bytes, limit_s: float) -> None:
        worker, resource = self._worker, self._resource
        if worker is None:
            raise PortLostError("not open", port=self.address)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            if turn.done():
                return
            if worker is self._worker and resource == self._resource:
                self._begin(worker, bytes(data), limit_s)
            turn.set_result(None)

        worker.wait_for_turn(begin)
        try:
            await turn
        finally:
            worker.withdraw(begin)
        if worker is not self._worker or resource != self._resource:
            raise PortLostError("lost while it waited for its turn", port=self.address)

    def hurry(self) -> None:
        if self._worker is None:
            return
        if self._clearing is not None:
            self._worker.hurry(self._clearing.turn)
        self._worker.hurry(self._take_turn)

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        self._writable = callback
        if callback is not None and self._worker is not None:
            self._worker.wait_for_turn(self._take_turn)

    def _take_turn(self) -> None:
        """The worker is free, and it is this port's turn."""
        worker, fetch_s, callback = self._worker, self._fetch_s, self._writable
        self._fetch_s = self._writable = None
        if worker is None:
            return
        if fetch_s is not None:
            self._begin(worker, b"", fetch_s)
            if callback is not None:
                self.when_writable(callback)
        elif callback is not None:
            callback()

    def discard_output(self) -> int:
        """Nothing: a message was taken whole, or not at all."""
        return 0

    def hear(self, data: bytes, ends: bool, opened: int) -> None:
        """A message has come."""
        receiver = self._receiver
        if receiver is None or opened != self.opened or not (data or ends):
            return
        if isinstance(receiver, MessageReceiver):
            receiver.message_received(data, ends)
        elif data:
            receiver.data_received(data)

    def written(self, opened: int) -> None:
        """A message was taken for which nothing is fetched."""
        if opened == self.opened and isinstance(self._receiver, MessageReceiver):
            self._receiver.message_written()

    def miss(self, kind: str, why: str, opened: int, front: bytes) -> None:
        """A conversation came to nothing, or to no more than the front of a message."""
        if kind not in ("timeout", "refused", "untaken"):
            self._lost(PortLostError(why), opened)
        elif opened == self.opened and isinstance(self._receiver, MessageReceiver):
            if kind == "untaken":
                self._receiver.message_untaken(why)
            else:
                self._receiver.message_missed(front)

    async def clear(self, timeout_s: float) -> None:
        worker, resource, opened = self._worker, self._resource, self.opened
        if worker is None:
            raise PortLostError("not open", port=self.address)
        self._fetch_s = None
        clearing = self._clearing = _Awaited(worker, lambda call: ClearDevice(call, resource, timeout_s), timeout_s)
        try:
            said = await clearing.result()
        finally:
            self._clearing = None
        if isinstance(said, tuple):
            cause = PortLostError(f"it could not be cleared: {said[1]}", port=self.address)
            self._lost(cause, opened)
            raise cause


def _unclosed(resource: str, pid: int, timeout_s: float, *, ended: bool) -> tuple[Outcome, str]:
    """How a resource ended of which the library did not come back from its close."""
    what = f"the VISA library did not close {resource} within {timeout_s:g} s; its process {pid}"
    if ended:
        return Outcome.FORCED, f"{what} was killed"
    return Outcome.LEAKED, f"{what} carries others, and is still at it"
