"""A home-made TTL shutter controller on a serial line: ``SHUT 1``, ``SHUT 0``, ``SHUT?``, ``*IDN?``; LF both ways."""

from __future__ import annotations

from typing import Any

from duodaq.sim._lines import LineReader
from duodaq.sim._simulator import Line, Reply, Tally
from duodaq.sim.table import Table

_IDENTITY = b"Workshop,TTL shutter,7,1.2\n"


class ShutterSimulator:
    """Moves the table's shutter. It closes it when its power comes or goes; unknown words are ignored in silence."""

    def __init__(self, table: Table) -> None:
        self.name = "shutter"
        self.model = "TTL shutter"
        self.line = Line(baud=9600, processing_s=0.002)
        self.tally = Tally()
        self.paced = True
        self._table = table
        self._lines = LineReader(b"\n")

    def open_session(self, client: int, now_s: float) -> bytes:
        """It says nothing unasked."""
        return b""

    def close_session(self, client: int) -> None:
        """It does not notice."""

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Carry out every complete line."""
        replies: list[Reply] = []
        for line in self._lines.feed(data, pending):
            self.tally.commands += 1
            self.tally.interleavings += bool(line.crowded or replies)
            reply = self._execute(line.text.upper())
            if reply:
                self.tally.exchanges += 1
                replies.append(Reply(0.0, reply, client))
        return replies

    def due(self, now_s: float) -> list[Reply]:
        """Nothing ever waits here."""
        return []

    def due_at_s(self) -> float | None:
        """Nothing ever waits here."""
        return None

    def power_cycle(self, now_s: float) -> None:
        """The spring closes it."""
        self._lines.clear()
        self._table.set_shutter(False)

    def report(self) -> dict[str, Any]:
        """The tally."""
        return self.tally.as_dict()

    def _execute(self, line: str) -> bytes:
        if line == "*IDN?":
            return _IDENTITY
        if line == "SHUT?":
            self.tally.produced["shutter"] += 1
            return b"1\n" if self._table.state().shutter_open else b"0\n"
        if line in ("SHUT 1", "SHUT 0"):
            self._table.set_shutter(line.endswith("1"))
        else:
            self.tally.misframed += 1
        return b""


def make(*, model: str | None, table: Table, seed: int) -> ShutterSimulator:
    """The simulator; it has one model and no noise."""
    if model not in (None, "TTL shutter"):
        raise ValueError(f"shutter has no model {model!r}")
    return ShutterSimulator(table)
