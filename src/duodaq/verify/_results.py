"""What a run gave, as plain values. Everything that a page says is here or is computed from what is here."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec

from duodaq.errors import ConfigError

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
COEXISTENCE, HARDWARE = "coexistence", "hardware"
ALL_MODES = ("inline", "thread", "process")
GOAL_MS = 5.0
"""The goal for the time until an instrument answers again."""

_PACKAGES = ("duodaq", "numpy", "pyarrow", "msgspec", "pydantic", "uvloop", "pyserial", "PyMeasure", "coverage")


class Figure(msgspec.Struct, frozen=True):
    """One measured number, with the labels that say of what."""

    name: str
    value: float
    unit: str
    of: dict[str, str] = {}


class Verdict(msgspec.Struct):
    """One test in one mode (of real instruments: on one instrument), and what became of it."""

    test: str
    mode: str
    state: str
    duration_s: float | None = None
    feature: str = ""
    error: str = ""
    features: list[str] = []
    figures: list[Figure] = []


class Sabotage(msgspec.Struct, frozen=True):
    """What is broken on purpose to see a test fail."""

    name: str
    feature: str
    words: str
    modes: list[str]


class Entry(msgspec.Struct):
    """One test of the index."""

    test: str
    category: str
    shows: str
    module: str = ""
    lines: int = 0
    sabotages: list[Sabotage] = []


class Package(msgspec.Struct):
    """How much of one package the tests went through."""

    name: str
    files: int
    statements: int
    statements_run: int
    branches: int
    branches_taken: int


class Coverage(msgspec.Struct):
    """Branch coverage, measured while the tests ran a second time; how many of these passed while being watched."""

    packages: list[Package]
    modes: list[str]
    passed: int
    of: int


class Results(msgspec.Struct):
    """All that a run gave. What was not measured is None or empty, and `absent` says why."""

    kind: str
    modes: list[str]
    tests: list[Verdict]
    index: list[Entry]
    format: int = 1
    began: str = ""
    took_s: float = 0.0
    takeover: list[Figure] = []
    coverage: Coverage | None = None
    versions: dict[str, str] = {}
    sabotage: str = ""
    absent: dict[str, str] = {}
    facts: dict[str, str] = {}
    written: list[Written] = []

    def of(self, test: str, mode: str) -> Verdict | None:
        """What became of one test in one mode."""
        return next((t for t in self.tests if (t.test, t.mode) == (test, mode)), None)

    @property
    def failed(self) -> list[Verdict]:
        """Those that failed."""
        return [test for test in self.tests if test.state == FAILED]

    def figures(self, name: str) -> list[tuple[Verdict, Figure]]:
        """Every figure of that name, with its test."""
        return [(test, figure) for test in self.tests for figure in test.figures if figure.name == name]


class Written(msgspec.Struct, frozen=True):
    """What was written to one port of real instruments, and how often."""

    port: str
    words: str
    holder: str
    count: int


class Summary:
    """The few numbers that stand for a run; None where nothing was measured."""

    def __init__(self, results: Results) -> None:
        ran = [test for test in results.tests if test.state in (PASSED, FAILED)]
        self.total = len(results.tests)
        self.ran = len(ran)
        self.passed = sum(test.state == PASSED for test in ran)
        self.not_run = self.total - self.ran
        timed = [(test.duration_s, test) for test in ran if test.duration_s is not None]
        durations = [duration for duration, _ in timed]
        self.total_s = sum(durations) if durations else None
        self.mean_s = statistics.fmean(durations) if durations else None
        self.fastest = min(timed, key=_duration, default=None)
        self.slowest = max(timed, key=_duration, default=None)
        at_once = [figure.value for _, figure in results.figures("messages at once")]
        self.at_once = int(max(at_once)) if at_once else None
        takeovers = [figure.value for figure in results.takeover]
        self.takeover_ms = statistics.median(takeovers) if takeovers else None
        packages = results.coverage.packages if results.coverage else []
        branches = sum(package.branches for package in packages)
        self.branch_share = sum(package.branches_taken for package in packages) / branches if branches else None

    @property
    def rate(self) -> float | None:
        """How many of those that ran have passed, of 1."""
        return self.passed / self.ran if self.ran else None


def _duration(timed: tuple[float, Verdict]) -> float:
    return timed[0]


def versions() -> dict[str, str]:
    """The machine and what is installed on it, with how busy it is now."""
    found = {"Python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    found["processors"] = str(os.cpu_count())
    if hasattr(os, "getloadavg"):
        found["load when it began"] = f"{os.getloadavg()[0]:.1f}"
    return found


def now() -> str:
    """This moment, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def load_results(path: Path) -> Results:
    """The results that a run kept.

    Raises:
        ConfigError: They cannot be read, or are none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"these are no results of duodaq verify: {error}", file=path) from error


def results_from_tests(folder: Path, index: Sequence[Entry]) -> Results:
    """Results put together from one file for each test, as a run of the tests by pytest leaves them.

    Raises:
        ConfigError: There are none, or one of them cannot be read.
    """
    try:
        tests = [msgspec.json.decode(file.read_bytes(), type=Verdict) for file in folder.glob("*.json")]
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"what the tests left cannot be read: {error}", file=folder) from error
    if not tests:
        raise ConfigError("no test has left anything here", file=folder, remedy="Run the twelve tests first")
    names = [entry.test for entry in index]
    order = {name: number for number, name in enumerate((*ALL_MODES, *names))}
    tests.sort(key=lambda test: (order.get(test.mode, len(order)), order.get(test.test, len(order))))
    return Results(COEXISTENCE, list(dict.fromkeys(test.mode for test in tests)), tests, list(index))
