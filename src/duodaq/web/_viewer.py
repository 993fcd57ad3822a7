"""One browser that watches: what it wants, what it has room for, and what waits for it.

Nothing here ever waits for a browser. Rows and images have credits of their own, given by the browser for what it has
drawn; what finds no credit waits in a bounded queue (rows) or in one place that newer ones take (images, states), and
what is lost so is counted and told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from duodaq.web._pictures import View
from duodaq.web._rates import Rate

MOST_ROWS = 256
MOST_CREDIT = 64
MOST_TOGETHER = 65536
"""Bytes of rows in one message, beyond the first that waits."""
MOST_ANSWERS = 64
_PASTS_PER_S, _PASTS_AT_ONCE = 16.0, 256.0
"""A past takes the server a tenth of a millisecond: who changes his mind oftener begins with what comes."""


class Waiting(NamedTuple):
    """A message of rows that waits for credit."""

    stream: str
    data: bytes
    rows: int


class Viewer:
    """What one browser wants and gets."""

    def __init__(self) -> None:
        self.streams: frozenset[str] = frozenset()
        self.traces: frozenset[str] = frozenset()
        self.views: dict[str, View] = {}
        self.rows_dropped = 0
        self.images_dropped = 0
        self.seen_log = 0
        self._rows_credit = 0
        self._images_credit = 0
        self._rows: deque[Waiting] = deque()
        self._images: dict[str, bytes] = {}
        self._states: dict[str, bytes] = {}
        self._answers: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._pasts = Rate(_PASTS_PER_S, _PASTS_AT_ONCE, most=1)

    def give(self, rows: int, images: int) -> None:
        """Take credit from the browser."""
        self._rows_credit = min(MOST_CREDIT, self._rows_credit + max(0, rows))
        self._images_credit = min(MOST_CREDIT, self._images_credit + max(0, images))
        self._news.set()

    def may_have_past(self) -> bool:
        """Whether one more stream or trace that is new to it may begin with what was before."""
        return self._pasts.take("")

    def offer_rows(self, message: Waiting) -> None:
        """A message of rows, if it wants that stream; the oldest that waits makes room."""
        if message.stream not in self.streams:
            return
        if len(self._rows) >= MOST_ROWS:
            self.rows_dropped += self._rows.popleft().rows
        self._rows.append(message)
        self._news.set()

    def has_room_for(self, stream: str) -> bool:
        """Whether an image of this stream would go out at once."""
        return stream in self.views and self._images_credit > 0 and stream not in self._images

    def offer_image(self, stream: str, data: bytes) -> None:
        """An image or a trace; it takes the place of one that waits."""
        self.images_dropped += stream in self._images
        self._images[stream] = data
        self._news.set()

    def offer_state(self, kind: str, data: bytes) -> None:
        """A text of the present state; it takes the place of one of its kind that waits."""
        self._states[kind] = data
        self._news.set()

    def answer(self, data: bytes) -> bool:
        """An answer to something that was asked; False if far too many wait already."""
        if len(self._answers) >= MOST_ANSWERS:
            return False
        self._answers.append(data)
        self._news.set()
        return True

    async def next(self) -> tuple[str | None, bytes | None]:
        """What goes out next, as text or as bytes; waits for it. Answers and states first: they are few and small."""
        while True:
            if self._answers:
                return self._answers.popleft().decode(), None
            if self._states:
                kind = next(iter(self._states))
                return self._states.pop(kind).decode(), None
            if self._images and self._images_credit:
                self._images_credit -= 1
                stream = next(iter(self._images))
                return None, self._images.pop(stream)
            if self._rows and self._rows_credit:
                return None, self._rows_together()
            self._news.clear()
            await self._news.wait()

    def _rows_together(self) -> bytes:
        """What waits of rows, as far as the credit goes: a message for each curve is most of what a message costs."""
        found: list[bytes] = []
        size = 0
        while self._rows and self._rows_credit and (not found or size + len(self._rows[0].data) <= MOST_TOGETHER):
            self._rows_credit -= 1
            found.append(self._rows.popleft().data)
            size += len(found[-1])
        return b"".join(found) if len(found) > 1 else found[0]
