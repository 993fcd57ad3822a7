"""From the records of a wire log to one owner's exchanges, each whole, in the order of their ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from duodaq.errors import ReplyFormatError
from duodaq.model import WireRecord, owner_named
from duodaq.ports import Deed, Framing, PortCodec, deeds_of

_REMEMBERED = 1024


@dataclass(slots=True)
class Seen:
    """An exchange of the other driver, as it was on the wire.

    `answers` are its replies, one for each deed that asks; `error` what broke it off; `trace_id` is of the action
    that it was made for.
    """

    number: int
    began_ns: int
    written: bytes = b""
    ended_ns: int = 0
    deeds: list[Deed] = field(default_factory=list[Deed])
    answers: list[bytes] = field(default_factory=list[bytes])
    error: str = ""
    trace_id: str | None = None

    @property
    def took_s(self) -> float:
        """From its first byte to its last, in seconds."""
        return (self.ended_ns - self.began_ns) / 1e9


class Exchanges:
    """Puts records together, as they come.

    Args:
        codec: Of the port.
        instrument: Whose owner's exchanges these are; what others write is left out.
        runtime: Which owner.
    """

    def __init__(self, codec: PortCodec, instrument: str, runtime: str = "v2") -> None:
        self._codec = codec
        self._instrument = instrument
        self._runtime = runtime
        self._open: dict[int, tuple[Seen, Framing | None]] = {}
        self._is_its_own: dict[str, bool] = {}
        self._deeds: dict[bytes, list[Deed]] = {}
        self._idle: dict[bytes, Framing | None] = {}

    def take(self, record: WireRecord) -> Seen | None:
        """Take a record; the exchange that is whole with it, if one is."""
        if not record.exchange or not self._is_of_owner(record.holder):
            return None
        if record.direction == ">":
            return self._written(record)
        found = self._open.get(record.exchange)
        if found is None:
            return None
        seen, framing = found
        if record.direction == "!":
            return self._ended(seen, record, error=record.data.decode(errors="replace"))
        try:
            reply = None if framing is None else framing.feed(record.data)
        except ReplyFormatError as error:
            return self._ended(seen, record, error=str(error))
        return None if reply is None else self._ended(seen, record, reply)

    def _written(self, record: WireRecord) -> Seen | None:
        seen, _ = self._open.get(record.exchange) or (
            Seen(record.exchange, record.t_ns, trace_id=record.trace_id),
            None,
        )
        seen.written += record.data
        seen.deeds = self._meaning_of(seen.written)
        framing = self._framing_of(seen.written)
        if framing is None:
            return self._ended(seen, record)
        self._open[record.exchange] = (seen, framing)
        return None

    def _is_of_owner(self, holder: str) -> bool:
        known = self._is_its_own.get(holder)
        if known is None:
            named = owner_named(holder)
            known = named is not None and (named.runtime, named.instrument) == (self._runtime, self._instrument)
            if len(self._is_its_own) < _REMEMBERED:
                self._is_its_own[holder] = known
        return known

    def _meaning_of(self, written: bytes) -> list[Deed]:
        """Drivers say the same few things over and over: what they mean is found once."""
        deeds = self._deeds.get(written)
        if deeds is None:
            deeds = deeds_of(self._codec, written)
            if len(self._deeds) < _REMEMBERED:
                self._deeds[written] = deeds
        return deeds

    def _framing_of(self, written: bytes) -> Framing | None:
        """One that nobody uses: of an exchange with the same words that is over, or a new one."""
        if written in self._idle:
            framing = self._idle[written]
            if framing is None:
                return None
            del self._idle[written]
        else:
            framing = self._codec.expects_reply(written)
            if framing is None and len(self._idle) < _REMEMBERED:
                self._idle[written] = None
        if framing is not None:
            framing.reset()
        return framing

    def _ended(self, seen: Seen, record: WireRecord, reply: bytes = b"", error: str = "") -> Seen:
        _, framing = self._open.pop(record.exchange, (seen, None))
        if framing is not None and len(self._idle) < _REMEMBERED:
            self._idle[seen.written] = framing
        seen.ended_ns, seen.error = record.t_ns, error
        seen.answers = answers_in(reply, sum(deed.asks for deed in seen.deeds))
        return seen


def answers_in(reply: bytes, count: int) -> list[bytes]:
    """The answers in a reply, one for each of `count` questions: a line each, or joined by ``;``; else all of it."""
    if count <= 1 or not reply:
        return [reply] * count
    lines = reply.splitlines(keepends=True)
    if len(lines) == count:
        return lines
    end = reply[len(reply.rstrip(b"\r\n")) :]
    parts = reply.rstrip(b"\r\n").split(b";")
    return [part + end for part in parts] if len(parts) == count else [reply] * count
