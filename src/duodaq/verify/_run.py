"""The order of a run: the inventory, every test in every mode, takeovers, and all once more for coverage."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from duodaq.clock import monotonic_s
from duodaq.errors import ConfigError, LifecycleError
from duodaq.verify._coverage import CoverageMissingError, can_measure, measured, measuring
from duodaq.verify._results import (
    ALL_MODES,
    COEXISTENCE,
    FAILED,
    NOT_RUN,
    PASSED,
    Coverage,
    Entry,
    Figure,
    Results,
    Verdict,
    now,
    versions,
)
from duodaq.verify._suite_process import SilentError, SuiteProcess

NEEDED = ("serial", "pyvcam")
TAKEOVERS = 3
"""How often the process of an instrument is killed for the takeover, on either side."""

HARDWARE_NOT_RUN = "duodaq verify --hardware LAB.toml runs on real instruments; this run had none"


class SuiteError(LifecycleError):
    """The suite could not be run at all."""


@dataclass(frozen=True)
class Plan:
    """What is asked for: modes, tests (all without any), and whether coverage is measured."""

    modes: tuple[str, ...] = ALL_MODES
    tests: tuple[str, ...] = ()
    coverage: bool = True
    sabotage: str = ""


@dataclass(frozen=True)
class Step:
    """What has just happened, for whoever shows progress: `test` is None at its beginning."""

    what: str
    done: int
    of: int
    name: str = ""
    mode: str = ""
    test: Verdict | None = None


Tell = Callable[[Step], None]


def verify_coexistence(plan: Plan, tell: Tell = lambda _: None) -> Results:
    """Run it.

    Raises:
        ConfigError: There is no such mode, test or sabotage, or something is not installed that the tests need.
        SuiteError: The suite could not be started.
        KeyboardInterrupt: It was interrupted. Nothing that it had started is left.
    """
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"the tests need {module}", remedy="pip install 'duodaq[verify]'")
    began_s = monotonic_s()
    results = Results(COEXISTENCE, list(plan.modes), [], read_index(), began=now(), versions=versions())
    results.sabotage = plan.sabotage
    results.absent["hardware"] = HARDWARE_NOT_RUN
    names = chosen(plan, results.index)
    total = len(names) * len(plan.modes)
    for mode in plan.modes:
        for test in _tests(mode, names, plan.sabotage, lambda name, m=mode: tell(_begins(results, total, name, m))):
            results.tests.append(test)
            tell(Step("test", len(results.tests), total, test.test, test.mode, test))
    _takeover(plan, results, tell)
    _coverage(plan, names, results, tell)
    results.took_s = monotonic_s() - began_s
    return results


def read_index() -> list[Entry]:
    """The twelve, as the test kit that is installed has them.

    Raises:
        SuiteError: It cannot be loaded.
    """
    with SuiteProcess(["--inventory"]) as process:
        for said in process.said():
            return msgspec.convert(said["index"], list[Entry])
        raise SuiteError(f"the test kit cannot be loaded: {process.complaint()}")


def _begins(results: Results, total: int, name: str, mode: str) -> Step:
    return Step("test", len(results.tests), total, name, mode)


def chosen(plan: Plan, index: Sequence[Entry]) -> list[str]:
    """The names of the tests that are asked for, in the order of the index.

    Raises:
        ConfigError: There is no such mode, test or sabotage.
    """
    known = [entry.test for entry in index]
    for what, wanted, there in (
        ("mode", plan.modes, list(ALL_MODES)),
        ("test", plan.tests, known),
        ("sabotage", (plan.sabotage,) * bool(plan.sabotage), [s.name for e in index for s in e.sabotages]),
    ):
        for one in wanted:
            if one not in there:
                raise ConfigError(f"there is no {what} {one!r}", remedy=f"There are: {', '.join(there)}")
    return [name for name in known if not plan.tests or name in plan.tests]


def _tests(
    mode: str, names: Sequence[str], sabotage: str, begins: Callable[[str], None], through: Sequence[str] = ()
) -> Any:
    """Each of these tests in that mode, as it ends: a new process goes on behind one that failed."""
    left = list(names)
    while left:
        arguments = ["--mode", mode, "--tests", ",".join(left), *(["--sabotage", sabotage] if sabotage else [])]
        with SuiteProcess(arguments, through) as process:
            for test in _said_by(process, mode, left, begins):
                left.remove(test.test)
                yield test
                if test.state != PASSED:
                    break


def _said_by(process: SuiteProcess, mode: str, left: Sequence[str], begins: Callable[[str], None]) -> Any:
    """The verdicts of one process; one that ends or is silent before its verdict has failed the test in hand."""
    name, why, said_one = left[0], "", False
    try:
        for said in process.said():
            if "begins" in said:
                name, said_one = said["begins"], False
                begins(name)
            else:
                said_one = True
                yield msgspec.convert(said, Verdict)
    except SilentError:
        process.kill()
        why = "it gave no verdict in time, and its process was killed"
    if why or not said_one:
        why = why or f"its process ended before the verdict (exit code {process.end()}): {process.complaint()}"
        yield Verdict(name, mode, FAILED, error=why)


def _takeover(plan: Plan, results: Results, tell: Tell) -> None:
    """Only where there are processes: how long another one takes to answer for one that was killed."""
    if "process" not in plan.modes:
        results.absent["takeover"] = "there is a process to take over only in mode process, which this run left out"
    elif plan.tests or plan.sabotage:
        results.absent["takeover"] = "this run was of chosen tests, or sabotaged"
    else:
        tell(Step("takeover", 0, 2 * TAKEOVERS))
        with SuiteProcess(["--takeover", str(TAKEOVERS)]) as process:
            try:
                for said in process.said():
                    results.takeover = msgspec.convert(said["takeover"], list[Figure])
            except SilentError:
                process.kill()
        if not results.takeover:
            results.absent["takeover"] = "the measurement failed: an instrument did not come back"


def _coverage(plan: Plan, names: Sequence[str], results: Results, tell: Tell) -> None:
    why = "it was not asked for" if not plan.coverage or plan.sabotage else can_measure()
    if why:
        results.absent["coverage"] = why
        return
    tests: list[Verdict] = []
    total = len(names) * len(plan.modes)
    with tempfile.TemporaryDirectory(prefix="duodaq-coverage-") as folder:
        for mode in plan.modes:
            for test in _tests(mode, names, "", lambda name: None, measuring(Path(folder))):
                tests.append(test)
                tell(Step("coverage", len(tests), total, test.test, mode))
        try:
            packages = measured(Path(folder))
        except CoverageMissingError as error:
            results.absent["coverage"] = str(error)
            return
    passed = sum(test.state == PASSED for test in tests)
    results.coverage = Coverage(packages, list(plan.modes), passed, len(tests))


def not_run(name: str, mode: str, why: str) -> Verdict:
    """A test that was not run, and why."""
    return Verdict(name, mode, NOT_RUN, error=why)
