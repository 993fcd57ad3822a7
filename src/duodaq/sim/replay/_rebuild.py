"""From the records of a wire log to commands, each with what the device answered, as the device saw them.

An exchange is what its number holds together. Beyond that the device's own view counts: one line, on which commands
follow each other, whoever wrote them. A command is a line where (nearly) every request ends with CR or LF and none
without was answered. Elsewhere all that an exchange wrote is one request: a command, or, where it is text with an end
of line, its lines. What came while nothing was owed belongs to no command and is kept with its time.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from duodaq.model import WireRecord

_ENDS = re.compile(rb"[\r\n]+")
_LINES_AT_LEAST = 0.9
"""The share of requests that end with CR or LF where commands are lines; the rest was cut off by a fault."""
_TEXT = re.compile(rb"[ -~\t]+")


@dataclass(slots=True, eq=False)
class Command:
    """One recorded command and what came of it.

    Attributes:
        index: Its place among all commands of the recording, over all ports.
        key: Its bytes, without what ends a line.
        t_ns: When the line had taken it.
        ended: Whether an end of line followed it.
        traced: Whether it was written for an action, not by a poll: polls have no trace id, or one that goes on
            while other actions of that holder begin and end.
        reply: What the device answered: pieces, each with the seconds since the command.
        unasked: What the device said by itself before the next command, likewise.
        broken: No whole reply came, or nobody waited for it.
    """

    index: int
    port: str
    key: bytes
    t_ns: int
    traced: bool
    ended: bool = True
    reply: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])
    unasked: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])
    broken: bool = False

    @property
    def answer(self) -> bytes:
        """All of the reply."""
        return b"".join(data for _, data in self.reply)


@dataclass(slots=True, eq=False)
class _Exchange:
    holder: str
    written: bytes = b""
    commands: list[Command] = field(default_factory=list[Command])
    heard: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    broken: bool = False
    probe: bool = False


@dataclass(slots=True)
class _Wire:
    """One port while its records are read."""

    lines: bool
    polls: set[str]
    requests: dict[int, bytes]
    rest: bytes = b""
    exchanges: dict[int, _Exchange] = field(default_factory=dict[int, _Exchange])
    asked_by: dict[str, _Exchange] = field(default_factory=dict[str, _Exchange])
    last: _Exchange | None = None
    command: Command | None = None
    done: list[_Exchange] = field(default_factory=list[_Exchange])


def rebuild(records: Iterable[WireRecord]) -> tuple[list[Command], dict[str, bool]]:
    """The commands of a recording in the order in which they were written, and which ports speak in lines."""
    ordered = sorted(records, key=lambda record: record.t_ns)
    requests, failed = _requests(ordered)
    in_lines = _in_lines(requests, failed, ordered)
    wires = {port: _Wire(in_lines[port], _polls(ordered, port), requests[port]) for port in requests}
    commands: list[Command] = []
    for record in ordered:
        wire = wires[record.port]
        if record.direction == ">":
            _written(wire, record, commands)
        elif record.direction == "<":
            _heard(wire, record)
        elif record.exchange in wire.exchanges:
            wire.exchanges[record.exchange].broken = True
    for wire in wires.values():
        for exchange in wire.done:
            _settle(exchange, wire.lines)
    return commands, {port: wire.lines for port, wire in wires.items()}


def cut_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """The commands that are complete in `data`, and what is left of it; empty lines are nothing."""
    *complete, rest = _ENDS.split(data)
    return [line for line in (raw.strip() for raw in complete) if line], rest


def is_text(data: bytes) -> bool:
    """Whether it is a command that a person can read, behind which an end of line means nothing."""
    return _TEXT.fullmatch(data) is not None


def _requests(records: Sequence[WireRecord]) -> tuple[dict[str, dict[int, bytes]], set[tuple[str, int]]]:
    """By port, what each exchange wrote; and the exchanges that broke off."""
    requests: dict[str, dict[int, bytes]] = {}
    failed: set[tuple[str, int]] = set()
    for record in records:
        of_port = requests.setdefault(record.port, {})
        if record.direction == ">" and record.exchange:
            of_port[record.exchange] = of_port.get(record.exchange, b"") + record.data
        elif record.direction == "!":
            failed.add((record.port, record.exchange))
    return requests, failed


def _in_lines(
    requests: dict[str, dict[int, bytes]], failed: set[tuple[str, int]], records: Sequence[WireRecord]
) -> dict[str, bool]:
    """Which ports speak in lines. One answer to a request without an end shows that the device waits for none."""
    heard = {(record.port, record.exchange) for record in records if record.direction == "<"} - failed
    found: dict[str, bool] = {}
    for port, of_port in requests.items():
        bare = [number for number, request in of_port.items() if not request.endswith((b"\r", b"\n"))]
        few = len(of_port) - len(bare) >= _LINES_AT_LEAST * len(of_port)
        found[port] = few and not any((port, number) in heard for number in bare)
    return found


def _polls(records: Sequence[WireRecord], port: str) -> set[str]:
    """The trace ids on `port` that went on while others of the same holder began."""
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for record in records:
        if record.port == port and record.direction == ">" and record.trace_id is not None:
            whose = (record.holder, record.trace_id)
            spans[whose] = (spans.get(whose, (record.t_ns, 0))[0], record.t_ns)
    begun: dict[str, list[int]] = {}
    for (holder, _), (first_ns, _) in spans.items():
        begun.setdefault(holder, []).append(first_ns)  # in rising order, as the records are
    return {
        trace
        for (holder, trace), (first_ns, last_ns) in spans.items()
        if bisect_left(begun[holder], last_ns) > bisect_right(begun[holder], first_ns)
    }


def _written(wire: _Wire, record: WireRecord, commands: list[Command]) -> None:
    exchange = wire.exchanges.get(record.exchange) if record.exchange else None
    if exchange is None:
        exchange = _Exchange(record.holder, probe=record.exchange == 0)
        wire.done.append(exchange)
        if record.exchange:
            wire.exchanges[record.exchange] = exchange
    wire.last = wire.asked_by[record.holder] = exchange
    traced = record.trace_id is not None and record.trace_id not in wire.polls
    for key, ended in _keys(wire, exchange, record):
        wire.command = Command(len(commands), record.port, key, record.t_ns, traced, ended)
        commands.append(wire.command)
        exchange.commands.append(wire.command)


def _keys(wire: _Wire, exchange: _Exchange, record: WireRecord) -> list[tuple[bytes, bool]]:
    """The commands that are complete with this record, and whether each had an end of line."""
    if wire.lines:
        lines, wire.rest = cut_lines(wire.rest + record.data)
        return [(line, True) for line in lines]
    exchange.written += record.data
    if exchange.written != wire.requests.get(record.exchange, record.data):
        return []
    lines, rest = cut_lines(exchange.written)
    if lines and not rest and all(is_text(line) for line in lines):
        return [(line, True) for line in lines]
    return [(exchange.written, False)]


def _heard(wire: _Wire, record: WireRecord) -> None:
    heard = (record.t_ns, record.data)
    if record.exchange:
        exchange = wire.exchanges.get(record.exchange)
    elif record.holder:
        exchange = wire.asked_by.get(record.holder)
    else:
        exchange = wire.last if wire.last is not None and wire.last.probe else None
    if exchange is not None:
        exchange.heard.append(heard)
    elif wire.command is not None and not (wire.last is not None and wire.last.broken):
        wire.command.unasked.append(((record.t_ns - wire.command.t_ns) / 1e9, record.data))


def _settle(exchange: _Exchange, lines: bool) -> None:
    """Give what was heard to the command that asked for it, once all of it is known."""
    for command in exchange.commands:
        command.broken = exchange.broken
    if not exchange.heard or not exchange.commands:
        return
    asking = [command for command in exchange.commands if b"?" in command.key]
    command = asking[0] if len(asking) == 1 else exchange.commands[-1]
    heard = _last_line(exchange.heard) if exchange.probe and lines else exchange.heard
    command.reply = [(max(0, t_ns - command.t_ns) / 1e9, data) for t_ns, data in heard]


def _last_line(heard: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Behind a probe of the broker's there may be replies that came late: its own is the last."""
    return [(heard[-1][0], b"".join(data for _, data in heard).splitlines(keepends=True)[-1])]
