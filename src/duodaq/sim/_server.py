"""Carries one simulator over one endpoint: pace of the line, order of replies, faults, plugs, counts.

The rules that must stay:

* Replies to one client leave in the order in which they were produced; a piece of one never overtakes another.
* `pending` given to the simulator is every byte of earlier replies that the client has not fetched: still in the
  outbox here, or unread on a pty. From that it tells an interleaved command from a patient one.
* Unpaced and without faults a reply leaves within the call that read its query; nothing is scheduled.
* A paced line takes time both ways: the instrument has a command once its last byte has arrived.
* A dead line (its plug is being pulled, or the instrument has no power) carries nothing, either way, not even later
  what was under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from duodaq.errors import PortLostError
from duodaq.sim._endpoint import Endpoint
from duodaq.sim._faults import Blow, Faults, Gremlin
from duodaq.sim._simulator import BusInstrument, Reply, Simulator
from duodaq.sim.lan import HislipEndpoint, Vxi11Endpoint
from duodaq.sim.table import Table

_DEPOSIT_S = 0.1
_CHUNK_S = 0.002
_PULL_S = 0.002
"""A plug is pulled so long after the last byte that went through it: until then the other side can read that."""
_MESSAGE_AVAILABLE = 1 << 4


class _Outbox:
    """What is on its way to one client: pieces with the moment each may leave, in order."""

    def __init__(self) -> None:
        self.pieces: deque[tuple[float, bytes, bool, bool]] = deque()
        self.free_s = 0.0
        self.size = 0
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class SimServer:
    """One simulated instrument, served. Belongs to the running loop; nothing in it waits or blocks for long."""

    def __init__(
        self,
        simulator: Simulator,
        endpoint: Endpoint,
        *,
        table: Table,
        label: str | None = None,
        paced: bool = True,
        faults: Faults | None = None,
        seed: int = 0,
    ) -> None:
        simulator.paced = paced
        self.simulator = simulator
        self.endpoint = endpoint
        self.label = label or simulator.name
        self._table = table
        self._paced = paced
        self._gremlin = Gremlin(faults or Faults(), seed)
        self._tell_lost: Callable[[PortLostError], None] | None = None
        self._outboxes: dict[int, _Outbox] = {}
        self._heard_s = 0.0
        self._due: asyncio.TimerHandle | None = None
        self._deposit_timer: asyncio.TimerHandle | None = None
        self._plugged = False
        self._unplugs = 0
        self._life = 0
        self._pulling: asyncio.TimerHandle | None = None
        self._booting: asyncio.TimerHandle | None = None
        self._service_requests = 0
        self._bus = endpoint if isinstance(endpoint, HislipEndpoint | Vxi11Endpoint) else None
        if self._bus is not None:
            self._bus.bus = self
        endpoint.on_open = self._opened
        endpoint.on_data = self._take
        endpoint.on_close = self._closed

    @property
    def address(self) -> str:
        """Where clients find it: a path, or host:port."""
        return self.endpoint.address

    def on_table_lost(self, tell: Callable[[PortLostError], None]) -> None:
        """Whom to tell when the optical table is gone."""
        self._tell_lost = tell

    def start(self) -> None:
        """Plug in."""
        self._loop = asyncio.get_running_loop()
        self.replug()

    def close(self) -> None:
        """Unplug for good and deposit the counts."""
        self.unplug()
        for timer in (self._due, self._deposit_timer, self._pulling, self._booting):
            if timer is not None:
                timer.cancel()
        self._deposit()

    def unplug(self) -> None:
        """Pull the plug: clients see the line die; the instrument itself stays powered."""
        if self._pulling is not None:
            self._pulling.cancel()
            self._pulling = None
        if self._plugged:
            self._plugged = False
            self._life += 1
            self._unplugs += 1
            self.endpoint.close()

    def replug(self) -> None:
        """Plug in again at the same address (the same link, the same TCP port)."""
        if not self._plugged:
            self.endpoint.open()
            self._plugged = True

    def power_cycle(self, boot_s: float = 0.0) -> None:
        """Switch the instrument off and on; what it was about to say is gone.

        Args:
            boot_s: How long it is deaf and mute. A serial adapter stays plugged in; an instrument with a socket of its
                own knows nothing of its connections any more when it is back.
        """
        self._lose_what_is_under_way()
        self._guarded(self.simulator.power_cycle)
        if boot_s > 0:
            self.endpoint.power_off()
            self._booting = self._loop.call_later(boot_s, self._booted)
        self._watch_due()

    def _booted(self) -> None:
        self._booting = None
        self._guarded(self.simulator.power_cycle)
        if self._plugged:
            self.endpoint.power_on()
        self._watch_due()

    def _lose_what_is_under_way(self) -> None:
        self._life += 1
        for outbox in self._outboxes.values():
            self._empty(outbox)

    @property
    def _is_dead(self) -> bool:
        return self._pulling is not None or self._booting is not None

    def _strike(self, blow: Blow) -> None:
        if blow is Blow.CYCLE:
            self.power_cycle(self._gremlin.faults.boot_s)
        elif self._pulling is None:
            self._lose_what_is_under_way()
            self._pulling = self._loop.call_later(_PULL_S, self.unplug)

    def set_faults(self, faults: Faults) -> None:
        """Misbehave like this from now on; without `stall`, what was held back comes, late."""
        self._gremlin.set(faults)
        for client, outbox in self._outboxes.items():
            self._pump(client, outbox)

    def set_fault_fields(self, fields: dict[str, Any]) -> None:
        """The same, from the fields of `Faults` by name, as the control line brings them."""
        self.set_faults(Faults.from_dict(fields))

    def report(self) -> dict[str, Any]:
        """What the instrument counted, and what was done to its replies on the way."""
        report = self.simulator.report()
        report["model"] = self.simulator.model
        report["faults_done"] = dict(self._gremlin.done)
        report["unplugged"] = self._unplugs
        self._table.tally(self.label, report)
        return report

    # What a front-end of HiSLIP or VXI-11 asks for

    def owed(self, client: int) -> int:
        """See `Bus`."""
        outbox = self._outboxes.get(client)
        return outbox.size if outbox is not None else 0

    def discard(self, client: int) -> None:
        """See `Bus`."""
        if client in self._outboxes:
            self._empty(self._outboxes[client])

    def device_clear(self, client: int) -> None:
        """See `Bus`."""
        self.discard(client)
        if client in self._outboxes:
            self._outboxes[client] = _Outbox()
        if isinstance(self.simulator, BusInstrument):
            self.simulator.device_clear(client)
        self._watch_due()

    def poll(self, client: int) -> int:
        """See `Bus`."""
        if not isinstance(self.simulator, BusInstrument):
            return 0
        unread = self.owed(client) or self.endpoint.unread(client)
        return self.simulator.serial_poll(self._loop.time()) | (_MESSAGE_AVAILABLE if unread else 0)

    def trigger(self, client: int) -> None:
        """See `Bus`."""
        self._feed(client, b"*TRG\n")

    def _opened(self, client: int) -> None:
        self._outboxes[client] = _Outbox()
        greeting = self.simulator.open_session(client, self._loop.time())
        if greeting:
            self._send(Reply(0.0, greeting, client))

    def _closed(self, client: int) -> None:
        self.simulator.close_session(client)
        outbox = self._outboxes.pop(client, None)
        if outbox is not None:
            self._empty(outbox)

    def _take(self, client: int, data: bytes) -> None:
        if self._is_dead:
            return
        data, blow = self._gremlin.heard(data)
        if data and self._paced:
            self._hear(client, data)
        elif data:
            self._feed(client, data)
        if blow is not None:
            self._strike(blow)

    def _hear(self, client: int, data: bytes) -> None:
        """Bytes are on a paced line: the instrument has them when the last has arrived."""
        now_s = self._loop.time()
        self._heard_s = max(self._heard_s, now_s) + len(data) * self.simulator.line.byte_s()
        self._loop.call_at(self._heard_s, self._arrived, self._life, client, data, self._outboxes.get(client))

    def _arrived(self, life: int, client: int, data: bytes, outbox: _Outbox | None) -> None:
        if life == self._life and outbox is self._outboxes.get(client):  # else it, or what it had sent, is gone
            self._feed(client, data)

    def _feed(self, client: int, data: bytes) -> None:
        outbox = self._outboxes.get(client)
        if outbox is None:
            return
        pending = outbox.size + self.endpoint.unread(client)
        try:
            replies = self.simulator.feed(data, self._loop.time(), client, pending)
        except PortLostError as exc:
            self._lost(exc)
            return
        self._say(replies)
        if self._deposit_timer is None:
            self._deposit_timer = self._loop.call_later(_DEPOSIT_S, self._deposit)

    def _send(self, reply: Reply) -> None:
        outbox = self._outboxes.get(reply.client)
        if outbox is None or not reply.data or self._is_dead:
            return
        if not self._paced and not reply.delay_s and not outbox.pieces and self._gremlin.idle:
            self.endpoint.send(reply.client, reply.data, reply.ends)
            return
        ready_s = self._loop.time() + reply.delay_s + (self.simulator.line.processing_s if self._paced else 0.0)
        ready_s = max(ready_s, outbox.free_s)
        pieces = [(0.0, reply.data)] if self._gremlin.idle else self._gremlin.spoil(reply.data)
        for index, (wait_s, piece) in enumerate(pieces):
            last = index == len(pieces) - 1
            ready_s = self._enqueue(outbox, ready_s + wait_s, piece, last=last, ends=last and reply.ends)
        outbox.free_s = ready_s
        self._pump(reply.client, outbox)

    def _enqueue(self, outbox: _Outbox, ready_s: float, data: bytes, *, last: bool, ends: bool) -> float:
        outbox.size += len(data)
        if not self._paced:
            outbox.pieces.append((ready_s, data, last, ends))
            return ready_s
        byte_s = self.simulator.line.byte_s()
        step = max(1, int(_CHUNK_S / byte_s))
        for first in range(0, len(data), step):
            chunk = data[first : first + step]
            ready_s += len(chunk) * byte_s
            final = first + step >= len(data)
            outbox.pieces.append((ready_s, chunk, last and final, ends and final))
        return ready_s

    def _pump(self, client: int, outbox: _Outbox) -> None:
        outbox.cancel()
        while outbox.pieces and not self._gremlin.faults.stall:
            ready_s, data, last, ends = outbox.pieces[0]
            if ready_s > self._loop.time():
                outbox.timer = self._loop.call_at(ready_s, self._pump, client, outbox)
                return
            outbox.pieces.popleft()
            outbox.size -= len(data)
            data, blow = self._gremlin.said(data)
            self.endpoint.send(client, data, ends and blow is None)
            if blow is not None:
                self._strike(blow)
                return
            if last and self._gremlin.pulls_plug():
                self.unplug()
                return

    @staticmethod
    def _empty(outbox: _Outbox) -> None:
        outbox.cancel()
        outbox.pieces.clear()
        outbox.size = 0
        outbox.free_s = 0.0

    def _watch_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        at_s = self.simulator.due_at_s()
        if at_s is not None and self._booting is None:
            self._due = self._loop.call_at(at_s, self._became_due)

    def _became_due(self) -> None:
        self._due = None
        try:
            replies = self.simulator.due(self._loop.time())
        except PortLostError as exc:
            self._lost(exc)
            return
        self._say(replies)

    def _say(self, replies: list[Reply]) -> None:
        for reply in replies:
            self._send(reply)
        self._watch_due()
        instrument = self.simulator
        if self._bus is not None and isinstance(instrument, BusInstrument):
            if instrument.service_requests > self._service_requests:
                self._bus.request_service()
            self._service_requests = instrument.service_requests

    def _guarded(self, action: Callable[[float], None]) -> None:
        try:
            action(self._loop.time())
        except PortLostError as exc:
            self._lost(exc)

    def _deposit(self) -> None:
        self._deposit_timer = None
        try:
            self.report()
        except PortLostError as exc:
            self._lost(exc)

    def _lost(self, exc: PortLostError) -> None:
        if self._tell_lost is None:
            raise exc
        self._tell_lost(exc)
