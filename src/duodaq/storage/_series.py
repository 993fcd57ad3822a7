"""A recording that goes on for weeks, as a series of runs: when one ends, and which may go. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from duodaq.errors import ConfigError

SERIES = "log"
"""Where a run's provenance says which series it is of."""
KEPT = "keep"
"""The tag of a run that is never removed."""
_S = 1_000_000_000
_NAMED = {"hourly": 3600 * _S, "daily": 86_400 * _S, "weekly": 7 * 86_400 * _S}
_TIMES = {"s": _S, "min": 60 * _S, "h": 3600 * _S, "d": 86_400 * _S, "w": 7 * 86_400 * _S}
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SHORTEST_NS = _S
LONGEST_IDLE_NS = 45 * 86_400 * _S
"""When nothing was recorded for longer, rather the clock is wrong: such a time makes no run older."""
_MONDAY_NS = 4 * 86_400 * _S
"""1970 began on a Thursday; weeks begin on Mondays."""


def rotation_ns(word: str | None) -> int | None:
    """How long one run of a series lasts; None: it is never rotated.

    Raises:
        ConfigError: It is none of ``hourly``, ``daily``, ``weekly``, or a duration of at least a second (``6h``).
    """
    if word is None or word == "never":
        return None
    every = _NAMED.get(word) or _duration(word)
    if every is None or every < _SHORTEST_NS:
        known = "hourly, daily, weekly, never, or a duration such as 6h"
        raise ConfigError(f"{word!r} is no rotation", key="rotate", remedy=f"Known: {known}.")
    return every


def age_ns(word: str | None) -> int | None:
    """How long a run is kept; None: for ever.

    Raises:
        ConfigError: It is no duration: ``90d``, ``12 h``.
    """
    if word is None:
        return None
    found = _duration(word)
    if not found:
        raise ConfigError(f"{word!r} is no duration", key="keep", remedy="Write a number and s, min, h, d or w: 90d.")
    return found


def budget_bytes(word: str | int | None) -> int | None:
    """How much a series may take on the disk; None: all there is.

    Raises:
        ConfigError: It is no size: ``50GB``, ``800 MB``.
    """
    if word is None or (isinstance(word, int) and word >= 0):
        return word
    word = str(word)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", word, re.IGNORECASE)
    unit = _SIZES.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise ConfigError(f"{word!r} is no size", key="budget", remedy="Write a number and MB, GB or TB: 50GB.")
    return int(float(found[1]) * unit)


def series_name(word: str) -> str:
    """The name of a series, if it is one: it begins the names of directories, and of patterns that find them.

    Raises:
        ConfigError: There is something else in it than letters, digits, spaces, ``-``, ``_`` and ``.``.
    """
    if word.startswith(".") or not re.fullmatch(r"[\w .-]+", word) or "\n" in word:
        remedy = "It begins a directory's name: letters, digits, spaces, -, _ and . (not first)."
        raise ConfigError(f"{word!r} is no name of a log", key="name", remedy=remedy)
    return word


def next_turn_ns(t_ns: int, every_ns: int) -> int:
    """The first boundary behind `t_ns`: whole hours, days and weeks of UTC, whenever the series began."""
    offset = _MONDAY_NS if every_ns % (7 * 86_400 * _S) == 0 else 0
    return t_ns - (t_ns - offset) % every_ns + every_ns


def run_name(series: str, t_ns: int) -> str:
    """What the directory of a run of a series is called that begins at `t_ns`."""
    return f"{series}-{datetime.fromtimestamp(t_ns / _S, UTC):%Y%m%dT%H%M%S.%fZ}"


class KeptRun(NamedTuple):
    """One ended run of a series: when it ended and began, what it takes, whether it may go."""

    path: Path
    stop_ns: int
    size: int
    verified: bool
    tags: tuple[str, ...] = ()
    start_ns: int | None = None

    @property
    def may_go(self) -> bool:
        """Whether it was verified and nobody wants it kept."""
        return self.verified and KEPT not in self.tags


def to_remove(
    runs: Sequence[KeptRun],
    now_ns: int,
    *,
    keep_ns: int | None,
    budget: int | None,
    growing: int = 0,
    since_ns: int | None = None,
) -> list[tuple[KeptRun, str]]:
    """Which runs go, the oldest first, each with the reason.

    Args:
        runs: The ended ones.
        now_ns: UTC nanoseconds.
        keep_ns: How long one is kept from its end; None: for ever.
        budget: How many bytes the series may take; None: any.
        growing: How many the run takes that goes on.
        since_ns: When that began.
    """
    oldest_first = sorted(runs, key=lambda run: run.stop_ns)
    idle_ns = idle_times(oldest_first, now_ns if since_ns is None else since_ns)
    ages = [now_ns - run.stop_ns - sum(idle_ns[i:]) for i, run in enumerate(oldest_first)]
    going = {
        run.path: "age"
        for run, age in zip(oldest_first, ages, strict=True)
        if keep_ns is not None and run.may_go and age > keep_ns
    }
    total = growing + sum(run.size for run in oldest_first if run.path not in going)
    for run in oldest_first:
        if budget is None or total <= budget:
            break
        if run.may_go and run.path not in going:
            going[run.path] = "budget"
            total -= run.size
    return [(run, going[run.path]) for run in oldest_first if run.path in going]


def idle_times(runs: Sequence[KeptRun], since_ns: int) -> list[int]:
    """How long nothing was recorded behind each run, where that is too long to be believed; else 0.

    A clock that is far ahead makes such a time, and makes it again for every run that is recorded by it: as long as it
    counted, the first run by a wrong clock would be the end of all before it.

    Args:
        runs: The ended ones, the one that ended first before the others.
        since_ns: When the run began that goes on.
    """
    begins = [run.stop_ns if run.start_ns is None else run.start_ns for run in runs[1:]] + [since_ns]
    waits = [max(0, begin - run.stop_ns) for run, begin in zip(runs, begins, strict=False)]
    return [wait if wait > LONGEST_IDLE_NS else 0 for wait in waits]


def fits(stream: str, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Whether one of `patterns` is the whole of a stream's name."""
    return any(pattern.fullmatch(stream) for pattern in patterns)


def _duration(word: str) -> int | None:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*", word)
    return None if found is None else int(float(found[1]) * _TIMES[found[2]])
