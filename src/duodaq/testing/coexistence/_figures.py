"""What a coexistence test measured beside what it proved; nothing is judged by it, and nothing here is computed ahead.

A figure has a name, a value in a unit, and labels that say of what: ``recovery`` of side v2 from fault SIGKILL.
"""

from __future__ import annotations

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One measured number."""

    name: str
    value: float
    unit: str
    of: dict[str, str] = {}


class Figures:
    """The figures of one run of one test, in the order in which they were measured."""

    def __init__(self) -> None:
        self.measured: list[Figure] = []

    def note(self, name: str, value: float, unit: str, **of: str) -> None:
        """Keep one figure; `of` are its labels."""
        self.measured.append(Figure(name, float(value), unit, of))
