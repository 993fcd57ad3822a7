"""Moments as people write them, as UTC nanoseconds and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

Moment = datetime | np.datetime64 | str | int
"""A datetime (naive ones are local time), ISO 8601, numpy's datetime64 (UTC), or UTC nanoseconds since 1970."""


class Window(NamedTuple):
    """From `start_ns` on and before `stop_ns`; None: without an end."""

    start_ns: int | None = None
    stop_ns: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether it leaves nothing out."""
        return self.start_ns is None and self.stop_ns is None

    def within(self, other: Window) -> Window:
        """What both have in common."""
        starts = [w.start_ns for w in (self, other) if w.start_ns is not None]
        stops = [w.stop_ns for w in (self, other) if w.stop_ns is not None]
        return Window(max(starts, default=None), min(stops, default=None))


ALL = Window()


def moment_ns(moment: Moment) -> int:
    """UTC nanoseconds since 1970.

    Raises:
        ValueError: A text that is no ISO 8601.
    """
    if isinstance(moment, int):
        return moment
    if isinstance(moment, np.datetime64):
        return int(moment.astype("datetime64[ns]").astype(np.int64))
    known: Any = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    whole = known.astimezone(UTC)
    seconds = int(whole.replace(microsecond=0).timestamp())
    return seconds * 1_000_000_000 + whole.microsecond * 1000 + getattr(known, "nanosecond", 0)


def utc(t_ns: int) -> datetime:
    """UTC nanoseconds as a datetime in UTC, to the microsecond."""
    seconds, rest = divmod(t_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
