"""The broker: every port of a lab, each with one owner, for users on any loop and in any thread.

How the parts fit, from the wire upwards:

* `_transport` opens, writes and hears bytes; `_framing` knows where a reply ends; `PortCodec` what a command owes.
* `_queue` is the fair queue for one port, as a pure data structure; `_owner` is the only hand on the transport, and
  keeps the rules (read its essay first); `_mend` resynchronises, `_reconnect` opens again, `_stop` decides what may
  still move.
* `_port` (async, from any loop) and `_session` (blocking, from any thread) hand exchanges in and carry results out.

What the broker adds is what concerns several ports: one latch for stop-all, one fixed order for acquiring more than one
(sorted by name, so that two who want the same two never wait for each other), and one place that closes everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import msgspec

from duodaq import clock
from duodaq.errors import ConfigError, LifecycleError, PortError, PortLostError, PortTimeoutError
from duodaq.model import ComponentReport, Outcome, PortDefinition, WireRecord
from duodaq.ports._bus_codec import codec_on
from duodaq.ports._codec import PortCodec
from duodaq.ports._exchange import Exchange
from duodaq.ports._fence import Fences
from duodaq.ports._here import announce_ports, withdraw_ports
from duodaq.ports._make import make_transport
from duodaq.ports._owner import PortOwner
from duodaq.ports._port import LEASE_WAIT_S, Lease, Port, on_owner_loop
from duodaq.ports._queue import Lane, Ticket
from duodaq.ports._session import BlockingSession
from duodaq.ports._status import PortState, PortStatus
from duodaq.ports._stop import Latch
from duodaq.ports._transport import Transport
from duodaq.ports._virtual import VirtualPort
from duodaq.ports._visa_process import SpawnWorker
from duodaq.ports._visa_workers import PortWorkers
from duodaq.ports._wirelog import WireLog
from duodaq.telemetry import current_trace_id, get_logger

_T = TypeVar("_T")
LineListener = Callable[[str, int | None], None]
PortListener = Callable[[str, PortDefinition | None], None]
_log = get_logger("ports")


class Broker:
    """Owns ports. It lives on the event loop on which the first port is added; all of it may be used from any other.

    Args:
        wire_log_size: How many records each port's wire log keeps.
        lab: Whose ports; with a name, drivers in this process find them by `ports_here` until the broker is closed.
        spawn_worker: Makes the processes in which VISA libraries run; without it there are no such ports.
    """

    def __init__(self, *, wire_log_size: int = 65536, lab: str = "", spawn_worker: SpawnWorker | None = None) -> None:
        self.lab = lab
        self._port_workers = PortWorkers(spawn_worker)
        self._wire_log_size = wire_log_size
        self._owners: dict[str, PortOwner] = {}
        self._virtual: dict[str, VirtualPort] = {}
        self._latch = Latch()
        self.fences = Fences()
        self._listeners: tuple[Callable[[str, int], None], ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line_listeners: list[LineListener] = []
        self._port_listeners: tuple[PortListener, ...] = ()
        self._logs: dict[str, WireLog] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which the ports live."""
        if self._loop is None:
            raise LifecycleError("the broker has no port yet, so no loop either")
        return self._loop

    # --- ports

    async def add(
        self, definition: PortDefinition, codec: PortCodec | None = None, transport: Transport | None = None
    ) -> Port:
        """Add a port, closed. Without a `transport` the definition's own is made.

        Raises:
            ConfigError: The name is taken, or the definition leads nowhere.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            announce_ports(self.lab, self)
        return await self._at_home(lambda: self._add(definition, codec, transport))

    async def _add(self, definition: PortDefinition, codec: PortCodec | None, transport: Transport | None) -> Port:
        if definition.name in self._owners:
            raise ConfigError(f"there are two ports named '{definition.name}'", remedy="Rename one of them.")
        line = transport if transport is not None else make_transport(definition, self._port_workers)
        log = self._logs.setdefault(definition.name, WireLog(self._wire_log_size))  # one that comes back goes on in it
        owner = PortOwner(definition, codec_on(definition, codec), line, self._latch, log, self._tell_stop)
        owner.line_changed = self._line_changed
        owner.fences = self.fences
        if definition.virtual is not None:
            self._virtual[definition.name] = VirtualPort(owner, definition.virtual)
        self._owners[definition.name] = owner
        self._tell_port(definition.name, definition)
        return Port(owner)

    async def open(self, name: str, timeout_s: float = 5.0) -> None:
        """Open a port, and its virtual one if it has one. An open port stays as it is.

        Raises:
            PortOpenError, PortBusyError: It cannot be opened; nothing is held.
        """
        await self._at_home(lambda: self._open(name, timeout_s))

    async def _open(self, name: str, timeout_s: float) -> None:
        await self._owner(name).open(timeout_s)
        try:
            if name in self._virtual:
                self._virtual[name].open()
        except PortError:
            await self._owner(name).aclose(0.5)
            raise

    async def open_later(self, name: str, why: str) -> None:
        """Have a port that could not be opened tried again, by itself, as one whose line was lost."""
        await self._at_home(lambda: self._open_later(name, why))

    async def _open_later(self, name: str, why: str) -> None:
        owner = self._owner(name)
        if owner.state is PortState.CLOSED:
            owner.state = PortState.OPEN
            owner.transport_lost(PortLostError(why, port=name))

    async def remove(self, name: str, timeout_s: float = 1.0) -> ComponentReport:
        """Close a port and forget it; what its wire log keeps is there for a port of that name that may come."""
        return await self._at_home(lambda: self._remove(name, timeout_s))

    async def _remove(self, name: str, timeout_s: float) -> ComponentReport:
        owner = self._owner(name)
        report = await self._close(owner, timeout_s)
        if self._owners.get(name) is owner:  # two may remove it at once
            del self._owners[name]
            self._virtual.pop(name, None)
            self._tell_port(name, None)
        return report

    def virtual(self, name: str) -> VirtualPort:
        """The virtual port of that port.

        Raises:
            ConfigError: It has none.
        """
        if name not in self._virtual:
            raise ConfigError(f"port '{name}' has no virtual port", remedy="Give it one: virtual = { tcp = 5030 }")
        return self._virtual[name]

    async def close_virtual(self) -> None:
        """Hang up on all programs outside, and let none in: before the safe state, so that none undoes it."""
        if self._loop is not None:
            await self._at_home(self._hang_up)

    async def _hang_up(self) -> None:
        for virtual in self._virtual.values():
            virtual.close()

    async def aclose(self, timeout_s: float = 2.0) -> tuple[ComponentReport, ...]:
        """Close every port, all within `timeout_s`. Idempotent; a port that does not close is reported, not raised."""
        if self._loop is None:
            return ()
        withdraw_ports(self.lab, self)
        return await self._at_home(lambda: self._close_all(timeout_s))

    async def _close_all(self, timeout_s: float) -> tuple[ComponentReport, ...]:
        owners = tuple(self._owners.values())
        return tuple(await asyncio.gather(*(self._close(owner, timeout_s) for owner in owners)))

    async def _close(self, owner: PortOwner, timeout_s: float) -> ComponentReport:
        begun_s, outcome, why = clock.monotonic_s(), Outcome.CLEAN, ""
        if owner.name in self._virtual:
            self._virtual[owner.name].close()
        held = owner.queue.held
        if held is not None:
            outcome, why = Outcome.FORCED, f"held by {held.holder}"
        try:
            await asyncio.wait_for(owner.aclose(timeout_s / 2), timeout_s)
            outcome, why = owner.unclosed() or (outcome, why)
        except TimeoutError:
            outcome, why = Outcome.LEAKED, f"did not close within {timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - closing goes on whatever one port does
            outcome, why = Outcome.LEAKED, str(error)
        return ComponentReport(f"port.{owner.name}", outcome, why, clock.monotonic_s() - begun_s)

    def port(self, name: str) -> Port:
        """The port of that name, for use from any loop."""
        return Port(self._owner(name))

    def session(
        self, port: str, holder: str, *, hold_max_s: float | None = None, impatient: bool = False
    ) -> BlockingSession:
        """A session of `holder` for blocking code, usable from any thread but the broker's own.

        One that is `impatient` is refused while somebody has locked the port, instead of waiting for it.
        """
        return BlockingSession(self._owner(port), holder, hold_max_s, impatient=impatient)

    def owner(self, name: str) -> PortOwner:
        """The owner of that port; on the broker's loop only.

        Raises:
            ConfigError: There is none of that name.
        """
        return self._owner(name)

    def names(self) -> tuple[str, ...]:
        """The names of all ports."""
        return tuple(self._owners)

    def has_removed(self, name: str) -> bool:
        """Whether there was a port of this name, which was removed."""
        return name in self._logs and name not in self._owners

    @asynccontextmanager
    async def acquire_many(
        self, names: Iterable[str], holder: str, timeout_s: float = LEASE_WAIT_S
    ) -> AsyncGenerator[dict[str, Lease]]:
        """Hold several ports at once, acquired in one fixed order, all within `timeout_s` or none."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        async with AsyncExitStack() as stack:
            leases: dict[str, Lease] = {}
            for name in sorted(set(names)):
                waiting = self.port(name).lease(holder, timeout_s=max(0.0, deadline - loop.time()))
                leases[name] = await stack.enter_async_context(waiting)
            yield leases

    # --- owners

    async def fence(self, instrument: str, holder: str, port: str | None) -> None:
        """Let only `holder` write for `instrument` from now on, on every port; see `Fences`.

        An exchange in hand ends; who waits for `port` in an older name is refused, and so is all it sends later.

        Raises:
            FencedError: `holder` is no newer owner than the present one. Nothing was changed.
        """
        if self._loop is None:
            self.fences.give(instrument, holder)
        else:
            await self._at_home(lambda: self._fence(instrument, holder, port))

    async def _fence(self, instrument: str, holder: str, port: str | None) -> None:
        self.fences.give(instrument, holder)
        if port is not None and port in self._owners:
            owner = self._owners[port]
            owner.books.fenced(holder)
            self.fences.keep_off(owner)

    # --- stop

    @property
    def latched(self) -> bool:
        """Whether a stop-all is in force."""
        return self._latch.closed

    @property
    def latched_by(self) -> str:
        """Who did the stop-all that is in force."""
        return self._latch.by if self._latch.closed else ""

    def subscribe_stops(self, listener: Callable[[str, int], None]) -> Callable[[], None]:
        """Call `listener` with (port, epoch) whenever a stop ends motions on a port, and with ("", 1 or 0) when the
        latch is closed or opened: before that call returns, in its thread. Call the result to end that.
        """
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

        return unsubscribe

    def _tell_stop(self, port: str, epoch: int) -> None:
        if port in self._virtual:
            on_owner_loop(self._owner(port), self._virtual[port].sweep, epoch - 1)
        for listener in self._listeners:
            listener(port, epoch)

    def definitions(self) -> dict[str, PortDefinition]:
        """The definition of every port, by name. From any thread."""
        return {name: owner.definition for name, owner in tuple(self._owners.items())}

    def epochs(self) -> dict[str, int]:
        """The stop epoch of every port. From any thread."""
        return {name: owner.epoch for name, owner in tuple(self._owners.items())}

    def reset_latch(self, who: str) -> None:
        """Let things move again, in the name of a person."""
        if self._latch.closed:
            _log.warning("stop-all was reset", by=who, latched_by=self._latch.by)
        self._latch.open()
        self._tell_stop("", 0)

    def latch(self, who: str) -> None:
        """Refuse from now on everything that moves or emits, on every port."""
        self._latch.close(who)
        self._tell_stop("", 1)

    def end_moving(self, port: str) -> None:
        """From now on no lease, session call or request that began before may write bytes that move or emit."""
        self._owner(port).end_moving()

    async def stop(
        self,
        port: str,
        data: bytes | None = None,
        holder: str = "stop",
        *,
        ends_moving: bool = True,
        timeout_s: float = 5.0,
    ) -> int:
        """Put stop bytes on the wire before everything else: at once if they break in, else after the exchange in hand.

        Args:
            port: Which.
            data: The bytes; by default what the codec says stops everything.
            holder: In whose name.
            ends_moving: Whether moving bytes of everybody who began before are refused from now on.
            timeout_s: How long at most the exchange in hand is waited for.

        Returns:
            t_ns (UTC) when the bytes were handed to the line.

        Raises:
            LifecycleError: There are no such bytes.
            PortTimeoutError, PortLostError: The line did not take them.
        """
        return await self._at_home(lambda: self._stop(port, data, holder, ends_moving, timeout_s))

    async def _stop(self, port: str, data: bytes | None, holder: str, ends_moving: bool, timeout_s: float) -> int:
        owner = self._owner(port)
        request = data if data is not None else (owner.codec.stop_bytes(None) if owner.codec is not None else None)
        if not request:
            if ends_moving:
                self.end_moving(port)
            raise LifecycleError("nothing is known that stops what is on this port", port=port)
        written: asyncio.Future[int] = self.loop.create_future()

        def done(_: bytes, error: BaseException | None) -> None:
            if error is not None and not written.done():
                written.set_exception(error)

        framing = owner.codec.expects_reply(request) if owner.codec is not None else None
        ticket = Ticket(holder, Lane.SAFETY, lambda _: None)
        exchange = Exchange(ticket, request, framing, owner.definition.timeout_s, done, current_trace_id())
        exchange.on_written = lambda t_ns: None if written.done() else written.set_result(t_ns)
        owner.stop(exchange, ends_moving)
        await asyncio.wait({written}, timeout=timeout_s)
        if not written.done():
            raise PortTimeoutError(f"the stop was not on the wire within {timeout_s:g} s; it still waits", port=port)
        return written.result()

    async def stop_all(self, stops: Mapping[str, bytes | None], who: str = "stop-all") -> dict[str, int | Exception]:
        """Latch, and put stop bytes on every port named, all at once.

        Args:
            stops: Port name → its bytes, or None for what its codec knows.
            who: In whose name it is latched.

        Returns:
            For each port t_ns when it was on the wire, or what prevented it. Never raises for a port.
        """
        self.latch(who)
        if self._loop is None:
            missing = "there is no such port, nor any other"
            return {port: LifecycleError(missing, port=port) for port in stops}
        return await self._at_home(lambda: self._stop_all(stops, who))

    async def _stop_all(self, stops: Mapping[str, bytes | None], who: str) -> dict[str, int | Exception]:
        async def one(port: str, data: bytes | None) -> int | Exception:
            try:
                return await self._stop(port, data, who, True, 5.0)
            except Exception as error:  # noqa: BLE001 - the others are stopped whatever happens to one
                return error

        ended = await asyncio.gather(*(one(port, data) for port, data in stops.items()))
        return dict(zip(stops, ended, strict=True))

    # --- what is known

    def status(self) -> tuple[PortStatus, ...]:
        """What is known of every port now. From any thread."""
        return tuple(self._status(owner) for owner in tuple(self._owners.values()))

    def _status(self, owner: PortOwner) -> PortStatus:
        status, virtual = owner.status(), self._virtual.get(owner.name)
        if virtual is None:
            return status
        return msgspec.structs.replace(status, virtual=virtual.addresses, clients=virtual.guests())

    def log(self, port: str) -> tuple[WireRecord, ...]:
        """The last records of a port's wire log, oldest first. From any thread."""
        return self._owner(port).books.log.records()

    def log_source(self, port: str) -> Callable[[int], list[WireRecord]]:
        """What gives a port's kept records behind a number, from any thread: see `WireLog.after`."""
        return self._owner(port).books.log.after

    def subscribe_log(self, port: str, listener: Callable[[WireRecord], None]) -> Callable[[], None]:
        """Call `listener` with every record from now on, on the broker's loop; call the result to end that."""
        return self._owner(port).books.log.subscribe(listener)

    def subscribe_lines(self, listener: LineListener) -> Callable[[], None]:
        """Call `listener` with a port's name and its line's descriptor whenever that is opened, lost or closed (None).

        On the broker's loop, in the step in which it happens; to be subscribed there, and told at once of each line
        that is open already. The descriptor may be duplicated and is not the listener's to close. It is None too for
        an open line that has none. Call the result to end it.
        """
        self._line_listeners.append(listener)
        for owner in self._owners.values():
            if owner.state in (PortState.OPEN, PortState.RESYNC):
                self._tell_line(listener, owner.name, owner.transport.descriptor)
        return lambda: self._line_listeners.remove(listener) if listener in self._line_listeners else None

    def subscribe_losses(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener` with a port's name whenever its line is lost, on the broker's loop, until the result is."""

        def changed(port: str, descriptor: int | None) -> None:
            if descriptor is None and self._owner(port).state is PortState.LOST:
                listener(port)

        return self.subscribe_lines(changed)

    def subscribe_ports(self, listener: PortListener) -> Callable[[], None]:
        """Call `listener` with the name and the definition of each port that is added, closed as yet, and with a name
        and None of each that was removed: on the broker's loop, in that step. Call the result to end it.
        """
        self._port_listeners = (*self._port_listeners, listener)

        def unsubscribe() -> None:
            self._port_listeners = tuple(one for one in self._port_listeners if one is not listener)

        return unsubscribe

    # --- within

    def _tell_port(self, name: str, definition: PortDefinition | None) -> None:
        for listener in self._port_listeners:
            listener(name, definition)

    def _line_changed(self, port: str, descriptor: int | None) -> None:
        for listener in tuple(self._line_listeners):
            self._tell_line(listener, port, descriptor)

    def _tell_line(self, listener: LineListener, port: str, descriptor: int | None) -> None:
        try:
            listener(port, descriptor)
        except Exception as error:  # noqa: BLE001 - the port works on whatever a listener raises
            _log.error("a listener of lines failed", port=port, error=f"{type(error).__name__}: {error}")

    def _owner(self, name: str) -> PortOwner:
        owner = self._owners.get(name)
        if owner is None:
            known = ", ".join(sorted(self._owners)) or "none"
            raise ConfigError(f"there is no port named '{name}'", remedy=f"Ports here: {known}.")
        return owner

    async def _at_home(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run `work` on the broker's loop, from whichever loop this is; cancellation goes along."""
        home = self.loop
        if asyncio.get_running_loop() is home:
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), home))
