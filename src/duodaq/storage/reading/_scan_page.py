"""A scan as a notebook shows it: what it is, and its first and last points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from duodaq import markup

MOST_POINTS = 10
MOST_FIELDS = 12


def scan_page(
    said: str,
    metadata: Mapping[str, Any],
    place: object,
    units: Mapping[str, str],
    fields: Sequence[str],
    events: Sequence[Mapping[str, Any]],
) -> str:
    """The page of a scan.

    Args:
        said: What it is, in words.
        metadata: What was given with it.
        place: The recording that has it; None if there is none.
        units: Of the fields.
        fields: The fields, those that are shown first.
        events: Bluesky's events, one for each point.
    """
    shown = list(fields[:MOST_FIELDS])
    facts = [f"{name}: {value}" for name, value in metadata.items()]
    facts += [] if place is None else [f"recorded in {place}"]
    left = len(fields) - len(shown)
    facts += [f"{left} further fields are not shown"] if left else []
    head = ["point", *(f"{name} [{units[name]}]" if units.get(name) else name for name in shown)]
    ends = [*events[: MOST_POINTS // 2], *events[MOST_POINTS // 2 :][-MOST_POINTS // 2 :]]
    rows = [[event["seq_num"], *(_short(event["data"].get(name)) for name in shown)] for event in ends]
    if len(events) > len(ends):
        rows.insert(MOST_POINTS // 2, ["⋮"] * len(head))
    return markup.page(said, facts, markup.table(head, rows))


def _short(value: Any) -> Any:
    shape = np.shape(value)
    return f"array of shape {shape}" if shape else value
