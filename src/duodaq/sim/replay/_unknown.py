"""What a replay says on stderr of the commands that were never recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from duodaq.sim.replay._instrument import ReplayedInstrument

_LIVE = 20
_LINES = 100


class UnknownTeller:
    """Warns of the first of each unknown command as it comes, of a bounded number of them, and sums up at the end."""

    def __init__(self, instruments: Iterable[ReplayedInstrument]) -> None:
        self._instruments = [*instruments]
        self._told = 0
        for instrument in self._instruments:
            instrument.on_unknown = self._warn

    def sum_up(self) -> None:
        """One line for each unknown command: port, bytes, and how often it came; the most frequent first."""
        found = [(one.name, key, count) for one in self._instruments for key, count in one.unknown.items()]
        found.sort(key=lambda each: -each[2])
        for port, key, count in found[:_LINES]:
            _say(f"{port}: {_shown(key)} was never recorded; it came {count} time{'s' if count > 1 else ''}")
        if len(found) > _LINES:
            _say(f"… and {len(found) - _LINES} more unknown commands")
        for one in self._instruments:
            if one.unknown_beyond:
                _say(f"{one.name}: {one.unknown_beyond} more unknown commands were counted, but not kept")

    def _warn(self, port: str, key: str) -> None:
        self._told += 1
        if self._told <= _LIVE:
            _say(f"{port} was told {_shown(key)}, which was never recorded")
        elif self._told == _LIVE + 1:
            _say("more unknown commands come; they are counted, and listed at the end")


def _shown(key: str) -> str:
    shown = repr(key.encode("latin-1"))[1:]
    return shown if len(shown) <= 80 else f"{shown[:80]}… ({len(key)} bytes)"


def _say(line: str) -> None:
    print(f"replay: {line}", file=sys.stderr, flush=True)  # noqa: T201  a process of its own speaks here
