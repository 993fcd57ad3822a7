"""What an ESP300 command line says: ``[xx]AA[nn][?]``, several joined by ``;``, blanks anywhere, any case."""

from __future__ import annotations

import re
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BREAK_IN = frozenset({"ST", "AB"})
IMMEDIATE = BREAK_IN | {"TS", "TX"}
"""Carried out when they arrive, also while others wait."""

BARE_QUERIES = frozenset({"TP", "TV", "DP", "DV", "MD", "PH", "TS", "TX", "TE", "TB", "VE", "ID", "ZU"})
"""Answer with and without a question mark."""

LENGTHS = _words("VA AC AG AE JK VU AU VB OH OL JH JW FE SH FR SL SR SU")
"""Settings of an axis with the dimension of a length, in the unit of SN."""

PLAIN = {
    "TJ": 1.0, "QM": 3.0, "QI": 1.0, "QV": 24.0, "QS": 100.0, "QR": 0.0, "QT": 7.0, "QG": 1.0,
    "KP": 10.0, "KI": 0.0, "KD": 2.0, "KS": 0.0, "VF": 0.0, "AF": 0.0, "BA": 0.0, "CL": 0.0, "DB": 0.0, "CO": 0.0,
}  # fmt: skip
"""Settings of an axis without unit, and what they are after power-up."""

HEXADECIMAL = {"ZA": 0x323, "ZB": 0x5, "ZC": 0x0, "ZE": 0x3, "ZF": 0x2, "ZH": 0x24, "ZS": 0x4}
"""Settings of an axis that are bit fields, spoken as hexadecimal numbers with an H behind."""

AXIS_WORDS = (
    LENGTHS
    | frozenset(PLAIN)
    | frozenset(HEXADECIMAL)
    | _words("PA PR TP DP TV DV MD OR DH MO MF SN MV MT ID WP UF QD")
)
GLOBAL_WORDS = _words("ST AB WS WT TS TX PH TE TB VE ZU ZZ RS SM *IDN")
WORDS = AXIS_WORDS | GLOBAL_WORDS
MOVING = _words("PA PR MV MT OR")
_SIGNED = _words("MV MT")
_BIT_FIELDS = frozenset(HEXADECIMAL) | {"ZZ"}

_UNIT = re.compile(r"(?P<axis>\d*)(?P<word>[A-Z]{2})(?P<rest>.*)")
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(E[-+]?\d+)?"
_NUMBERS = re.compile(rf"({_NUMBER}(,{_NUMBER})*)?")
_BITS = re.compile(r"([0-9A-F]+H?)?")
_LARGEST = 1e12
"""More than the 2E9 counts of any axis in the smallest unit: what is larger is a slip and out of range everywhere."""


class Command(NamedTuple):
    """One unit of a line. `word` may be no word that the controller knows."""

    word: str
    axis: int | None = None
    argument: str = ""
    query: bool = False
    malformed: bool = False
    """What follows the word is no parameter of it."""
    mixed: bool = False
    """There is another command in the middle of it: two lines got into each other."""


def parse_line(text: str) -> list[Command]:
    """The commands of one line, in order."""
    units = "".join(text.split()).upper().split(";")
    return [_parse_unit(unit) for unit in units if unit]


def breaks_in(commands: list[Command]) -> bool:
    """Whether the whole line may be sent while a reply is pending."""
    return bool(commands) and all(command.word in BREAK_IN for command in commands)


def immediate(commands: list[Command]) -> bool:
    """Whether the whole line is carried out at once, even while the execution of others is suspended."""
    return bool(commands) and all(command.word in IMMEDIATE for command in commands)


def _parse_unit(unit: str) -> Command:
    if unit == "*IDN?":
        return Command("*IDN", query=True)
    if "*" in unit or ":" in unit:
        return Command("")  # meant for another kind of instrument, not a mixture
    match = _UNIT.fullmatch(unit)
    if match is None:
        return Command("", mixed=_hides_a_word(unit))
    word, rest = match["word"], match["rest"]
    axis = int(match["axis"]) if match["axis"] else None
    if rest == "?":
        return Command(word, axis, query=True)
    if not _is_parameter(word, rest):
        return Command(word, axis, rest, malformed=True, mixed=_hides_a_word(rest))
    return Command(word, axis, rest, query=not rest and word in BARE_QUERIES)


def _is_parameter(word: str, text: str) -> bool:
    if word in _BIT_FIELDS:
        return _BITS.fullmatch(text) is not None
    if word in _SIGNED and text in ("+", "-"):
        return True
    if _NUMBERS.fullmatch(text) is None:
        return False
    return not text or all(abs(float(number)) <= _LARGEST for number in text.split(","))


def _hides_a_word(text: str) -> bool:
    return any(text[at : at + 2] in WORDS for at in range(len(text) - 1))
