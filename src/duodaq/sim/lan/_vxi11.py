"""A VXI-11 server (core and abort channel) as an endpoint of a simulator.

Rules that whoever edits this, or its procedures, must keep:

* A link is a client of the simulator; it belongs to the connection on which it was made, and ends with it.
* One call of a connection is carried out at a time. One that has to wait (a read, a lock) is `Pending` until it is
  answered, which happens once; the calls behind it wait in order. An abort comes by the other channel.
* A reply waits here until it is read. A write before that interrupts: what was not read is forgotten, and the
  instrument sees -410.
* A write without the END flag is the beginning of a message; END ends it, also without a newline.
"""

from __future__ import annotations

from collections.abc import Callable

from duodaq.sim.lan import _rpc as rpc
from duodaq.sim.lan._bus import Bus, NoBus
from duodaq.sim.lan._sockets import Listener, Peer
from duodaq.sim.lan._vxi11_core import CoreChannel
from duodaq.sim.lan._vxi11_link import Fault, Line, Link

CORE, ABORT_CHANNEL, VERSION = 0x0607AF, 0x0607B0, 1


class Vxi11Endpoint:
    """A TCP port on this machine on which up to `max_clients` links of VXI-11 lead to one simulator.

    There is no port mapper, which would need port 111: clients are told the port. `address` is the VISA resource name
    in pyvisa-py's spelling, ``TCPIP0::host,port::inst0::INSTR``.
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
        self._aborts = Listener(0, self._accept_abort)
        self._lines: list[Line] = []
        self._abort_peers: list[Peer] = []
        self._core = CoreChannel(self, self._work)
        self._last = 0

    def open(self) -> None:
        """Listen; the port stays the same across unplugging."""
        self._listener.open()
        self._aborts.open()
        self._core.abort_port = self._aborts.port
        self.address = f"TCPIP0::{self._listener.host},{self._listener.port}::inst0::INSTR"

    def close(self) -> None:
        """Hang up on everybody and listen no more."""
        self._listener.close()
        self._aborts.close()
        for peer in self._abort_peers:
            peer.close()
        self._abort_peers.clear()
        for line in tuple(self._lines):
            self._hung_up(line)

    def power_off(self) -> None:
        """Listen no more; who is connected hears nothing, not even an end."""
        self._listener.close()
        self._aborts.close()
        for peer in (*self._abort_peers, *(line.peer for line in self._lines)):
            peer.fall_silent()

    def power_on(self) -> None:
        """Hang up on those from before, and listen again."""
        self.close()
        self.open()

    def send(self, client: int, data: bytes, ends: bool = True) -> None:
        """A piece of a reply, kept until it is read; `ends`: with its END."""
        link = self._core.links.get(client)
        if link is None:
            return
        link.reply += data
        if ends:
            link.ends.append(len(link.reply))
        self._core.look(link.line)

    def unread(self, client: int) -> int:
        """Bytes that were not read, or had not been read when the message in hand came."""
        link = self._core.links.get(client)
        return len(link.reply) + link.interrupted if link is not None else 0

    def request_service(self) -> None:
        """Nothing: no client has made an interrupt channel, which is not supported here."""

    # --- connections

    def _accept(self, peer: Peer) -> None:
        line = Line(peer)
        self._lines.append(line)
        peer.on_data = lambda data: self._heard(line, data)
        peer.on_end = lambda: self._hung_up(line)

    def _hung_up(self, line: Line) -> None:
        line.peer.close()
        if line in self._lines:
            self._lines.remove(line)
        if line.pending is not None and line.pending.timer is not None:
            line.pending.timer.cancel()
        line.pending = None
        for link in [one for one in self._core.links.values() if one.line is line]:
            self.destroy_link(link)

    def make_link(self, line: Line) -> Link | None:
        """A new client on `line`; None if there are too many."""
        if len(self._core.links) >= self._max_clients:
            self.refused += 1
            return None
        self._last += 1
        link = self._core.links[self._last] = Link(self._last, line)
        self.on_open(link.number)
        return link

    def destroy_link(self, link: Link) -> None:
        """A client has gone; its locks go with it."""
        del self._core.links[link.number]
        self._core.lock.forget(link.number)
        self.on_close(link.number)

    def _heard(self, line: Line, data: bytes) -> None:
        try:
            line.calls.extend(rpc.parse_call(record) for record in line.reader.feed(data))
        except rpc.GarbageError:
            self._hung_up(line)
            return
        self._work(line)

    def _work(self, line: Line) -> None:
        while line.calls and line.pending is None and line in self._lines:
            call = line.calls.popleft()
            line.number = call.number
            line.peer.write(self._refusal(call, CORE) or self._core.carry_out(line, call))

    def _refusal(self, call: rpc.Call, program: int) -> bytes:
        if not rpc.speaks_rpc_2(call):
            return rpc.other_rpc(call.number)
        if call.program != program:
            return rpc.no_such_program(call.number)
        return rpc.other_version(call.number, VERSION) if call.version != VERSION else b""

    # --- the abort channel

    def _accept_abort(self, peer: Peer) -> None:
        reader = rpc.RecordReader()
        self._abort_peers.append(peer)

        def heard(data: bytes) -> None:
            try:
                for record in reader.feed(data):
                    peer.write(self._abort(rpc.parse_call(record)))
            except rpc.GarbageError:
                peer.close()

        peer.on_data = heard
        peer.on_end = lambda: self._abort_peers.remove(peer)

    def _abort(self, call: rpc.Call) -> bytes:
        refusal = self._refusal(call, ABORT_CHANNEL)
        if refusal:
            return refusal
        if call.procedure != 1:
            return rpc.no_such_procedure(call.number) if call.procedure else rpc.success(call.number, b"")
        try:
            link = self._core.links.get(call.arguments.unsigned())
        except rpc.GarbageError:
            return rpc.garbage(call.number)
        if link is None:
            return rpc.success(call.number, rpc.words(Fault.INVALID_LINK))
        self._core.abort(link)
        return rpc.success(call.number, rpc.words(Fault.NONE))
