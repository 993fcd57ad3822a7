from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from duodaq.errors import LifecycleError
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Framing, Idle
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._seat import LineOwner
from duodaq.telemetry import current_trace_id


class FromCodec:
    """Says that the port's codec knows what is answered; see `FROM_CODEC`."""


FROM_CODEC: Final = FromCodec()
Reply = Framing | FromCodec | None
LEASE_WAIT_S = 5.0


class Lease:
    """The port is yours until you leave the block: nobody else's bytes come between your exchanges, except a stop."""

    def __init__(self, port: Port, ticket: Ticket) -> None:
        self._port = port
        self._ticket = ticket

    @property
    def holder(self) -> str:
        return self._ticket.holder

    @property
    def held_s(self) -> float:
        """For how many seconds the lease has been held."""
        granted_s = self._ticket.granted_s
        loop = self._port.owner.loop
        return 0.0 if granted_s is None or loop is None else loop.time() - granted_s

    async def exchange(self, request: bytes, reply: Reply = FROM_CODEC, timeout_s: float | None = None) -> bytes:
        """Write `request` and return its whole reply, terminator included; ``b""`` where none belongs to it.

        Raises:
            PortTimeoutError: No whole reply in time; the port is being resynchronised, the lease goes on behind that.
            PortLostError: The line is gone and with it the lease; what became of the request is unknown.
            DeliveryError: A stop cut the exchange; unknown.
            StoppedError: A stop ended this lease's moving before these bytes were sent.
            UnsafeStateError: A stop-all is latched and these bytes move or emit. Nothing was sent.

        Cancellation: The reply is taken by the broker before anybody's next exchange.
        """
        exchange = self._port.exchange_of(self._ticket, request, reply, timeout_s)
        return await carry(self._port.owner, exchange, lambda: self._port.owner.begin(exchange))

    async def write(self, data: bytes, timeout_s: float | None = None) -> None:
        """Write `data`. If the codec knows an answer to it, that is read too and thrown away."""
        reply = FROM_CODEC if self._port.codec is not None else None
        await self.exchange(data, reply, timeout_s)


class Port:
    """One port as its users see it, on whatever event loop they run."""

    def __init__(self, owner: LineOwner) -> None:
        self.owner = owner

    @property
    def name(self) -> str:
        return self.owner.name

    @property
    def codec(self) -> PortCodec | None:
        return self.owner.codec

    def lease(
        self, holder: str, *, timeout_s: float | None = LEASE_WAIT_S, lane: Lane = Lane.NORMAL
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold the port for several exchanges, until the end of the block, however that comes, or of the task.

        Raises:
            PortBusyError: Not free within `timeout_s`; names the holder and how long it has held. Nothing was sent.
        """
        return _LeaseBlock(self, holder, timeout_s, lane)

    async def exchange(
        self,
        request: bytes,
        *,
        holder: str,
        reply: Reply = FROM_CODEC,
        timeout_s: float | None = None,
        lane: Lane = Lane.NORMAL,
        wait_s: float | None = LEASE_WAIT_S,
    ) -> bytes:
        """Wait for the port, write `request`, return its whole reply, give the port back. Raises as `Lease.exchange`.

        Args:
            request: The bytes, terminator included.
            holder: In whose name; errors, status and the wire log show it.
            reply: What belongs to it, where the codec does not say.
            timeout_s: For the reply, from the moment of writing; the port's own by default.
            lane: Who goes first.
            wait_s: For the port.
        """
        owner = self.owner
        if lane is Lane.NORMAL and owner.codec is not None and owner.codec.is_break_in(request):
            lane = Lane.STOP
        exchange = self.exchange_of(Ticket(holder, lane, _ignore), request, reply, timeout_s)
        return await carry(owner, exchange, lambda: owner.submit(exchange, wait_s))

    async def write(self, data: bytes, *, holder: str, lane: Lane = Lane.NORMAL) -> None:
        """Write `data` under a lease of its own. If the codec knows an answer to it, that is read and thrown away."""
        reply = FROM_CODEC if self.owner.codec is not None else None
        await self.exchange(data, holder=holder, reply=reply, lane=lane)

    def exchange_of(self, ticket: Ticket, request: bytes, reply: Reply, timeout_s: float | None) -> Exchange:
        """An exchange that is not begun; its framing is the codec's where `reply` says so."""
        owner = self.owner
        framing = framing_for(owner, request) if isinstance(reply, FromCodec) else reply
        limit_s = owner.definition.timeout_s if timeout_s is None else timeout_s
        exchange = Exchange(ticket, request, framing, limit_s, _ignore, current_trace_id())
        exchange.from_codec = isinstance(reply, FromCodec) and owner.codec is not None
        return exchange


class _LeaseBlock:
    """The block in which a lease is held; what `Port.lease` gives."""

    __slots__ = ("_holder", "_lane", "_port", "_task", "_ticket", "_timeout_s")

    def __init__(self, port: Port, holder: str, timeout_s: float | None, lane: Lane) -> None:
        self._port = port
        self._holder = holder
        self._timeout_s = timeout_s
        self._lane = lane
        self._ticket: Ticket | None = None
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Lease:
        ticket = self._ticket = await acquire(self._port.owner, self._holder, self._timeout_s, self._lane)
        task = self._task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(self._give_back)
        return Lease(self._port, ticket)

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.remove_done_callback(self._give_back)
        self._give_back()

    def _give_back(self, _: Any = None) -> None:
        if self._ticket is not None:
            on_owner_loop(self._port.owner, self._port.owner.end, self._ticket)


def framing_for(owner: LineOwner, request: bytes) -> Framing | None:
    """What belongs to `request`, as the codec says, or, without one, silence of the port's `idle_ms`."""
    if owner.codec is not None:
        return owner.codec.expects_reply(request)
    if owner.definition.idle_ms is not None:
        return Idle(owner.definition.idle_ms)
    raise LifecycleError("this port has no codec: say which reply= belongs to the request", port=owner.name)


def _ignore(*_: Any) -> None:
    """Nobody listens yet."""


def on_owner_loop(owner: LineOwner, action: Callable[..., None], *args: Any) -> None:
    """Run `action` on the broker's loop: now if this is it, else soon. Nothing if that loop is closed."""
    if running_loop() is owner.loop:
        action(*args)
        return
    with contextlib.suppress(RuntimeError):
        owner.hand_over(action, *args)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if any."""
    return asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage]  # the other raises where none runs: 1 µs


async def carry(owner: LineOwner, exchange: Exchange, start: Callable[[], None]) -> bytes:
    """Begin an exchange by `start` on the broker's loop and wait for its end on this one; cancelling cuts it there."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bytes] = loop.create_future()

    def settle(reply: bytes, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(reply)
        else:
            ended.set_exception(error)

    exchange.done = settle
    if loop is not owner.loop:
        exchange.done = _crossing(loop, settle)
        exchange.ticket.alive = exchange.ticket.alive or loop.is_running
    _begin(owner, start)
    try:
        return await ended
    except asyncio.CancelledError:
        on_owner_loop(owner, owner.abandon, exchange)
        raise


async def acquire(owner: LineOwner, holder: str, timeout_s: float | None, lane: Lane) -> Ticket:
    """A held ticket of `owner` for the running task."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    granted: asyncio.Future[None] = loop.create_future()

    def settle(refusal: Exception | None) -> None:
        if granted.done():
            return
        if refusal is None:
            granted.set_result(None)
        else:
            granted.set_exception(refusal)

    ticket = Ticket(holder, lane, settle)
    if loop is not owner.loop:
        ticket.settle = _crossing(loop, settle)
        ticket.alive = lambda: loop.is_running() and not (task is not None and task.done())
    _begin(owner, lambda: owner.ask(ticket, timeout_s))
    try:
        await granted
    except BaseException:
        on_owner_loop(owner, owner.end, ticket)
        raise
    return ticket


def _begin(owner: LineOwner, start: Callable[[], None]) -> None:
    if running_loop() is owner.loop:
        start()
        return
    try:
        owner.hand_over(start)
    except RuntimeError:
        raise LifecycleError("the broker's loop is closed", port=owner.name) from None


def _crossing(loop: asyncio.AbstractEventLoop, settle: Callable[..., None]) -> Callable[..., None]:
    def cross(*outcome: Any) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(settle, *outcome)

    return cross
