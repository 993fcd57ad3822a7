"""What a Mai Tai replies, as values: numbers lose their unit, errors keep their weights."""

from __future__ import annotations

import re
from typing import NamedTuple

from duodaq.errors import ReplyFormatError

__all__ = ["LaserError", "parse_error", "parse_flag", "parse_integer", "parse_quantity"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_ERROR = re.compile(r'([+-]?\d+)\s*,?\s*"?([^"]*)"?')
_LASER_ON = 64


class LaserError(NamedTuple):
    """An entry of the error queue: its weights (1 command, 2 execution, 32 system, 64 laser on, 128 any) and text."""

    code: int
    text: str

    @property
    def empty(self) -> bool:
        """Whether it says that there is none: nothing, or only that the laser is on."""
        return self.code & ~_LASER_ON == 0


def parse_quantity(reply: bytes, unit: str) -> float:
    """The number in ``820nm``, ``3.000W``, ``075%``; the unit may be left out, another one may not be there.

    Raises:
        ReplyFormatError: It is no such number.
    """
    text = reply.decode("latin-1").strip()
    match = re.fullmatch(rf"({_NUMBER})\s*({re.escape(unit)})?", text, re.IGNORECASE)
    if match is None:
        raise ReplyFormatError(f"expected a number in {unit}, got {reply!r}", reply=reply)
    return float(match[1])


def parse_flag(reply: bytes) -> bool:
    """The ``0`` or ``1`` of SHUT?.

    Raises:
        ReplyFormatError: It is neither.
    """
    text = reply.strip()
    if text not in (b"0", b"1"):
        raise ReplyFormatError(f"expected 0 or 1, got {reply!r}", reply=reply)
    return text == b"1"


def parse_integer(reply: bytes) -> int:
    """The whole number of ``*STB?``.

    Raises:
        ReplyFormatError: It is not one.
    """
    text = reply.strip()
    if not text.isdigit():
        raise ReplyFormatError(f"expected a whole number, got {reply!r}", reply=reply)
    return int(text)


def parse_error(reply: bytes) -> LaserError:
    """The entry that SYST:ERR? took from the queue.

    Raises:
        ReplyFormatError: It does not begin with a number.
    """
    match = _ERROR.fullmatch(reply.decode("latin-1").strip())
    if match is None:
        raise ReplyFormatError(f"expected an error number, got {reply!r}", reply=reply)
    return LaserError(int(match[1]), match[2].strip())
