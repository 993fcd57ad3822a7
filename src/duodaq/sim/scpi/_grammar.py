"""IEEE 488.2 program messages as pure functions of bytes.

Two machines that must agree: `MessageSplitter` finds where a message ends without looking inside blocks, `units` reads
one message. A block starts at ``#`` and a digit where a parameter may start, that is behind white space or a comma;
everywhere else ``#`` is an ordinary (wrong) character. An LF inside quotes ends the message: no client means it as
data, and a lost quote would otherwise swallow everything that follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from duodaq.sim.scpi._fault import ScpiFault

__all__ = ["Block", "Expression", "MessageSplitter", "Number", "Param", "Text", "Unit", "Word", "units"]

_SPACE = b" \t\r\x0b\x0c"
_SIGNIFICANT = re.compile(rb"[\n\"'#]")
_HEADER = re.compile(rb"\*[A-Za-z]+|:?[A-Za-z][A-Za-z0-9_]*(?::[A-Za-z][A-Za-z0-9_]*)*")
_NUMBER = re.compile(rb"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:\s*[eE]\s*[+-]?[0-9]+)?)\s*([A-Za-z%/][A-Za-z0-9/.\-]*)?")
_NON_DECIMAL = re.compile(rb"#([HhQqBb])([0-9A-Fa-f]+)")
_WORD = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_RADIX = {"H": 16, "Q": 8, "B": 2}
_MNEMONIC_LIMIT = 12


@dataclass(frozen=True, slots=True)
class Number:
    """NRf or non-decimal data, with the suffix as it was written (upper case)."""

    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """Character data."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string, without its quotes."""

    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Arbitrary bytes from a definite or indefinite block."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Expression:
    """What stood in parentheses, for example a channel list ``@1,3:5``."""

    text: str

    def channels(self) -> tuple[int, ...]:
        """The channels of a channel list, ranges expanded."""
        if not re.fullmatch(r"@\s*\d+(\s*:\s*\d+)?(\s*,\s*\d+(\s*:\s*\d+)?)*", self.text):
            raise ScpiFault(-171)
        found: list[int] = []
        for part in self.text[1:].split(","):
            first, _, last = part.partition(":")
            found.extend(range(int(first), int(last or first) + 1))
        return tuple(found)


Param = Number | Word | Text | Block | Expression


@dataclass(frozen=True, slots=True)
class Unit:
    """One command or query: its whole path from the root (upper case as written), and its parameters."""

    path: tuple[str, ...]
    query: bool
    params: tuple[Param, ...] = ()

    @property
    def common(self) -> bool:
        """Whether this is an IEEE 488.2 common command."""
        return self.path[0].startswith("*")


class MessageSplitter:
    """Cuts a byte stream into program messages at LF, never at an LF inside a block. Holds at most `limit` bytes."""

    def __init__(self, limit: int = 1 << 16) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._quote: int | None = None
        self._skipping = False

    @property
    def rest(self) -> bytes:
        """The beginning of a message whose end has not come."""
        return bytes(self._buffer)

    @property
    def in_block(self) -> bool:
        """Whether the bytes to come are the payload of a block, in which no byte has a meaning."""
        return self._scanned < len(self._buffer)

    def clear(self) -> None:
        """Forget what came so far, as a device clear does."""
        self._buffer.clear()
        self._scanned, self._quote, self._skipping = 0, None, False

    def feed(self, data: bytes) -> list[bytes | None]:
        """Take bytes; return the messages they complete, without LF. None stands for one too long to keep."""
        self._buffer += data
        messages: list[bytes | None] = []
        while (end := self._find_end()) is not None:
            too_long = self._skipping or end > self._limit
            messages.append(None if too_long else bytes(self._buffer[:end]))
            del self._buffer[: end + 1]
            self._scanned, self._quote, self._skipping = 0, None, False
        if len(self._buffer) > self._limit:
            self._skipping = True
        if self._skipping:
            self._buffer.clear()
            self._scanned, self._quote = 0, None
        return messages

    def _find_end(self) -> int | None:
        buffer = self._buffer
        if self._skipping:
            end = buffer.find(b"\n")
            return end if end >= 0 else None
        while match := _SIGNIFICANT.search(buffer, self._scanned):
            at, char = match.start(), buffer[match.start()]
            if char == 0x0A:
                return at
            if char != 0x23:
                self._toggle(char, at)
            elif self._quote is not None or not self._may_start_block(at):
                self._scanned = at + 1
            elif not self._pass_block(at):
                return None
        self._scanned = len(buffer)
        return None

    def _toggle(self, quote: int, at: int) -> None:
        if self._quote is None:
            self._quote = quote
        elif self._quote == quote:
            self._quote = None
        self._scanned = at + 1

    def _may_start_block(self, at: int) -> bool:
        return at > 0 and self._buffer[at - 1] in b" \t\r,"

    def _pass_block(self, at: int) -> bool:
        """Move the scan behind the block at `at`; False if more bytes are needed."""
        self._scanned = at
        if at + 1 >= len(self._buffer):
            return False
        size = _block_size(self._buffer, at)
        if size is None:
            self._scanned = at + 1
            return True
        if size < 0 or at + size > len(self._buffer):
            if size > self._limit:
                self._skipping = True
            return False
        self._scanned = at + size
        return True


def _block_size(data: bytes | bytearray, at: int) -> int | None:
    """Bytes of the definite block at `at`; -1 if its header is not all there; None if it is no definite block."""
    digit = data[at + 1 : at + 2]
    if not digit or digit not in b"123456789":
        return None
    digits = int(digit)
    header = bytes(data[at + 2 : at + 2 + digits])
    if header and not header.isdigit():
        return None
    return -1 if len(header) < digits else 2 + digits + int(header)


def units(message: bytes) -> Iterator[Unit]:
    """Read one program message, unit by unit.

    Raises:
        ScpiFault: At the unit that cannot be read; those before it have been yielded.
    """
    at, level = 0, ()
    while True:
        at = _skip_space(message, at)
        if at >= len(message):
            return
        if message[at] == 0x3B:
            at += 1
            continue
        path, query, at = _read_header(message, at, level)
        params, at = _read_params(message, at)
        if not path[0].startswith("*"):
            level = path[:-1]
        yield Unit(path, query, params)


def _skip_space(message: bytes, at: int) -> int:
    while at < len(message) and message[at] in _SPACE:
        at += 1
    return at


def _read_header(message: bytes, at: int, level: tuple[str, ...]) -> tuple[tuple[str, ...], bool, int]:
    match = _HEADER.match(message, at)
    if match is None:
        raise ScpiFault(-101 if message[at] not in b"*:" else -102)
    text, end = match[0].decode().upper(), match.end()
    query = message[end : end + 1] == b"?"
    end += query
    following = message[end : end + 1]
    if following and following not in _SPACE + b";":
        raise ScpiFault(-111 if following in b"\"'#(+-.0123456789," else -101 if following != b":" else -102)
    path = _path(text, level)
    if any(len(mnemonic.lstrip("*")) > _MNEMONIC_LIMIT for mnemonic in path):
        raise ScpiFault(-112)
    return path, query, end


def _path(text: str, level: tuple[str, ...]) -> tuple[str, ...]:
    if text.startswith("*"):
        return (text,)
    if text.startswith(":"):
        return tuple(text[1:].split(":"))
    return (*level, *text.split(":"))


def _read_params(message: bytes, at: int) -> tuple[tuple[Param, ...], int]:
    params: list[Param] = []
    at = _skip_space(message, at)
    if at >= len(message) or message[at] == 0x3B:
        return (), at
    while True:
        param, at = _read_param(message, _skip_space(message, at))
        params.append(param)
        at = _skip_space(message, at)
        if at >= len(message) or message[at] == 0x3B:
            return tuple(params), at
        if message[at] != 0x2C:
            raise ScpiFault(-103)
        at += 1


def _read_param(message: bytes, at: int) -> tuple[Param, int]:
    first = message[at : at + 1]
    if first in (b"", b",", b";"):
        raise ScpiFault(-103)
    if first in b"\"'":
        return _read_text(message, at)
    if first == b"#":
        return _read_block(message, at)
    if first == b"(":
        return _read_expression(message, at)
    if first in b"+-.0123456789":
        return _read_number(message, at)
    match = _WORD.match(message, at)
    if match is None:
        raise ScpiFault(-101 if first not in b":*?" else -102)
    _require_end(message, match.end(), -141)
    return Word(match[0].decode().upper()), match.end()


def _read_number(message: bytes, at: int) -> tuple[Number, int]:
    match = _NUMBER.match(message, at)
    if match is None:
        raise ScpiFault(-121)
    end = match.end() if match[2] else match.end(1)
    _require_end(message, end, -121)
    value = float(re.sub(rb"\s", b"", match[1]))
    return Number(value, (match[2] or b"").decode().upper()), end


def _require_end(message: bytes, at: int, code: int) -> None:
    if at < len(message) and message[at] not in _SPACE + b",;":
        raise ScpiFault(code)


def _read_text(message: bytes, at: int) -> tuple[Text, int]:
    quote = message[at : at + 1]
    parts: list[bytes] = []
    start = at + 1
    while True:
        end = message.find(quote, start)
        if end < 0:
            raise ScpiFault(-151)
        parts.append(message[start:end])
        if message[end + 1 : end + 2] != quote:
            return Text(quote.join(parts).decode("latin-1")), end + 1
        start = end + 2


def _read_block(message: bytes, at: int) -> tuple[Param, int]:
    if match := _NON_DECIMAL.match(message, at):
        try:
            return Number(float(int(match[2], _RADIX[match[1].decode().upper()]))), match.end()
        except ValueError:
            raise ScpiFault(-121) from None
        except OverflowError:
            raise ScpiFault(-222) from None
    if message[at + 1 : at + 2] == b"0":
        return Block(message[at + 2 :]), len(message)
    size = _block_size(message, at)
    if size is None or size < 0 or at + size > len(message) or not _may_be_block(message, at):
        raise ScpiFault(-161)
    header = 2 + int(message[at + 1 : at + 2])
    return Block(message[at + header : at + size]), at + size


def _may_be_block(message: bytes, at: int) -> bool:
    return at > 0 and message[at - 1] in b" \t\r,"


def _read_expression(message: bytes, at: int) -> tuple[Expression, int]:
    end = message.find(b")", at)
    if end < 0:
        raise ScpiFault(-102, "unclosed expression")
    return Expression(message[at + 1 : end].decode("latin-1").strip()), end + 1
