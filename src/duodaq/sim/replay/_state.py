"""What a device was told, and what it last said of itself: the state in which a query was answered. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict

Entry = tuple[str, bytes]
"""The port and the subject: the command without its argument, or a query."""

_HEADER = re.compile(rb"[^A-Za-z]*[A-Za-z:*_]+")


def split_argument(key: bytes) -> tuple[bytes, bytes]:
    """A command's subject and its argument: ``1PA3.4`` is ``1PA`` and ``3.4``."""
    word, blank, rest = key.partition(b" ")
    if blank:
        return word, rest.strip()
    match = _HEADER.match(key)
    return (key[: match.end()], key[match.end() :]) if match else (key, b"")


class State:
    """The last value under each subject, newest last, with a mark that is equal for equal states."""

    def __init__(self) -> None:
        self.values: dict[Entry, bytes] = {}
        self.mark = 0

    def put(self, entry: Entry, value: bytes) -> None:
        """Take a value."""
        old = self.values.pop(entry, None)
        if old is not None:
            self.mark ^= hash((entry, old))
        self.values[entry] = value
        self.mark ^= hash((entry, value))


class History:
    """How the state went in a recording: under each subject, its values with the commands from which they held."""

    def __init__(self) -> None:
        self._places: defaultdict[Entry, list[int]] = defaultdict(list)
        self._values: defaultdict[Entry, list[bytes]] = defaultdict(list)

    def put(self, entry: Entry, value: bytes, index: int) -> None:
        """From command `index` on, `entry` had this value."""
        if self.at(entry, index) != value:
            self._places[entry].append(index)
            self._values[entry].append(value)

    def at(self, entry: Entry, index: int) -> bytes | None:
        """The value under `entry` when command `index` had been taken."""
        place = bisect_right(self._places[entry], index) if entry in self._places else 0
        return self._values[entry][place - 1] if place else None

    def agrees(self, index: int, state: State, apart: Entry | None = None) -> bool:
        """Whether all that is known in `state` was so at command `index`; `apart` does not count."""
        return all(entry == apart or self.at(entry, index) == value for entry, value in state.values.items())

    def nearest(self, places: list[int], state: State, port: str, apart: Entry | None = None) -> int:
        """Which of `places` was most like `state`: what was set on `port` counts first, then what was set last.

        Args:
            places: Commands in rising order; of several that are equally like it, the first is found.
            state: The state now.
            port: The one that is asked.
            apart: A subject that does not count.
        """
        weights = self._weights(places, state, apart)
        return max(places, key=lambda index: self._likeness(index, weights, state, port))

    def _weights(self, places: list[int], state: State, apart: Entry | None) -> dict[Entry, float]:
        """Only subjects under which the places differ count, and the more, the later they were touched."""
        weights: dict[Entry, float] = {}
        ranks = {entry: rank for rank, entry in enumerate(reversed(state.values))}
        for entry in self._places:
            if entry != apart and len({self.at(entry, index) for index in places}) > 1:
                weights[entry] = 1 / (1 + ranks.get(entry, len(ranks)))
        return weights

    def _likeness(self, index: int, weights: dict[Entry, float], state: State, port: str) -> tuple[float, float]:
        own = others = 0.0
        for entry, weight in weights.items():
            if self.at(entry, index) == state.values.get(entry):
                own, others = (own + weight, others) if entry[0] == port else (own, others + weight)
        return own, others
