"""SCPI and IEEE-488.2 bytes: what to write, what replies mean, and what the broker must know of them."""

from __future__ import annotations

import re
from enum import IntFlag
from functools import lru_cache
from typing import NamedTuple

from duodaq.drivers.scpi._grammar import header, is_query, message_end, messages
from duodaq.drivers.scpi._replies import Replies
from duodaq.errors import ReplyFormatError
from duodaq.ports import Deed, Framing, TerminatedOrBlock

__all__ = [
    "EventStatus",
    "ScpiCodec",
    "ScpiError",
    "StatusByte",
    "block_payload",
    "parse_error",
    "parse_number",
    "text",
]

_SHORT = 80
_NUMBER = re.compile(r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$")
_ERROR = re.compile(r'^([+-]?\d+)\s*(?:,\s*"?(.*?)"?)?$', re.DOTALL)
_ON = re.compile(rb"\s(?:1|ON|[1-9]\d*)\b")
_EMITS = re.compile(rb"^(?:SOUR\w*\d*:)?(?:OUTP(?:UT)?\d*|SHUT(?:TER)?|LAS(?:ER)?)(?::STAT(?:E)?)?$")
_DESTRUCTIVE = re.compile(
    rb"^(?:\*ESR|SYST(?:EM)?:ERR(?:OR)?(?::NEXT|:ALL|:CODE\S*)?|STAT(?:US)?:(?:OPER|QUES)\w*(?::EVEN(?:T)?)?)\?$"
)


_ACTING = re.compile(rb"^(?:\*TST|\*CAL|CAL(?:IBRATION)?(?::ALL)?|TEST(?::ALL)?|DIAG(?:NOSTIC)?\S*)\?$")
_WORDS = [
    (re.compile(known), said)
    for known, said in (
        (rb"\*IDN\?", "who is it?"),
        (rb"\*RST", "reset"),
        (rb"\*CLS", "clear the status"),
        (rb"\*OPC\?", "is all done?"),
        (rb"\*OPC$", "tell when all is done"),
        (rb"\*ESR\?", "event status?"),
        (rb"\*STB\?", "status byte?"),
        (rb"\*ES[ER]", "enable events"),
        (rb"\*SRE", "enable service requests"),
        (rb"\*TRG", "trigger"),
        (rb"\*WAI", "wait until all is done"),
        (rb"SYST(EM)?:ERR", "error queue?"),
        (rb"READ\?", "measure and read"),
        (rb"FETC(H)?\?", "read what was measured"),
        (rb"MEAS(URE)?:", "set up, measure and read"),
        (rb"CONF(IGURE)?:", "set up"),
        (rb"INIT(IATE)?$", "begin to measure"),
        (rb"OUTP(UT)?\d*(:STAT(E)?)?$", "output"),
    )
]


class EventStatus(IntFlag):
    """The standard event status register, ``*ESR?``."""

    OPERATION_COMPLETE = 1
    REQUEST_CONTROL = 2
    QUERY_ERROR = 4
    DEVICE_ERROR = 8
    EXECUTION_ERROR = 16
    COMMAND_ERROR = 32
    USER_REQUEST = 64
    POWER_ON = 128

    @property
    def failed(self) -> bool:
        """Whether one of the four error bits is set."""
        return bool(self & 0x3C)


class StatusByte(IntFlag):
    """The status byte, ``*STB?``."""

    ERROR_QUEUE = 4
    QUESTIONABLE = 8
    MESSAGE_AVAILABLE = 16
    EVENT_SUMMARY = 32
    MASTER_SUMMARY = 64
    OPERATION = 128


class ScpiError(NamedTuple):
    """One entry of the error queue; code 0 means that it is empty."""

    code: int
    text: str


class ScpiCodec:
    """Any SCPI instrument for the broker: replies end LF, a reply may be a block, nothing breaks in."""

    name = "scpi"
    write_terminator = b"\n"
    abort_bytes = b"\n"
    longest_reply_s = 4.0  # a 34401A at 100 NPLC with autozero; only after a broken exchange is it waited for

    def expects_reply(self, written: bytes) -> Framing | None:
        """One reply for each program message with a query in it, however many: they come joined by ``;``."""
        count = _facts(written).replies
        if count == 0:
            return None
        return _reply() if count == 1 else Replies(_reply, count)

    def is_break_in(self, written: bytes) -> bool:
        """Never: a message beside a pending reply is a query error (-410) and flushes the reply."""
        return False

    def moves(self, written: bytes) -> bool:
        """Whether it switches an output, a shutter or a laser on (``OUTP ON``, ``SHUT 1``)."""
        return _facts(written).emits

    def only_asks(self, written: bytes) -> bool:
        """Whether all of it asks, and the asking changes nothing: no command beside a query, no self-test, no queue.

        What an instrument might take apart otherwise (a block, an open string, a lone CR) is not taken for a question.
        """
        units = [unit for message in messages(written) for unit in message]
        odd = b"#" in written or b"\r" in written.rstrip() or written.count(b'"') % 2 or written.count(b"'") % 2
        asks = all(is_query(unit) and not _ACTING.match(header(unit)) for unit in units)
        return bool(units) and asks and not odd and not self.moves(written) and not self.destructive(written)

    def stop_bytes(self, axis: str | None = None) -> bytes | None:
        """None: SCPI has no stop that every instrument knows; a lab file gives the instrument's own."""
        return None

    def probe(self) -> tuple[bytes, Framing]:
        """Ask who it is: harmless, and unlike any number that might still be on its way."""
        return b"*IDN?\n", _reply()

    def identity(self) -> tuple[bytes, Framing]:
        """Maker, model, serial number, firmware."""
        return self.probe()

    def status_query(self) -> bytes:
        """``*STB?``, which reads the status byte and leaves it as it is."""
        return b"*STB?\n"

    def destructive(self, written: bytes) -> bool:
        """Whether reading it clears what it reads: error queue, ``*ESR?``, event registers."""
        return _facts(written).destructive

    def command_end(self, held: bytes) -> int:
        """Up to the LF (or CR) that ends the message: not one inside a block. See `CommandEnds`."""
        return message_end(held)

    def deeds(self, written: bytes) -> list[Deed]:
        """Each unit by its header, in capitals and without a leading colon."""
        found: list[Deed] = []
        for unit in (unit for message in messages(written) for unit in message):
            head, given = header(unit), unit.strip().partition(b" ")[2].strip().decode("latin-1")
            found.append(Deed(head.decode("latin-1").rstrip("?"), given.upper(), is_query(unit)))
        return found

    def explain(self, written: bytes) -> str:
        """Each unit in words, where its header is one of those that every instrument knows."""
        units = [unit for found in messages(written) for unit in found]
        words = [next((said for known, said in _WORDS if known.match(header(unit))), "") for unit in units]
        return "; ".join(words) if all(words) else ""

    def explain_reply(self, written: bytes, reply: bytes) -> str:
        """The size of a block, overload, not a number; a plain reply speaks for itself."""
        if reply[:1] == b"#" and reply[1:2].isdigit():
            return f"a block of {len(reply):,} bytes"
        try:
            value = parse_number(reply.decode("ascii", "replace").strip())
        except ReplyFormatError:
            return ""
        return "overload" if abs(value) == float("inf") else "not a number" if value != value else ""


class _Facts(NamedTuple):
    """What a broker must know of a command."""

    replies: int
    emits: bool
    destructive: bool


def _facts(written: bytes) -> _Facts:
    """Of a short command they are remembered: drivers say the same few over and over."""
    return _remembered_facts(written) if len(written) <= _SHORT else _found_facts(written)


def _found_facts(written: bytes) -> _Facts:
    found = messages(written)
    units = [unit for message in found for unit in message]
    return _Facts(
        replies=sum(any(is_query(unit) for unit in message) for message in found),
        emits=any(_emits(unit) for unit in units),
        destructive=any(_DESTRUCTIVE.match(header(unit)) for unit in units),
    )


_remembered_facts = lru_cache(maxsize=1024)(_found_facts)


def text(reply: bytes) -> str:
    """A reply as text, without its terminator.

    Raises:
        ReplyFormatError: It holds bytes that are not ASCII.
    """
    try:
        return reply.rstrip(b"\r\n").decode("ascii")
    except UnicodeDecodeError as error:
        raise ReplyFormatError(f"expected text, got {reply[:40]!r}", reply=reply) from error


def parse_number(reply: str) -> float:
    """The number in a reply; 9.9E37 (overload) becomes inf and 9.91E37 nan, with its sign.

    Raises:
        ReplyFormatError: It is not one number.
    """
    if not _NUMBER.match(reply.strip()):
        raise ReplyFormatError(f"expected a number, got {reply!r}", reply=reply.encode())
    value = float(reply)
    if abs(value) == 9.91e37:
        return float("nan")
    return float("inf") * (1 if value > 0 else -1) if abs(value) >= 9.9e37 else value


def parse_error(reply: str) -> ScpiError:
    """The reply to ``SYST:ERR?``: ``0,"No error"``, ``+0,"No error"``, ``-113,"Undefined header"``.

    Raises:
        ReplyFormatError: It is not an entry.
    """
    match = _ERROR.match(reply.strip())
    if match is None:
        raise ReplyFormatError(f"expected an error entry, got {reply!r}", reply=reply.encode())
    return ScpiError(int(match[1]), (match[2] or "").replace('""', '"'))


def block_payload(reply: bytes) -> bytes:
    """The bytes inside a block reply, definite (``#3100…``) or indefinite (``#0…``).

    Raises:
        ReplyFormatError: It is not a block, or shorter than it says.
    """
    if reply[:1] != b"#" or not reply[1:2].isdigit():
        raise ReplyFormatError(f"expected a block, got {reply[:20]!r}", reply=reply)
    width = int(reply[1:2])
    if width == 0:
        return reply[2:].removesuffix(b"\n")
    length = reply[2 : 2 + width]
    payload = reply[2 + width : 2 + width + int(length)] if len(length) == width and length.isdigit() else b""
    if not length.isdigit() or len(payload) != int(length):
        raise ReplyFormatError(f"a block is shorter than it says: {reply[:20]!r}", reply=reply)
    return payload


def _emits(unit: bytes) -> bool:
    return bool(_EMITS.match(header(unit))) and bool(_ON.search(b" " + unit.upper().partition(b" ")[2]))


def _reply() -> Framing:
    return TerminatedOrBlock(b"\n")
