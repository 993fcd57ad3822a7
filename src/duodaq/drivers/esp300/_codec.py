"""Newport ESP300/ESP301 bytes: what to write, what its replies mean, and what the broker must know of them."""

from __future__ import annotations

import re
from typing import NamedTuple

from duodaq.drivers.esp300._grammar import Command, commands
from duodaq.errors import ConfigError, ReplyFormatError
from duodaq.ports import Deed, Framing, Lines

__all__ = ["SN_UNITS", "EspCodec", "EspError", "number", "parse_error", "parse_flag", "parse_number", "unit_factor"]

_CRLF = b"\r\n"
_MAX_REPLY = 4096
_ERROR = re.compile(rb"^\s*(\d+)\s*(?:,\s*(\d+)\s*,\s*(.*))?$", re.DOTALL)
_NUMBER = re.compile(rb"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$")

SN_UNITS = ("counts", "step", "mm", "µm", "in", "mil", "µin", "deg", "grad", "rad", "mrad", "µrad")
_METRES = {
    "mm": 1e-3,
    "µm": 1e-6,
    "um": 1e-6,
    "m": 1.0,
    "nm": 1e-9,
    "cm": 1e-2,
    "in": 25.4e-3,
    "mil": 25.4e-6,
    "µin": 25.4e-9,
}
_TURNS = {
    "deg": 1 / 360,
    "grad": 1 / 400,
    "rad": 1 / 6.283185307179586,
    "mrad": 1e-3 / 6.283185307179586,
    "µrad": 1e-6 / 6.283185307179586,
}


class EspError(NamedTuple):
    """One entry of the controller's error queue; code 0 means that the queue is empty."""

    code: int
    text: str

    @property
    def axis(self) -> int | None:
        """The axis it is about (codes 100-199 are axis 1, and so on), or None for a general one."""
        return self.code // 100 or None

    @property
    def kind(self) -> int:
        """The code without its axis: 4 and 5 hardware limits, 6 and 7 software limits, 13 motor off …"""
        return self.code % 100


class EspCodec:
    """The ESP300 for the broker.

    Source: manual pages PR, TS, TE (axis prefix, error queue); EPICS drvESP300.cc (every reply ends CR LF; up to 5 s of
    silence after a travel limit). One reply line for each query of a line is assumed.
    """

    name = "esp300"
    write_terminator = b"\r"
    abort_bytes = b"\r"
    longest_reply_s = 5.0

    def expects_reply(self, written: bytes) -> Framing | None:
        """As many lines as there are queries in `written`; None without one."""
        count = sum(command.is_query for command in commands(written))
        return Lines(count, _CRLF, _MAX_REPLY) if count else None

    def is_break_in(self, written: bytes) -> bool:
        """Whether all of it is ST or AB, which the controller takes at any time."""
        found = commands(written)
        return bool(found) and all(command.is_break_in for command in found)

    def moves(self, written: bytes) -> bool:
        """Whether any command in it may set an axis in motion."""
        return any(command.moves for command in commands(written))

    def stop_bytes(self, axis: str | None = None, /) -> bytes:
        """A decelerated stop of one axis by its number; of all axes without one, or if the name is not a number."""
        return (axis if axis is not None and axis.isdecimal() else "").encode() + b"ST\r"

    def probe(self) -> tuple[bytes, Framing]:
        """Ask for the firmware version: harmless, and unlike any number that might still be on its way."""
        return b"VE?\r", Lines(1, _CRLF, _MAX_REPLY)

    def identity(self) -> tuple[bytes, Framing]:
        """The firmware string, e.g. ``ESP300 Version 3.04 07/27/01``."""
        return self.probe()

    def destructive(self, written: bytes) -> bool:
        """Whether it takes entries out of the error queue (TE, TB)."""
        return any(command.destructive for command in commands(written))

    def deeds(self, written: bytes) -> list[Deed]:
        """Each command by its axis and name: ``1TP`` and ``1TP?`` ask the same."""
        return [Deed(_subject(c), "" if c.is_query else c.value.decode("ascii", "replace"), c.is_query)
                for c in commands(written)]  # fmt: skip

    def explain(self, written: bytes) -> str:
        """Each command in words: ``axis 1: move to 10; axis 1: position?``."""
        return "; ".join(_in_words(command) for command in commands(written))

    def explain_reply(self, written: bytes, reply: bytes) -> str:
        """Each answer under the name of its question: ``axis 1: position = 5.32``."""
        asked = [command for command in commands(written) if command.is_query]
        answers = reply.decode("ascii", "replace").splitlines()
        return "; ".join(f"{_subject(c)} = {answer.strip()}" for c, answer in zip(asked, answers, strict=False))


_WORDS = {
    b"PA": "move to",
    b"PR": "move by",
    b"MV": "move on",
    b"OR": "home",
    b"ST": "stop",
    b"AB": "abort",
    b"TP": "position",
    b"DP": "wanted position",
    b"TV": "velocity",
    b"MD": "motion done",
    b"MO": "motor on",
    b"MF": "motor off",
    b"VA": "speed",
    b"AC": "acceleration",
    b"AG": "deceleration",
    b"SN": "unit",
    b"PH": "hardware",
    b"SL": "lower limit",
    b"SR": "upper limit",
    b"DH": "define position",
    b"TS": "state",
    b"TX": "program state",
    b"TE": "error number",
    b"TB": "error",
    b"VE": "firmware",
    b"ID": "stage",
    b"WS": "wait for the stop",
    b"RS": "reset",
}


def _subject(command: Command) -> str:
    name = _WORDS.get(command.mnemonic) or command.mnemonic.decode("ascii", "replace")
    return name if command.axis is None else f"axis {command.axis}: {name}"


def _in_words(command: Command) -> str:
    if command.is_query:
        return f"{_subject(command)}?"
    value = command.value.decode("ascii", "replace")
    return f"{_subject(command)} {value}" if value else _subject(command)


def number(value: float) -> str:
    """A value as the controller reads it: decimal, no exponent, at most six places."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def parse_number(reply: bytes) -> float:
    """The number in a reply.

    Raises:
        ReplyFormatError: It is not one number.
    """
    text = reply.strip()
    if not _NUMBER.match(text):
        raise ReplyFormatError(f"expected a number, got {reply!r}", reply=reply)
    return float(text)


def parse_flag(reply: bytes) -> bool:
    """The 0 or 1 in a reply (MD, MO).

    Raises:
        ReplyFormatError: It is neither.
    """
    text = reply.strip()
    if text not in (b"0", b"1"):
        raise ReplyFormatError(f"expected 0 or 1, got {reply!r}", reply=reply)
    return text == b"1"


def parse_error(reply: bytes) -> EspError:
    """The reply to TB? (``0, 451322, NO ERROR DETECTED``) or TE? (``0``).

    Raises:
        ReplyFormatError: It is neither.
    """
    match = _ERROR.match(reply.strip())
    if match is None:
        raise ReplyFormatError(f"expected an error entry, got {reply!r}", reply=reply)
    return EspError(int(match[1]), (match[3] or b"").decode("ascii", "replace").strip())


def unit_factor(code: int, unit: str) -> float:
    """What to multiply a value in `unit` with to get the controller's unit, which SN reports as `code`.

    Raises:
        ConfigError: The two are not the same kind of quantity.
    """
    native = SN_UNITS[code] if 0 <= code < len(SN_UNITS) else f"SN{code}"
    if native == unit:
        return 1.0
    for table in (_METRES, _TURNS):
        if native in table and unit in table:
            return table[unit] / table[native]
    raise ConfigError(
        f"the controller counts in {native}, which cannot be turned into {unit}",
        key="unit",
        remedy=f"Give the axis the unit {native}, or set the controller's with SN",
    )
