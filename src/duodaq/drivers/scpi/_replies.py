from __future__ import annotations

from collections.abc import Callable

from duodaq.ports import Framing


class Replies:
    """Several replies in a row as one: complete when each of `count` framings made by `make` is."""

    def __init__(self, make: Callable[[], Framing], count: int) -> None:
        self._make = make
        self._count = count
        self.reset()

    @property
    def rest(self) -> bytes:
        """Bytes that came after the last reply."""
        return self._current.rest

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; all replies with their terminators once the last one is whole, else None."""
        while (reply := self._current.feed(data)) is not None:
            self._whole.append(reply)
            if len(self._whole) == self._count:
                return b"".join(self._whole)
            data = self._current.rest
            self._current = self._make()
        return None

    def reset(self) -> None:
        """Forget what was taken."""
        self._whole: list[bytes] = []
        self._current = self._make()
