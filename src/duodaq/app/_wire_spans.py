"""Leases and exchanges as spans, read from the wire log as it is written: no port knows of it.

An exchange and its lease end in the record by which they end, which is known when the span around them ends: the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from duodaq.clock import utc_ns
from duodaq.model import WireRecord
from duodaq.ports import Broker, Ticket
from duodaq.telemetry import OpenSpan, OtelSpans

_MOST = 64
"""So many exchanges of one call are held open; of more, the oldest ends."""
_LONGEST = 2000
_FAILED = "!"


@dataclass(slots=True)
class _Exchange:
    span: Any
    holder: str
    last_ns: int
    request: bytearray = field(default_factory=bytearray)
    reply: bytearray = field(default_factory=bytearray)
    failure: str = ""
    over: bool = False


@dataclass(slots=True)
class _Call:
    """What a call has at the ports: its exchanges, and the lease that it had last at each."""

    exchanges: dict[tuple[str, int], _Exchange] = field(default_factory=dict[tuple[str, int], _Exchange])
    leases: dict[str, tuple[Ticket, Any, int]] = field(default_factory=dict[str, "tuple[Ticket, Any, int]"])


class WireSpans:
    """Makes spans of what passes the ports of a broker; to be made and used on its loop."""

    def __init__(self, broker: Broker, spans: OtelSpans) -> None:
        self._broker = broker
        self._spans = spans
        self._calls: dict[int, _Call] = {}
        self._where: dict[tuple[str, int], int] = {}
        self._last: dict[str, _Exchange] = {}
        self._leave: dict[str, Callable[[], None]] = {}
        for name in broker.names():
            self._listen(name)
        self._no_ports = broker.subscribe_ports(lambda name, definition: self._listen(name) if definition else None)

    def close(self) -> None:
        """Listen no more."""
        self._no_ports()
        for leave in self._leave.values():
            leave()
        self._leave = {}

    def _listen(self, name: str) -> None:
        """Hear a port; one that comes back under its name is heard already, for its log goes on."""
        if name not in self._leave:
            self._leave[name] = self._broker.subscribe_log(name, self._heard)

    def _heard(self, record: WireRecord) -> None:
        if not record.exchange:
            self._heard_between(record)
            return
        if record.trace_id is None:
            self._last.pop(record.port, None)
            return
        key = (record.port, record.exchange)
        call = self._calls.get(self._where.get(key, 0))
        exchange = None if call is None else call.exchanges.get(key)
        if exchange is None:
            exchange = self._begin(record, key)
        if exchange is None:
            return
        self._last[record.port] = exchange
        exchange.last_ns = record.t_ns
        if record.direction == _FAILED:
            exchange.failure = record.data.decode("utf-8", "replace")
        else:
            (exchange.request if record.direction == ">" else exchange.reply).extend(record.data[:_LONGEST])

    def _heard_between(self, record: WireRecord) -> None:
        """On a port without codec a reply comes behind its exchange, and belongs to whoever made the last one."""
        exchange = self._last.get(record.port)
        if exchange is not None and record.direction == "<" and record.holder == exchange.holder and not exchange.over:
            exchange.last_ns = record.t_ns
            exchange.reply.extend(record.data[:_LONGEST])

    def _begin(self, record: WireRecord, key: tuple[str, int]) -> _Exchange | None:
        around = self._spans.around(record.trace_id, record.holder)
        if around is None:
            return None
        number = id(around)
        call = self._calls.get(number)
        if call is None:
            call = self._calls[number] = _Call()
            around.on_end.append(lambda now_ns: self._end(number))
        parent = self._lease(record, call, around)
        facts = {"port": record.port, "holder": record.holder, "exchange": record.exchange}
        span = self._spans.begin("exchange", around.trace_id, parent, facts, record.t_ns)
        exchange = call.exchanges[key] = _Exchange(span, record.holder, record.t_ns)
        self._where[key] = number
        if len(call.exchanges) > _MOST:
            self._end_exchange(call, next(iter(call.exchanges)))
        return exchange

    def _lease(self, record: WireRecord, call: _Call, around: OpenSpan) -> Any:
        """The context of the lease under which this exchange is made; the call's own if there is none."""
        owner = self._broker.owner(record.port)
        ticket = owner.queue.held
        if ticket is None or ticket.granted_s is None:
            return self._spans.context_of(around)
        before = call.leases.get(record.port)
        if before is not None and before[0] is ticket:
            call.leases[record.port] = (ticket, before[1], record.t_ns)
            return before[1].get_span_context()
        if before is not None:
            self._spans.finish(before[1], before[2], None)
        asked_ns = utc_ns() - round((owner.loop.time() - ticket.asked_s) * 1e9)  # the record is a moment old
        facts = {"port": record.port, "holder": ticket.holder, "wait_s": ticket.granted_s - ticket.asked_s}
        parent = self._spans.context_of(around)
        span = self._spans.begin("lease", around.trace_id, parent, facts, min(asked_ns, record.t_ns))
        call.leases[record.port] = (ticket, span, record.t_ns)
        return span.get_span_context()

    def _end(self, number: int) -> None:
        call = self._calls.pop(number)
        for key in tuple(call.exchanges):
            self._end_exchange(call, key)
        for _, span, last_ns in call.leases.values():
            self._spans.finish(span, last_ns, None)

    def _end_exchange(self, call: _Call, key: tuple[str, int]) -> None:
        one = call.exchanges.pop(key)
        one.over = True
        self._where.pop(key, None)
        lease = call.leases.get(key[0])
        if lease is not None:
            call.leases[key[0]] = (lease[0], lease[1], max(lease[2], one.last_ns))
        one.span.set_attribute("duodaq.request", _text(one.request))
        one.span.set_attribute("duodaq.reply", _text(one.reply))
        one.span.set_attribute("duodaq.sent_bytes", len(one.request))
        one.span.set_attribute("duodaq.heard_bytes", len(one.reply))
        if one.failure:
            one.span.set_attribute("duodaq.error", one.failure)
        self._spans.finish(one.span, one.last_ns, None)


def _text(data: bytearray) -> str:
    return bytes(data[:_LONGEST]).decode("latin-1").encode("unicode_escape").decode("ascii")
