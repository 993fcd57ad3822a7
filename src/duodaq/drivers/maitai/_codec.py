"""Mai Tai bytes: one command a line, CR or LF behind it; one LF behind a reply; only queries are answered."""

from __future__ import annotations

import re

from duodaq.ports import Framing, Lines

__all__ = ["CLOSE_SHUTTER", "MaiTaiCodec"]

CLOSE_SHUTTER = b"SHUT 0\n"
_MAX_REPLY = 256
_LINES = re.compile(rb"[\r\n]+")
_SETTINGS_THAT_EMIT = (b"WAV", b"PLAS:POW", b"PLAS:PCUR", b"MOD", b"ON")


def _header(line: bytes) -> bytes:
    """What stands before the parameter, in short words and capitals: ``shutter 1`` → ``SHUT``."""
    words = (line.split(None, 1) or [b""])[0].upper().removeprefix(b":").split(b":")
    return b":".join(_short(word) for word in words)


def _short(word: bytes) -> bytes:
    name, mark = (word[:-1], b"?") if word.endswith(b"?") else (word, b"")
    if name.startswith(b"*"):
        return word
    name = name.rstrip(b"0123456789")
    return (name[:3] if name[3:4] in (b"A", b"E", b"I", b"O", b"U") else name[:4]) + mark


def _commands(written: bytes) -> list[bytes]:
    return [line.strip() for line in _LINES.split(written) if line.strip()]


class MaiTaiCodec:
    """The Mai Tai for the broker. Its stop closes the shutter; the pump goes on, for a warm laser is worth keeping.

    Nothing breaks in on it: no source says that it listens while it owes a reply, and a lost SHUT 0 would be worse
    than one that waits for at most 2 s.
    """

    name = "maitai"
    write_terminator = b"\n"
    abort_bytes = b"\n"
    longest_reply_s = 2.0

    def expects_reply(self, written: bytes) -> Framing | None:
        """One line for each query in `written`; None without one."""
        count = sum(_header(line).endswith(b"?") for line in _commands(written))
        return Lines(count, b"\n", _MAX_REPLY) if count else None

    def is_break_in(self, written: bytes) -> bool:
        """Never; see above."""
        return False

    def moves(self, written: bytes) -> bool:
        """Whether it opens the shutter, begins to pump, or changes what comes out."""
        return any(_emits(line) for line in _commands(written))

    def destructive(self, written: bytes) -> bool:
        """Whether it takes an entry from the error queue."""
        return any(_header(line) == b"SYST:ERR?" for line in _commands(written))

    def stop_bytes(self, axis: str | None = None) -> bytes | None:
        """Close the shutter."""
        return CLOSE_SHUTTER

    def probe(self) -> tuple[bytes, Framing]:
        """Ask who it is: that answer never changes."""
        return b"*IDN?\n", Lines(1, b"\n", _MAX_REPLY)

    def identity(self) -> tuple[bytes, Framing]:
        """Maker, model, serial numbers, firmware."""
        return self.probe()


def _emits(line: bytes) -> bool:
    header, parameter = _header(line), line.split(None, 1)[1:]
    if header == b"SHUT":
        return [text.strip() for text in parameter] != [b"0"]
    return header in _SETTINGS_THAT_EMIT
