"""Newport 1830-C bytes: one letter and a number, or a letter and ``?``; LF both ways."""

from __future__ import annotations

import re
from enum import IntFlag

from duodaq.errors import ReplyFormatError
from duodaq.ports import Deed, Framing, Lines

__all__ = ["UNIT_CODES", "MeterStatus", "Newport1830cCodec", "parse_integer", "parse_reading", "parse_status"]

_READING = re.compile(rb"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$")
_QUERY = re.compile(rb"^[A-Za-z]\?$")

_MAX_REPLY = 256
UNIT_CODES = {1: "W", 2: "dB", 3: "dBm", 4: "REL"}


class MeterStatus(IntFlag):
    """The status byte that ``Q?`` reports. Source: 1830-C manual p. 51."""

    PARAMETER_ERROR = 1
    COMMAND_ERROR = 2
    SATURATED = 4
    OVER_RANGE = 8
    MESSAGE_AVAILABLE = 16
    BUSY = 32
    SERVICE_REQUEST = 64
    READ_DONE = 128

    @property
    def refused(self) -> bool:
        """Whether the meter did not take a command."""
        return bool(self & (MeterStatus.PARAMETER_ERROR | MeterStatus.COMMAND_ERROR))


class Newport1830cCodec:
    """The 1830-C for the broker. Nothing of it moves or emits, and nothing breaks in on it."""

    name = "newport1830c"
    write_terminator = b"\n"
    abort_bytes = b"\n"
    longest_reply_s = 1.0

    def expects_reply(self, written: bytes) -> Framing | None:
        """One line for each query in `written`; None without one."""
        count = sum(bool(_QUERY.match(line.strip())) for line in re.split(rb"[\r\n]", written))
        return Lines(count, b"\n", _MAX_REPLY) if count else None

    def is_break_in(self, written: bytes) -> bool:
        """Never: the meter knows no command that it takes beside a pending reply."""
        return False

    def moves(self, written: bytes) -> bool:
        """Never: it only measures."""
        return False

    def stop_bytes(self, axis: str | None = None) -> bytes | None:
        """None: there is nothing to stop."""
        return None

    def probe(self) -> tuple[bytes, Framing]:
        """Ask for the zero state, as drivers do to find one: it has no ``*IDN?``."""
        return b"Z?\n", Lines(1, b"\n", _MAX_REPLY)

    def identity(self) -> tuple[bytes, Framing]:
        """The same harmless question; the meter cannot say more about itself."""
        return self.probe()

    def destructive(self, written: bytes) -> bool:
        """Never: the status byte stays until ``C``."""
        return False

    def deeds(self, written: bytes) -> list[Deed]:
        """Each line by what its letter stands for."""
        found: list[Deed] = []
        for line in re.split(rb"[\r\n]+", written.strip()):
            text, value = line.strip(), line.strip()[1:].decode("ascii", "replace")
            if text:
                name = _WORDS.get(text[:1].upper()) or text.decode("ascii", "replace")
                found.append(Deed(name, "" if value == "?" else value, value == "?"))
        return found

    def explain(self, written: bytes) -> str:
        """What it asks or sets: ``reading?``, ``wavelength 633``."""
        line = written.strip()
        name = _WORDS.get(line[:1].upper(), "")
        value = line[1:].decode("ascii", "replace")
        return f"{name}?" if name and value == "?" else f"{name} {value}".strip() if name else ""

    def explain_reply(self, written: bytes, reply: bytes) -> str:
        """The unit, or the flags of the status byte; a plain number speaks for itself."""
        try:
            if written[:2].upper() == b"U?":
                return UNIT_CODES.get(parse_integer(reply), "")
            if written[:2].upper() == b"Q?":
                return ", ".join(str(flag.name).lower().replace("_", " ") for flag in parse_status(reply))
        except ReplyFormatError:
            return ""
        return ""


_WORDS = {
    b"D": "reading",
    b"W": "wavelength",
    b"U": "unit",
    b"R": "range",
    b"F": "filter",
    b"A": "attenuator",
    b"Q": "status",
    b"Z": "zero",
    b"S": "store the reference",
    b"O": "calibrate",
    b"C": "clear the status",
    b"G": "hold or go",
    b"B": "beeper",
    b"E": "echo",
    b"K": "backlight",
    b"L": "lockout",
}


def parse_reading(reply: bytes) -> float:
    """The number in the reply to ``D?``: ``+.75E-9``, ``5E-9``, ``-12.3``.

    Raises:
        ReplyFormatError: It is not a number; about one reading in 500 is not.
    """
    text = reply.strip()
    if not _READING.match(text):
        raise ReplyFormatError(f"expected a reading, got {reply!r}", reply=reply)
    return float(text)


def parse_integer(reply: bytes) -> int:
    """The whole number in the reply to ``W?`` (may be zero-padded), ``U?``, ``R?``, ``F?`` …

    Raises:
        ReplyFormatError: It is not one.
    """
    text = reply.strip()
    if not text.isdigit():
        raise ReplyFormatError(f"expected a whole number, got {reply!r}", reply=reply)
    return int(text)


def parse_status(reply: bytes) -> MeterStatus:
    """The status byte in the reply to ``Q?``.

    Raises:
        ReplyFormatError: It is not a number from 0 to 255.
    """
    value = parse_integer(reply)
    if value > 255:
        raise ReplyFormatError(f"a status byte is at most 255, got {reply!r}", reply=reply)
    return MeterStatus(value)
