"""The words of a Mai Tai: long, or short (four letters, three if the fourth is a vowel), in any mixture and case.

A parameter comes behind a blank. ``WAVELENGTH:820`` and ``SHUTTER:1``, which some sources show, are unknown headers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LONG = """
*IDN *STB READ PCTWARMEDUP WAVELENGTH MINIMUM MAXIMUM POWER PLASER PCURRENT DIODE CURRENT TEMPERATURE SHGSTATUS HUMIDITY
SHUTTER ON OFF MODE ERRCODE HISTORY AHISTORY CONTROL PHASE MLENABLE SAVE TIMER WATCHDOG SYSTEM ERROR COMMUNICATIONS
SERIAL BAUD
"""
_WORD = re.compile(r"(\*?[A-Z]+)(\d*)")


def _short(word: str) -> str:
    if word.startswith("*"):
        return word
    return word[:3] if word[3:4] in ("A", "E", "I", "O", "U") else word[:4]


_FORMS = {form: _short(word) for word in _LONG.split() for form in (word, _short(word))}


class Command(NamedTuple):
    """A command in short words (``PLAS:POW``), whether it asks, its parameter, and the number behind a word."""

    header: str
    query: bool
    argument: str
    suffix: int


def parse(text: str) -> Command | None:
    """The command that a line holds; None if a word of it is unknown."""
    header, _, argument = text.strip().upper().partition(" ")
    query = header.endswith("?")
    words: list[str] = []
    suffix = 1
    for word in header.removeprefix(":").removesuffix("?").split(":"):
        match = _WORD.fullmatch(word)
        if match is None or match[1] not in _FORMS:
            return None
        words.append(_FORMS[match[1]])
        suffix = int(match[2] or suffix)
    return Command(":".join(words), query, argument.strip(), suffix)
