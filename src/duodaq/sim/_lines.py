"""Cuts what a client sends into command lines, and notices lines that did not wait for an answer."""

from __future__ import annotations

import re
from typing import NamedTuple

_LONGEST = 1024
"""What an instrument's input buffer keeps of a line, however it came in; of a longer one the end is left."""


class CommandLine(NamedTuple):
    """One line without its terminator; `crowded`: it began while a reply had not been fetched."""

    text: str
    crowded: bool


class LineReader:
    """Lines ended by any of `terminators`; empty ones (the LF of a CR LF) are nothing."""

    def __init__(self, terminators: bytes = b"\r\n") -> None:
        self._cut = re.compile(b"[" + re.escape(terminators) + b"]")
        self._buffer = b""
        self._crowded = False

    def feed(self, data: bytes, pending: int) -> list[CommandLine]:
        """The lines that are complete now; `pending` bytes of earlier replies were not fetched when `data` came."""
        if pending:
            self._crowded = True
        *complete, self._buffer = self._cut.split(self._buffer + data)
        self._buffer = self._buffer[-_LONGEST:]
        lines: list[CommandLine] = []
        for raw in complete:
            text = raw[-_LONGEST:].decode("latin-1").strip()
            if text:
                lines.append(CommandLine(text, self._crowded))
                self._crowded = False
        if not self._buffer.strip():
            self._crowded = False
        return lines

    def clear(self) -> None:
        """Forget a half-written line."""
        self._buffer = b""
        self._crowded = False
