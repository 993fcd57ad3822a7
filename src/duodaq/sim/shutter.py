"""A home-made TTL shutter controller on a serial line: ``SHUT 1``, ``SHUT 0``, ``SHUT?``, ``*IDN?``; LF both ways."""

from __future__ import annotations

from typing import Any

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
        self._buffer = b""
        self._crowded = False

    def open_session(self, client: int, now_s: float) -> bytes:
        """It says nothing unasked."""
        return b""

    def close_session(self, client: int) -> None:
        """It does not notice."""

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Carry out every complete line."""
        replies: list[Reply] = []
        self._crowded |= pending > 0
        *lines, self._buffer = (self._buffer + data).replace(b"\r", b"").split(b"\n")
        for line in lines:
            if not line.strip():
                continue
            self.tally.commands += 1
            if self._crowded or replies:
                self.tally.interleavings += 1
            reply = self._execute(line.strip().upper())
            if reply:
                self.tally.exchanges += 1
                replies.append(Reply(0.0, reply))
            self._crowded = False
        self._buffer = self._buffer[-64:]
        if not self._buffer:
            self._crowded = False
        return replies

    def due(self, now_s: float) -> list[Reply]:
        """Nothing ever waits here."""
        return []

    def due_at_s(self) -> float | None:
        """Nothing ever waits here."""
        return None

    def power_cycle(self, now_s: float) -> None:
        """The spring closes it."""
        self._buffer = b""
        self._table.set_shutter(False)

    def report(self) -> dict[str, Any]:
        """The tally."""
        return self.tally.as_dict()

    def _execute(self, line: bytes) -> bytes:
        if line == b"*IDN?":
            return _IDENTITY
        if line == b"SHUT?":
            self.tally.produced["shutter"] += 1
            return b"1\n" if self._table.state().shutter_open else b"0\n"
        if line in (b"SHUT 1", b"SHUT 0"):
            self._table.set_shutter(line.endswith(b"1"))
        else:
            self.tally.misframed += 1
        return b""


def make(*, model: str | None, table: Table, seed: int) -> ShutterSimulator:
    """The simulator; it has one model and no noise."""
    if model not in (None, "TTL shutter"):
        raise ValueError(f"shutter has no model {model!r}")
    return ShutterSimulator(table)
