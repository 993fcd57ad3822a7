"""Replies that can be read only once, given to everybody who asks for them.

Reading an error queue or an event register takes the entry away. So each such reply is kept for the holders who have
not seen it: when one of them asks the same question, it gets the oldest copy that is new to it, without touching the
wire. A reply that says "nothing" (its number is 0: ``0,"No error"``, ``0, 451322, NO ERROR DETECTED``, ``*ESR?`` →
``0``) is no news and is never kept. Whoever asks for the first time begins with what comes after.
"""

from __future__ import annotations

import re
from collections import deque

_NUMBER = re.compile(rb"\s*[+-]?(\d+)")
_KEPT = 64


def is_news(reply: bytes) -> bool:
    """Whether a destructive reply carries something: its leading number is not 0."""
    number = _NUMBER.match(reply)
    return number is None or int(number.group(1)) != 0


class DestructiveCopies:
    """The last replies to each destructive query of one port, and who has seen how many of them."""

    def __init__(self) -> None:
        self.missed = 0
        self._kept: dict[bytes, deque[tuple[int, bytes, str]]] = {}
        self._seen: dict[tuple[bytes, str], int] = {}
        self._count = 0

    def take(self, query: bytes, holder: str) -> bytes | None:
        """The oldest reply to `query` that somebody else read and `holder` has not seen; None if there is none."""
        key = query.strip().upper()
        seen = self._seen.setdefault((key, holder), self._count)
        for number, reply, reader in self._kept.get(key, ()):
            if number > seen and reader != holder:
                self._seen[key, holder] = number
                return reply
        return None

    def forget(self, holder: str) -> None:
        """`holder` is gone for good: what it has seen is not remembered."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[1] != holder}

    def keep(self, query: bytes, holder: str, reply: bytes) -> None:
        """Remember what `holder` read, for the others."""
        if not is_news(reply):
            return
        key = query.strip().upper()
        kept = self._kept.setdefault(key, deque(maxlen=_KEPT))
        if len(kept) == _KEPT:
            self.missed += 1
        self._count += 1
        kept.append((self._count, reply, holder))
