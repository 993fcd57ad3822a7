"""How numbers are written on the pages; a number that nobody measured is written as what it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from duodaq.verify._page import State, Table, Text
from duodaq.verify._results import GOAL_MS, Figure

NOT_MEASURED = "not measured"


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return NOT_MEASURED
    if value >= 100:
        return f"{int(value // 60)} min {value % 60:.0f} s"
    return f"{value:.2f} s"


def milliseconds(value: float | None) -> str:
    """A short time."""
    return NOT_MEASURED if value is None else f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} ms"


def percent(value: float | None) -> str:
    """A share of 1; 100 % is never rounded up to."""
    if value is None:
        return NOT_MEASURED
    return "100 %" if value == 1 else f"{min(100 * value, 99.9):.1f} %"


def quantity(value: float, unit: str) -> str:
    """A figure in its unit."""
    if unit == "ms":
        return milliseconds(value)
    number = f"{value:,.0f}".replace(",", " ") if value == int(value) or value >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def goal(value_ms: float) -> State:
    """Whether a time is within the goal."""
    return State("within" if value_ms <= GOAL_MS else "beyond")


def times_table(labels: tuple[str, ...], figures: Iterable[tuple[tuple[str, ...], Figure]]) -> Table:
    """Times in groups: how often, the shortest, the median, the longest, and the goal beside the median."""
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for group, figure in figures:
        groups[group].append(figure.value)
    columns = (*labels, "times", "shortest", "median", "longest", f"goal {GOAL_MS:g} ms")
    rows = tuple((*group, *_spread(values)) for group, values in groups.items())
    first = len(labels)
    return Table(columns, rows, frozenset(range(first, first + 4)))


def _spread(values: list[float]) -> tuple[Text, ...]:
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    times = tuple(milliseconds(value) for value in (ordered[0], middle, ordered[-1]))
    return (str(len(values)), *times, goal(middle))
