"""The ESP300's command line, taken apart: ``[xx]AA[nn][?]``, several per line with ``;``, lines ended by CR or LF."""

from __future__ import annotations

import re
from typing import NamedTuple

_COMMAND = re.compile(rb"^(\d*)([A-Za-z]{2})(.*)$", re.DOTALL)
_BARE_QUERIES = frozenset({b"TP", b"TV", b"MD", b"PH", b"TS", b"TX", b"DV", b"TE", b"TB", b"VE", b"ID", b"DP", b"ZU"})
_BREAK_INS = frozenset({b"ST", b"AB"})
_MOVES = frozenset({b"PA", b"PR", b"MV", b"MT", b"OR", b"MO", b"EX", b"EO", b"HL", b"HC"})


class Command(NamedTuple):
    """One command: `axis` is None where none was given, `value` is what follows the two letters, without blanks."""

    axis: int | None
    mnemonic: bytes
    value: bytes

    @property
    def is_query(self) -> bool:
        """Whether the controller replies to it. Some queries go with and without ``?`` (TP, TV, MD, PH, TS, TX …)."""
        return self.value.endswith(b"?") or (not self.value and self.mnemonic in _BARE_QUERIES)

    @property
    def is_break_in(self) -> bool:
        """ST and AB: accepted while a reply is pending; nothing is replied."""
        return self.mnemonic in _BREAK_INS and not self.is_query

    @property
    def moves(self) -> bool:
        """Whether an axis may turn because of it; switching a motor on and running a program count."""
        return self.mnemonic in _MOVES and not self.is_query

    @property
    def destructive(self) -> bool:
        """Whether reading it takes an entry out of the error queue."""
        return self.mnemonic in (b"TE", b"TB")


def commands(written: bytes) -> list[Command]:
    """The commands in what was written, in order; blanks, empty commands and a trailing ``;`` are ignored."""
    parts = re.split(rb"[;\r\n]", written)
    return [parsed for part in parts if (parsed := _command(part)) is not None]


def _command(part: bytes) -> Command | None:
    text = bytes(byte for byte in part if byte not in b" \t\x00")
    if not text:
        return None
    match = _COMMAND.match(text)
    if match is None:
        return Command(None, text.rstrip(b"?").upper(), text[-1:] if text.endswith(b"?") else b"")
    return Command(int(match[1]) if match[1] else None, match[2].upper(), match[3])
