"""On which line of a TOML text each key stands.

tomllib gives values without positions, so this reads the text once more and notes positions only. It trusts that the
text is TOML (tomllib has said so); on text that is not, it keeps what it found up to there, which is how the first of
two equal declarations is found when tomllib refuses the second.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

KeyPath = tuple[str | int, ...]
_Found = tuple[KeyPath, int, bool]  # where, on which line, and whether it is declared there or only implied

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_GAP = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})(?!")'
    r"|'''.*?'''(?:'{0,2})(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


class _NotTomlError(ValueError):
    """The text stops being TOML here; what was found before it is still true."""


class Positions:
    """The line of every table, key and array item of a TOML text, by its path; lines count from 1."""

    def __init__(self, text: str) -> None:
        self.first: dict[KeyPath, int] = {}
        self.again: dict[KeyPath, int] = {}
        declared: set[KeyPath] = set()
        for path, line, is_declaration in _Scan(text).found():
            self.first.setdefault(path, line)
            if is_declaration and path in declared:
                self.again.setdefault(path, line)
            elif is_declaration:
                declared.add(path)

    def line(self, path: KeyPath) -> int | None:
        """The line of `path`, or of the nearest table around it; None if nothing of it is in the text."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.first:
                return self.first[path[:length]]
        return None


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._items: dict[KeyPath, int] = {}

    def found(self) -> Iterator[_Found]:
        prefix: KeyPath = ()
        try:
            while self._skip(_BLANK) < len(self._text):
                if self._peek("["):
                    prefix = self._header()
                    for length in range(1, len(prefix)):
                        yield prefix[:length], self._line(), False
                    yield prefix, self._line(), True
                    self._skip_header_end()
                else:
                    yield from self._pair(prefix)
        except _NotTomlError:
            return

    def _header(self) -> KeyPath:
        is_array = self._peek("[[")
        self._at += 2 if is_array else 1
        path = self._through_arrays(self._key())
        if not is_array:
            return path
        self._items[path] = self._items.get(path, -1) + 1
        return (*path, self._items[path])

    def _through_arrays(self, key: KeyPath) -> KeyPath:
        """`key` with the number of the present item after each part that is an array of tables, except the last."""
        path: KeyPath = ()
        for part in key:
            path = (*path, self._items[path], part) if path in self._items else (*path, part)
        return path

    def _skip_header_end(self) -> None:
        while self._peek("]"):
            self._at += 1

    def _pair(self, prefix: KeyPath) -> Iterator[_Found]:
        line = self._line()
        key = self._key()
        for length in range(1, len(key)):
            yield (*prefix, *key[:length]), line, False
        yield (*prefix, *key), line, True
        self._expect("=")
        self._skip(_GAP)
        yield from self._value((*prefix, *key))

    def _value(self, path: KeyPath) -> Iterator[_Found]:
        if self._peek("["):
            yield from self._array(path)
        elif self._peek("{"):
            yield from self._inline(path)
        elif self._peek('"') or self._peek("'"):
            self._match(_STRING)
        else:
            self._match(_SCALAR)

    def _array(self, path: KeyPath) -> Iterator[_Found]:
        self._at += 1
        number = 0
        self._skip(_BLANK)
        while not self._peek("]"):
            yield (*path, number), self._line(), True
            yield from self._value((*path, number))
            number += 1
            self._separator("]")
        self._at += 1

    def _inline(self, path: KeyPath) -> Iterator[_Found]:
        self._at += 1
        self._skip(_BLANK)
        while not self._peek("}"):
            yield from self._pair(path)
            self._separator("}")
        self._at += 1

    def _separator(self, end: str) -> None:
        self._skip(_BLANK)
        if not self._peek(end):
            self._expect(",")
            self._skip(_BLANK)

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip(_GAP)
            parts.append(self._key_part())
            self._skip(_GAP)
            if not self._peek("."):
                return tuple(parts)
            self._at += 1

    def _key_part(self) -> str:
        if self._peek('"') or self._peek("'"):
            return str(tomllib.loads(f"key = {self._match(_STRING)}")["key"])
        return self._match(_BARE)

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _NotTomlError
        self._at = match.end()
        return match[0]

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._match(pattern)
        return self._at

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _expect(self, text: str) -> None:
        if not self._peek(text):
            raise _NotTomlError
        self._at += len(text)

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1
