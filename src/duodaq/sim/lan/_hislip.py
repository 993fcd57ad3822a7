"""A HiSLIP server (IVI-6.1, version 1.0, synchronised mode) as an endpoint of a simulator.

Rules that whoever edits this must keep:

* A session is two connections; what needs both waits for the second. Its number is the simulator's client.
* A reply carries the id of the client's latest message, or the client throws it away.
* A reply counts as fetched when the client says so (RMT-delivered), not when it was sent. A message before that
  interrupts: what was to come is forgotten, Interrupted goes out on both channels, and the instrument sees -410.
* Between AsyncDeviceClear and DeviceClearComplete nothing of that session is carried out, and nothing sent to it.
* Messages of a client whom a lock keeps out wait, in order; status queries and device clears do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from duodaq.sim.lan._bus import Bus, NoBus
from duodaq.sim.lan._device_lock import DeviceLock
from duodaq.sim.lan._hislip_message import (
    ANY_ID,
    HEADER,
    LONGEST,
    RMT_DELIVERED,
    BadHeaderError,
    Fatal,
    Fault,
    HislipMessage,
    Kind,
    MessageReader,
)
from duodaq.sim.lan._sockets import Listener, Peer

_VERSION = 0x0100
_VENDOR = int.from_bytes(b"DQ", "big")
_PREFIX = b"hislip"


class _Session:
    """What a server knows of one client."""

    def __init__(self, number: int, sync: Peer) -> None:
        self.number = number
        self.sync = sync
        self.asynchronous: Peer | None = None
        self.latest_id = ANY_ID
        self.most = LONGEST
        self.clearing = False
        self.undelivered = 0
        self.interrupted = 0
        self.message = bytearray()
        self.held: deque[HislipMessage] = deque()

    def say(self, kind: Kind, control: int = 0, parameter: int = 0, payload: bytes = b"") -> None:
        self.sync.write(HislipMessage(kind, control, parameter, payload).encode())

    def say_beside(self, kind: Kind, control: int = 0, parameter: int = 0, payload: bytes = b"") -> None:
        if self.asynchronous is not None:
            self.asynchronous.write(HislipMessage(kind, control, parameter, payload).encode())


class HislipEndpoint:
    """A TCP port on this machine on which up to `max_clients` clients speak HiSLIP with one simulator.

    `address` is its VISA resource name.
    """

    def __init__(self, port: int = 0, *, max_clients: int = 16) -> None:
        self.address = ""
        self.bus: Bus = NoBus()
        self.on_open: Callable[[int], None] = lambda _: None
        self.on_data: Callable[[int, bytes], None] = lambda _client, _data: None
        self.on_close: Callable[[int], None] = lambda _: None
        self.refused = 0
        self._max_clients = max_clients
        self._listener = Listener(port, self._accept)
        self._sessions: dict[int, _Session] = {}
        self._takes: dict[Peer, Callable[[HislipMessage], None]] = {}
        self._lock = DeviceLock(self._lock_changed)
        self._last = 0

    def open(self) -> None:
        """Listen; the port stays the same across unplugging."""
        self._listener.open()
        self.address = f"TCPIP0::{self._listener.host}::hislip0,{self._listener.port}::INSTR"

    def close(self) -> None:
        """Hang up on everybody and listen no more."""
        self._listener.close()
        for session in tuple(self._sessions.values()):
            self._end(session)
        for peer in tuple(self._takes):
            peer.close()
        self._takes.clear()

    def power_off(self) -> None:
        """Listen no more; who is connected hears nothing, not even an end."""
        self._listener.close()
        for peer in self._takes:
            peer.fall_silent()

    def power_on(self) -> None:
        """Hang up on those from before, and listen again."""
        self.close()
        self.open()

    def send(self, client: int, data: bytes, ends: bool = True) -> None:
        """A piece of a reply; `ends`: with its END."""
        session = self._sessions.get(client)
        if session is None or session.clearing:
            return
        session.undelivered += len(data)
        most = max(1, session.most - HEADER.size)
        pieces = [data[at : at + most] for at in range(0, len(data), most)] or [b""]
        for index, piece in enumerate(pieces):
            last = ends and index == len(pieces) - 1
            session.say(Kind.DATA_END if last else Kind.DATA, 0, session.latest_id, piece)

    def unread(self, client: int) -> int:
        """Bytes of a reply of which the client has not said that it has them, or that it has interrupted."""
        session = self._sessions.get(client)
        return session.undelivered + session.interrupted if session is not None else 0

    def request_service(self) -> None:
        """The instrument asks for service: tell every client."""
        for session in tuple(self._sessions.values()):
            session.say_beside(Kind.ASYNC_SERVICE_REQUEST, self.bus.poll(session.number))

    # --- connections

    def _accept(self, peer: Peer) -> None:
        reader = MessageReader()
        self._takes[peer] = lambda message: self._greet(peer, message)
        peer.on_data = lambda data: self._read(peer, reader, data)
        peer.on_end = lambda: self._forget(peer)

    def _read(self, peer: Peer, reader: MessageReader, data: bytes) -> None:
        try:
            for message in reader.feed(data):
                take = self._takes.get(peer)
                if take is None:
                    return
                take(message)
        except BadHeaderError:
            self._refuse(peer, Fatal.BAD_HEADER, "Poorly formed message header")

    def _forget(self, peer: Peer) -> None:
        self._takes.pop(peer, None)
        for session in tuple(self._sessions.values()):
            if peer in (session.sync, session.asynchronous):
                self._end(session)

    def _refuse(self, peer: Peer, why: Fatal, text: str) -> None:
        peer.write(HislipMessage(Kind.FATAL_ERROR, why, 0, text.encode()).encode())
        peer.close()
        self._forget(peer)

    def _greet(self, peer: Peer, message: HislipMessage) -> None:
        if message.kind == Kind.INITIALIZE and message.payload.lower().startswith(_PREFIX):
            self._initialize(peer)
        elif message.kind == Kind.ASYNC_INITIALIZE and message.parameter in self._sessions:
            self._initialize_beside(peer, self._sessions[message.parameter])
        else:
            self._refuse(peer, Fatal.BAD_INITIALIZATION, "Invalid Initialization sequence")

    def _initialize(self, peer: Peer) -> None:
        if len(self._sessions) >= self._max_clients:
            self.refused += 1
            self._refuse(peer, Fatal.TOO_MANY_CLIENTS, "Server refused connection: maximum number of clients exceeded")
            return
        self._last = self._last % 0xFFFF + 1
        session = self._sessions[self._last] = _Session(self._last, peer)
        self._takes[peer] = lambda message: self._sync_said(session, message)
        session.say(Kind.INITIALIZE_RESPONSE, 0, _VERSION << 16 | session.number)

    def _initialize_beside(self, peer: Peer, session: _Session) -> None:
        if session.asynchronous is not None:
            self._refuse(peer, Fatal.BAD_INITIALIZATION, "That session has both channels")
            return
        session.asynchronous = peer
        self._takes[peer] = lambda message: self._async_said(session, message)
        session.say_beside(Kind.ASYNC_INITIALIZE_RESPONSE, 0, _VENDOR)
        self.on_open(session.number)

    def _end(self, session: _Session) -> None:
        if self._sessions.pop(session.number, None) is None:
            return
        for peer in (session.sync, session.asynchronous):
            if peer is not None:
                self._takes.pop(peer, None)
                peer.close()
        if session.asynchronous is not None:
            self.on_close(session.number)
        self._lock.forget(session.number)

    # --- the synchronous channel

    def _sync_said(self, session: _Session, message: HislipMessage) -> None:
        if session.asynchronous is None:
            self._refuse(session.sync, Fatal.NOT_BOTH_CHANNELS, "Both channels are needed first")
        elif message.kind == Kind.DEVICE_CLEAR_COMPLETE:
            session.clearing, session.latest_id = False, ANY_ID
            session.say(Kind.DEVICE_CLEAR_ACKNOWLEDGE)
        elif session.clearing:
            return
        elif message.kind in (Kind.DATA, Kind.DATA_END, Kind.TRIGGER):
            if session.held or not self._lock.admits(session.number):
                session.held.append(message)
            else:
                self._take(session, message)
        elif message.kind == MessageReader.TOO_LARGE:
            session.say(Kind.ERROR, Fault.TOO_LARGE, 0, b"Message too large")
        elif message.kind != Kind.FATAL_ERROR:
            session.say(Kind.ERROR, Fault.UNKNOWN_TYPE, 0, b"Unrecognized Message Type")

    def _take(self, session: _Session, message: HislipMessage) -> None:
        session.interrupted = 0
        if message.control & RMT_DELIVERED:
            session.undelivered = 0
        owed = session.undelivered + self.bus.owed(session.number)
        if owed and not session.message:
            session.interrupted, session.undelivered = owed, 0
            self.bus.discard(session.number)
            session.say(Kind.INTERRUPTED, 0, message.parameter)
            session.say_beside(Kind.ASYNC_INTERRUPTED, 0, message.parameter)
        session.latest_id = message.parameter
        if message.kind == Kind.TRIGGER:
            self.bus.trigger(session.number)
            return
        session.message += message.payload
        if message.kind == Kind.DATA_END:
            whole = bytes(session.message)
            session.message.clear()
            self.on_data(session.number, whole + b"\n")  # END ends a program message, also without a newline

    def _lock_changed(self) -> None:
        for session in tuple(self._sessions.values()):
            while session.held and self._lock.admits(session.number):
                self._take(session, session.held.popleft())

    # --- the asynchronous channel

    def _async_said(self, session: _Session, message: HislipMessage) -> None:
        match message.kind:
            case Kind.ASYNC_MAX_MESSAGE_SIZE:
                session.most = max(int.from_bytes(message.payload[:8], "big"), HEADER.size + 1)
                session.say_beside(Kind.ASYNC_MAX_MESSAGE_SIZE_RESPONSE, 0, 0, LONGEST.to_bytes(8, "big"))
            case Kind.ASYNC_STATUS_QUERY:
                if message.control & RMT_DELIVERED:
                    session.undelivered = 0
                session.say_beside(Kind.ASYNC_STATUS_RESPONSE, self.bus.poll(session.number))
            case Kind.ASYNC_DEVICE_CLEAR:
                self._clear(session)
                session.say_beside(Kind.ASYNC_DEVICE_CLEAR_ACKNOWLEDGE)
            case Kind.ASYNC_LOCK:
                self._lock_asked(session, message)
            case Kind.ASYNC_LOCK_INFO:
                exclusive = self._lock.exclusive is not None
                session.say_beside(Kind.ASYNC_LOCK_INFO_RESPONSE, int(exclusive), self._lock.holders)
            case Kind.ASYNC_REMOTE_LOCAL:
                session.say_beside(Kind.ASYNC_REMOTE_LOCAL_RESPONSE)
            case Kind.FATAL_ERROR:
                self._end(session)
            case _:
                session.say_beside(Kind.ERROR, Fault.UNKNOWN_TYPE, 0, b"Unrecognized Message Type")

    def _clear(self, session: _Session) -> None:
        session.clearing = True
        session.message.clear()
        session.held.clear()
        session.undelivered = session.interrupted = 0
        self.bus.device_clear(session.number)

    def _lock_asked(self, session: _Session, message: HislipMessage) -> None:
        number = session.number
        if message.control == 0:
            released = self._lock.release(number)
            session.say_beside(Kind.ASYNC_LOCK_RESPONSE, {"exclusive": 1, "shared": 2}.get(released or "", 3))
            return
        key = message.payload.decode("ascii", "replace")
        if self._lock.holds(number, key):
            session.say_beside(Kind.ASYNC_LOCK_RESPONSE, 3)
            return

        def told(granted: bool) -> None:
            session.say_beside(Kind.ASYNC_LOCK_RESPONSE, int(granted))

        self._lock.request(number, key, message.parameter / 1000, told)
